//! Signature headers as attackers and proxies write them, each beside one that is accepted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW_MS, request, sample_headers, source};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sluice_providers::{NoKeys, SampleSpec, Source};

const STANDARD_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

struct Case {
    source: Source,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Case {
    fn new(provider: &str, secret: &str, settings: &Value) -> Self {
        let source = source(provider, &[("a", secret)], settings);
        let spec = SampleSpec { event_type: None, seed: 7, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let case = Self { headers: sample_headers(&sample), body: sample.body, source };
        assert_eq!(case.outcome(&case.headers), "ok");
        case
    }

    fn outcome(&self, headers: &HeaderMap) -> &'static str {
        match self.source.verify(&request(headers, &self.body), &NoKeys, NOW_MS) {
            Ok(_) => "ok",
            Err(rejection) => rejection.reason(),
        }
    }

    fn value(&self, name: &'static str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    fn with(&self, name: &'static str, value: impl AsRef<[u8]>) -> &'static str {
        let mut headers = self.headers.clone();
        headers.insert(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self.outcome(&headers)
    }

    fn and(&self, name: &'static str, value: &str) -> &'static str {
        let mut headers = self.headers.clone();
        headers.append(name, value.parse().unwrap());
        self.outcome(&headers)
    }

    fn without(&self, name: &'static str) -> &'static str {
        let mut headers = self.headers.clone();
        headers.remove(HeaderName::from_static(name)).unwrap();
        self.outcome(&headers)
    }
}

#[test]
fn stripe() {
    const NAME: &str = "stripe-signature";
    let case = Case::new("stripe", "whsec_test", &Value::Null);
    let good = case.value(NAME);
    let (time, signature) = good.split_once(',').unwrap();
    let mac = signature.strip_prefix("v1=").unwrap();
    let zeros = "0".repeat(64);

    assert_eq!(case.and(NAME, &good), "ok");
    assert_eq!(case.with(NAME, format!("{signature},{time}")), "ok");
    assert_eq!(case.with(NAME, format!("{time},v1=junk,v1={zeros},{signature}")), "ok");
    assert_eq!(case.with(NAME, format!("{time},{time},{signature}")), "ok");
    assert_eq!(case.with(NAME, format!("{time},{signature},v2=x,,=,y")), "ok");

    assert_eq!(case.without(NAME), "missing");
    assert_eq!(case.with(NAME, ""), "missing");
    assert_eq!(case.with(NAME, signature), "missing");
    assert_eq!(case.with(NAME, time), "missing");
    assert_eq!(case.with(NAME, format!("{time},v0={mac}")), "missing");
    assert_eq!(case.and(NAME, &format!("{time},v1={zeros}")), "conflicting");
    assert_eq!(case.with(NAME, format!("{time},v1={zeros}")), "mismatch");
    assert_eq!(case.with(NAME, format!("t=1767225601,{signature}")), "mismatch");
    assert_eq!(case.with(NAME, format!("{time},t=1767225601,{signature}")), "malformed");
    assert_eq!(case.with(NAME, format!("{time},v1={}", mac.to_uppercase())), "malformed");
    assert_eq!(case.with(NAME, format!("{time},v1={mac}0")), "malformed");
    assert_eq!(case.with(NAME, format!("{time},v1={}", &mac[1..])), "malformed");
    for time in
        ["t=", "t=+1767225600", "t=1767225600.0", "t= 1767225600", "t=-1", "t=99999999999999999999"]
    {
        assert_eq!(case.with(NAME, format!("{time},{signature}")), "malformed", "{time}");
    }
    let flood = format!("{time}{}", format!(",v1={zeros}").repeat(17));
    assert_eq!(case.with(NAME, flood), "malformed");
    assert_eq!(case.with(NAME, [time.as_bytes(), b",v1=\xff\xfe"].concat()), "malformed");
}

#[test]
fn standard_webhooks() {
    let case = Case::new("standard-webhooks", STANDARD_SECRET, &Value::Null);
    let good = case.value("webhook-signature");
    let mac = good.strip_prefix("v1,").unwrap();
    let zeros = format!("v1,{}=", "A".repeat(43));

    assert_eq!(
        case.with("webhook-signature", format!("{zeros} v1a,xyz v9,{mac} junk {good}")),
        "ok"
    );
    assert_eq!(case.and("webhook-signature", &good), "ok");
    assert_eq!(case.and("svix-signature", &zeros), "ok");

    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(case.without(name), "missing");
        assert_eq!(case.and(name, "other"), "conflicting");
    }
    assert_eq!(case.with("webhook-signature", &zeros), "mismatch");
    assert_eq!(case.with("webhook-id", "msg_other"), "mismatch");
    assert_eq!(case.with("webhook-timestamp", "1767225601"), "mismatch");
    for signature in
        [&format!("v1a,{mac}"), mac, &format!("v1,{}", &mac[..40]), &good.replace('=', "")]
    {
        assert_eq!(case.with("webhook-signature", signature), "malformed", "{signature}");
    }
    for time in ["", "+1767225600", "1767225600.0", "1767225600 0", "0x1"] {
        assert_eq!(case.with("webhook-timestamp", time), "malformed", "{time:?}");
    }
    for id in [&b""[..], b"msg_\xff", b"a b", b"msg.1767225600"] {
        assert_eq!(case.with("webhook-id", id), "malformed", "{id:?}");
    }
    assert_eq!(case.with("webhook-signature", vec![zeros.as_str(); 17].join(" ")), "malformed");
}

#[test]
fn svix_headers_win_over_webhook_headers() {
    let svix = Case::new("svix", STANDARD_SECRET, &Value::Null);
    assert_eq!(svix.without("svix-signature"), "missing");
    let standard = Case::new("standard-webhooks", STANDARD_SECRET, &Value::Null);
    let mut webhook_only = Case { source: svix.source, ..standard };
    assert_eq!(webhook_only.outcome(&webhook_only.headers), "ok");
    webhook_only.headers.insert("svix-id", "msg_x".parse().unwrap());
    assert_eq!(webhook_only.outcome(&webhook_only.headers), "missing");
}

#[test]
fn generic_hmac() {
    let settings = json!({
        "header": "x-signature", "prefix": "sha256=", "template": "{ts}.{header:x-tenant}.{body}",
        "timestamp_header": "x-time",
    });
    let case = Case::new("hmac", "s3cret", &settings);
    let good = case.value("x-signature");
    assert_eq!(case.and("x-signature", &good), "ok");
    for name in ["x-signature", "x-time", "x-tenant"] {
        assert_eq!(case.without(name), "missing");
        assert_eq!(case.and(name, "other"), "conflicting");
    }
    assert_eq!(case.with("x-tenant", "other"), "mismatch");
    assert_eq!(case.with("x-time", "1767225601"), "mismatch");
    assert_eq!(case.with("x-time", "1767225600.0"), "malformed");
    assert_eq!(case.with("x-signature", good.replace("sha256=", "")), "malformed");
    assert_eq!(case.with("x-signature", good.replace("sha256", "SHA256")), "malformed");
    assert_eq!(case.with("x-signature", format!("sha256={}", "0".repeat(64))), "mismatch");
}
