//! Refusing a request costs no memory for its headers, however many it has: forgers pay nothing to
//! send them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{NOW_MS, configurations, request, sample_headers, sample_url};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_providers::{NoKeys, Request, SampleSpec, Source};

/// Allocations made while refusing a request.
fn refusing(source: &Source, headers: &HeaderMap, url: &str, body: &Bytes) -> u64 {
    let request = Request { url, ..request(headers, body) };
    let measured = allocation_counter::measure(|| {
        assert!(source.verify(&request, &NoKeys, NOW_MS).is_err());
    });
    measured.count_total
}

#[test]
fn refusing_allocates_nothing_for_headers() {
    for configuration in configurations() {
        let name = configuration.provider;
        let source = configuration.source();
        let spec = SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let url = sample_url(&sample);
        // Every way of being refused: a header missing, or altered in its last byte, or half a body.
        let genuine = sample_headers(&sample);
        let mut refusals = vec![(genuine.clone(), sample.body.slice(..sample.body.len() / 2))];
        for (header, value) in &sample.headers {
            let header = HeaderName::from_bytes(header.as_bytes()).unwrap();
            let mut altered = value.clone().into_bytes();
            *altered.last_mut().unwrap() ^= 1;
            let mut without = genuine.clone();
            without.remove(&header);
            let mut with = genuine.clone();
            with.insert(&header, HeaderValue::from_bytes(&altered).unwrap());
            refusals.extend([without, with].map(|headers| (headers, sample.body.clone())));
        }
        refusals.retain(|(headers, body)| {
            source
                .verify(&Request { url: &url, ..request(headers, body) }, &NoKeys, NOW_MS)
                .is_err()
        });
        assert!(!refusals.is_empty(), "{name} refuses nothing");
        for (headers, body) in refusals {
            let mut crowded = headers.clone();
            for number in 0..100 {
                let name = HeaderName::from_bytes(format!("x-o-{number}").as_bytes()).unwrap();
                crowded.append(name, HeaderValue::from_static("something"));
            }
            let few = refusing(&source, &headers, &url, &body);
            let many = refusing(&source, &crowded, &url, &body);
            assert_eq!(few, many, "{name}: {headers:?}");
        }
    }
}
