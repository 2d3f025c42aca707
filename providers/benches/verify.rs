//! What checking one webhook costs: `cargo bench -p sluice-providers`.
//!
//! `accept` checks, per provider, a genuine sample. `body_1k` is the generic HMAC over exactly 1 KiB,
//! the scheme most others are a variation of. `early` and `late` refuse signatures that differ in their
//! first and in their last digit: the two must cost the same, or the time tells how much was right.
//! `crowded` refuses a request with a hundred headers. Allocations are counted beside the time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use common::{Configuration, NOW_MS, configurations, request, sample_headers, sample_url};
use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_providers::{NoKeys, Request, SampleSpec, Source};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn named() -> Vec<String> {
    let numbered = configurations().into_iter().enumerate();
    numbered.map(|(number, one)| format!("{number:02} {}", one.provider)).collect()
}

fn chosen(name: &str) -> Configuration {
    let number: usize = name[..2].parse().unwrap();
    configurations().swap_remove(number)
}

#[divan::bench(args = named())]
fn accept(bencher: Bencher<'_, '_>, name: &str) {
    let source = chosen(name).source();
    let spec = SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS };
    let sample = source.sample(&spec).unwrap();
    let (headers, url) = (sample_headers(&sample), sample_url(&sample));
    let request = Request { url: &url, ..request(&headers, &sample.body) };
    bencher.bench(|| source.verify(black_box(&request), &NoKeys, NOW_MS).unwrap());
}

/// A source, the body it is sent, and the signature header of that body.
fn signed_1k() -> (Source, Bytes, String) {
    let source = common::source(
        "hmac",
        &[("a", "s3cret")],
        &serde_json::json!({"header": "x-signature", "prefix": "sha256="}),
    );
    let body = Bytes::from(vec![b'x'; 1024]);
    let key = openssl::pkey::PKey::hmac(b"s3cret").unwrap();
    let digest = openssl::hash::MessageDigest::sha256();
    let mut signer = openssl::sign::Signer::new(digest, &key).unwrap();
    let mac = signer.sign_oneshot_to_vec(&body).unwrap();
    (source, body, format!("sha256={}", hex::encode(mac)))
}

fn with_signature(signature: &str) -> HeaderMap {
    common::headers([("x-signature", signature), ("content-type", "application/json")].into_iter())
}

/// Another digit in place of the one at `at`.
fn altered(signature: &str, at: usize) -> String {
    let mut bytes = signature.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

#[divan::bench]
fn body_1k(bencher: Bencher<'_, '_>) {
    let (source, body, signature) = signed_1k();
    let headers = with_signature(&signature);
    let request = request(&headers, &body);
    bencher.bench(|| source.verify(black_box(&request), &NoKeys, NOW_MS).unwrap());
}

fn refuse(bencher: Bencher<'_, '_>, headers: &HeaderMap, source: &Source, body: &Bytes) {
    let request = request(headers, body);
    bencher.bench(|| source.verify(black_box(&request), &NoKeys, NOW_MS).unwrap_err());
}

#[divan::bench]
fn early(bencher: Bencher<'_, '_>) {
    let (source, body, signature) = signed_1k();
    let headers = with_signature(&altered(&signature, "sha256=".len()));
    refuse(bencher, &headers, &source, &body);
}

#[divan::bench]
fn late(bencher: Bencher<'_, '_>) {
    let (source, body, signature) = signed_1k();
    let headers = with_signature(&altered(&signature, signature.len() - 1));
    refuse(bencher, &headers, &source, &body);
}

#[divan::bench]
fn crowded(bencher: Bencher<'_, '_>) {
    let (source, body, signature) = signed_1k();
    let mut headers = with_signature(&altered(&signature, signature.len() - 1));
    for number in 0..100 {
        let name = HeaderName::from_bytes(format!("x-other-{number}").as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_static("something"));
    }
    refuse(bencher, &headers, &source, &body);
}
