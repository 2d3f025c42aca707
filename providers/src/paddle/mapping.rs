//! Which canonical kind a Paddle event is, as a table.
//!
//! A transaction that is paid is announced three times: `transaction.billed` (an invoice was
//! issued), `transaction.paid`, and `transaction.completed` when Paddle has worked out all of its
//! totals. Only the last one is `payment.succeeded`. `transaction.updated` repeats whatever happened
//! and passes through.
//!
//! An adjustment is a refund, a credit or a chargeback by its `action`. A refund that waits for
//! Paddle's approval is `refund.created`, and its update says how it ended; one that is approved when
//! it is made has no update, and is `refund.succeeded` at once. A chargeback opens a dispute, its
//! reversal wins it; the warnings before are updates. Credits pass through.
//!
//! Amounts are whole numbers of the currency's smallest unit, written as strings: for a transaction
//! `grand_total`, which is what the customer pays.

use serde_json::value::RawValue;

use crate::Condition::Is;
use crate::mapping::{self, row, row_when};
use crate::{Condition, Mapping, json};

const TRANSACTION: &[&str] = &["details.totals.grand_total", "details.totals.total"];
const ADJUSTMENT: &[&str] = &["totals.total"];
const PAYOUT: &[&str] = &["amount"];
/// Where an amount may be in an event without a row.
pub(super) const ANY: &[&str] =
    &["details.totals.grand_total", "details.totals.total", "totals.total", "amount"];

const REFUND: Condition = Is("action", "refund");
const APPROVED: Condition = Is("status", "approved");

pub(super) const MAPPINGS: &[Mapping] = &[
    row("transaction.created", "payment.created", TRANSACTION),
    row("transaction.completed", "payment.succeeded", TRANSACTION),
    row("transaction.payment_failed", "payment.failed", TRANSACTION),
    row("transaction.canceled", "payment.cancelled", TRANSACTION),
    row_when("adjustment.created", &[REFUND, APPROVED], "refund.succeeded", ADJUSTMENT),
    row_when(
        "adjustment.created",
        &[REFUND, Is("status", "pending_approval")],
        "refund.created",
        ADJUSTMENT,
    ),
    row_when("adjustment.updated", &[REFUND, APPROVED], "refund.succeeded", ADJUSTMENT),
    row_when(
        "adjustment.updated",
        &[REFUND, Is("status", "rejected")],
        "refund.failed",
        ADJUSTMENT,
    ),
    row_when("adjustment.created", &[Is("action", "chargeback")], "dispute.opened", ADJUSTMENT),
    row_when(
        "adjustment.created",
        &[Is("action", "chargeback_warning")],
        "dispute.updated",
        ADJUSTMENT,
    ),
    row_when(
        "adjustment.created",
        &[Is("action", "chargeback_warning_reverse")],
        "dispute.updated",
        ADJUSTMENT,
    ),
    row_when(
        "adjustment.created",
        &[Is("action", "chargeback_reverse")],
        "dispute.won",
        ADJUSTMENT,
    ),
    row("payout.created", "payout.created", PAYOUT),
    row("payout.paid", "payout.paid", PAYOUT),
    row("subscription.created", "subscription.created", &[]),
    row("subscription.updated", "subscription.updated", &[]),
    row("subscription.activated", "subscription.updated", &[]),
    row("subscription.past_due", "subscription.updated", &[]),
    row("subscription.paused", "subscription.updated", &[]),
    row("subscription.resumed", "subscription.updated", &[]),
    row("subscription.canceled", "subscription.cancelled", &[]),
];

/// The first row that holds for the event.
pub(super) fn find(event_type: &str, data: &Data<'_>) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, |condition| mapping::meets(&data.0, condition))
}

/// Every field of an entity that is looked at.
const FIELDS: [&str; 9] = [
    "id",
    "transaction_id",
    "action",
    "status",
    "customer_id",
    "currency_code",
    "details",
    "totals",
    "amount",
];

/// An event's `data`; without fields where the event has none.
pub(super) struct Data<'a>(json::Object<'a, { FIELDS.len() }>);

impl<'a> Data<'a> {
    pub(super) fn parse(data: Option<&'a RawValue>) -> Self {
        Self(json::Object::of(data, FIELDS))
    }

    /// An adjustment's transaction, else the entity itself. A new subscription names a transaction
    /// too, but is none; adjustments alone have an action.
    pub(super) fn object_id(&self) -> Option<String> {
        let adjusted = self.0.get("action").and_then(|_| self.text("transaction_id"));
        adjusted.or_else(|| self.text("id"))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.text(name)
    }

    pub(super) fn currency(&self) -> Option<String> {
        json::currency(self.0.get("currency_code"))
    }

    /// The first of these amounts that is there: a whole number, written as a string.
    pub(super) fn amount(&self, paths: &[&str]) -> Option<i64> {
        self.0.text(paths.iter().find(|path| self.0.get(path).is_some())?)?.parse().ok()
    }
}
