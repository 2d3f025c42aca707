//! Which canonical kind a Mercado Pago payment is, by what its API tells.
//!
//! A notification says that something about a payment changed, not what. So the rows are facts that the
//! fetched payment (type `payment`) *proves*, each told once, however many notifications find it. A payment that
//! was refunded, charged back or is in mediation proves by `date_approved` that it had been approved, and one
//! whose status is still `approved` may have been refunded in part. Refunds are told by their total, which is
//! also the amount: a further one is another fact. A total that cannot be read exactly is one too, without an
//! amount.
//!
//! Of a charge-back `status_detail` tells the stage: `in_process` opens it, in one that is `settled` the money is
//! gone, in one that is `reimbursed` the merchant has got it back. A detail that is not known claims no
//! outcome. The stages before the present one are not taken as proven: there may have been no notification of
//! them, and the one at hand would be used up.
//!
//! A mediation that ends well leaves the payment as it was before, `approved`, and no trace that it has been.
//! So it cannot be told, and is a fact that has been told before.
//!
//! Amounts are decimals in `currency_id`.

use serde_json::value::RawValue;

use crate::Condition::Is;
use crate::mapping::row_when;
use crate::money::{self, Something};
use crate::{Fact, Fetched, Mapping, Normalised, json, mapping};

const AMOUNT: &[&str] = &["transaction_amount"];
const REFUNDED: &str = "transaction_amount_refunded";

/// The type under which the facts of a fetched payment stand in the table.
const PAYMENT: &str = "payment";

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when(PAYMENT, &[Is("status", "pending")], "payment.pending", AMOUNT),
    row_when(PAYMENT, &[Is("status", "in_process")], "payment.pending", AMOUNT),
    row_when(PAYMENT, &[Is("status", "authorized")], "payment.authorized", AMOUNT),
    row_when(PAYMENT, &[Is("status", "approved")], "payment.succeeded", AMOUNT),
    row_when(PAYMENT, &[Is(REFUNDED, "a part")], "payment.partially_refunded", &[REFUNDED]),
    row_when(PAYMENT, &[Is(REFUNDED, "all")], "payment.refunded", &[REFUNDED]),
    row_when(PAYMENT, &[Is("status", "rejected")], "payment.failed", AMOUNT),
    row_when(PAYMENT, &[Is("status", "cancelled")], "payment.cancelled", AMOUNT),
    row_when(PAYMENT, &[Is("status", "in_mediation")], "dispute.opened", AMOUNT),
    row_when(
        PAYMENT,
        &[Is("status", "charged_back"), Is("status_detail", "in_process")],
        "dispute.opened",
        AMOUNT,
    ),
    row_when(
        PAYMENT,
        &[Is("status", "charged_back"), Is("status_detail", "settled")],
        "dispute.lost",
        AMOUNT,
    ),
    row_when(
        PAYMENT,
        &[Is("status", "charged_back"), Is("status_detail", "reimbursed")],
        "dispute.won",
        AMOUNT,
    ),
    row_when(PAYMENT, &[Is("status", "charged_back")], "dispute.updated", AMOUNT),
];

/// Statuses of payments that have not been approved, whatever else the API may say.
const NOT_APPROVED: [&str; 5] = ["pending", "in_process", "authorized", "rejected", "cancelled"];

/// A payment as the API renders it.
struct Payment<'a> {
    status: String,
    detail: Option<String>,
    amount_minor: Option<i64>,
    refunded: Option<Something<'a>>,
    approved_at_ms: Option<i64>,
    captured: Option<bool>,
    refunded_at_ms: Option<i64>,
}

impl Payment<'_> {
    fn was_approved(&self) -> bool {
        let proven = self.approved_at_ms.is_some() && self.captured != Some(false);
        self.status == "approved" || proven && !NOT_APPROVED.contains(&self.status.as_str())
    }

    /// Whether nothing is left of the payment; what cannot be read is taken for a part.
    fn all_refunded(&self) -> bool {
        let total = self.refunded.and_then(|total| total.minor);
        let all = total.zip(self.amount_minor).is_some_and(|(total, all)| total >= all);
        all || self.status == "refunded"
    }

    /// What it proves, in order. `unmapped` is the kind of what has no row.
    fn facts(&self, id: &str, unmapped: &str) -> Vec<Fact> {
        let fact = |fields: &[(&str, &str)], name: &str| {
            let row = mapping::find(
                MAPPINGS,
                PAYMENT,
                |condition| matches!(condition, Is(field, value) if fields.contains(&(field, value))),
            );
            Fact {
                state: format!("{PAYMENT}:{id}:{name}"),
                kind: row.map_or(unmapped, |row| row.kind).to_owned(),
                amount_minor: self.amount_minor,
                since_ms: None,
                formerly: Vec::new(),
            }
        };
        let approved = self.was_approved().then(|| Fact {
            since_ms: self.approved_at_ms,
            ..fact(&[("status", "approved")], "approved")
        });
        let refunded = (self.refunded.is_some() || self.status == "refunded").then(|| {
            let share = if self.all_refunded() { "all" } else { "a part" };
            let total = self.refunded.map_or_else(|| "all".to_owned(), |total| total.to_string());
            Fact {
                amount_minor: self.refunded.and_then(|total| total.minor),
                since_ms: self.refunded_at_ms,
                ..fact(&[(REFUNDED, share)], &format!("refunded:{total}"))
            }
        });
        let status = (!matches!(self.status.as_str(), "approved" | "refunded")).then(|| {
            let detail = self.detail.as_deref().filter(|_| self.status == "charged_back");
            let fields =
                [("status", self.status.as_str()), ("status_detail", detail.unwrap_or(""))];
            match detail {
                Some(detail) => fact(&fields, &format!("{}:{detail}", self.status)),
                None => fact(&fields, &self.status),
            }
        });
        [approved, refunded, status].into_iter().flatten().collect()
    }
}

/// When the latest refund was made.
fn refunded_at_ms(refunds: Option<&RawValue>) -> Option<i64> {
    let times = json::elements(refunds)?.into_iter().filter_map(|refund| {
        let [created] = json::fields_of(Some(refund), ["date_created"])?;
        json::time_ms(created)
    });
    times.max()
}

/// What the fetched payment `id` is at present; `None` when the answer is no such payment.
pub(super) fn payment(id: &str, answer: &[u8], event: Normalised) -> Option<Fetched> {
    let fields = json::Object::parse(answer, PAYMENT_FIELDS)?;
    if fields.id("id")? != id {
        return None;
    }
    let currency = json::currency(fields.get("currency_id"));
    let amount = fields.get("transaction_amount").zip(currency.as_deref());
    let payment = Payment {
        status: fields.text("status")?,
        detail: fields.text("status_detail"),
        amount_minor: amount.and_then(|(amount, code)| money::minor_units(amount.get(), code)),
        refunded: Something::of(fields.get(REFUNDED), currency.as_deref()),
        approved_at_ms: json::time_ms(fields.get("date_approved")),
        captured: json::boolean(fields.get("captured")),
        refunded_at_ms: refunded_at_ms(fields.get("refunds")),
    };
    let facts = payment.facts(id, &event.kind);
    let last = facts.last()?;
    let normalised = Normalised {
        kind: last.kind.clone(),
        amount_minor: payment.amount_minor,
        status: Some(payment.status),
        customer: fields.id("payer.id"),
        reference: fields.id("external_reference"),
        occurred_at_ms: json::time_ms(fields.get("date_last_updated"))
            .or_else(|| json::time_ms(fields.get("date_created")))
            .or(event.occurred_at_ms),
        livemode: json::boolean(fields.get("live_mode")).or(event.livemode),
        needs_hydration: false,
        currency,
        ..event
    };
    Some(Fetched { normalised, facts, bare: false })
}

/// Every field of a payment that is looked at.
const PAYMENT_FIELDS: [&str; 14] = [
    "id",
    "status",
    "status_detail",
    "transaction_amount",
    REFUNDED,
    "currency_id",
    "external_reference",
    "payer",
    "live_mode",
    "date_approved",
    "date_last_updated",
    "date_created",
    "captured",
    "refunds",
];

/// What the fetched merchant order `id` is at present. It has no canonical kind: its payments speak for
/// it. The API gives its amounts without a currency. Unlike a payment it may come back to a status that it
/// has had, so the time of its last change tells its states apart.
pub(super) fn merchant_order(id: &str, answer: &[u8], event: Normalised) -> Option<Fetched> {
    let [own_id, status, order_status, reference, updated] = json::fields(
        answer,
        ["id", "status", "order_status", "external_reference", "last_updated"],
    )?;
    if json::text_or_integer(own_id)? != id {
        return None;
    }
    let status = json::text(order_status).or_else(|| json::text(status))?;
    let since_ms = json::time_ms(updated);
    let mut state = format!("merchant_order:{id}:{status}");
    if let Some(time) = since_ms {
        state.push_str(&format!(":{time}"));
    }
    let kind = event.kind.clone();
    let fact = Fact { state, kind, amount_minor: None, since_ms, formerly: Vec::new() };
    let normalised = Normalised {
        status: Some(status),
        reference: json::text_or_integer(reference),
        occurred_at_ms: since_ms.or(event.occurred_at_ms),
        needs_hydration: false,
        ..event
    };
    Some(Fetched { normalised, facts: vec![fact], bare: false })
}
