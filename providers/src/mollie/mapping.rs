//! Which canonical kind Mollie's events are, and what its API tells of a payment.
//!
//! Payments are announced twice over: by classic notices that hold an ID alone, and by next-gen
//! `payment.*` events. Both only cause the payment to be fetched, and what it *is* then counts, once for
//! every state: rows of type `payment` (no event has that type) are those states. A payment that has
//! been charged back or refunded keeps the status `paid`; `reversal` stands for what became of it, and a
//! charge-back weighs more than a refund. Amounts of those rows are what was taken back in total.
//!
//! The other events announce one fact each. A payment link that is paid is `checkout.completed`: its
//! payment speaks for the money.

use serde_json::value::RawValue;

use crate::Condition::{Absent, Is};
use crate::mapping::{row, row_when};
use crate::{Condition, Fetched, Mapping, Normalised, json, mapping, money};

const AMOUNT: &[&str] = &["amount"];

/// The type under which the states of a fetched payment stand in the table.
const PAYMENT: &str = "payment";

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when(PAYMENT, &[Is("reversal", "charged back")], "dispute.opened", &["amountChargedBack"]),
    row_when(PAYMENT, &[Is("reversal", "refunded")], "payment.refunded", &["amountRefunded"]),
    row_when(
        PAYMENT,
        &[Is("reversal", "partially refunded")],
        "payment.partially_refunded",
        &["amountRefunded"],
    ),
    row_when(PAYMENT, &[Is("status", "paid"), Absent("reversal")], "payment.succeeded", AMOUNT),
    row_when(PAYMENT, &[Is("status", "open")], "payment.created", AMOUNT),
    row_when(PAYMENT, &[Is("status", "pending")], "payment.pending", AMOUNT),
    row_when(PAYMENT, &[Is("status", "authorized")], "payment.authorized", AMOUNT),
    row_when(PAYMENT, &[Is("status", "failed")], "payment.failed", AMOUNT),
    row_when(PAYMENT, &[Is("status", "canceled")], "payment.cancelled", AMOUNT),
    row_when(PAYMENT, &[Is("status", "expired")], "payment.cancelled", AMOUNT),
    row("payment-link.paid", "checkout.completed", AMOUNT),
    row("refund.refunded", "refund.succeeded", AMOUNT),
    row("refund.failed", "refund.failed", AMOUNT),
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

    fn is_something(&self) -> bool {
        self.minor.is_some_and(|minor| minor > 0)
    }
}

/// A resource of Mollie's API: a payment, or what an event embeds.
pub(super) struct Entity<'a> {
    pub(super) id: Option<String>,
    resource: Option<String>,
    status: Option<String>,
    amount: Money,
    total: Money,
    refunded: Money,
    charged_back: Money,
    metadata: Option<&'a RawValue>,
    customer: Option<String>,
    mode: Option<String>,
    changed_at_ms: Option<i64>,
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
                "amountRefunded",
                "amountChargedBack",
                "metadata",
                "customerId",
                "mode",
                "paymentId",
            ],
        )?;
        let times = json::fields(
            text,
            ["paidAt", "authorizedAt", "canceledAt", "expiredAt", "failedAt", "createdAt"],
        )?;
        Some(Self {
            id: json::text(id),
            resource: json::text(resource),
            status: json::text(status),
            amount: Money::parse(amount),
            total: Money::parse(total),
            refunded: Money::parse(refunded),
            charged_back: Money::parse(charged_back),
            metadata,
            customer: json::text(customer),
            mode: json::text(mode),
            changed_at_ms: times.into_iter().find_map(json::time_ms),
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

    /// What became of a payment that had been paid.
    fn reversal(&self) -> Option<&'static str> {
        if self.charged_back.is_something() {
            Some("charged back")
        } else if !self.refunded.is_something() {
            None
        } else if self.refunded.minor >= self.amount.minor {
            Some("refunded")
        } else {
            Some("partially refunded")
        }
    }

    fn money(&self, field: &str) -> &Money {
        match field {
            "amountChargedBack" => &self.charged_back,
            "amountRefunded" => &self.refunded,
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

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Is("reversal", value) => self.reversal() == Some(value),
            Absent("reversal") => self.reversal().is_none(),
            Is("status", value) => self.status.as_deref() == Some(value),
            _ => false,
        }
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
        if self.resource.as_deref() != Some("payment") || self.id.as_deref() != Some(id) {
            return None;
        }
        let mapping = mapping::find(MAPPINGS, PAYMENT, |condition| self.meets(condition));
        let mut state = format!("payment:{id}:{status}");
        for (name, money) in [("refunded", &self.refunded), ("charged-back", &self.charged_back)] {
            if let Some(minor) = money.minor.filter(|minor| *minor > 0) {
                state.push_str(&format!(":{name} {minor}"));
            }
        }
        let described = self.describe(event, mapping.map_or(AMOUNT, |mapping| mapping.amount));
        let kind = mapping.map_or(described.kind, |mapping| mapping.kind.to_owned());
        // The payment has no time for what was taken back from it.
        let occurred = self.reversal().is_none().then_some(self.changed_at_ms).flatten();
        let occurred_at_ms = occurred.or(described.occurred_at_ms);
        Some(Fetched {
            normalised: Normalised { kind, occurred_at_ms, ..described },
            state: Some(state),
        })
    }

    /// What a fetched order is at present. It has no canonical kind: its payments speak for it.
    pub(super) fn as_order(&self, id: &str, event: Normalised) -> Option<Fetched> {
        let status = self.status.as_deref()?;
        if self.resource.as_deref() != Some("order") || self.id.as_deref() != Some(id) {
            return None;
        }
        let state = format!("order:{id}:{status}");
        Some(Fetched { normalised: self.describe(event, AMOUNT), state: Some(state) })
    }
}
