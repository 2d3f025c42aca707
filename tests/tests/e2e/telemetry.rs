//! One trace from the HTTP request to the outcome, through retries.

use serde_json::Value;
use sluice_tests::{
    account::{Account, drained},
    fake_api::{FakeApi, Reply},
    otlp::{Collector, Span},
    read::{self, Isolation, Raw},
    send::{Samples, Sender},
    sluice::{STRIPE_SECRET, Setup},
    stack::shared,
    wait::{secs, until},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

fn traceparent() -> String {
    format!("00-{TRACE}-{CLIENT_SPAN}-01")
}

/// Trace and span named by a record's header.
fn context(record: &Raw) -> (String, String) {
    let header = String::from_utf8(record.headers["traceparent"].clone()).unwrap();
    let parts: Vec<&str> = header.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{header}");
    (parts[1].to_owned(), parts[2].to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_senders_trace_goes_on_where_no_traces_are_sent() {
    let cluster = shared().await;
    let pipeline = Setup::new().create(&cluster).await;
    let mut role = pipeline.all("a");
    role.ready().await;
    let samples = Samples::stripe();
    let traced = samples.event(1).header("traceparent", &traceparent());
    let plain = samples.event(2);
    Sender::new().store(&[role.url()], vec![traced.clone(), plain.clone()]).await;
    drained(&pipeline, secs(30)).await;

    let processed = Account::read(&pipeline).await.processed;
    assert_eq!(processed.len(), 2);
    for read in &processed {
        if read.value.event_key == traced.key() {
            assert_eq!(context(&read.raw), (TRACE.to_owned(), CLIENT_SPAN.to_owned()));
        } else {
            assert!(!read.raw.headers.contains_key("traceparent"), "no trace is made up");
        }
        let id = String::from_utf8(read.raw.headers["sluice-request-id"].clone()).unwrap();
        assert_eq!(id, read.value.request_id);
        for name in ["ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "content-type"] {
            assert!(read.raw.headers.contains_key(name), "{name}");
        }
    }
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_through_every_attempt_to_the_outcome() {
    let cluster = shared().await;
    let (collector, api) = (Collector::start().await, FakeApi::start().await);
    let thin = format!(
        "name = \"thin\"\nprovider = \"stripe\"\nsecrets = [\"file:stripe.secret\"]\n[hydrate]\nurl = \"{}\"",
        api.by_event()
    );
    let pipeline = Setup::new().source(&thin).create(&cluster).await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let mut roles =
        ["gateway", "processor", "retry-router"].map(|role| pipeline.start(role, "a", &env));
    for role in &mut roles {
        role.ready().await;
    }
    let samples = Samples::of("thin", "stripe", STRIPE_SECRET, &Value::Null);
    let (traced, plain) =
        (samples.event(1).header("traceparent", &traceparent()), samples.event(2));
    api.script(&traced.event_id, vec![Reply::status(503), Reply::status(503), Reply::status(200)]);
    Sender::new().store(&[roles[0].url()], vec![traced.clone(), plain.clone()]).await;

    let processed = until("both events to come through", secs(40), async || {
        let processed = Account::read(&pipeline).await.processed;
        (processed.len() == 2).then_some(processed)
    })
    .await;
    let outcome = |key: &str| {
        context(&processed.iter().find(|read| read.value.event_key == key).unwrap().raw)
    };
    let (trace, last) = outcome(&traced.key());
    assert_eq!(trace, TRACE);
    // A transaction that was aborted and done again leaves its attempt's span twice, so more is no mistake.
    let spans = until("the trace from the outcome back to the sender", secs(20), async || {
        let spans = collector.trace(TRACE);
        let parent = |id: &str| spans.iter().find(|span| span.id == id).map(|span| &span.parent);
        let mut at = Some(&last);
        while let Some(id) = at.filter(|id| *id != CLIENT_SPAN) {
            at = parent(id);
        }
        at.is_some().then_some(spans.clone())
    })
    .await;

    // From the outcome back to the sender, parent by parent.
    let find = |id: &str| -> &Span {
        spans
            .iter()
            .find(|span| span.id == id)
            .unwrap_or_else(|| panic!("no span {id}: {spans:#?}"))
    };
    let mut span = find(&last);
    for (attempt, result) in
        [("3", "processed"), ("2", "hydrate_status_503"), ("1", "hydrate_status_503")]
    {
        assert_eq!((span.service.as_str(), span.name.as_str()), ("sluice-processor", "process"));
        assert_eq!(span.attributes["sluice.attempt"], attempt);
        assert_eq!(span.attributes["sluice.outcome"], result);
        assert_eq!(span.attributes["sluice.event_key"], traced.key());
        span = find(&span.parent);
    }
    assert_eq!((span.service.as_str(), span.parent.as_str()), ("sluice-gateway", CLIENT_SPAN));
    assert_eq!(span.attributes["http.response.status_code"], "200");
    let raw = read::bytes(&cluster, &pipeline.topic("raw"), Isolation::Committed).await;
    assert!(raw.iter().any(|record| context(record) == (TRACE.to_owned(), span.id.clone())));

    // A sender without a trace gets one of its own: request and outcome, nothing else.
    let (own, _) = outcome(&plain.key());
    assert_ne!(own, TRACE);
    let spans = until("the other trace", secs(20), async || {
        let spans = collector.trace(&own);
        (spans.len() >= 2).then_some(spans)
    })
    .await;
    assert_eq!(spans.iter().filter(|span| span.parent.is_empty()).count(), 1, "{spans:#?}");
    for mut role in roles {
        role.terminate().await;
    }
}
