//! What Square, Razorpay and Paddle events say.

use serde_json::{Value, json};
use sluice_providers::{Payload, SampleSpec, normaliser};

use crate::common::NOW_MS;
use crate::support::{TIME, identify, read, settings, subject, told};

#[test]
fn whether_a_state_is_told_is_known_without_the_facts() {
    for provider in ["github", "razorpay", "shopify", "square"] {
        let (signer, settings) = (subject(provider), settings(provider));
        let reader = normaliser("shop", provider, &settings).unwrap();
        let info = signer.info();
        let mut told = 0;
        for event_type in info.samples {
            let spec = SampleSpec { event_type: Some(event_type), seed: 7, now_ms: NOW_MS };
            let sample = signer.sample(&spec).unwrap();
            // The type that goes with the body, and every other one.
            for named in
                info.mappings.iter().map(|row| row.event_type).chain(["unknown", event_type])
            {
                let bodies = [&sample.body[..], b"{}", b"no JSON"];
                for body in bodies {
                    let payload =
                        Payload { event_id: "e", event_type: named, object_id: None, body };
                    let facts = reader.facts(&payload);
                    assert_eq!(
                        reader.tells_state(&payload),
                        !facts.is_empty(),
                        "{provider} {named}"
                    );
                    told += facts.len();
                }
            }
        }
        assert!(told > 0, "control: {provider} tells some");
    }
}

#[test]
fn square_payloads() {
    let money = |amount: i64, currency: &str| json!({"amount": amount, "currency": currency});
    let event = |event_type: &str, object: Value| {
        let family = event_type.split('.').next().unwrap().to_owned();
        json!({
            "merchant_id": "M1", "type": event_type, "event_id": "e-1", "created_at": TIME,
            "data": {"type": family, "id": "data-id", "object": {family: object}},
        })
    };
    let payment = |status: &str| json!({"id": "P1", "status": status, "amount_money": money(100, "USD"), "total_money": money(120, "USD"), "customer_id": "C1", "reference_id": "order-1"});
    let with = |mut object: Value, key: &str, value: Value| {
        object[key] = value;
        object
    };
    let refund = |status: &str| json!({"id": "P1_R1", "payment_id": "P1", "status": status, "amount_money": money(50, "JPY")});
    let dispute = |state: &str| json!({"id": "D1", "state": state, "amount_money": money(50, "USD"), "disputed_payment": {"payment_id": "P1"}});
    let fee = json!([{"amount_money": {"amount": 30, "currency": "USD"}}]);
    for (event_type, object, expected) in [
        ("payment.created", payment("APPROVED"), "payment.created 120 USD P1"),
        ("payment.created", payment("COMPLETED"), "payment.created 120 USD P1"),
        ("payment.updated", payment("COMPLETED"), "payment.succeeded 120 USD P1"),
        (
            "payment.updated",
            with(payment("COMPLETED"), "processing_fee", fee),
            "payment.succeeded 120 USD P1",
        ),
        (
            "payment.updated",
            with(payment("COMPLETED"), "total_money", money(1234, "KWD")),
            "payment.succeeded 1234 KWD P1",
        ),
        ("payment.updated", payment("APPROVED"), "payment.authorized 120 USD P1"),
        ("payment.updated", payment("PENDING"), "payment.pending 120 USD P1"),
        ("payment.updated", payment("CANCELED"), "payment.cancelled 120 USD P1"),
        ("payment.updated", payment("FAILED"), "payment.failed 120 USD P1"),
        ("refund.created", refund("PENDING"), "refund.created 50 JPY P1"),
        ("refund.updated", refund("COMPLETED"), "refund.succeeded 50 JPY P1"),
        ("refund.updated", refund("REJECTED"), "refund.failed 50 JPY P1"),
        ("refund.updated", refund("PENDING"), "provider.refund.updated 50 JPY P1"),
        ("dispute.created", dispute("INQUIRY_EVIDENCE_REQUIRED"), "dispute.opened 50 USD P1"),
        ("dispute.state.updated", dispute("PROCESSING"), "dispute.updated 50 USD P1"),
        ("dispute.state.updated", dispute("WON"), "dispute.won 50 USD P1"),
        ("dispute.state.updated", dispute("LOST"), "dispute.lost 50 USD P1"),
        ("dispute.state.updated", dispute("ACCEPTED"), "dispute.lost 50 USD P1"),
        (
            "payout.paid",
            json!({"id": "po_1", "amount_money": money(-5, "USD")}),
            "payout.paid -5 USD po_1",
        ),
        ("payout.failed", json!({"id": "po_1"}), "payout.failed - - po_1"),
        ("invoice.payment_made", json!({"id": "i", "status": "PAID"}), "invoice.paid - - i"),
        (
            "invoice.payment_made",
            json!({"id": "i", "status": "PARTIALLY_PAID"}),
            "provider.invoice.payment_made - - i",
        ),
        (
            "subscription.updated",
            json!({"id": "s", "status": "CANCELED"}),
            "subscription.cancelled - - s",
        ),
        (
            "subscription.updated",
            json!({"id": "s", "status": "ACTIVE"}),
            "subscription.updated - - s",
        ),
        ("order.updated", json!({}), "provider.order.updated - - data-id"),
    ] {
        let body = event(event_type, object);
        let normalised = read("square", "ignored", &body);
        assert_eq!(told(&normalised), expected, "{body}");
        let identified =
            identify("square", &[("square-environment", "Production")], &body.to_string());
        assert_eq!(identified.object_id, normalised.object_id);
        assert_eq!(
            (identified.event_id.as_str(), identified.event_type.as_str()),
            ("e-1", event_type)
        );
        assert_eq!((identified.tenant.as_deref(), identified.livemode), (Some("M1"), Some(true)));
        assert_eq!(identified.occurred_at_ms, Some(NOW_MS));
    }
    let normalised = read("square", "x", &event("payment.updated", payment("COMPLETED")));
    assert_eq!(
        (normalised.status.as_deref(), normalised.customer.as_deref()),
        (Some("COMPLETED"), Some("C1"))
    );
    assert_eq!(normalised.reference.as_deref(), Some("order-1"));
    assert_eq!(
        identify("square", &[("square-environment", "Sandbox")], "{}").livemode,
        Some(false)
    );
    assert_eq!(identify("square", &[], "{}").livemode, None);
}

#[test]
fn square_updates_tell_facts() {
    let settings = json!({"public_url": "https://pay.example.com/webhooks/square"});
    let reader = sluice_providers::normaliser("shop", "square", &settings).unwrap();
    let facts = |event_type: &str, object: &Value| {
        let family = event_type.split('.').next().unwrap().to_owned();
        let body =
            json!({"type": event_type, "event_id": "e-1", "data": {"object": {family: object}}})
                .to_string();
        let payload =
            Payload { event_id: "e-1", event_type, object_id: None, body: body.as_bytes() };
        let facts = reader.facts(&payload);
        assert_eq!(reader.tells_state(&payload), !facts.is_empty());
        let told = reader.normalise(&payload);
        for fact in &facts {
            assert_eq!((&fact.kind, fact.amount_minor), (&told.kind, told.amount_minor));
        }
        facts.into_iter().map(|fact| (fact.state, fact.kind)).collect::<Vec<_>>()
    };
    let fact = |state: &str, kind: &str| vec![(state.to_owned(), kind.to_owned())];
    let object = |status: &str| json!({"id": "O1", "status": status, "total_money": {"amount": 120, "currency": "USD"}});
    for (event_type, status, expected) in [
        ("payment.updated", "COMPLETED", fact("payment:O1:COMPLETED", "payment.succeeded")),
        ("payment.updated", "APPROVED", fact("payment:O1:APPROVED", "payment.authorized")),
        ("refund.updated", "COMPLETED", fact("refund:O1:COMPLETED", "refund.succeeded")),
        ("invoice.payment_made", "PAID", fact("invoice:O1:PAID", "invoice.paid")),
        ("payment.created", "COMPLETED", Vec::new()),
        ("dispute.state.updated", "WON", Vec::new()),
    ] {
        assert_eq!(facts(event_type, &object(status)), expected, "{event_type} {status}");
    }
    // Without an ID or a status nothing is told.
    assert_eq!(facts("payment.updated", &json!({"id": "O1"})), []);
    assert_eq!(facts("payment.updated", &json!({"status": "COMPLETED"})), []);
    assert_eq!(facts("payment.updated", &json!(1)), []);
}

#[test]
fn razorpay_payloads() {
    let event = |event_type: &str, entities: &[(&str, Value)]| {
        let payload: Value = entities
            .iter()
            .map(|(name, entity)| ((*name).to_owned(), json!({"entity": entity})))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({
            "entity": "event", "account_id": "acc_1", "event": event_type, "payload": payload,
            "created_at": NOW_MS / 1000,
        })
    };
    let entity = |id: &str| json!({"id": id, "amount": 1000, "currency": "INR", "status": "s"});
    let with = |mut object: Value, key: &str, value: Value| {
        object[key] = value;
        object
    };
    let payment = entity("pay_1");
    let refund = with(entity("rfnd_1"), "payment_id", json!("pay_1"));
    for (event_type, entities, expected) in [
        (
            "payment.authorized",
            vec![("payment", payment.clone())],
            "payment.authorized 1000 INR pay_1",
        ),
        (
            "payment.captured",
            vec![("payment", payment.clone())],
            "payment.succeeded 1000 INR pay_1",
        ),
        (
            "payment.captured",
            vec![("payment", with(payment.clone(), "currency", json!("JPY")))],
            "payment.succeeded 1000 JPY pay_1",
        ),
        // Three decimal places: 295.990.
        (
            "payment.captured",
            vec![("payment", json!({"id": "pay_1", "amount": 295_990, "currency": "KWD"}))],
            "payment.succeeded 295990 KWD pay_1",
        ),
        ("payment.failed", vec![("payment", payment.clone())], "payment.failed 1000 INR pay_1"),
        (
            "order.paid",
            vec![
                ("payment", payment.clone()),
                ("order", with(entity("order_1"), "receipt", json!("r-1"))),
            ],
            "provider.order.paid 1000 INR pay_1",
        ),
        ("order.paid", vec![("order", entity("order_1"))], "provider.order.paid 1000 INR order_1"),
        (
            "refund.created",
            vec![
                ("refund", with(refund.clone(), "amount", json!(400))),
                ("payment", payment.clone()),
            ],
            "refund.created 400 INR pay_1",
        ),
        ("refund.processed", vec![("refund", refund.clone())], "refund.succeeded 1000 INR pay_1"),
        ("refund.failed", vec![("refund", refund.clone())], "refund.failed 1000 INR pay_1"),
        (
            "refund.speed_changed",
            vec![("refund", refund)],
            "provider.refund.speed_changed 1000 INR pay_1",
        ),
        (
            "payment.dispute.created",
            vec![("payment", payment.clone()), ("dispute", entity("disp_1"))],
            "dispute.opened 1000 INR pay_1",
        ),
        (
            "payment.dispute.won",
            vec![("dispute", with(entity("disp_1"), "payment_id", json!("pay_1")))],
            "dispute.won 1000 INR pay_1",
        ),
        (
            "payment.dispute.lost",
            vec![("payment", payment.clone()), ("dispute", entity("disp_1"))],
            "dispute.lost 1000 INR pay_1",
        ),
        (
            "payment.dispute.closed",
            vec![("payment", payment.clone()), ("dispute", entity("disp_1"))],
            "dispute.won 1000 INR pay_1",
        ),
        (
            "settlement.processed",
            vec![("settlement", json!({"id": "setl_1", "amount": 5}))],
            "payout.paid 5 - setl_1",
        ),
        ("payout.processed", vec![("payout", entity("pout_1"))], "payout.paid 1000 INR pout_1"),
        ("payout.reversed", vec![("payout", entity("pout_1"))], "payout.failed 1000 INR pout_1"),
        (
            "subscription.authenticated",
            vec![("subscription", json!({"id": "sub_1"}))],
            "subscription.created - - sub_1",
        ),
        (
            "subscription.charged",
            vec![("subscription", json!({"id": "sub_1"})), ("payment", payment.clone())],
            "provider.subscription.charged - - sub_1",
        ),
        (
            "subscription.cancelled",
            vec![("subscription", json!({"id": "sub_1"}))],
            "subscription.cancelled - - sub_1",
        ),
        (
            "invoice.paid",
            vec![
                ("payment", payment.clone()),
                ("invoice", with(entity("inv_1"), "amount_paid", json!(900))),
            ],
            "invoice.paid 900 INR inv_1",
        ),
        (
            "payment_link.paid",
            vec![("payment", payment.clone()), ("payment_link", entity("plink_1"))],
            "checkout.completed 1000 INR pay_1",
        ),
        (
            "payment.downtime.started",
            vec![("payment.downtime", json!({"id": "down_1"}))],
            "provider.payment.downtime.started - - down_1",
        ),
    ] {
        let body = event(event_type, &entities);
        let normalised = read("razorpay", "ignored", &body);
        assert_eq!(told(&normalised), expected, "{body}");
        let identified = identify("razorpay", &[("x-razorpay-event-id", "e-1")], &body.to_string());
        assert_eq!(identified.object_id, normalised.object_id);
        assert_eq!(
            (identified.event_id.as_str(), identified.event_type.as_str()),
            ("e-1", event_type)
        );
        assert_eq!(
            (identified.tenant.as_deref(), identified.occurred_at_ms),
            (Some("acc_1"), Some(NOW_MS))
        );
    }
    let order = with(entity("order_1"), "receipt", json!("r-1"));
    let normalised = read("razorpay", "x", &event("order.paid", &[("order", order)]));
    assert_eq!(
        (normalised.reference.as_deref(), normalised.status.as_deref()),
        (Some("r-1"), Some("s"))
    );
    let nameless = identify("razorpay", &[], "{}");
    assert!(nameless.event_id.starts_with("sha256:") && !nameless.identified);
    let odd = identify("razorpay", &[("x-razorpay-event-id", "e")], "not json");
    assert!(odd.identified && odd.event_type == "unknown");
}

#[test]
fn paddle_payloads() {
    let event = |event_type: &str, data: Value| {
        json!({
            "event_id": "evt_1", "event_type": event_type, "occurred_at": "2026-01-01T00:00:00.000000Z",
            "notification_id": "ntf_1", "data": data,
        })
    };
    let transaction = |total: &str, currency: &str| {
        json!({
            "id": "txn_1", "status": "completed", "customer_id": "ctm_1", "currency_code": currency,
            "details": {"totals": {"total": "1", "grand_total": total}},
        })
    };
    let adjustment = |action: &str, status: &str| {
        json!({
            "id": "adj_1", "transaction_id": "txn_1", "action": action, "status": status,
            "currency_code": "EUR", "totals": {"total": "250"},
        })
    };
    for (event_type, data, expected) in [
        ("transaction.created", transaction("2340", "EUR"), "payment.created 2340 EUR txn_1"),
        ("transaction.completed", transaction("2340", "EUR"), "payment.succeeded 2340 EUR txn_1"),
        ("transaction.completed", transaction("2340", "JPY"), "payment.succeeded 2340 JPY txn_1"),
        ("transaction.completed", transaction("0", "EUR"), "payment.succeeded 0 EUR txn_1"),
        ("transaction.completed", transaction("23.40", "EUR"), "payment.succeeded - EUR txn_1"),
        ("transaction.completed", json!({"id": "txn_1"}), "payment.succeeded - - txn_1"),
        (
            "transaction.paid",
            transaction("2340", "EUR"),
            "provider.transaction.paid 2340 EUR txn_1",
        ),
        (
            "transaction.billed",
            transaction("2340", "EUR"),
            "provider.transaction.billed 2340 EUR txn_1",
        ),
        ("transaction.payment_failed", transaction("2340", "EUR"), "payment.failed 2340 EUR txn_1"),
        ("transaction.canceled", transaction("2340", "EUR"), "payment.cancelled 2340 EUR txn_1"),
        (
            "adjustment.created",
            adjustment("refund", "pending_approval"),
            "refund.created 250 EUR txn_1",
        ),
        ("adjustment.created", adjustment("refund", "approved"), "refund.succeeded 250 EUR txn_1"),
        ("adjustment.updated", adjustment("refund", "approved"), "refund.succeeded 250 EUR txn_1"),
        ("adjustment.updated", adjustment("refund", "rejected"), "refund.failed 250 EUR txn_1"),
        (
            "adjustment.created",
            adjustment("credit", "approved"),
            "provider.adjustment.created 250 EUR txn_1",
        ),
        (
            "adjustment.created",
            adjustment("chargeback", "approved"),
            "dispute.opened 250 EUR txn_1",
        ),
        (
            "adjustment.created",
            adjustment("chargeback_warning", "approved"),
            "dispute.updated 250 EUR txn_1",
        ),
        (
            "adjustment.created",
            adjustment("chargeback_reverse", "approved"),
            "dispute.won 250 EUR txn_1",
        ),
        (
            "payout.paid",
            json!({"id": "pay_1", "amount": "10000", "currency_code": "USD"}),
            "payout.paid 10000 USD pay_1",
        ),
        (
            "subscription.created",
            json!({"id": "sub_1", "transaction_id": "txn_1"}),
            "subscription.created - - sub_1",
        ),
        ("subscription.canceled", json!({"id": "sub_1"}), "subscription.cancelled - - sub_1"),
        ("customer.created", json!({"id": "ctm_1"}), "provider.customer.created - - ctm_1"),
    ] {
        let body = event(event_type, data);
        let normalised = read("paddle", "ignored", &body);
        assert_eq!(told(&normalised), expected, "{body}");
        let identified = identify("paddle", &[], &body.to_string());
        assert_eq!(identified.object_id, normalised.object_id);
        assert_eq!(
            (identified.event_id.as_str(), identified.event_type.as_str()),
            ("evt_1", event_type)
        );
        assert_eq!(identified.occurred_at_ms, Some(NOW_MS));
    }
    let normalised = read("paddle", "x", &event("transaction.completed", transaction("1", "EUR")));
    assert_eq!(
        (normalised.status.as_deref(), normalised.customer.as_deref()),
        (Some("completed"), Some("ctm_1"))
    );
    assert!(!identify("paddle", &[], "not json").identified);
}

#[test]
fn what_a_signed_body_says_is_one_fact_whatever_id_it_comes_under() {
    for (provider, event_type, unmapped) in [
        ("razorpay", "payment.captured", "order.paid"),
        ("shopify", "order_transactions/create", "products/update"),
        ("github", "sponsorship", "push"),
    ] {
        let source = subject(provider);
        let reader = normaliser("shop", provider, &settings(provider)).unwrap();
        let facts = |event_type: &str, seed: u64, id: &str| {
            let spec = SampleSpec { event_type: Some(event_type), seed, now_ms: NOW_MS };
            let body = source.sample(&spec).unwrap().body;
            let object_id = None;
            let payload = Payload { event_id: id, event_type, object_id, body: &body };
            let facts = reader.facts(&payload);
            assert_eq!(source.tells_state(&payload), !facts.is_empty());
            facts
        };
        let genuine = facts(event_type, 1, "a");
        assert_eq!(genuine.len(), 1, "{provider}");
        assert!(!genuine[0].kind.starts_with("provider."));
        assert_eq!(facts(event_type, 1, "b"), genuine, "{provider}");
        assert_ne!(facts(event_type, 2, "a")[0].state, genuine[0].state, "control: another body");
        assert!(facts(unmapped, 1, "a").is_empty(), "{provider}");
    }
}
