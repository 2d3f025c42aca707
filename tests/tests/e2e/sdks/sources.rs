//! One source per provider, with the keys that its requests are signed with.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_providers::{Secret, Source, SourceSpec};
use sluice_tests::{
    sluice::{Pipeline, Role, Setup},
    stack::shared,
};

use super::{
    SIGNED_BY_NODE, SIGNED_BY_PYTHON, VERIFIED_BY_NODE, VERIFIED_BY_PYTHON,
    scripts::{lines, prepared},
};

/// Base64 of 32 bytes, as the Standard Webhooks specification wants its secrets.
const STANDARD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const STANDARD_FOREIGN: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const ADYEN: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const ADYEN_FOREIGN: &str = "11223344D785FBAE710E7F943F307971BB61B21281C98C9129B3D4018A57B2EB";
const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:payments";
const SENDER: &str = "push@shop.iam.gserviceaccount.com";

/// What `keys.py` makes, for providers that sign with RSA. PEM but for `jwks`.
#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    pub(super) key: String,
    pub(super) foreign_key: String,
    pub(super) root: String,
    pub(super) paypal: String,
    pub(super) aws_sns: String,
    pub(super) foreign_aws_sns: String,
    pub(super) jwks: Value,
}

/// The public URL of a source.
pub(super) fn public_url(source: &str) -> String {
    format!("https://pay.example.com/webhooks/{source}")
}

/// One of a provider's secrets, and one that is somebody else's.
pub(super) struct Pair {
    pub(super) own: String,
    pub(super) foreign: String,
}

/// Every provider of this test, configured.
pub(super) struct Providers {
    pub(super) keys: Keys,
}

impl Providers {
    pub(super) async fn new() -> Providers {
        let keys = lines(prepared("keys.py").await, &[]).await.remove(0);
        Providers { keys: serde_json::from_value(keys).unwrap() }
    }

    /// The names of the sources; each is that of its provider.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        let tables = [SIGNED_BY_PYTHON, SIGNED_BY_NODE, VERIFIED_BY_PYTHON, VERIFIED_BY_NODE];
        let names: BTreeSet<_> = tables.concat().into_iter().map(|(_, source)| source).collect();
        names.into_iter()
    }

    /// What signs a case's requests.
    pub(super) fn pair(&self, case: &str, source: &str) -> Pair {
        let pair = |own: &str, foreign: &str| Pair { own: own.into(), foreign: foreign.into() };
        match source {
            "standard-webhooks" | "svix" => pair(STANDARD, STANDARD_FOREIGN),
            "adyen" => pair(ADYEN, ADYEN_FOREIGN),
            "paypal" | "aws-sns" | "google-pubsub" => pair(&self.keys.key, &self.keys.foreign_key),
            "stripe" => pair("whsec_of the SDK tests", "whsec_of somebody else"),
            _ => pair(&format!("secret of {case} in the SDK tests"), "secret of somebody else"),
        }
    }

    /// What the gateway is given: nothing for providers whose public key or certificate is in the settings.
    pub(super) fn secrets(&self, source: &str) -> Vec<String> {
        match source {
            "paypal" | "aws-sns" | "google-pubsub" => Vec::new(),
            "twilio" => {
                ["twilio", "twilio-shared-key"].map(|case| self.pair(case, source).own).to_vec()
            }
            _ => vec![self.pair(source, source).own],
        }
    }

    pub(super) fn settings(&self, source: &str) -> Value {
        let keys = &self.keys;
        match source {
            "twilio" => json!({"public_url": public_url(source), "accept_get": true}),
            "square" => json!({"public_url": public_url(source)}),
            "braintree" => json!({"public_key": "public_key_of_the_tests"}),
            "paypal" => json!({
                "webhook_id": "1JE4291016473214C",
                "certificate": keys.paypal,
                "trusted_roots": keys.root,
            }),
            "aws-sns" => json!({"topics": [TOPIC], "certificate": keys.aws_sns}),
            "google-pubsub" => json!({
                "audience": public_url(source),
                "service_accounts": [SENDER],
                "jwks": keys.jwks.to_string(),
            }),
            _ => json!({}),
        }
    }

    /// A running gateway that has all of them as sources, and what it writes to.
    pub(super) async fn gateway(&self) -> (Pipeline, Role) {
        let mut setup = Setup::new();
        let mut secrets = Vec::new();
        for name in Self::names() {
            let mut source = toml::Table::new();
            source.insert("name".into(), name.into());
            source.insert("provider".into(), name.into());
            source.insert("settings".into(), toml::Value::try_from(self.settings(name)).unwrap());
            let mut references = Vec::new();
            for (at, secret) in self.secrets(name).into_iter().enumerate() {
                let variable = format!("E2E_SDK_{}_{at}", name.replace('-', "_").to_uppercase());
                references.push(format!("env:{variable}"));
                secrets.push((variable, secret));
            }
            if !references.is_empty() {
                source.insert("secrets".into(), references.into());
            }
            setup = setup.source(&toml::to_string(&source).unwrap());
        }
        let pipeline = setup.create(&shared().await).await;
        let secrets: Vec<_> =
            secrets.iter().map(|(name, secret)| (name.as_str(), secret.as_str())).collect();
        let mut gateway = pipeline.start("gateway", "g", &secrets);
        gateway.ready().await;
        (pipeline, gateway)
    }

    /// A source that can make samples, with our key or somebody else's.
    pub(super) fn signing(&self, source: &str, foreign: bool) -> Source {
        let Pair { own, foreign: other } = self.pair(source, source);
        let mut secret = if foreign { other } else { own };
        let mut settings = self.settings(source);
        if source == "aws-sns" {
            // It signs with a bundle of key and certificate.
            let keys = &self.keys;
            let certificate = if foreign { &keys.foreign_aws_sns } else { &keys.aws_sns };
            secret += certificate.trim_end();
            settings["certificate"] = certificate.as_str().into();
        }
        let built = sluice_providers::build(SourceSpec {
            name: source,
            provider: source,
            secrets: vec![Secret::new("test", secrecy::SecretString::from(secret))],
            tolerance: None,
            settings: &settings,
        });
        built.unwrap_or_else(|error| panic!("{source}: {error}"))
    }
}
