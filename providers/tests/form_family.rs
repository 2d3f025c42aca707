//! Twilio, Adyen and Braintree: signatures over something other than the raw body.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "form_family/adyen.rs"]
mod adyen;
#[path = "form_family/braintree.rs"]
mod braintree;
mod common;
#[path = "form_family/twilio.rs"]
mod twilio;
#[path = "form_family/twilio_text.rs"]
mod twilio_text;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::NOW_MS;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha1::Sha1;
use sha2::Sha256;
use sluice_providers::{
    Identified, NoKeys, Normalised, Payload, Rejection, Request, Secret, Source, SourceSpec, build,
};

fn sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A request that owns what it is made of.
#[derive(Clone)]
struct Call {
    method: &'static str,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn new(url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let headers = common::headers(headers.iter().copied());
        Self { method: "POST", url: url.to_owned(), headers, body: body.into() }
    }

    fn request(&self) -> Request<'_> {
        Request { method: self.method, url: &self.url, headers: &self.headers, body: &self.body }
    }

    fn verify(&self, source: &Source) -> Result<&'static str, Rejection> {
        source.verify(&self.request(), &NoKeys, NOW_MS).map(|verdict| verdict.scheme)
    }

    /// `ok`, or why not.
    fn outcome(&self, source: &Source) -> &'static str {
        self.verify(source).map_or_else(|rejection| rejection.reason(), |_| "ok")
    }

    /// Every request whose body differs from this one's in a single bit.
    fn flips(&self) -> impl Iterator<Item = Self> {
        (0..self.body.len() * 8).map(|bit| {
            let mut bytes = self.body.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Self { body: bytes.into(), ..self.clone() }
        })
    }

    /// The events, each with what it says; both must agree about the object and the type.
    fn events(&self, source: &Source) -> Vec<(Identified, Normalised)> {
        let read = |event: Identified| {
            let body = event.body.bytes(&self.body);
            let normalised = source.normalise(&Payload {
                event_id: &event.event_id,
                event_type: &event.event_type,
                object_id: event.object_id.as_deref(),
                body: &body,
            });
            assert_eq!(normalised.object_id, event.object_id);
            (event, normalised)
        };
        source.identify(&self.request()).into_iter().map(read).collect()
    }

    /// The only event.
    fn event(&self, source: &Source) -> (Identified, Normalised) {
        let mut events = self.events(source);
        assert_eq!(events.len(), 1);
        events.remove(0)
    }
}

/// Why a source cannot be built.
fn mistake(provider: &str, secret: &str, settings: &serde_json::Value) -> String {
    let secrets = vec![Secret::new("env:SECRET", secret)];
    let spec = SourceSpec { name: "shop", provider, secrets, tolerance: None, settings };
    build(spec).unwrap_err().to_string()
}
