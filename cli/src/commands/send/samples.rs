//! Which samples a source has, and what they are called in common terms.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sluice_providers::{Payload, ProviderInfo, Request, SampleRequest, SampleSpec, Source};

use crate::{
    exit::{Outcome, Usage},
    output::{Output, text},
    when,
};

/// What `--type` says for every type there is.
const ALL: &str = "all";

/// The types to send, in turn; empty for the provider's default alone.
pub(super) fn types(info: &ProviderInfo, asked: &[String]) -> Vec<String> {
    asked
        .iter()
        .flat_map(|asked| match asked.as_str() {
            ALL => info.samples.iter().map(|sample| (*sample).to_owned()).collect(),
            _ => vec![asked.clone()],
        })
        .collect()
}

/// Makes the sample with this number; the type is the one whose turn it is.
///
/// # Errors
/// Only the provider itself can sign for this source.
pub(super) fn sample(
    source: &Source,
    types: &[String],
    seed: u64,
    index: u64,
    now_ms: i64,
) -> anyhow::Result<SampleRequest> {
    let turn = usize::try_from(index % types.len().max(1) as u64).unwrap_or_default();
    let event_type = types.get(turn).map(String::as_str);
    let sample = source.sample(&SampleSpec { event_type, seed: seed.wrapping_add(index), now_ms });
    sample.ok_or_else(|| Usage(only_the_provider(source)).into())
}

fn only_the_provider(source: &Source) -> String {
    let (name, title) = (source.name(), source.info().title);
    format!(
        "only {title} itself can sign requests of source `{name}` as it is configured. Send a test event from its dashboard; \
         or check a request you have saved with `sluice verify --source {name} --request FILE`; \
         or give a source for tests a signing key of your own, as `sluice dev` does where it can"
    )
}

/// A sample type in common terms.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    event_type: &'static str,
    kind: String,
    /// The kind is known only after asking the provider's API.
    needs_hydration: bool,
}

/// Prints the sample types of a source.
///
/// # Errors
/// Standard output is closed.
pub(super) fn list(source: &Source, output: Output) -> anyhow::Result<Outcome> {
    let listed = source.info().samples.iter().map(|event_type| listed(source, event_type));
    if output.is_json() {
        for Listed { event_type, kind, needs_hydration } in listed {
            output.json(
                &json!({ "type": event_type, "kind": kind, "needs_hydration": needs_hydration }),
            )?;
        }
        return Ok(Outcome::Done);
    }
    let rows = listed.map(|Listed { event_type, kind, needs_hydration }| {
        let later = if needs_hydration { ", until the provider's API is asked" } else { "" };
        vec![event_type.to_owned(), format!("{kind}{later}")]
    });
    output.table(&[text("TYPE"), text("CANONICAL KIND")], rows.collect())?;
    Ok(Outcome::Done)
}

/// Reads a sample of the type; where none can be signed here, the mapping table says what it would be.
fn listed(source: &Source, event_type: &'static str) -> Listed {
    let spec = SampleSpec { event_type: Some(event_type), seed: 1, now_ms: when::now_ms() };
    let read = source.sample(&spec).and_then(|sample| read(source, &sample));
    read.map_or_else(
        || {
            let rows = source.info().mappings.iter().filter(|row| row.event_type == event_type);
            let mut kinds: Vec<&str> = rows.map(|row| row.kind).collect();
            kinds.dedup();
            let unmapped = format!("provider.{event_type}");
            let kind = if kinds.is_empty() { unmapped } else { kinds.join(" or ") };
            Listed { event_type, kind, needs_hydration: false }
        },
        |(kind, needs_hydration)| Listed { event_type, kind, needs_hydration },
    )
}

/// Kind of a sample's first event, and whether it is certain only after hydration.
fn read(source: &Source, sample: &SampleRequest) -> Option<(String, bool)> {
    let mut headers = HeaderMap::new();
    for (name, value) in &sample.headers {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_bytes(value.as_bytes()).ok()?,
        );
    }
    let url = format!("/?{}", sample.query.as_deref().unwrap_or_default());
    let body: &Bytes = &sample.body;
    let request = Request { method: "POST", url: &url, headers: &headers, body };
    let event = source.identify(&request).into_iter().next()?;
    let normalised = source.normalise(&Payload {
        event_id: &event.event_id,
        event_type: &event.event_type,
        object_id: event.object_id.as_deref(),
        body: &event.body.bytes(body),
    });
    Some((normalised.kind, normalised.needs_hydration))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::Value;
    use sluice_providers::{Secret, SourceSpec, build};

    fn stripe() -> Source {
        let secrets = vec![Secret::new("a", "whsec_x")];
        let settings = &Value::Null;
        build(SourceSpec { name: "shop", provider: "stripe", secrets, tolerance: None, settings })
            .unwrap()
    }

    #[test]
    fn types_take_turns_and_all_is_every_one() {
        let source = stripe();
        let info = source.info();
        assert!(types(info, &[]).is_empty());
        assert_eq!(types(info, &["all".to_owned()]), info.samples);
        let two = types(info, &["payout.paid".to_owned(), "charge.refunded".to_owned()]);
        let made: Vec<_> = (0..3)
            .map(|index| sample(&source, &two, 1, index, 0).unwrap())
            .map(|sample| read(&source, &sample).unwrap().0)
            .collect();
        assert_eq!(made[0], "payout.paid");
        assert!(made[1].starts_with("payment."), "{made:?}");
        assert_eq!(made[2], made[0]);
    }

    #[test]
    fn the_list_says_what_each_sample_becomes() {
        let source = stripe();
        let paid = listed(&source, "payment_intent.succeeded");
        assert_eq!((paid.kind.as_str(), paid.needs_hydration), ("payment.succeeded", false));
        let thin = listed(&source, "v2.core.account.updated");
        assert_eq!(
            (thin.kind.as_str(), thin.needs_hydration),
            ("provider.v2.core.account.updated", true)
        );
    }

    #[test]
    fn who_cannot_sign_is_told_what_to_do() {
        let text = only_the_provider(&stripe());
        assert!(text.contains("Stripe itself") && text.contains("--source shop"), "{text}");
    }
}
