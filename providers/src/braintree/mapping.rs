//! Which canonical kind a Braintree notification is, as a table.
//!
//! A payment must be counted once. The charge of a subscription is `invoice.paid`, not a payment: where
//! it was paid by a slow method, `transaction_settled` follows for the same transaction and is the one
//! that says `payment.succeeded`. Refunds settle under the same kind, told apart by the transaction's
//! type (`credit`). `transaction_disbursed` reports a payment's money a second time and is passed
//! through, as is everything about accounts, cards and grants. Card payments made outside
//! subscriptions have no webhook at all.
//!
//! A subscription that expires has come to its planned end, which is a cancellation to a consumer.
//! A dispute that was accepted is conceded: `dispute.lost`. One that expired is not decided yet.

use crate::Condition::{self, Is};
use crate::mapping::{row, row_when};
use crate::{Mapping, mapping};

const AMOUNT: &[&str] = &["amount"];
const CHARGED: &[&str] = &["transactions.transaction.amount"];
const DISPUTED: &[&str] = &["amount_disputed", "amount"];

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when("transaction_settled", &[Is("type", "credit")], "refund.succeeded", AMOUNT),
    row_when("transaction_settled", &[Is("type", "sale")], "payment.succeeded", AMOUNT),
    row_when("transaction_settlement_declined", &[Is("type", "credit")], "refund.failed", AMOUNT),
    row_when("transaction_settlement_declined", &[Is("type", "sale")], "payment.failed", AMOUNT),
    row("refund_failed", "refund.failed", AMOUNT),
    row("local_payment_completed", "checkout.completed", &["transaction.amount", "amount"]),
    row("dispute_opened", "dispute.opened", DISPUTED),
    row("dispute_under_review", "dispute.updated", DISPUTED),
    row("dispute_disputed", "dispute.updated", DISPUTED),
    row("dispute_expired", "dispute.updated", DISPUTED),
    row("dispute_accepted", "dispute.lost", DISPUTED),
    row("dispute_auto_accepted", "dispute.lost", DISPUTED),
    row("dispute_won", "dispute.won", DISPUTED),
    row("dispute_lost", "dispute.lost", DISPUTED),
    row_when("disbursement", &[Is("success", "false")], "payout.failed", AMOUNT),
    row("disbursement", "payout.paid", AMOUNT),
    row("disbursement_exception", "payout.failed", AMOUNT),
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
