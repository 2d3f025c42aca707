//! Which canonical kind a Shopify delivery is, as a table.
//!
//! Money moves in transactions: `order_transactions/create` comes once for each that succeeded or
//! failed, with its own amount. `orders/paid` says the same of the whole order, and comes again with
//! the whole price when an order was edited and paid again. So a sale or capture is
//! `payment.succeeded`, and `orders/paid` passes through, unless `settings.payments` says that
//! orders speak for their payments: then it is the other way round.
//!
//! An order that is made is `checkout.completed`. `orders/cancelled` is the end of a payment only
//! while that is still pending: an authorisation that is given up has its own transaction (void), and
//! a paid order is refunded. `refunds/create` says that a refund was made, with the sum of its
//! transactions; that the money went is the refund's transaction. Fulfilment, products and the rest
//! pass through.
//!
//! Amounts are decimals in the currency beside them.

use serde_json::value::RawValue;

use crate::Condition::Is;
use crate::mapping::{self, row, row_when};
use crate::{Condition, Mapping, json, money};

const AMOUNT: &[&str] = &["amount"];
const TOTAL: &[&str] = &["total_price"];
/// The field of a refund whose amounts are added up.
const TRANSACTIONS: &str = "transactions";

const BY_ORDER: Condition = Is("settings.payments", "orders");
const BY_TRANSACTION: Condition = Is("settings.payments", "transactions");
const SUCCEEDED: Condition = Is("status", "success");
const FAILED: Condition = Is("status", "failure");
const ERROR: Condition = Is("status", "error");
const SALE: Condition = Is("kind", "sale");
const CAPTURE: Condition = Is("kind", "capture");
const AUTHORIZATION: Condition = Is("kind", "authorization");
const REFUND: Condition = Is("kind", "refund");

const TRANSACTION: &str = "order_transactions/create";

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when(TRANSACTION, &[SALE, SUCCEEDED, BY_TRANSACTION], "payment.succeeded", AMOUNT),
    row_when(TRANSACTION, &[CAPTURE, SUCCEEDED, BY_TRANSACTION], "payment.succeeded", AMOUNT),
    row_when(TRANSACTION, &[CAPTURE, SUCCEEDED, BY_ORDER], "payment.captured", AMOUNT),
    row_when(TRANSACTION, &[AUTHORIZATION, SUCCEEDED], "payment.authorized", AMOUNT),
    row_when(TRANSACTION, &[SALE, FAILED], "payment.failed", AMOUNT),
    row_when(TRANSACTION, &[SALE, ERROR], "payment.failed", AMOUNT),
    row_when(TRANSACTION, &[CAPTURE, FAILED], "payment.failed", AMOUNT),
    row_when(TRANSACTION, &[CAPTURE, ERROR], "payment.failed", AMOUNT),
    row_when(TRANSACTION, &[AUTHORIZATION, FAILED], "payment.failed", AMOUNT),
    row_when(TRANSACTION, &[AUTHORIZATION, ERROR], "payment.failed", AMOUNT),
    row_when(TRANSACTION, &[Is("kind", "void"), SUCCEEDED], "payment.cancelled", AMOUNT),
    row_when(TRANSACTION, &[REFUND, SUCCEEDED], "refund.succeeded", AMOUNT),
    row_when(TRANSACTION, &[REFUND, FAILED], "refund.failed", AMOUNT),
    row_when(TRANSACTION, &[REFUND, ERROR], "refund.failed", AMOUNT),
    row("orders/create", "checkout.completed", TOTAL),
    row_when(
        "orders/paid",
        &[Is("financial_status", "paid"), BY_ORDER],
        "payment.succeeded",
        TOTAL,
    ),
    row_when("orders/cancelled", &[Is("financial_status", "pending")], "payment.cancelled", TOTAL),
    row("refunds/create", "refund.created", &[TRANSACTIONS]),
    row("disputes/create", "dispute.opened", AMOUNT),
    row_when("disputes/update", &[Is("status", "won")], "dispute.won", AMOUNT),
    row_when("disputes/update", &[Is("status", "lost")], "dispute.lost", AMOUNT),
    row("disputes/update", "dispute.updated", AMOUNT),
    row("subscription_contracts/create", "subscription.created", &[]),
    row("subscription_contracts/update", "subscription.updated", &[]),
    row("subscription_contracts/activate", "subscription.updated", &[]),
    row("subscription_contracts/pause", "subscription.updated", &[]),
    row("subscription_contracts/fail", "subscription.updated", &[]),
    row("subscription_contracts/expire", "subscription.cancelled", &[]),
    row("subscription_contracts/cancel", "subscription.cancelled", &[]),
    row("subscription_billing_attempts/success", "invoice.paid", &[]),
    row("subscription_billing_attempts/failure", "invoice.payment_failed", &[]),
];

/// Which topic speaks for payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payments {
    /// `order_transactions/create`.
    Transactions,
    /// `orders/paid`.
    Orders,
}

/// The first row that holds for the delivery.
pub(super) fn find(
    topic: &str,
    object: &Object<'_>,
    payments: Payments,
) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, topic, |condition| match condition {
        &BY_ORDER => payments == Payments::Orders,
        &BY_TRANSACTION => payments == Payments::Transactions,
        condition => mapping::meets(&object.0, condition),
    })
}

/// Every field of a body that is looked at.
const FIELDS: [&str; 21] = [
    "id",
    "order_id",
    "topic",
    "action",
    "kind",
    "status",
    "financial_status",
    "amount",
    "total_price",
    TRANSACTIONS,
    "currency",
    "currency_code",
    "test",
    "name",
    "customer",
    "customer_id",
    "app_subscription",
    "updated_at",
    "processed_at",
    "initiated_at",
    "created_at",
];

/// Longest list of a refund's transactions that is added up; Shopify's own limit is far lower.
const MAX_TRANSACTIONS: usize = 1000;

/// An amount that is known with its currency, or a currency alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Money {
    /// In minor units.
    pub(super) amount_minor: Option<i64>,
    /// ISO 4217 code.
    pub(super) currency: Option<String>,
}

/// The body of a delivery.
pub(super) struct Object<'a>(json::Object<'a, { FIELDS.len() }>);

impl<'a> Object<'a> {
    /// `None` when the body is no JSON object.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        json::Object::parse(body, FIELDS).map(Self)
    }

    /// The order, else the object itself.
    pub(super) fn id(&self) -> Option<String> {
        self.0
            .id("order_id")
            .or_else(|| self.0.id("id"))
            .or_else(|| self.0.text("app_subscription.admin_graphql_api_id"))
    }

    /// The type of an Events delivery, whose body holds it: `Order/update`.
    pub(super) fn events_type(&self) -> Option<String> {
        Some(format!("{}/{}", self.0.text("topic")?, self.0.text("action")?))
    }

    pub(super) fn status(&self) -> Option<String> {
        let paths = ["status", "financial_status", "app_subscription.status"];
        paths.iter().find_map(|path| self.0.text(path))
    }

    pub(super) fn customer(&self) -> Option<String> {
        self.0.id("customer.id").or_else(|| self.0.id("customer_id"))
    }

    /// The order's number as the shop writes it.
    pub(super) fn reference(&self, topic: &str) -> Option<String> {
        topic.starts_with("orders/").then(|| self.0.text("name")).flatten()
    }

    pub(super) fn livemode(&self) -> Option<bool> {
        json::boolean(self.0.get("test")).map(|test| !test)
    }

    pub(super) fn occurred_at_ms(&self) -> Option<i64> {
        let paths = ["updated_at", "processed_at", "initiated_at", "created_at"];
        paths.iter().find_map(|path| json::time_ms(self.0.get(path)))
    }

    /// The first of the amounts that is there.
    pub(super) fn money(&self, amounts: &[&str]) -> Money {
        if amounts == [TRANSACTIONS] {
            return refunded(self.0.get(TRANSACTIONS)).unwrap_or_default();
        }
        let currency = json::currency(self.0.get("currency"))
            .or_else(|| json::currency(self.0.get("currency_code")));
        let amount = amounts.iter().find_map(|path| self.0.get(path));
        let amount_minor = amount
            .zip(currency.as_deref())
            .and_then(|(amount, currency)| money::minor_units(amount.get(), currency));
        Money { amount_minor, currency }
    }
}

/// The sum of a refund's transactions; none where they differ in currency, or one has no amount.
fn refunded(transactions: Option<&RawValue>) -> Option<Money> {
    let transactions: Vec<&RawValue> = serde_json::from_str(transactions?.get()).ok()?;
    if transactions.len() > MAX_TRANSACTIONS {
        return None;
    }
    let mut sum = Money::default();
    for transaction in transactions {
        let [kind, amount, currency] =
            json::fields_of(Some(transaction), ["kind", "amount", "currency"])?;
        if !mapping::reads(kind, "refund") {
            continue;
        }
        let currency = json::currency(currency)?;
        if sum.currency.as_ref().is_some_and(|other| *other != currency) {
            return None;
        }
        let amount = money::minor_units(amount?.get(), &currency)?;
        sum.amount_minor = Some(sum.amount_minor.unwrap_or(0).checked_add(amount)?);
        sum.currency = Some(currency);
    }
    Some(sum)
}
