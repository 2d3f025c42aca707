//! Which canonical kind a Stripe event is, as a table.
//!
//! Stripe reports one fact several ways, and a consumer that adds up `payment.succeeded` must not
//! count a payment twice. So of the events that announce the same thing one is mapped and the rest
//! stay `provider.<type>`: `payment_intent.*` speaks for its charges (a `charge.*` counts only where
//! there is no payment intent), `refund.*` for `charge.refund.updated`, `refund.failed` for the
//! update that comes with it, `invoice.paid` for `invoice.payment_succeeded`. An update counts as
//! `refund.succeeded` only when it is the one in which the status changed; a refund that succeeds
//! at once says so with `refund.created` alone, which then tells both ([`Object::proves`]). So does a dispute or a
//! payout that is over when it is made, whose end its own event may tell as well.
//!
//! `payment.succeeded` is said once for each payment. With a payment intent its capture is
//! `payment.captured` and comes with the `payment.succeeded` of the intent. A charge without one has
//! no other event that could say so: taken at once it succeeds with `charge.succeeded`, and one that
//! was only authorised then succeeds with `charge.captured`.
//!
//! Amounts are in minor units already, but for the few currencies where Stripe keeps to an exponent
//! that is not ISO 4217's any more. Those of `payment.refunded` and `payment.partially_refunded`
//! are what the payment has been refunded in total; each refund's own amount is in `refund.*`.

use serde_json::value::RawValue;

use crate::Condition::{Absent, Became, Is, Present};
use crate::mapping::{self, row, row_when};
use crate::{Condition, Mapping, json, money};

const AMOUNT: &[&str] = &["amount"];
const CAPTURED: &[&str] = &["amount_captured", "amount"];
const NO_INTENT: &[Condition] = &[Absent("payment_intent")];

pub(super) const REFUND_CREATED: &str = "refund.created";
const DISPUTE_CREATED: &str = "charge.dispute.created";
const DISPUTE_CLOSED: &str = "charge.dispute.closed";
const PAYOUT_CREATED: &str = "payout.created";
const PAYOUT_PAID: &str = "payout.paid";
const PAYOUT_FAILED: &str = "payout.failed";

pub(super) const MAPPINGS: &[Mapping] = &[
    row("payment_intent.created", "payment.created", AMOUNT),
    row("payment_intent.requires_action", "payment.pending", AMOUNT),
    row("payment_intent.processing", "payment.pending", AMOUNT),
    row("payment_intent.partially_funded", "payment.pending", AMOUNT),
    row("payment_intent.amount_capturable_updated", "payment.authorized", AMOUNT),
    row("payment_intent.succeeded", "payment.succeeded", &["amount_received", "amount"]),
    row("payment_intent.payment_failed", "payment.failed", AMOUNT),
    row("payment_intent.canceled", "payment.cancelled", AMOUNT),
    row_when("charge.pending", NO_INTENT, "payment.pending", AMOUNT),
    row_when(
        "charge.succeeded",
        &[Absent("payment_intent"), Is("captured", "false")],
        "payment.authorized",
        AMOUNT,
    ),
    row_when("charge.succeeded", NO_INTENT, "payment.succeeded", AMOUNT),
    row_when("charge.failed", NO_INTENT, "payment.failed", AMOUNT),
    row_when("charge.expired", NO_INTENT, "payment.cancelled", AMOUNT),
    row_when("charge.captured", NO_INTENT, "payment.succeeded", CAPTURED),
    row("charge.captured", "payment.captured", CAPTURED),
    row_when(
        "charge.refunded",
        &[Is("refunded", "true")],
        "payment.refunded",
        &["amount_refunded"],
    ),
    row_when(
        "charge.refunded",
        &[Is("refunded", "false")],
        "payment.partially_refunded",
        &["amount_refunded"],
    ),
    row(REFUND_CREATED, "refund.created", AMOUNT),
    row_when("refund.updated", &[Became("status", "succeeded")], "refund.succeeded", AMOUNT),
    row("refund.failed", "refund.failed", AMOUNT),
    row(DISPUTE_CREATED, "dispute.opened", AMOUNT),
    row("charge.dispute.updated", "dispute.updated", AMOUNT),
    row("charge.dispute.funds_withdrawn", "dispute.updated", AMOUNT),
    row("charge.dispute.funds_reinstated", "dispute.updated", AMOUNT),
    row_when(DISPUTE_CLOSED, &[Is("status", "won")], "dispute.won", AMOUNT),
    row_when(DISPUTE_CLOSED, &[Is("status", "lost")], "dispute.lost", AMOUNT),
    row_when(DISPUTE_CLOSED, &[Is("status", "warning_closed")], "dispute.won", AMOUNT),
    row_when(DISPUTE_CLOSED, &[Is("status", "prevented")], "dispute.won", AMOUNT),
    row(DISPUTE_CLOSED, "dispute.updated", AMOUNT),
    row(PAYOUT_CREATED, "payout.created", AMOUNT),
    row(PAYOUT_PAID, "payout.paid", AMOUNT),
    row(PAYOUT_FAILED, "payout.failed", AMOUNT),
    row("customer.subscription.created", "subscription.created", &[]),
    row("customer.subscription.updated", "subscription.updated", &[]),
    row("customer.subscription.paused", "subscription.updated", &[]),
    row("customer.subscription.resumed", "subscription.updated", &[]),
    row("customer.subscription.deleted", "subscription.cancelled", &[]),
    row("invoice.paid", "invoice.paid", &["amount_paid", "total"]),
    row("invoice.payment_failed", "invoice.payment_failed", &["amount_due", "total"]),
    row("checkout.session.completed", "checkout.completed", &["amount_total"]),
];

/// Whether events of this type may tell what others tell too, of which an earlier release knew nothing.
pub(super) fn has_moved(event_type: &str) -> bool {
    let types = [DISPUTE_CREATED, DISPUTE_CLOSED, PAYOUT_CREATED, PAYOUT_PAID, PAYOUT_FAILED];
    types.contains(&event_type)
}

/// The first row that holds for the event.
pub(super) fn find(event_type: &str, object: &Object<'_>) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, |condition| object.meets(condition))
}

/// An amount as Stripe writes it, in minor units of `currency`; as it is where there is no currency.
///
/// ISK and UGX have no minor unit but are kept in hundredths; MGA has one but is kept whole.
/// Source: <https://docs.stripe.com/currencies#special-cases>.
pub(super) fn minor_units(amount: i64, currency: Option<&str>) -> Option<i64> {
    match currency {
        Some(code @ ("ISK" | "UGX")) => money::rescale(amount, 2, code),
        Some(code @ "MGA") => money::rescale(amount, 0, code),
        _ => Some(amount),
    }
}

/// Every field of an object that is looked at.
const FIELDS: [&str; 17] = [
    "id",
    "object",
    "payment_intent",
    "charge",
    "status",
    "customer",
    "currency",
    "captured",
    "refunded",
    "amount",
    "amount_received",
    "amount_captured",
    "amount_refunded",
    "amount_paid",
    "amount_due",
    "amount_total",
    "total",
];

/// Kinds of object that belong to a payment and name it.
const PARTS_OF_A_PAYMENT: [&str; 6] =
    ["charge", "refund", "dispute", "checkout.session", "review", "radar.early_fraud_warning"];

/// An event's `data.object`; without fields where the event has none.
#[derive(Default)]
pub(super) struct Object<'a> {
    fields: [Option<&'a RawValue>; FIELDS.len()],
    previous: Option<&'a RawValue>,
}

impl<'a> Object<'a> {
    pub(super) fn parse(object: Option<&'a RawValue>, previous: Option<&'a RawValue>) -> Self {
        Self { fields: json::fields_of(object, FIELDS).unwrap_or_default(), previous }
    }

    fn get(&self, field: &str) -> Option<&'a RawValue> {
        let index = FIELDS.iter().position(|name| *name == field)?;
        self.fields[index].filter(|value| value.get() != "null")
    }

    pub(super) fn text(&self, field: &str) -> Option<String> {
        json::text(self.get(field))
    }

    /// The ID of another object: named, or expanded in place.
    pub(super) fn reference(&self, field: &str) -> Option<String> {
        let value = self.get(field);
        json::text(value).or_else(|| {
            let [id] = json::fields_of(value, ["id"])?;
            json::text(id)
        })
    }

    pub(super) fn currency(&self) -> Option<String> {
        json::currency(self.get("currency"))
    }

    pub(super) fn first_integer(&self, fields: &[&str]) -> Option<i64> {
        fields.iter().find_map(|field| json::integer(self.get(field)))
    }

    /// The payment the object is a part of, else the object itself.
    pub(super) fn payment_or_own_id(&self) -> Option<String> {
        let kind = self.text("object");
        let payment = kind
            .filter(|kind| PARTS_OF_A_PAYMENT.contains(&kind.as_str()))
            .and_then(|_| self.reference("payment_intent").or_else(|| self.reference("charge")));
        payment.or_else(|| self.text("id"))
    }

    /// What the object proves by its status where that is a last one, as states and kinds: that it has begun, where the
    /// event says so, and how it ended.
    pub(super) fn proves(&self, event_type: &str) -> Vec<(String, &'static str)> {
        let proved = || {
            let (id, status) = (self.text("id")?, self.text("status")?);
            let (object, begun) = match event_type {
                REFUND_CREATED => ("refund", Some("refund.created")),
                DISPUTE_CREATED => ("dispute", Some("dispute.opened")),
                PAYOUT_CREATED => ("payout", Some("payout.created")),
                DISPUTE_CLOSED => ("dispute", None),
                PAYOUT_PAID | PAYOUT_FAILED => ("payout", None),
                _ => return None,
            };
            let ended = match (object, status.as_str()) {
                ("refund", "succeeded") => "refund.succeeded",
                ("dispute", "won" | "lost" | "warning_closed" | "prevented") => {
                    find(DISPUTE_CLOSED, self)?.kind
                }
                ("payout", "paid") => "payout.paid",
                ("payout", "failed") => "payout.failed",
                _ => return None,
            };
            let state = |name: &str| format!("{object}:{id}:{name}");
            let begun = begun.map(|kind| (state("created"), kind));
            Some(begun.into_iter().chain([(state(&status), ended)]).collect())
        };
        proved().unwrap_or_default()
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Is(field, value) => self.is(field, value),
            Absent(field) => self.get(field).is_none(),
            Present(field) => self.get(field).is_some(),
            // Without a list of previous values there is no telling, and the event is believed.
            Became(field, value) => {
                let changed = json::fields_of(self.previous, [*field])
                    .is_none_or(|[previous]| previous.is_some());
                self.is(field, value) && changed
            }
        }
    }

    fn is(&self, field: &str, value: &str) -> bool {
        mapping::reads(self.get(field), value)
    }
}
