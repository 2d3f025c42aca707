//! Batches of JSON lines, end to end: one signature, many events, each processed once.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sluice_tests::{
    account::{Account, drained},
    send::{Sender, Webhook},
    sluice::Setup,
    stack::shared,
    wait::secs,
};

const SECRET: &str = "secret of the batches";
const LEDGER: &str = r#"
name = "ledger"
provider = "hmac"
secrets = ["env:E2E_LEDGER"]
[settings]
header = "x-ledger-signature"
batch = "ndjson"
id_pointer = "/id"
type_pointer = "/type"
amount_pointer = "/amount"
currency_pointer = "/currency"
"#;

/// A batch, signed here and not by the code under test.
fn batch(lines: &[String]) -> Webhook {
    let body = format!("{}\n", lines.join("\n")).into_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(&body);
    let signature = hex::encode(mac.finalize().into_bytes());
    Webhook {
        source: "ledger".to_owned(),
        event_id: "batch".to_owned(),
        query: None,
        headers: vec![("x-ledger-signature".to_owned(), signature)],
        body,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_batch_is_processed_once() {
    let pipeline = Setup::new().source(LEDGER).create(&shared().await).await;
    let mut role = pipeline.start("all", "a", &[("E2E_LEDGER", SECRET)]);
    role.ready().await;
    let (sender, url) = (Sender::new(), role.url());
    let line = |at: usize| {
        format!(r#"{{"id":"l-{at}","type":"entry.booked","amount":{at},"currency":"eur"}}"#)
    };
    let first: Vec<String> = (0..300).map(line).collect();
    // Overlaps the first, names one entry twice, and has a line that is no JSON.
    let mut second: Vec<String> = (200..500).map(line).collect();
    second.push(line(499));
    second.push("signed, and no JSON".to_owned());

    let mut forged = batch(&first);
    forged.body[8] = b'x';
    assert_eq!(sender.post(&url, &forged).await.status, Some(401));
    // As often as a sender that has lost the answer.
    for lines in [&first, &second, &first] {
        assert_eq!(sender.post(&url, &batch(lines)).await.status, Some(200));
    }
    drained(&pipeline, secs(30)).await;

    let account = Account::read(&pipeline).await;
    assert_eq!((account.processed.len(), account.dead.len()), (501, 0));
    let mut booked = Vec::new();
    for read in &account.processed {
        let event = &read.value;
        if let Some(at) = event.event_id.strip_prefix("l-") {
            let at: usize = at.parse().unwrap();
            assert_eq!(event.kind, "provider.entry.booked");
            assert_eq!(
                (event.amount_minor, event.currency.as_deref()),
                (Some(at as i64), Some("EUR"))
            );
            assert_eq!(event.payload, line(at).as_bytes());
            booked.push(at);
        } else {
            assert!(event.event_id.starts_with("sha256:"), "{}", event.event_id);
            assert_eq!(
                (event.kind.as_str(), &*event.payload),
                ("provider.unknown", &b"signed, and no JSON"[..])
            );
        }
    }
    booked.sort_unstable();
    assert_eq!(booked, (0..500).collect::<Vec<_>>());
    role.terminate().await;
}
