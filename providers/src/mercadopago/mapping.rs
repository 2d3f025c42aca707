//! Which canonical kind a Mercado Pago payment is, by what its API tells.
//!
//! A notification says that something about a payment changed, not what. So the rows are those of the
//! fetched payment (type `payment`), each state once, however many notifications find it. A payment
//! that was refunded in part keeps the status `approved`; `refunds` tells it apart. Amounts of refunds are
//! what the payment has been refunded in total.
//!
//! A charge-back is lost unless `status_detail` says otherwise: `in_process` is still open, and in one
//! that is `reimbursed` the merchant has got the money back.
//!
//! Amounts are decimals in `currency_id`.

use serde_json::value::RawValue;

use crate::Condition::{Absent, Is};
use crate::mapping::row_when;
use crate::{Condition, Fetched, Mapping, Normalised, json, mapping, money};

const AMOUNT: &[&str] = &["transaction_amount"];
const REFUNDED: &[&str] = &["transaction_amount_refunded"];

/// The type under which the states of a fetched payment stand in the table.
const PAYMENT: &str = "payment";

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when(PAYMENT, &[Is("status", "pending")], "payment.pending", AMOUNT),
    row_when(PAYMENT, &[Is("status", "in_process")], "payment.pending", AMOUNT),
    row_when(PAYMENT, &[Is("status", "authorized")], "payment.authorized", AMOUNT),
    row_when(PAYMENT, &[Is("status", "approved"), Absent("refunds")], "payment.succeeded", AMOUNT),
    row_when(PAYMENT, &[Is("status", "approved")], "payment.partially_refunded", REFUNDED),
    row_when(PAYMENT, &[Is("status", "refunded")], "payment.refunded", REFUNDED),
    row_when(PAYMENT, &[Is("status", "rejected")], "payment.failed", AMOUNT),
    row_when(PAYMENT, &[Is("status", "cancelled")], "payment.cancelled", AMOUNT),
    row_when(PAYMENT, &[Is("status", "in_mediation")], "dispute.opened", AMOUNT),
    row_when(
        PAYMENT,
        &[Is("status", "charged_back"), Is("status_detail", "in_process")],
        "dispute.updated",
        AMOUNT,
    ),
    row_when(
        PAYMENT,
        &[Is("status", "charged_back"), Is("status_detail", "reimbursed")],
        "dispute.won",
        AMOUNT,
    ),
    row_when(PAYMENT, &[Is("status", "charged_back")], "dispute.lost", AMOUNT),
];

/// A payment as the API renders it.
struct Payment<'a> {
    status: String,
    detail: Option<String>,
    amount: Option<&'a RawValue>,
    refunded: Option<&'a RawValue>,
    currency: Option<String>,
}

impl Payment<'_> {
    fn minor(&self, amount: Option<&RawValue>) -> Option<i64> {
        money::minor_units(amount?.get(), self.currency.as_deref()?)
    }

    fn refunded_minor(&self) -> Option<i64> {
        self.minor(self.refunded).filter(|minor| *minor > 0)
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Is("status", value) => self.status == *value,
            Is("status_detail", value) => self.detail.as_deref() == Some(value),
            Absent("refunds") => self.refunded_minor().is_none(),
            _ => false,
        }
    }
}

/// What the fetched payment `id` is at present; `None` when the answer is no such payment.
pub(super) fn payment(id: &str, answer: &[u8], event: Normalised) -> Option<Fetched> {
    let [
        own_id,
        status,
        detail,
        amount,
        refunded,
        currency,
        reference,
        payer,
        live,
        updated,
        created,
    ] = json::fields(
        answer,
        [
            "id",
            "status",
            "status_detail",
            "transaction_amount",
            "transaction_amount_refunded",
            "currency_id",
            "external_reference",
            "payer",
            "live_mode",
            "date_last_updated",
            "date_created",
        ],
    )?;
    if json::text_or_integer(own_id)? != id {
        return None;
    }
    let payment = Payment {
        status: json::text(status)?,
        detail: json::text(detail),
        amount,
        refunded,
        currency: json::currency(currency),
    };
    let mapping = mapping::find(MAPPINGS, PAYMENT, |condition| payment.meets(condition));
    let of_refunds = mapping.is_some_and(|mapping| mapping.amount == REFUNDED);
    let amount_minor = payment.minor(if of_refunds { payment.refunded } else { payment.amount });
    let mut state = format!("payment:{id}:{}", payment.status);
    if let (true, Some(detail)) = (payment.status == "charged_back", &payment.detail) {
        state.push_str(&format!(":{detail}"));
    }
    if let Some(minor) = payment.refunded_minor() {
        state.push_str(&format!(":refunded {minor}"));
    }
    let [customer] = json::fields_of(payer, ["id"]).unwrap_or_default();
    let normalised = Normalised {
        kind: mapping.map_or(event.kind, |mapping| mapping.kind.to_owned()),
        amount_minor,
        currency: payment.currency,
        status: Some(payment.status),
        customer: json::text_or_integer(customer),
        reference: json::text_or_integer(reference),
        occurred_at_ms: json::time_ms(updated)
            .or_else(|| json::time_ms(created))
            .or(event.occurred_at_ms),
        livemode: json::boolean(live).or(event.livemode),
        needs_hydration: false,
        ..event
    };
    Some(Fetched { normalised, state: Some(state) })
}

/// What the fetched merchant order `id` is at present. It has no canonical kind: its payments speak for
/// it. The API gives its amounts without a currency.
pub(super) fn merchant_order(id: &str, answer: &[u8], event: Normalised) -> Option<Fetched> {
    let [own_id, status, order_status, reference, updated] = json::fields(
        answer,
        ["id", "status", "order_status", "external_reference", "last_updated"],
    )?;
    if json::text_or_integer(own_id)? != id {
        return None;
    }
    let status = json::text(order_status).or_else(|| json::text(status))?;
    let state = format!("merchant_order:{id}:{status}");
    let normalised = Normalised {
        status: Some(status),
        reference: json::text_or_integer(reference),
        occurred_at_ms: json::time_ms(updated).or(event.occurred_at_ms),
        needs_hydration: false,
        ..event
    };
    Some(Fetched { normalised, state: Some(state) })
}
