//! Which canonical kind a Braintree notification is, as a table.
//!
//! A payment must be counted once. The charge of a subscription is `invoice.paid`, not a payment: where
//! it was paid by a slow method, `transaction_settled` follows for the same transaction and is the one
//! that says `payment.succeeded`. Refunds settle under the same kind, told apart by the transaction's
//! type (`credit`). `transaction_disbursed` reports a payment's money a second time and is passed
//! through, as is everything about accounts, cards and grants. Card payments made outside
//! subscriptions have no webhook at all.
//!
//! A disbursement of type `debit` takes money back from the merchant. That is no payout, paid or failed,
//! and is passed through; where the document names no type, as sandbox ones do, it is a credit.
//!
//! A local payment is `local_payment_completed` (instant) or `local_payment_funded` (not instant), never
//! both. Either says that the buyer is done and a transaction can be made of it, which is
//! `checkout.completed` and no payment yet. `local_payment_reversed` gives that money back because no
//! transaction was made in time: no payment was ever announced that a refund or a cancellation could
//! belong to, so it is passed through, as is `local_payment_expired`.
//! Source: <https://developer.paypal.com/braintree/docs/reference/general/webhooks/local-payment-methods>.
//!
//! A subscription that expires has come to its planned end, which is a cancellation to a consumer.
//! A dispute that was accepted is conceded: `dispute.lost`. One that expired is not decided yet.

use crate::Condition::{self, Absent, Is};
use crate::mapping::{row, row_when};
use crate::{Mapping, mapping};

const AMOUNT: &[&str] = &["amount"];
const CHARGED: &[&str] = &["transactions.transaction.amount"];
const DISPUTED: &[&str] = &["amount_disputed", "amount"];
const LOCAL: &[&str] = &["transaction.amount", "amount"];

/// Money on its way to the merchant.
const CREDIT: Condition = Is("disbursement_type", "credit");
const UNTYPED: Condition = Absent("disbursement_type");
const UNPAID: Condition = Is("success", "false");

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when("transaction_settled", &[Is("type", "credit")], "refund.succeeded", AMOUNT),
    row_when("transaction_settled", &[Is("type", "sale")], "payment.succeeded", AMOUNT),
    row_when("transaction_settlement_declined", &[Is("type", "credit")], "refund.failed", AMOUNT),
    row_when("transaction_settlement_declined", &[Is("type", "sale")], "payment.failed", AMOUNT),
    row("refund_failed", "refund.failed", AMOUNT),
    row("local_payment_completed", "checkout.completed", LOCAL),
    row("local_payment_funded", "checkout.completed", LOCAL),
    row("dispute_opened", "dispute.opened", DISPUTED),
    row("dispute_under_review", "dispute.updated", DISPUTED),
    row("dispute_disputed", "dispute.updated", DISPUTED),
    row("dispute_expired", "dispute.updated", DISPUTED),
    row("dispute_accepted", "dispute.lost", DISPUTED),
    row("dispute_auto_accepted", "dispute.lost", DISPUTED),
    row("dispute_won", "dispute.won", DISPUTED),
    row("dispute_lost", "dispute.lost", DISPUTED),
    row_when("disbursement", &[CREDIT, UNPAID], "payout.failed", AMOUNT),
    row_when("disbursement", &[UNTYPED, UNPAID], "payout.failed", AMOUNT),
    row_when("disbursement", &[CREDIT], "payout.paid", AMOUNT),
    row_when("disbursement", &[UNTYPED], "payout.paid", AMOUNT),
    row_when("disbursement_exception", &[CREDIT], "payout.failed", AMOUNT),
    row_when("disbursement_exception", &[UNTYPED], "payout.failed", AMOUNT),
    row("subscription_charged_successfully", "invoice.paid", CHARGED),
    row("subscription_charged_unsuccessfully", "invoice.payment_failed", CHARGED),
    row("subscription_went_active", "subscription.updated", &[]),
    row("subscription_went_past_due", "subscription.updated", &[]),
    row("subscription_trial_ended", "subscription.updated", &[]),
    row("subscription_canceled", "subscription.cancelled", &[]),
    row("subscription_expired", "subscription.cancelled", &[]),
];

/// The first row that holds for the event.
pub(super) fn find(
    event_type: &str,
    meets: impl Fn(&Condition) -> bool,
) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, meets)
}
