//! Which canonical kind a Square event is, as a table.
//!
//! Square reports the present state of an object whenever anything of it changes, without what it
//! was before. A completed payment is reported again when its fee has been worked out, when it is
//! refunded, and so on; each of those is a `payment.updated` with `COMPLETED`. So what an update tells is a
//! state ([`Object::state`]): the first event that tells it has the canonical kind, the others pass
//! through. What is made in its last status tells its beginning and its end ([`Object::proves`]): not always does an update
//! follow. `payout.sent` begins a payout, `payout.paid` ends it. An invoice is paid once its status says so;
//! part payments pass through. An inquiry that is closed has ended well, and with it what `dispute.opened` began.
//!
//! Amounts are in minor units, `total_money` with tip.

use serde_json::value::RawValue;

use crate::Condition::Is;
use crate::mapping::{self, row, row_when};
use crate::{Mapping, json};

/// Where a payment's amount is; refunds, disputes and payouts have the second alone.
pub(super) const PAID: &[&str] = &["total_money", "amount_money"];

pub(super) const MAPPINGS: &[Mapping] = &[
    row("payment.created", "payment.created", PAID),
    row_when("payment.updated", &[Is("status", "COMPLETED")], "payment.succeeded", PAID),
    row_when("payment.updated", &[Is("status", "APPROVED")], "payment.authorized", PAID),
    row_when("payment.updated", &[Is("status", "PENDING")], "payment.pending", PAID),
    row_when("payment.updated", &[Is("status", "CANCELED")], "payment.cancelled", PAID),
    row_when("payment.updated", &[Is("status", "FAILED")], "payment.failed", PAID),
    row("refund.created", "refund.created", PAID),
    row_when("refund.updated", &[Is("status", "COMPLETED")], "refund.succeeded", PAID),
    row_when("refund.updated", &[Is("status", "REJECTED")], "refund.failed", PAID),
    row_when("refund.updated", &[Is("status", "FAILED")], "refund.failed", PAID),
    row("dispute.created", "dispute.opened", PAID),
    row_when("dispute.state.updated", &[Is("state", "WON")], "dispute.won", PAID),
    row_when("dispute.state.updated", &[Is("state", "INQUIRY_CLOSED")], "dispute.won", PAID),
    row_when("dispute.state.updated", &[Is("state", "LOST")], "dispute.lost", PAID),
    row_when("dispute.state.updated", &[Is("state", "ACCEPTED")], "dispute.lost", PAID),
    row("dispute.state.updated", "dispute.updated", PAID),
    row("dispute.evidence.created", "dispute.updated", PAID),
    row("payout.sent", "payout.created", PAID),
    row("payout.paid", "payout.paid", PAID),
    row("payout.failed", "payout.failed", PAID),
    row_when("invoice.payment_made", &[Is("status", "PAID")], "invoice.paid", &[]),
    row("invoice.scheduled_charge_failed", "invoice.payment_failed", &[]),
    row("subscription.created", "subscription.created", &[]),
    row_when("subscription.updated", &[Is("status", "CANCELED")], "subscription.cancelled", &[]),
    row("subscription.updated", "subscription.updated", &[]),
];

/// Whether events of this type come again for every change of their object, and tell its present state.
pub(super) fn tells_state(event_type: &str) -> bool {
    matches!(event_type, "payment.updated" | "refund.updated" | "invoice.payment_made")
}

/// Whether events of this type may tell what others tell too, of which an earlier release knew nothing.
pub(super) fn has_moved(event_type: &str) -> bool {
    began(event_type).is_some()
        || matches!(event_type, "dispute.state.updated" | "payout.paid" | "payout.failed")
}

/// The kind of an event that says that its object has begun.
fn began(event_type: &str) -> Option<&'static str> {
    match event_type {
        "payment.created" => Some("payment.created"),
        "refund.created" => Some("refund.created"),
        "dispute.created" => Some("dispute.opened"),
        "payout.sent" => Some("payout.created"),
        _ => None,
    }
}

/// The first row that holds for the event.
pub(super) fn find(event_type: &str, object: &Object<'_>) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, |condition| mapping::meets(&object.0, condition))
}

/// Every field of an object that is looked at.
const FIELDS: [&str; 12] = [
    "id",
    "dispute_id",
    "payment_id",
    "disputed_payment",
    "status",
    "state",
    "total_money",
    "amount_money",
    "customer_id",
    "primary_recipient",
    "reference_id",
    "invoice_number",
];

/// What an event is about; without fields where the event has nothing.
pub(super) struct Object<'a>(json::Object<'a, { FIELDS.len() }>);

impl<'a> Object<'a> {
    pub(super) fn parse(object: Option<&'a RawValue>) -> Self {
        Self(json::Object::of(object, FIELDS))
    }

    /// The payment a refund or dispute belongs to, else the object itself.
    pub(super) fn payment_or_own_id(&self) -> Option<String> {
        self.text(&["payment_id", "disputed_payment.payment_id", "id", "dispute_id"])
    }

    /// The state that an event for which [`tells_state`] holds tells: kind of object, ID and status.
    pub(super) fn state(&self, event_type: &str) -> Option<String> {
        let (object, _) = event_type.split_once('.')?;
        let (id, status) = (self.text(&["id"])?, self.text(&["status"])?);
        Some(format!("{object}:{id}:{status}"))
    }

    /// What an event for which [`has_moved`] holds proves, as states and kinds: that the object has begun, where it says
    /// so, and what has become of it. Nothing where it has come to nothing yet.
    pub(super) fn proves(&self, event_type: &str) -> Vec<(String, &'static str)> {
        let outcome = || {
            let (family, _) = event_type.split_once('.')?;
            let id = self.text(&["id", "dispute_id"])?;
            let status = self.text(&["status", "state"])?;
            let by = |update| Some(find(update, self)?.kind);
            let kind = match (family, status.as_str()) {
                ("payment", "COMPLETED" | "APPROVED" | "CANCELED" | "FAILED") => {
                    by("payment.updated")?
                }
                ("refund", "COMPLETED" | "REJECTED" | "FAILED") => by("refund.updated")?,
                ("dispute", "WON" | "INQUIRY_CLOSED" | "LOST" | "ACCEPTED") => {
                    by("dispute.state.updated")?
                }
                ("payout", "PAID") => by("payout.paid")?,
                ("payout", "FAILED") => by("payout.failed")?,
                _ => return None,
            };
            let begun = began(event_type).map(|kind| (format!("{family}:{id}:created"), kind));
            Some(begun.into_iter().chain([(format!("{family}:{id}:{status}"), kind)]).collect())
        };
        outcome().unwrap_or_default()
    }

    /// The first of these texts that is there.
    pub(super) fn text(&self, paths: &[&str]) -> Option<String> {
        paths.iter().find_map(|path| self.0.text(path))
    }

    /// The first of these amounts that is there, in minor units, and its currency.
    pub(super) fn money(&self, paths: &[&str]) -> (Option<i64>, Option<String>) {
        let money = paths.iter().find_map(|path| self.0.get(path));
        let [amount, currency] = json::fields_of(money, ["amount", "currency"]).unwrap_or_default();
        (json::integer(amount), json::currency(currency))
    }
}
