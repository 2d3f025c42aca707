//! Sample Braintree notifications, shaped as the gateway renders them.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, unix_seconds};

pub(super) const TYPES: &[&str] = &[
    "subscription_charged_successfully",
    "subscription_charged_unsuccessfully",
    "subscription_went_active",
    "subscription_canceled",
    "transaction_settled",
    "transaction_settlement_declined",
    "dispute_opened",
    "dispute_won",
    "dispute_lost",
    "disbursement",
    "refund_failed",
    "check",
];

/// Base64 in lines of 60, with a line break after the last one too, as Ruby writes it.
pub(super) fn encode(document: &str) -> String {
    let text = STANDARD.encode(document);
    let mut lines = String::with_capacity(text.len() + text.len() / 60 + 1);
    for (i, char) in text.chars().enumerate() {
        if i > 0 && i % 60 == 0 {
            lines.push('\n');
        }
        lines.push(char);
    }
    lines.push('\n');
    lines
}

/// The document; `None` where `now_ms` is no time.
pub(super) fn document(spec: &SampleSpec<'_>) -> Option<String> {
    let kind = spec.event_type.unwrap_or(TYPES[0]);
    let time = jiff::Timestamp::from_second(unix_seconds(spec.now_ms)).ok()?;
    Some(format!(
        "<notification>\n  <timestamp type=\"datetime\">{time}</timestamp>\n  <kind>{}</kind>\n  <source-merchant-id>{}</source-merchant-id>\n  <subject>\n    {}\n  </subject>\n</notification>\n",
        escape(kind),
        sample_id("merchant_", spec.seed),
        subject(kind, spec.seed),
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn element(name: &str, fields: &[(&str, &str)]) -> String {
    let mut xml = format!("<{name}>");
    for (field, text) in fields {
        // Writing into a string cannot fail.
        let _ = write!(xml, "<{field}>{text}</{field}>");
    }
    let _ = write!(xml, "</{name}>");
    xml
}

fn subject(kind: &str, seed: u64) -> String {
    let amount = sample_amount(seed);
    let amount = format!("{}.{:02}", amount / 100, amount % 100);
    let currency = ("currency-iso-code", "USD");
    if kind.starts_with("subscription_") {
        let declined = kind == "subscription_charged_unsuccessfully";
        let status = match kind {
            "subscription_canceled" => "Canceled",
            "subscription_expired" => "Expired",
            "subscription_went_past_due" | "subscription_charged_unsuccessfully" => "Past Due",
            _ => "Active",
        };
        let charge = if declined { "processor_declined" } else { "submitted_for_settlement" };
        let transaction = transaction(seed, &amount, charge, "sale");
        let id = sample_id("sub_", seed);
        return format!(
            "<subscription><id>{id}</id><status>{status}</status><price>{amount}</price><transactions type=\"array\">{transaction}</transactions><add-ons type=\"array\"/><discounts type=\"array\"/></subscription>"
        );
    }
    if let Some(outcome) = kind.strip_prefix("dispute_") {
        let transaction = element(
            "transaction",
            &[
                ("id", &sample_id("tx_", seed)),
                ("amount", &amount),
                ("order-id", &sample_id("order_", seed)),
            ],
        );
        let dispute = element(
            "dispute",
            &[
                ("amount", &amount),
                ("amount-disputed", &amount),
                currency,
                ("id", &sample_id("dp_", seed)),
                ("kind", "chargeback"),
                ("reason", "fraud"),
                ("status", &escape(outcome)),
            ],
        );
        return dispute.replace("</dispute>", &format!("{transaction}</dispute>"));
    }
    match kind {
        "check" => "<check type=\"boolean\">true</check>".to_owned(),
        "disbursement" | "disbursement_exception" => {
            let success = if kind == "disbursement" { "true" } else { "false" };
            let account =
                element("merchant-account", &[("id", &sample_id("account_", seed)), currency]);
            let disbursement = element(
                "disbursement",
                &[("id", &sample_id("disb_", seed)), ("amount", &amount), ("success", success)],
            );
            disbursement.replace("</disbursement>", &format!("{account}</disbursement>"))
        }
        "transaction_settled" => transaction(seed, &amount, "settled", "sale"),
        "transaction_settlement_declined" => {
            transaction(seed, &amount, "settlement_declined", "sale")
        }
        "refund_failed" => {
            let refund = transaction(seed, &amount, "failed", "credit");
            let payment = sample_id("tx_refunded_", seed);
            refund.replace(
                "</transaction>",
                &format!(
                    "<refunded-transaction-id>{payment}</refunded-transaction-id></transaction>"
                ),
            )
        }
        _ => element("object", &[("id", &sample_id("obj_", seed))]),
    }
}

fn transaction(seed: u64, amount: &str, status: &str, kind: &str) -> String {
    let customer = element("customer", &[("id", &sample_id("cust_", seed))]);
    let transaction = element(
        "transaction",
        &[
            ("id", &sample_id("tx_", seed)),
            ("status", status),
            ("type", kind),
            ("currency-iso-code", "USD"),
            ("amount", amount),
            ("order-id", &sample_id("order_", seed)),
        ],
    );
    transaction.replace("</transaction>", &format!("{customer}</transaction>"))
}
