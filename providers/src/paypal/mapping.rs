//! What a PayPal event says: its fields, and its canonical kind as a table.
//!
//! No fact is counted twice. Money received is the capture (v2) or the sale (v1, and every payment
//! of a subscription), never the order: `CHECKOUT.ORDER.COMPLETED` is `checkout.completed`. Money
//! given back is the refund that `PAYMENT.CAPTURE.REFUNDED` carries, with its own amount; a
//! reversal stays `provider.*`, because the dispute tells it. Of disputes `CUSTOMER.DISPUTE.*`
//! counts and the `RISK.DISPUTE.CREATED` that PayPal keeps for old subscribers does not; of payouts
//! each item counts and the batch does not. An approved order has moved no money: it is
//! `payment.created`.
//!
//! Amounts are decimals as text in the currency's own exponent. A resource is read by paths: names
//! joined with points, where a list stands for its only element.

use serde_json::value::RawValue;

use crate::Condition::{Absent, Became, Is, Present};
use crate::mapping::{self, row, row_when};
use crate::{Condition, Mapping, Normalised, json, money};

const AMOUNT: &[&str] = &["amount"];
const ORDER_AMOUNT: &[&str] = &["purchase_units.amount"];
const DISPUTE_AMOUNT: &[&str] = &["dispute_amount"];
const PAYOUT_AMOUNT: &[&str] = &["payout_item.amount"];
const OUTCOME: &str = "dispute_outcome.outcome_code";

pub(super) const MAPPINGS: &[Mapping] = &[
    row("CHECKOUT.ORDER.APPROVED", "payment.created", ORDER_AMOUNT),
    row("CHECKOUT.ORDER.COMPLETED", "checkout.completed", ORDER_AMOUNT),
    row("CHECKOUT.PAYMENT-APPROVAL.REVERSED", "payment.cancelled", ORDER_AMOUNT),
    row("PAYMENTS.PAYMENT.CREATED", "payment.created", &["transactions.amount"]),
    row("PAYMENT.AUTHORIZATION.CREATED", "payment.authorized", AMOUNT),
    row("PAYMENT.AUTHORIZATION.VOIDED", "payment.cancelled", AMOUNT),
    row("PAYMENT.CAPTURE.COMPLETED", "payment.succeeded", AMOUNT),
    row("PAYMENT.CAPTURE.PENDING", "payment.pending", AMOUNT),
    row("PAYMENT.CAPTURE.DECLINED", "payment.failed", AMOUNT),
    row("PAYMENT.CAPTURE.DENIED", "payment.failed", AMOUNT),
    row_when("PAYMENT.CAPTURE.REFUNDED", &[Is("status", "PENDING")], "refund.created", AMOUNT),
    row_when("PAYMENT.CAPTURE.REFUNDED", &[Is("status", "FAILED")], "refund.failed", AMOUNT),
    row_when("PAYMENT.CAPTURE.REFUNDED", &[Is("status", "CANCELLED")], "refund.failed", AMOUNT),
    row("PAYMENT.CAPTURE.REFUNDED", "refund.succeeded", AMOUNT),
    row("PAYMENT.SALE.COMPLETED", "payment.succeeded", AMOUNT),
    row("PAYMENT.SALE.PENDING", "payment.pending", AMOUNT),
    row("PAYMENT.SALE.DENIED", "payment.failed", AMOUNT),
    row_when("PAYMENT.SALE.REFUNDED", &[Is("state", "pending")], "refund.created", AMOUNT),
    row_when("PAYMENT.SALE.REFUNDED", &[Is("state", "failed")], "refund.failed", AMOUNT),
    row("PAYMENT.SALE.REFUNDED", "refund.succeeded", AMOUNT),
    row("CUSTOMER.DISPUTE.CREATED", "dispute.opened", DISPUTE_AMOUNT),
    row("CUSTOMER.DISPUTE.UPDATED", "dispute.updated", DISPUTE_AMOUNT),
    row_when(
        "CUSTOMER.DISPUTE.RESOLVED",
        &[Is(OUTCOME, "RESOLVED_SELLER_FAVOUR")],
        "dispute.won",
        DISPUTE_AMOUNT,
    ),
    row_when(
        "CUSTOMER.DISPUTE.RESOLVED",
        &[Is(OUTCOME, "CANCELED_BY_BUYER")],
        "dispute.won",
        DISPUTE_AMOUNT,
    ),
    row_when("CUSTOMER.DISPUTE.RESOLVED", &[Is(OUTCOME, "DENIED")], "dispute.won", DISPUTE_AMOUNT),
    row_when(
        "CUSTOMER.DISPUTE.RESOLVED",
        &[Is(OUTCOME, "RESOLVED_BUYER_FAVOUR")],
        "dispute.lost",
        DISPUTE_AMOUNT,
    ),
    row_when(
        "CUSTOMER.DISPUTE.RESOLVED",
        &[Is(OUTCOME, "ACCEPTED")],
        "dispute.lost",
        DISPUTE_AMOUNT,
    ),
    // Resolved with a payout, or in words not known yet: over, but who lost is not told.
    row("CUSTOMER.DISPUTE.RESOLVED", "dispute.updated", DISPUTE_AMOUNT),
    row("BILLING.SUBSCRIPTION.CREATED", "subscription.created", &[]),
    row("BILLING.SUBSCRIPTION.ACTIVATED", "subscription.updated", &[]),
    row("BILLING.SUBSCRIPTION.RE-ACTIVATED", "subscription.updated", &[]),
    row("BILLING.SUBSCRIPTION.UPDATED", "subscription.updated", &[]),
    row("BILLING.SUBSCRIPTION.SUSPENDED", "subscription.updated", &[]),
    row("BILLING.SUBSCRIPTION.EXPIRED", "subscription.cancelled", &[]),
    row("BILLING.SUBSCRIPTION.CANCELLED", "subscription.cancelled", &[]),
    row(
        "BILLING.SUBSCRIPTION.PAYMENT.FAILED",
        "invoice.payment_failed",
        &["billing_info.last_failed_payment.amount"],
    ),
    row("INVOICING.INVOICE.PAID", "invoice.paid", &["invoice.amount", "invoice.total_amount"]),
    row("PAYMENT.PAYOUTS-ITEM.SUCCEEDED", "payout.paid", PAYOUT_AMOUNT),
    row("PAYMENT.PAYOUTS-ITEM.FAILED", "payout.failed", PAYOUT_AMOUNT),
    row("PAYMENT.PAYOUTS-ITEM.BLOCKED", "payout.failed", PAYOUT_AMOUNT),
    row("PAYMENT.PAYOUTS-ITEM.DENIED", "payout.failed", PAYOUT_AMOUNT),
    row("PAYMENT.PAYOUTS-ITEM.CANCELED", "payout.failed", PAYOUT_AMOUNT),
    row("PAYMENT.PAYOUTS-ITEM.RETURNED", "payout.failed", PAYOUT_AMOUNT),
];

/// An event: its envelope read, its resource read on demand.
pub(super) struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    occurred_at_ms: Option<i64>,
    version: Option<String>,
    resource: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let [id, event_type, create_time, resource_version, event_version, resource] =
            json::fields(
                body,
                [
                    "id",
                    "event_type",
                    "create_time",
                    "resource_version",
                    "event_version",
                    "resource",
                ],
            )?;
        Some(Self {
            id: json::text(id),
            event_type: json::text(event_type),
            occurred_at_ms: json::time_ms(create_time),
            version: json::text(resource_version).or_else(|| json::text(event_version)),
            resource,
        })
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    pub(super) const fn occurred_at_ms(&self) -> Option<i64> {
        self.occurred_at_ms
    }

    /// In common terms; `event_type` is for an event that names none.
    pub(super) fn normalise(&self, event_type: &str) -> Normalised {
        let event_type = self.event_type().unwrap_or(event_type);
        let mapping = mapping::find(MAPPINGS, event_type, |condition| self.meets(condition));
        let mut normalised = Normalised::unmapped(event_type);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let paths = mapping.map_or(AMOUNT, |mapping| mapping.amount);
        let amount = paths.iter().find_map(|path| self.amount(path));
        let (amount_minor, currency) = amount.unwrap_or_default();
        // Version 1 writes what is given back with a minus.
        let is_refund = normalised.kind.starts_with("refund.");
        let amount_minor = amount_minor
            .and_then(|minor| if is_refund { minor.checked_abs() } else { Some(minor) });
        let payer = ["payer.payer_id", "subscriber.payer_id", "payer.payer_info.payer_id"];
        let reference = [
            "invoice_id",
            "custom_id",
            "invoice_number",
            "custom",
            "purchase_units.invoice_id",
            "purchase_units.custom_id",
            "disputed_transactions.invoice_number",
            "disputed_transactions.custom",
            "payout_item.sender_item_id",
        ];
        Normalised {
            object_id: self.object_id(event_type),
            amount_minor,
            currency,
            status: self.first(&["status", "state", "transaction_status", "invoice.status"]),
            customer: self.first(&payer),
            reference: self.first(&reference),
            occurred_at_ms: self.occurred_at_ms,
            provider_version: self.version.clone(),
            ..normalised
        }
    }

    /// The payment the event is about, else the resource itself; the rule is told in `mod.rs`.
    pub(super) fn object_id(&self, event_type: &str) -> Option<String> {
        let payment = match event_type {
            "PAYMENT.CAPTURE.REFUNDED" | "PAYMENT.CAPTURE.REVERSED" => {
                self.linked_capture().or_else(|| {
                    self.first(&["capture_id", "supplementary_data.related_ids.capture_id"])
                })
            }
            "PAYMENT.SALE.REFUNDED" | "PAYMENT.SALE.REVERSED" => self.text("sale_id"),
            _ if event_type.starts_with("CHECKOUT.ORDER.") => self.first_capture(),
            "CHECKOUT.PAYMENT-APPROVAL.REVERSED" => self.text("order_id"),
            _ if event_type.contains(".DISPUTE.") => {
                let disputed = self.elements("disputed_transactions").into_iter().next();
                disputed
                    .and_then(|transaction| json::text(at(transaction, "seller_transaction_id")))
            }
            _ => None,
        };
        payment.or_else(|| {
            self.first(&[
                "id",
                "dispute_id",
                "payout_item_id",
                "invoice.id",
                "batch_header.payout_batch_id",
            ])
        })
    }

    /// The capture that a refund belongs to: the last part of its `up` link.
    fn linked_capture(&self) -> Option<String> {
        self.elements("links").into_iter().find_map(|link| {
            let [rel, href] = json::fields_of(Some(link), ["rel", "href"])?;
            json::text(rel).filter(|rel| rel == "up")?;
            let href = json::text(href)?;
            let (_, id) = href.split_once("/captures/").or_else(|| href.split_once("/capture/"))?;
            let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_id.then(|| id.to_owned())
        })
    }

    /// The first capture of an order that has been paid.
    fn first_capture(&self) -> Option<String> {
        let unit = self.elements("purchase_units").into_iter().next()?;
        let capture = elements(at(unit, "payments.captures")).into_iter().next()?;
        json::text(at(capture, "id"))
    }

    fn elements(&self, path: &str) -> Vec<&'a RawValue> {
        elements(self.at(path))
    }

    fn at(&self, path: &str) -> Option<&'a RawValue> {
        at(self.resource?, path)
    }

    fn text(&self, path: &str) -> Option<String> {
        json::text(self.at(path))
    }

    fn first(&self, paths: &[&str]) -> Option<String> {
        paths.iter().find_map(|path| self.text(path))
    }

    /// Amount in minor units and currency: v2 writes `value` and `currency_code`, v1 `total`
    /// (payouts and old disputes `value`) and `currency`.
    fn amount(&self, path: &str) -> Option<(Option<i64>, Option<String>)> {
        let [value, total, code, currency] =
            json::fields_of(self.at(path), ["value", "total", "currency_code", "currency"])?;
        let currency = json::currency(code).or_else(|| json::currency(currency));
        // Some payloads have a number where the API has text: the spelling is what counts.
        let decimal = value.or(total).map(RawValue::get);
        let minor = decimal.zip(currency.as_deref());
        Some((minor.and_then(|(text, code)| money::minor_units(text, code)), currency))
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Is(path, value) | Became(path, value) => mapping::reads(self.at(path), value),
            Absent(path) => self.at(path).is_none(),
            Present(path) => self.at(path).is_some(),
        }
    }
}

/// The value at a path; where a list stands in the way its only element is meant.
fn at<'a>(value: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    path.split('.').try_fold(value, |value, name| {
        let value = if value.get().starts_with('[') { only(elements(Some(value)))? } else { value };
        let [found] = json::fields_of(Some(value), [name])?;
        found.filter(|found| found.get() != "null")
    })
}

fn only(elements: Vec<&RawValue>) -> Option<&RawValue> {
    match elements[..] {
        [element] => Some(element),
        _ => None,
    }
}

/// The elements of a list; none where there is no list.
fn elements(value: Option<&RawValue>) -> Vec<&RawValue> {
    value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
}
