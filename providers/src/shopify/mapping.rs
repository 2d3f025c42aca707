//! Which canonical kind a Shopify delivery is, as a table.
//!
//! Money moves in transactions: `order_transactions/create` comes once for each that succeeded or
//! failed, with its own amount. `orders/paid` says the same of the whole order, and comes again with
//! the whole price when an order was edited and paid again. So a sale or capture is
//! `payment.succeeded`, and `orders/paid` passes through, unless `settings.payments` says that
//! orders speak for their payments: then it is the other way round.
//!
//! No signature covers the topic. So each requires fields that only its own bodies have, and where several topics
//! have the same kind of body, the body decides as far as it can: the status of a dispute says what has become of it.
//!
//! An order that is made is `checkout.completed`. `orders/cancelled` is the end of a payment only
//! while that is still pending: an authorisation that is given up has its own transaction (void), and
//! a paid order is refunded. `refunds/create` says that a refund was made, with the sum of its
//! transactions but for those that failed; that the money went is the refund's transaction. Fulfilment, products and the rest
//! pass through.
//!
//! Amounts are decimals in the currency beside them.

use serde_json::value::RawValue;

use crate::Condition::{Absent, Is, Present};
use crate::mapping::{self, row_when};
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

/// What only orders have, and neither checkouts nor drafts of orders.
const ORDER: Condition = Present("financial_status");
/// What only disputes have.
const DISPUTE: [Condition; 2] = [Present("initiated_at"), Present("reason")];
const CONTRACT: &[Condition] = &[Present("billing_policy")];
const OF_A_CONTRACT: Condition = Present("subscription_contract_id");

const TRANSACTION: &str = "order_transactions/create";
const DISPUTE_CREATED: &str = "disputes/create";
const DISPUTE_UPDATED: &str = "disputes/update";

/// A row for disputes in this status.
const fn dispute(topic: &'static str, when: &'static [Condition], kind: &'static str) -> Mapping {
    row_when(topic, when, kind, AMOUNT)
}

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
    row_when("orders/create", &[ORDER], "checkout.completed", TOTAL),
    row_when(
        "orders/paid",
        &[Is("financial_status", "paid"), BY_ORDER],
        "payment.succeeded",
        TOTAL,
    ),
    row_when(
        "orders/cancelled",
        &[Is("financial_status", "pending"), Present("cancelled_at")],
        "payment.cancelled",
        TOTAL,
    ),
    row_when(
        "refunds/create",
        &[Present("order_id"), Present(TRANSACTIONS)],
        "refund.created",
        &[TRANSACTIONS],
    ),
    dispute(DISPUTE_CREATED, &DISPUTE, "dispute.opened"),
    dispute(DISPUTE_UPDATED, &[Is("status", "won"), DISPUTE[0], DISPUTE[1]], "dispute.won"),
    dispute(DISPUTE_UPDATED, &[Is("status", "lost"), DISPUTE[0], DISPUTE[1]], "dispute.lost"),
    dispute(DISPUTE_UPDATED, &[Is("status", "accepted"), DISPUTE[0], DISPUTE[1]], "dispute.lost"),
    dispute(DISPUTE_UPDATED, &[Is("status", "prevented"), DISPUTE[0], DISPUTE[1]], "dispute.won"),
    dispute(
        DISPUTE_UPDATED,
        &[Is("status", "charge_refunded"), DISPUTE[0], DISPUTE[1]],
        "dispute.won",
    ),
    dispute(DISPUTE_UPDATED, &DISPUTE, "dispute.updated"),
    row_when("subscription_contracts/create", CONTRACT, "subscription.created", &[]),
    row_when("subscription_contracts/update", CONTRACT, "subscription.updated", &[]),
    row_when("subscription_contracts/activate", CONTRACT, "subscription.updated", &[]),
    row_when("subscription_contracts/pause", CONTRACT, "subscription.updated", &[]),
    row_when("subscription_contracts/fail", CONTRACT, "subscription.updated", &[]),
    row_when("subscription_contracts/expire", CONTRACT, "subscription.cancelled", &[]),
    row_when("subscription_contracts/cancel", CONTRACT, "subscription.cancelled", &[]),
    row_when(
        "subscription_billing_attempts/success",
        &[OF_A_CONTRACT, Absent("error_code")],
        "invoice.paid",
        &[],
    ),
    row_when(
        "subscription_billing_attempts/failure",
        &[OF_A_CONTRACT, Present("error_code")],
        "invoice.payment_failed",
        &[],
    ),
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
const FIELDS: [&str; 27] = [
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
    "cancelled_at",
    "reason",
    "billing_policy",
    "subscription_contract_id",
    "error_code",
    "updated_at",
    "processed_at",
    "initiated_at",
    "finalized_on",
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

/// What a body proves; see [`Object::proves`].
#[derive(Debug)]
pub(super) struct Proved {
    /// Its name; `None` where the body is all that tells it apart.
    pub(super) state: Option<String>,
    pub(super) kind: String,
    /// A fact beside which it says nothing new.
    pub(super) unless: Option<String>,
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

    /// When what the body tells has come true. `processed_at` may be set to an earlier day by whoever imports an order,
    /// and a dispute holds the time when it began for ever after.
    pub(super) fn occurred_at_ms(&self) -> Option<i64> {
        let first = |paths: &[&str]| {
            paths.iter().find_map(|path| {
                json::time_ms(self.0.get(path)).or_else(|| json::day_ms(self.0.get(path)))
            })
        };
        if self.0.get("initiated_at").is_none() {
            return first(&["updated_at", "created_at", "processed_at"]);
        }
        match self.0.text("status").as_deref() {
            None | Some("needs_response") => first(&["updated_at", "initiated_at"]),
            Some("under_review") => first(&["updated_at"]),
            Some(_) => first(&["finalized_on", "updated_at"]),
        }
    }

    /// What a body that is told as `kind` proves of its order or dispute, in order: facts that come true once an object,
    /// whichever delivery tells them first. Empty where the body says one thing, whatever names it.
    pub(super) fn proves(&self, topic: &str, kind: &str) -> Vec<Proved> {
        let Some(id) = self.0.id("id") else { return Vec::new() };
        let of = |what: &str, kind: &str| Proved {
            state: Some(what.to_owned()),
            kind: kind.to_owned(),
            unless: None,
        };
        let order = |what: &str| vec![of(&format!("order:{id}:{what}"), kind)];
        let by_body = |unless| vec![Proved { state: None, kind: kind.to_owned(), unless }];
        match (topic, kind) {
            ("orders/create", "checkout.completed") => order("created"),
            ("orders/cancelled", "payment.cancelled") => order("cancelled"),
            ("orders/paid", "payment.succeeded") => {
                order(&format!("paid:{}", self.0.text("total_price").unwrap_or_default()))
            }
            (DISPUTE_CREATED | DISPUTE_UPDATED, kind) if kind.starts_with("dispute.") => {
                let opened = format!("dispute:{id}:opened");
                if kind == "dispute.updated" {
                    // Nothing has become of it: the body may be that of its beginning.
                    let begun = self.0.text("status").as_deref() == Some("needs_response");
                    return by_body(begun.then_some(opened));
                }
                let ended = find(DISPUTE_UPDATED, self, Payments::Transactions)
                    .filter(|row| matches!(row.kind, "dispute.won" | "dispute.lost"))
                    .zip(self.0.text("status"))
                    .map(|(row, status)| of(&format!("dispute:{id}:{status}"), row.kind));
                let opened = (kind == "dispute.opened").then(|| of(&opened, kind));
                opened.into_iter().chain(ended).collect()
            }
            (topic, kind)
                if topic.starts_with("subscription_contracts/")
                    && kind.starts_with("subscription.") =>
            {
                by_body(None)
            }
            _ => Vec::new(),
        }
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

/// The sum of a refund's transactions that are not known to have failed; none where they differ in currency, or one has
/// no amount.
fn refunded(transactions: Option<&RawValue>) -> Option<Money> {
    let transactions: Vec<&RawValue> = serde_json::from_str(transactions?.get()).ok()?;
    if transactions.len() > MAX_TRANSACTIONS {
        return None;
    }
    let mut sum = Money::default();
    for transaction in transactions {
        let [kind, status, amount, currency] =
            json::fields_of(Some(transaction), ["kind", "status", "amount", "currency"])?;
        let failed = ["failure", "error"].iter().any(|failed| mapping::reads(status, failed));
        if failed || !mapping::reads(kind, "refund") {
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
