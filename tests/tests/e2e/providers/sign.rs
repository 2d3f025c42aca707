//! Bodies of the tests' own, signed here as their providers do, and not by the code under test.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sluice_tests::{
    endpoints::{Endpoint, PUBLIC_URL},
    send::{Webhook, now_ms},
};

fn hmac(key: &[u8], signed: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    signed.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// A request of a provider's default source, with further headers that no signature covers.
pub(super) fn signed(
    provider: &'static str,
    more: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Webhook {
    let endpoint = Endpoint::of(provider);
    let (key, body) = (endpoint.secret.as_bytes(), body.into());
    let (name, value) = match provider {
        "stripe" => {
            let time = (now_ms() / 1000).to_string();
            let mac = hmac(key, &[time.as_bytes(), b".", &body]);
            ("stripe-signature", format!("t={time},v1={}", hex::encode(mac)))
        }
        "square" => (
            "x-square-hmacsha256-signature",
            STANDARD.encode(hmac(key, &[PUBLIC_URL.as_bytes(), &body])),
        ),
        "shopify" => ("x-shopify-hmac-sha256", STANDARD.encode(hmac(key, &[&body]))),
        "adyen" => {
            let key = hex::decode(key).unwrap();
            ("hmacsignature", STANDARD.encode(hmac(&key, &[&body])))
        }
        "gocardless" => ("webhook-signature", hex::encode(hmac(key, &[&body]))),
        other => panic!("{other} is not signed here"),
    };
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let headers = std::iter::once((name.to_owned(), value)).chain(more).collect();
    Webhook { source: endpoint.name, event_id: String::new(), query: None, headers, body }
}
