//! PayPal binds the body of a webhook by a CRC-32 alone, so that what a webhook tells of an amount may be
//! made up by who holds a genuine one. With the API configured it is PayPal itself that is believed.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::{
    account::{Account, drained},
    endpoints::Endpoint,
    fake_api::{
        FakeApi, Reply,
        providers::{PAYPAL_CLIENT_ID, PAYPAL_CLIENT_SECRET},
    },
    send::{Sender, Webhook},
    stack::shared,
    wait::{secs, until},
};

use super::{of_source, pipeline, start};

const ENV: [(&str, &str); 2] =
    [("E2E_PAYPAL_ID", PAYPAL_CLIENT_ID), ("E2E_PAYPAL_SECRET", PAYPAL_CLIENT_SECRET)];

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

/// Makes the checksum of a text what is wanted by turning some of its `0` behind `from` into `1`.
///
/// The checksum is linear in the bits of a text: each turned digit adds the same difference, whatever the
/// others are. So this is a system of 32 equations (Gaussian elimination over GF(2)).
fn with_checksum(mut text: Vec<u8>, from: usize, wanted: u32) -> Vec<u8> {
    let base = crc32(&text);
    // For each leading bit: a difference that begins with it, and the digits that make it.
    let mut basis: [Option<(u32, u64)>; 32] = [None; 32];
    let reduce = |basis: &[Option<(u32, u64)>; 32], mut difference: u32, mut digits: u64| {
        for (one, its_digits) in basis.iter().rev().flatten() {
            if difference ^ one < difference {
                (difference, digits) = (difference ^ one, digits ^ its_digits);
            }
        }
        (difference, digits)
    };
    for digit in 0..64 {
        assert_eq!(text[from + digit], b'0');
        text[from + digit] = b'1';
        let (difference, digits) = reduce(&basis, crc32(&text) ^ base, 1 << digit);
        text[from + digit] = b'0';
        if difference != 0 {
            basis[31 - difference.leading_zeros() as usize] = Some((difference, digits));
        }
    }
    let (rest, digits) = reduce(&basis, base ^ wanted, 0);
    assert_eq!(rest, 0, "64 digits reach every checksum");
    for digit in (0..64).filter(|digit| digits >> digit & 1 == 1) {
        text[from + digit] = b'1';
    }
    assert_eq!(crc32(&text), wanted);
    text
}

/// A body of the forger's own under the headers of a genuine delivery.
fn forged(genuine: &Webhook, change: impl FnOnce(&mut Value)) -> Webhook {
    let mut body: Value = serde_json::from_slice(&genuine.body).unwrap();
    change(&mut body);
    let event_id = body["id"].as_str().unwrap().to_owned();
    let room = "0".repeat(64);
    body["summary"] = json!(room);
    let text = body.to_string();
    let at = text.find(&room).unwrap();
    let body = with_checksum(text.into_bytes(), at, crc32(&genuine.body));
    Webhook { event_id, body, ..genuine.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_paypal_says_counts_and_not_a_body_that_only_a_checksum_binds() {
    let api = FakeApi::start().await;
    let hydrate = format!(
        "[hydrate]\nbase_url = \"{}\"\nclient_id = \"env:E2E_PAYPAL_ID\"\nclient_secret = \"env:E2E_PAYPAL_SECRET\"\ntimeout = \"2s\"\nbreaker_failures = 1000\nnot_found_for = \"2s\"\n",
        api.base()
    );
    let endpoints = [Endpoint::of("paypal").more(&hydrate)];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut role = start(&pipeline, "all", &endpoints, &ENV);
    role.ready().await;
    let (sender, gateways) = (Sender::new(), [role.url()]);
    let samples = endpoints[0].samples();
    let own = |webhook: &Webhook| serde_json::from_slice::<Value>(&webhook.body).unwrap();

    // The forger comes first, under the ID of a genuine event.
    let genuine = samples.of_type(1, Some("PAYMENT.CAPTURE.COMPLETED"));
    let mut known = own(&genuine);
    known["resource"]["amount"] = json!({"currency_code": "EUR", "value": "12.34"});
    api.put(&genuine.event_id, known);
    let richer = forged(&genuine, |body| {
        body["resource"]["amount"] = json!({"currency_code": "EUR", "value": "99999.00"});
    });
    assert_eq!(richer.event_id, genuine.event_id);
    sender.store(&gateways, vec![richer]).await;
    sender.store(&gateways, vec![genuine.clone()]).await;
    // And with an event that PayPal has never heard of.
    let invented = forged(&genuine, |body| body["id"] = json!("WH-E2E-INVENTED"));
    sender.store(&gateways, vec![invented]).await;
    // A body that does not even have the checksum is refused.
    let mut careless = genuine.clone();
    let text = String::from_utf8(careless.body).unwrap().replace("COMPLETED", "COMPLETEE");
    careless.body = text.into_bytes();
    assert_eq!(sender.post(&gateways[0], &careless).await.status, Some(401));

    // Tokens are cached, and a revoked one is replaced.
    let second = samples.of_type(2, Some("PAYMENT.CAPTURE.REFUNDED"));
    let mut known = own(&second);
    known["resource"]["amount"] = json!({"currency_code": "JPY", "value": "500"});
    api.put(&second.event_id, known);
    api.script(&second.event_id, vec![Reply::status(503), Reply::status(200)]);
    sender.store(&gateways, vec![second.clone()]).await;
    let limit: Duration = secs(45);
    until("both events to be processed and the invented one to die", limit, async || {
        let account = Account::read(&pipeline).await;
        (account.processed.len() >= 2 && !account.dead.is_empty()).then_some(())
    })
    .await;
    api.revoke();
    let third = samples.of_type(3, Some("PAYMENT.CAPTURE.DENIED"));
    api.put(&third.event_id, own(&third));
    sender.store(&gateways, vec![third.clone()]).await;
    until("the third event to be processed", limit, async || {
        (Account::read(&pipeline).await.processed.len() >= 3).then_some(())
    })
    .await;
    drained(&pipeline, secs(30)).await;

    let account = Account::read(&pipeline).await;
    account.settle(&sender.ledger.acknowledged(), &[].into());
    let events = of_source(&account, "paypal");
    let of = |webhook: &Webhook| {
        let event = events.iter().find(|event| event.event_id == webhook.event_id).unwrap();
        (event.kind.as_str(), event.amount_minor, event.currency.as_deref())
    };
    assert_eq!(events.len(), 3);
    assert_eq!(of(&genuine), ("payment.succeeded", Some(1234), Some("EUR")));
    assert_eq!(of(&second), ("refund.succeeded", Some(500), Some("JPY")));
    assert_eq!(of(&third).0, "payment.failed");
    assert_eq!(account.dead.len(), 1);
    assert_eq!(account.dead[0].value.event_key, "paypal:WH-E2E-INVENTED");
    // One token for the first calls, one more after that was revoked.
    let tokens = api.calls().iter().filter(|call| call.path == "/v1/oauth2/token").count();
    assert_eq!(tokens, 2);
    assert!(!role.log().contains(PAYPAL_CLIENT_SECRET) && !role.log().contains("A21AAe2e"));
    role.terminate().await;
}
