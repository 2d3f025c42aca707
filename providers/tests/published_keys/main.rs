//! Providers whose keys are published: certificates, key sets and public keys.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod asymmetric;
#[path = "../common/mod.rs"]
mod common;
mod google_pubsub;
mod paypal;
mod paypal_events;
mod sns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::Value;
use sluice_providers::{
    KeyDocument, NoKeys, PublishedKeys, Rejection, SampleSpec, Secret, Source, SourceSpec, Verdict,
    build,
};

use common::{NOW_MS, request};

/// Documents at hand by URL, and what was asked for.
#[derive(Default)]
pub(crate) struct Documents {
    documents: HashMap<String, Arc<KeyDocument>>,
    asked: Mutex<Vec<String>>,
}

impl Documents {
    pub(crate) fn with(url: &str, text: &str) -> Self {
        let document = Arc::new(KeyDocument::parse(text.as_bytes()).unwrap());
        Self { documents: [(url.to_owned(), document)].into(), ..Self::default() }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl PublishedKeys for Documents {
    fn get(&self, url: &str) -> Option<Arc<KeyDocument>> {
        self.asked.lock().unwrap().push(url.to_owned());
        self.documents.get(url).cloned()
    }
}

/// A request that can be altered and sent to a source.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Sent {
    pub(crate) fn sample(source: &Source, event_type: Option<&str>) -> Self {
        let spec = SampleSpec { event_type, seed: 7, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        Self { headers: common::sample_headers(&sample), body: sample.body }
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn with(&self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut sent = self.clone();
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        sent.headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        sent
    }

    pub(crate) fn with_another(&self, name: &str, value: &str) -> Self {
        let mut sent = self.clone();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        sent.headers.append(name, value.parse().unwrap());
        sent
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        let mut sent = self.clone();
        sent.headers.remove(name).unwrap();
        sent
    }

    pub(crate) fn with_body(&self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self.clone() }
    }

    /// With one field of the JSON body replaced, or removed.
    pub(crate) fn with_field(&self, name: &str, value: Option<Value>) -> Self {
        let mut document: Value = serde_json::from_slice(&self.body).unwrap();
        match value {
            Some(value) => document[name] = value,
            None => drop(document.as_object_mut().unwrap().remove(name).unwrap()),
        }
        self.with_body(document.to_string())
    }

    pub(crate) fn field(&self, name: &str) -> String {
        let document: Value = serde_json::from_slice(&self.body).unwrap();
        document[name].as_str().unwrap().to_owned()
    }

    pub(crate) fn verify_at(
        &self,
        source: &Source,
        keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        source.verify(&request(&self.headers, &self.body), keys, now_ms)
    }

    pub(crate) fn verify(&self, source: &Source) -> Result<Verdict, Rejection> {
        self.verify_at(source, &NoKeys, NOW_MS)
    }

    /// Why it is refused; `accepted` when it is not.
    pub(crate) fn reason(&self, source: &Source) -> &'static str {
        self.verify(source).map_or_else(|refused| refused.reason(), |_| "accepted")
    }
}

pub(crate) fn try_source(
    provider: &str,
    secret: Option<&str>,
    settings: &Value,
) -> Result<Source, String> {
    let secrets = secret.map(|secret| Secret::new("file:key.pem", secret)).into_iter().collect();
    let spec = SourceSpec { name: "shop", provider, secrets, tolerance: None, settings };
    build(spec).map_err(|error| error.to_string())
}

/// What the private key of a bundle signs with RSA.
pub(crate) fn rsa_sign(bundle: &str, digest: MessageDigest, text: &[u8]) -> Vec<u8> {
    let key = PKey::private_key_from_pem(bundle.as_bytes()).unwrap();
    let mut signer = Signer::new(digest, &key).unwrap();
    signer.update(text).unwrap();
    signer.sign_to_vec().unwrap()
}

pub(crate) fn rsa_sign_base64(bundle: &str, digest: MessageDigest, text: &[u8]) -> String {
    STANDARD.encode(rsa_sign(bundle, digest, text))
}

#[test]
fn a_development_authority_keeps_its_key_to_itself() {
    let authority = common::authority();
    assert!(authority.bundle.contains("PRIVATE KEY"));
    let open = [&authority.roots, &authority.certificates, &authority.key_set];
    assert!(open.iter().all(|text| !text.contains("PRIVATE KEY")));
    assert!(!format!("{authority:?}").contains("PRIVATE KEY"));
    assert_eq!(authority.bundle.trim(), authority.bundle);
    let too_long = "a".repeat(65);
    assert!(sluice_providers::development_authority(&too_long, NOW_MS, NOW_MS + 1000).is_err());
}

#[test]
fn a_key_that_only_signs_samples_must_be_one() {
    let settings = serde_json::json!({"webhook_id": "1JE4291016473214C"});
    for (secret, says) in [
        ("my-client-secret", "no private key in PEM"),
        (common::authority().certificates.trim(), "no private key in PEM"),
    ] {
        let error = try_source("paypal", Some(secret), &settings).unwrap_err();
        assert!(error.contains(says) && error.contains("file:key.pem"), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
    let elliptic = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1);
    let elliptic = openssl::ec::EcKey::generate(&elliptic.unwrap()).unwrap();
    let pem = PKey::from_ec_key(elliptic).unwrap().private_key_to_pem_pkcs8().unwrap();
    let pem = String::from_utf8(pem).unwrap();
    let error = try_source("paypal", Some(pem.trim()), &settings).unwrap_err();
    assert!(error.contains("no RSA key"), "{error}");
    let source = try_source("paypal", Some(&common::authority().bundle), &settings).unwrap();
    assert!(!format!("{source:?}").contains("PRIVATE"));
    let mute = try_source("paypal", None, &settings).unwrap();
    let spec = SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS };
    assert_eq!(mute.sample(&spec), None);
    assert!(source.sample(&spec).is_some());
}
