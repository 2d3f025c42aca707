//! Standard Webhooks and Svix with Ed25519 keys.

use serde_json::Value;
use sluice_providers::Source;

use crate::Sent;
use crate::common::source;

const PRIVATE: &str =
    "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
const PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const OTHER: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const SYMMETRIC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn with(secrets: &[(&str, &str)]) -> Source {
    source("standard-webhooks", secrets, &Value::Null)
}

#[test]
fn the_public_key_verifies_what_the_private_one_signs() {
    for (provider, header, scheme) in [
        ("standard-webhooks", "webhook-signature", "standard-webhooks-v1a"),
        ("svix", "svix-signature", "svix-v1a"),
    ] {
        let sent = Sent::sample(&source(provider, &[("a", PRIVATE)], &Value::Null), None);
        assert!(sent.header(header).starts_with("v1a,"));
        let keys = [("other", OTHER), ("hmac", SYMMETRIC), ("mine", PUBLIC)];
        let verdict = sent.verify(&source(provider, &keys, &Value::Null)).unwrap();
        assert_eq!((verdict.scheme, verdict.secret_label.as_ref()), (scheme, "mine"));
        assert_eq!(sent.reason(&source(provider, &keys[..2], &Value::Null)), "mismatch");
        let altered = sent.with_body("{}");
        assert_eq!(altered.reason(&source(provider, &keys, &Value::Null)), "mismatch");
    }
}

#[test]
fn a_version_counts_only_where_there_is_a_key_for_it() {
    let public = Sent::sample(&with(&[("a", PRIVATE)]), None);
    let symmetric = Sent::sample(&with(&[("a", SYMMETRIC)]), None);
    let (only_public, only_symmetric) = (with(&[("a", PUBLIC)]), with(&[("a", SYMMETRIC)]));
    assert_eq!(public.reason(&only_public), "accepted");
    assert_eq!(symmetric.reason(&only_symmetric), "accepted");
    assert_eq!(public.reason(&only_symmetric), "malformed");
    assert_eq!(symmetric.reason(&only_public), "malformed");
    // The public key as an HMAC secret: what it says after its prefix is no secret.
    let confused = format!("whsec_{}", &PUBLIC[5..]);
    let forged = Sent::sample(&with(&[("a", &confused)]), None);
    assert_eq!(forged.reason(&only_public), "malformed");
    // Both in one header, in any order, among unknown ones.
    let (v1, v1a) = (symmetric.header("webhook-signature"), public.header("webhook-signature"));
    let same = symmetric.with("webhook-signature", format!("v2,x {v1a} {v1}"));
    assert_eq!(same.body, public.body);
    for source in [&only_public, &only_symmetric] {
        assert_eq!(same.reason(source), "accepted");
    }
}

#[test]
fn signatures_are_read_strictly() {
    let source = with(&[("a", PUBLIC)]);
    let sent = Sent::sample(&with(&[("a", PRIVATE)]), None);
    let good = sent.header("webhook-signature");
    let text = good.strip_prefix("v1a,").unwrap();
    for (value, reason) in [
        (good.clone(), "accepted"),
        (format!("v1a,{text} v1a,{text}"), "accepted"),
        (format!("v1a,{}", text.trim_end_matches('=')), "malformed"),
        (format!("v1a,{text}="), "malformed"),
        (format!("v1a,{}", &text[..44]), "malformed"),
        (format!("v1a, {text}"), "malformed"),
        (format!("V1A,{text}"), "malformed"),
        (format!("v1,{text}"), "malformed"),
        (format!("v1a,{}", text.to_ascii_uppercase()), "mismatch"),
        ("v1a,".to_owned(), "malformed"),
        (vec!["v1a,x"; 17].join(" "), "malformed"),
    ] {
        assert_eq!(sent.with("webhook-signature", &value).reason(&source), reason, "{value}");
    }
    let other_id = sent.with("webhook-id", "msg_other");
    assert_eq!(other_id.reason(&source), "mismatch");
    let late = sent.verify_at(&source, &sluice_providers::NoKeys, crate::NOW_MS + 300_001);
    assert_eq!(late.unwrap_err().reason(), "stale");
}

#[test]
fn samples_need_a_key_that_signs() {
    let spec = sluice_providers::SampleSpec { event_type: None, seed: 1, now_ms: crate::NOW_MS };
    assert_eq!(with(&[("a", PUBLIC)]).sample(&spec), None);
    assert!(with(&[("a", PUBLIC), ("b", PRIVATE)]).sample(&spec).is_some());
    let mismatched = format!("{}AAAA", &PRIVATE[..PRIVATE.len() - 8]);
    let error = crate::try_source("svix", Some(&format!("{mismatched}AA==")), &Value::Null);
    assert!(error.unwrap_err().contains("Ed25519"));
}
