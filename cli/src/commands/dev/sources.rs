//! The sample sources of `sluice dev`: one for each provider, with secrets made for this folder.
//!
//! `SOURCES` says what each provider's secret looks like and which settings it cannot do without. Those
//! whose requests are signed with a published key trust an authority made for this folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sluice_providers::{development_authority, known_providers};
use sluice_service::config::{SecretRef, SourceConfig};

use crate::{files, when};

const DAY_MS: i64 = 86_400_000;

/// What a provider's secret looks like.
#[derive(Debug, Clone, Copy)]
enum SecretForm {
    /// A prefix and 64 random hex digits.
    Text(&'static str),
    /// So many random bytes in hex.
    Hex(usize),
    /// A prefix and 32 random bytes in base64.
    Base64(&'static str),
    /// The private key of a certificate for this name, by an authority of our own.
    Certificate(&'static str),
}

/// What a source's settings are made from.
struct Place<'a> {
    /// The URL it is reached by.
    url: &'a str,
    /// Where its public keys are, without what [`PublicKeys`] adds.
    keys: &'a Path,
}

impl Place<'_> {
    /// The reference to one of its files of public keys.
    fn keys(&self, file: PublicKeys) -> String {
        SecretRef::File(file.path(self.keys)).to_string()
    }
}

/// The files of public keys beside a secret of the form [`SecretForm::Certificate`].
#[derive(Debug, Clone, Copy)]
enum PublicKeys {
    Certificates,
    Roots,
    KeySet,
}

impl PublicKeys {
    fn path(self, keys: &Path) -> PathBuf {
        keys.with_extension(match self {
            Self::Certificates => "certificates.pem",
            Self::Roots => "roots.pem",
            Self::KeySet => "jwks.json",
        })
    }
}

/// A sample source.
struct Sample {
    provider: &'static str,
    /// The source's name, if it is not the provider's.
    name: Option<&'static str>,
    secret: SecretForm,
    /// Settings it needs.
    settings: fn(&Place<'_>) -> Value,
}

const fn sample(provider: &'static str, secret: SecretForm) -> Sample {
    Sample { provider, name: None, secret, settings: |_| json!({}) }
}

const SOURCES: &[Sample] = &[
    sample("stripe", SecretForm::Text("whsec_")),
    Sample {
        settings: |place| {
            json!({
                "webhook_id": "5LU1CEDEVWEBH00K1",
                "certificate": place.keys(PublicKeys::Certificates),
                "trusted_roots": place.keys(PublicKeys::Roots),
            })
        },
        ..sample("paypal", SecretForm::Certificate("messageverificationcerts.paypal.com"))
    },
    sample("mercadopago", SecretForm::Hex(32)),
    Sample { settings: signed_url, ..sample("twilio", SecretForm::Hex(16)) },
    sample("adyen", SecretForm::Hex(32)),
    Sample { settings: signed_url, ..sample("square", SecretForm::Text("")) },
    sample("shopify", SecretForm::Text("shpss_")),
    sample("github", SecretForm::Text("")),
    sample("razorpay", SecretForm::Text("")),
    sample("paddle", SecretForm::Text("pdl_ntfset_")),
    Sample {
        settings: |_| json!({ "public_key": "5lu1cedevpub1ick" }),
        ..sample("braintree", SecretForm::Hex(16))
    },
    sample("checkout-com", SecretForm::Text("")),
    sample("gocardless", SecretForm::Text("")),
    sample("mollie", SecretForm::Text("")),
    sample("coinbase-commerce", SecretForm::Text("")),
    sample("coinbase-cdp", SecretForm::Text("")),
    Sample {
        settings: |place| {
            json!({
                "topics": ["arn:aws:sns:eu-west-1:123456789012:payments"],
                "certificate": place.keys(PublicKeys::Certificates),
            })
        },
        ..sample("aws-sns", SecretForm::Certificate("sns.amazonaws.com"))
    },
    Sample {
        settings: |place| {
            json!({
                "audience": place.url,
                "service_accounts": ["push@sluice-dev.iam.gserviceaccount.com"],
                "jwks": place.keys(PublicKeys::KeySet),
            })
        },
        ..sample("google-pubsub", SecretForm::Certificate("sluice-dev"))
    },
    sample("standard-webhooks", SecretForm::Base64("whsec_")),
    sample("svix", SecretForm::Base64("whsec_")),
    Sample { name: Some("acme"), settings: acme, ..sample("hmac", SecretForm::Text("acme_")) },
];

/// Providers that sign the URL they were given.
fn signed_url(place: &Place<'_>) -> Value {
    json!({ "public_url": place.url })
}

/// The scheme of an invented sender.
fn acme(_: &Place<'_>) -> Value {
    json!({
        "header": "x-acme-signature",
        "prefix": "sha256=",
        "timestamp_header": "x-acme-timestamp",
        "template": "{ts}.{body}",
        "id_pointer": "/id",
        "type_pointer": "/type",
        "object_id_pointer": "/data/id",
        "amount_pointer": "/data/amount",
        "currency_pointer": "/data/currency",
    })
}

/// The sample sources in the order of the providers. `gateway` is the URL the gateway is reached by,
/// without a slash at its end.
pub(super) fn samples(data_dir: &Path, gateway: &str) -> anyhow::Result<Vec<SourceConfig>> {
    let providers = known_providers().iter();
    let samples =
        providers.filter_map(|info| SOURCES.iter().find(|sample| sample.provider == info.name));
    samples
        .map(|sample| {
            let name = sample.name.unwrap_or(sample.provider);
            let mut source = SourceConfig::new(name, sample.provider);
            let keys = data_dir.join("keys").join(name);
            source.secrets = vec![secret(data_dir, name, sample.secret, &keys)?];
            let url = format!("{gateway}/webhooks/{name}");
            source.settings = (sample.settings)(&Place { url: &url, keys: &keys });
            Ok(source)
        })
        .collect()
}

/// A secret in a file of its own, made once and readable by its owner alone. The public keys that belong to
/// it are made with it, under `keys`.
fn secret(data_dir: &Path, name: &str, form: SecretForm, keys: &Path) -> anyhow::Result<SecretRef> {
    let folder = data_dir.join("secrets");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(name);
    if path.exists() {
        files::require_own(&path)?;
        return Ok(SecretRef::File(path));
    }
    let text = text(form, keys)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            writeln!(file, "{text}").with_context(|| format!("writing {}", path.display()))?;
        }
        Err(error) => return Err(error).with_context(|| format!("creating {}", path.display())),
    }
    Ok(SecretRef::File(path))
}

/// Makes an authority and a signer, writes what is public of them, and returns the signer's secret.
fn certified(common_name: &str, keys: &Path) -> anyhow::Result<String> {
    let now_ms = when::now_ms();
    let made = development_authority(common_name, now_ms - DAY_MS, now_ms + 3650 * DAY_MS)?;
    if let Some(folder) = keys.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    for (file, text) in [
        (PublicKeys::Certificates, &made.certificates),
        (PublicKeys::Roots, &made.roots),
        (PublicKeys::KeySet, &made.key_set),
    ] {
        let path = file.path(keys);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(made.bundle)
}

/// What the file holds. Public keys are written before it: where the secret is, they are too.
fn text(form: SecretForm, keys: &Path) -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(match form {
        SecretForm::Text(prefix) => format!("{prefix}{}", hex(&bytes)),
        SecretForm::Hex(length) => hex(&bytes[..length.min(bytes.len())]),
        SecretForm::Base64(prefix) => format!("{prefix}{}", STANDARD.encode(bytes)),
        SecretForm::Certificate(common_name) => certified(common_name, keys)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::{commands::send::can_be_forged, context::build_source};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_provider_has_a_source_that_signs_and_whose_samples_can_be_tampered_with() {
        let folder = tempfile::tempdir().unwrap();
        let sources = samples(folder.path(), "http://127.0.0.1:8080").unwrap();
        for info in known_providers() {
            assert!(sources.iter().any(|source| source.provider == info.name), "{}", info.name);
        }
        for config in &sources {
            let source = build_source(config).unwrap();
            for event_type in source.info().samples {
                assert!(can_be_forged(&source, event_type), "{}: {event_type}", config.name);
            }
        }
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names.first(), Some(&"stripe"));
        assert!(names.contains(&"acme") && !names.contains(&"hmac"), "{names:?}");
    }

    #[test]
    fn secrets_are_made_once_and_kept_to_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        samples(folder.path(), "http://127.0.0.1:8080").unwrap();
        let path = folder.path().join("secrets/stripe");
        let first = fs::read_to_string(&path).unwrap();
        assert!(first.starts_with("whsec_") && first.len() > 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        samples(folder.path(), "http://127.0.0.1:8080").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
    }

    #[test]
    fn secrets_have_the_form_asked_for_and_are_not_alike() {
        let text = |form| text(form, Path::new("unused")).unwrap();
        assert_eq!(text(SecretForm::Hex(16)).len(), 32);
        let key = text(SecretForm::Base64("whsec_"));
        assert_eq!(STANDARD.decode(key.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
        assert_ne!(text(SecretForm::Text("")), text(SecretForm::Text("")));
    }
}
