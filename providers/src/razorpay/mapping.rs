//! Which canonical kind a Razorpay event is, as a table.
//!
//! A captured payment is announced by `payment.captured`, and its order, its payment link, its
//! invoice and its subscription announce themselves as well. `payment.captured` is
//! `payment.succeeded`; `order.paid` and `subscription.charged` pass through, and the others have
//! kinds of their own that are not sums of payments. A payment may be authorised and captured at
//! once: then both events come. `refund.processed` is the refund that went through, part or whole;
//! `refund.speed_changed` passes. A dispute that is `closed` has ended without a decision against the merchant: `dispute.won`.
//! `subscription.authenticated` comes once, when a subscription begins; `subscription.activated`
//! comes again after every pause, and is an update.
//!
//! Amounts are whole numbers of the currency's own smallest unit, so of ISO 4217's exponent: JPY has
//! none, KWD, BHD and OMR have three decimal places (the last one is always zero).

use serde_json::value::RawValue;

use crate::mapping::{self, row};
use crate::{Mapping, json};

const AMOUNT: &[&str] = &["amount"];
const PAID: &[&str] = &["amount_paid", "amount"];

pub(super) const MAPPINGS: &[Mapping] = &[
    row("payment.pending", "payment.pending", AMOUNT),
    row("payment.authorized", "payment.authorized", AMOUNT),
    row("payment.captured", "payment.succeeded", AMOUNT),
    row("payment.failed", "payment.failed", AMOUNT),
    row("refund.created", "refund.created", AMOUNT),
    row("refund.processed", "refund.succeeded", AMOUNT),
    row("refund.failed", "refund.failed", AMOUNT),
    row("payment.dispute.created", "dispute.opened", AMOUNT),
    row("payment.dispute.under_review", "dispute.updated", AMOUNT),
    row("payment.dispute.action_required", "dispute.updated", AMOUNT),
    row("payment.dispute.closed", "dispute.won", AMOUNT),
    row("payment.dispute.won", "dispute.won", AMOUNT),
    row("payment.dispute.lost", "dispute.lost", AMOUNT),
    row("settlement.processed", "payout.paid", AMOUNT),
    row("payout.initiated", "payout.created", AMOUNT),
    row("payout.processed", "payout.paid", AMOUNT),
    row("payout.failed", "payout.failed", AMOUNT),
    row("payout.reversed", "payout.failed", AMOUNT),
    row("subscription.authenticated", "subscription.created", &[]),
    row("subscription.activated", "subscription.updated", &[]),
    row("subscription.updated", "subscription.updated", &[]),
    row("subscription.pending", "subscription.updated", &[]),
    row("subscription.halted", "subscription.updated", &[]),
    row("subscription.paused", "subscription.updated", &[]),
    row("subscription.resumed", "subscription.updated", &[]),
    row("subscription.completed", "subscription.updated", &[]),
    row("subscription.cancelled", "subscription.cancelled", &[]),
    row("invoice.paid", "invoice.paid", PAID),
    row("payment_link.paid", "checkout.completed", PAID),
];

/// The row of an event type.
pub(super) fn find(event_type: &str) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, |_| true)
}

/// The name under which the payload holds what the event is about.
pub(super) fn entity_of(event_type: &str) -> &str {
    let family = event_type.rsplit_once('.').map_or(event_type, |(family, _)| family);
    if family == "payment.dispute" { "dispute" } else { family }
}

/// Whether entities of this name are objects of their own, even where a payment comes with them.
pub(super) fn stands_alone(entity: &str) -> bool {
    ["subscription", "invoice", "payout", "settlement", "transfer", "fund_account.validation"]
        .contains(&entity)
}

/// Every field of an entity that is looked at.
const FIELDS: [&str; 9] = [
    "id",
    "payment_id",
    "status",
    "amount",
    "amount_paid",
    "currency",
    "customer_id",
    "receipt",
    "reference_id",
];

/// What an event is about; without fields where the event has nothing.
pub(super) struct Entity<'a>(json::Object<'a, { FIELDS.len() }>);

impl<'a> Entity<'a> {
    /// `wrapped` is the entity's place in the payload, which holds it as `entity`.
    pub(super) fn parse(wrapped: Option<&'a RawValue>) -> Self {
        let [entity] = json::fields_of(wrapped, ["entity"]).unwrap_or_default();
        Self(json::Object::of(entity, FIELDS))
    }

    pub(super) fn own_id(&self) -> Option<String> {
        self.0.text("id")
    }

    pub(super) fn payment_or_own_id(&self) -> Option<String> {
        self.text(&["payment_id", "id"])
    }

    /// The first of these texts that is there.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.0.text(name))
    }

    pub(super) fn currency(&self) -> Option<String> {
        json::currency(self.0.get("currency"))
    }

    pub(super) fn amount(&self, names: &[&str]) -> Option<i64> {
        names.iter().find_map(|name| json::integer(self.0.get(name)))
    }
}
