//! Which canonical kind Mollie's events are, and what its API tells of a payment.
//!
//! Payments are announced twice over: by classic notices that hold an ID alone, and by next-gen
//! `payment.*` events. Both only cause the payment to be fetched, and the facts that it then *proves* count,
//! each once: rows of type `payment` (no event has that type) are those facts. A payment keeps the status `paid`
//! and its `paidAt` when it is refunded or charged back, so it proves all of that at the same time. Refunds and
//! charge-backs are told by their total, which is also the amount: a further one is another fact. A total that
//! cannot be read exactly is one too, without an amount.
//!
//! `authorizedAt` proves nothing here: it is also set where no notice has told of an authorization, and the
//! one that tells of the payment would be used up by it.
//!
//! The other events announce one fact each. A payment link that is paid is `checkout.completed`: its
//! payment speaks for the money. A refund that is cancelled before it is paid out has failed.

use serde_json::value::RawValue;

use crate::Condition::Is;
use crate::mapping::{row, row_when};
use crate::money::{self, Something};
use crate::{Fact, Fetched, Mapping, Normalised, json, mapping};

const AMOUNT: &[&str] = &["amount"];
const REFUNDED: &str = "amountRefunded";
const CHARGED_BACK: &str = "amountChargedBack";

/// The type under which the facts of a fetched payment stand in the table.
const PAYMENT: &str = "payment";

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when(PAYMENT, &[Is("status", "paid")], "payment.succeeded", AMOUNT),
    row_when(PAYMENT, &[Is(REFUNDED, "all")], "payment.refunded", &[REFUNDED]),
    row_when(PAYMENT, &[Is(REFUNDED, "a part")], "payment.partially_refunded", &[REFUNDED]),
    row_when(PAYMENT, &[Is(CHARGED_BACK, "anything")], "dispute.opened", &[CHARGED_BACK]),
    row_when(PAYMENT, &[Is("status", "open")], "payment.created", AMOUNT),
    row_when(PAYMENT, &[Is("status", "pending")], "payment.pending", AMOUNT),
    row_when(PAYMENT, &[Is("status", "authorized")], "payment.authorized", AMOUNT),
    row_when(PAYMENT, &[Is("status", "failed")], "payment.failed", AMOUNT),
    row_when(PAYMENT, &[Is("status", "canceled")], "payment.cancelled", AMOUNT),
    row_when(PAYMENT, &[Is("status", "expired")], "payment.cancelled", AMOUNT),
    row("payment-link.paid", "checkout.completed", AMOUNT),
    row("chargeback.reversed", "dispute.won", AMOUNT),
    row("refund.refunded", "refund.succeeded", AMOUNT),
    row("refund.failed", "refund.failed", AMOUNT),
    row("refund.canceled", "refund.failed", AMOUNT),
    row("payout.initiated", "payout.created", AMOUNT),
    row("payout.completed", "payout.paid", AMOUNT),
    row("payout.failed", "payout.failed", AMOUNT),
    row("sales-invoice.paid", "invoice.paid", &["totalAmount", "amount"]),
];

/// The canonical kind of an event that announces one fact.
pub(super) fn of_event(event_type: &str) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, |_| true).filter(|row| row.event_type != PAYMENT)
}

/// An amount in minor units, and its currency.
#[derive(Default)]
struct Money {
    minor: Option<i64>,
    currency: Option<String>,
}

impl Money {
    /// Of `{"value":"10.00","currency":"EUR"}`.
    fn parse(value: Option<&RawValue>) -> Self {
        let [value, currency] = json::fields_of(value, ["value", "currency"]).unwrap_or_default();
        let currency = json::currency(currency);
        let minor = value.zip(currency.as_deref());
        Self {
            minor: minor.and_then(|(value, code)| money::minor_units(value.get(), code)),
            currency,
        }
    }
}

/// A total in the same form, where it is more than nothing.
fn something(total: Option<&RawValue>) -> Option<Something<'_>> {
    let [value, currency] = json::fields_of(total, ["value", "currency"]).unwrap_or_default();
    // What has not the form of an amount is not nothing either.
    let spelled = value.filter(|value| value.get() != "null").or(total);
    Something::of(spelled, json::currency(currency).as_deref())
}

/// When a payment reached its status: where each status has its time.
const TIMES: [&str; 6] =
    ["paidAt", "authorizedAt", "canceledAt", "expiredAt", "failedAt", "createdAt"];

/// A resource of Mollie's API: a payment, or what an event embeds.
pub(super) struct Entity<'a> {
    pub(super) id: Option<String>,
    resource: Option<String>,
    status: Option<String>,
    amount: Money,
    total: Money,
    refunded: Option<Something<'a>>,
    charged_back: Option<Something<'a>>,
    metadata: Option<&'a RawValue>,
    customer: Option<String>,
    mode: Option<String>,
    times: json::Object<'a, { TIMES.len() }>,
    payment_id: Option<String>,
}

impl<'a> Entity<'a> {
    /// `None` when it is no JSON object.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let [
            id,
            resource,
            status,
            amount,
            total,
            refunded,
            charged_back,
            metadata,
            customer,
            mode,
            payment,
        ] = json::fields(
            text,
            [
                "id",
                "resource",
                "status",
                "amount",
                "totalAmount",
                REFUNDED,
                CHARGED_BACK,
                "metadata",
                "customerId",
                "mode",
                "paymentId",
            ],
        )?;
        Some(Self {
            id: json::text(id),
            resource: json::text(resource),
            status: json::text(status),
            amount: Money::parse(amount),
            total: Money::parse(total),
            refunded: something(refunded),
            charged_back: something(charged_back),
            metadata,
            customer: json::text(customer),
            mode: json::text(mode),
            times: json::Object::parse(text, TIMES)?,
            payment_id: json::text(payment),
        })
    }

    /// The payment it belongs to, else itself.
    pub(super) fn payment_or_own_id(&self) -> Option<String> {
        self.payment_id.clone().or_else(|| self.id.clone())
    }

    /// Whether real money is meant.
    pub(super) fn livemode(&self) -> Option<bool> {
        self.mode.as_deref().map(|mode| mode == "live")
    }

    /// When it reached a status, as far as Mollie tells.
    fn since_ms(&self, status: &str) -> Option<i64> {
        let time = match status {
            "paid" => "paidAt",
            "authorized" => "authorizedAt",
            "canceled" => "canceledAt",
            "expired" => "expiredAt",
            "failed" => "failedAt",
            "open" => "createdAt",
            _ => return None,
        };
        json::time_ms(self.times.get(time))
    }

    /// What a payment proves, in order. `unmapped` is the kind of what has no row.
    fn facts(&self, id: &str, status: &str, unmapped: &str) -> Vec<Fact> {
        let fact = |field: &str, value: &str, name: &str, amount_minor| {
            let row = mapping::find(
                MAPPINGS,
                PAYMENT,
                |condition| matches!(condition, Is(of, is) if *of == field && *is == value),
            );
            Fact {
                state: format!("{PAYMENT}:{id}:{name}"),
                kind: row.map_or(unmapped, |row| row.kind).to_owned(),
                amount_minor,
                since_ms: (field == "status").then(|| self.since_ms(value)).flatten(),
                formerly: Vec::new(),
            }
        };
        let of_status = |status: &str| fact("status", status, status, self.amount.minor);
        let paid = status == "paid" || self.since_ms("paid").is_some();
        let refunded = self.refunded.map(|total| {
            let all = total.minor.zip(self.amount.minor).is_some_and(|(total, all)| total >= all);
            let share = if all { "all" } else { "a part" };
            fact(REFUNDED, share, &format!("refunded:{total}"), total.minor)
        });
        let charged_back = self.charged_back.map(|total| {
            fact(CHARGED_BACK, "anything", &format!("charged-back:{total}"), total.minor)
        });
        [
            paid.then(|| of_status("paid")),
            (status != "paid").then(|| of_status(status)),
            refunded,
            charged_back,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn money(&self, field: &str) -> &Money {
        match field {
            "totalAmount" => &self.total,
            _ => &self.amount,
        }
    }

    /// `order_id` of metadata that is an object, or metadata that is a plain text.
    fn reference(&self) -> Option<String> {
        let [order, order_camel] =
            json::fields_of(self.metadata, ["order_id", "orderId"]).unwrap_or_default();
        [order, order_camel, self.metadata].into_iter().find_map(json::text_or_integer)
    }

    /// Fills in what the resource tells; the kind and the object stay.
    pub(super) fn describe(&self, normalised: Normalised, amounts: &[&str]) -> Normalised {
        let mut moneys = amounts.iter().map(|field| self.money(field));
        let money = moneys.find(|money| money.currency.is_some());
        Normalised {
            amount_minor: money.and_then(|money| money.minor),
            currency: money.and_then(|money| money.currency.clone()),
            status: self.status.clone(),
            customer: self.customer.clone(),
            reference: self.reference(),
            livemode: self.livemode().or(normalised.livemode),
            needs_hydration: false,
            ..normalised
        }
    }

    /// What a fetched payment is at present; `None` when it is no payment, or not the one asked for.
    pub(super) fn as_payment(&self, id: &str, event: Normalised) -> Option<Fetched> {
        let status = self.status.as_deref()?;
        if self.resource.as_deref() != Some(PAYMENT) || self.id.as_deref() != Some(id) {
            return None;
        }
        let facts = self.facts(id, status, &event.kind);
        let last = facts.last()?;
        let described = self.describe(event, AMOUNT);
        // Amount and time are each fact's own. What remains where all have been told is the event's and the payment's.
        let normalised = Normalised { kind: last.kind.clone(), ..described };
        Some(Fetched { normalised, facts, bare: false })
    }

    /// What a fetched order is at present. It has no canonical kind: its payments speak for it.
    pub(super) fn as_order(&self, id: &str, event: Normalised) -> Option<Fetched> {
        let status = self.status.as_deref()?;
        if self.resource.as_deref() != Some("order") || self.id.as_deref() != Some(id) {
            return None;
        }
        let normalised = self.describe(event, AMOUNT);
        let fact = Fact {
            state: format!("order:{id}:{status}"),
            kind: normalised.kind.clone(),
            amount_minor: normalised.amount_minor,
            since_ms: self.since_ms(status),
            formerly: Vec::new(),
        };
        Some(Fetched { normalised, facts: vec![fact], bare: false })
    }
}
