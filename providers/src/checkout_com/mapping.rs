//! Which canonical kind a Checkout.com event is, and what its amounts are counted in.
//!
//! A payment's money is announced by `payment_captured` alone, once per capture with that capture's
//! own amount, so that the sum of `payment.succeeded` is what was taken. `payment_approved` is the
//! authorization before it. Every refund is announced by `payment_refunded` with its own amount.
//! `payment_paid` is about card payouts.
//!
//! A dispute opens with `dispute_received`; what follows is `dispute.updated` until it is decided:
//! not answered (`dispute_expired`) and accepted disputes are lost, withdrawn ones
//! (`dispute_canceled`) are won, and so are those resolved because the payment had been refunded before
//! (`dispute_resolved`): the disputed amount is not taken again.
//! An arbitration may follow a lost dispute and decide otherwise.
//!
//! `payment_returned` undoes what had succeeded, as banks may: a payout (it has a destination) has then failed, and so
//! has a payment by bank debit.
//! Source: <https://www.checkout.com/docs/workflows/webhook-event-types/payment_returned>.
//!
//! Declined captures, voids and authentications change no payment and stay `provider.<type>`.

use crate::Condition::Present;
use crate::mapping::{row, row_when};
use crate::{Mapping, money};

const AMOUNT: &[&str] = &["amount"];

pub(super) const MAPPINGS: &[Mapping] = &[
    row("payment_pending", "payment.pending", AMOUNT),
    row("payment_approved", "payment.authorized", AMOUNT),
    row("payment_captured", "payment.succeeded", AMOUNT),
    row("payment_declined", "payment.failed", AMOUNT),
    row("payment_expired", "payment.cancelled", AMOUNT),
    row("payment_canceled", "payment.cancelled", AMOUNT),
    row("payment_voided", "payment.cancelled", AMOUNT),
    row("payment_refund_pending", "refund.created", AMOUNT),
    row("payment_refunded", "refund.succeeded", AMOUNT),
    row("payment_refund_declined", "refund.failed", AMOUNT),
    row("payment_paid", "payout.paid", AMOUNT),
    row_when("payment_returned", &[Present("destination")], "payout.failed", AMOUNT),
    row("payment_returned", "payment.failed", AMOUNT),
    row("dispute_received", "dispute.opened", AMOUNT),
    row("dispute_evidence_required", "dispute.updated", AMOUNT),
    row("dispute_evidence_submitted", "dispute.updated", AMOUNT),
    row("dispute_resolved", "dispute.won", AMOUNT),
    row("dispute_won", "dispute.won", AMOUNT),
    row("dispute_canceled", "dispute.won", AMOUNT),
    row("dispute_arbitration_won", "dispute.won", AMOUNT),
    row("dispute_lost", "dispute.lost", AMOUNT),
    row("dispute_accepted", "dispute.lost", AMOUNT),
    row("dispute_expired", "dispute.lost", AMOUNT),
    row("dispute_arbitration_lost", "dispute.lost", AMOUNT),
];

/// An amount as Checkout.com writes it, in minor units of `currency`.
///
/// Its own table of decimal places differs from ISO 4217: pesos of Chile have two, for one.
/// Source: <https://www.checkout.com/docs/payments/accept-payments/format-the-amount-value>.
pub(super) fn minor_units(amount: i64, currency: &str) -> Option<i64> {
    const NONE: [&str; 15] = [
        "BIF", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VUV", "VND", "XAF",
        "XOF", "XPF",
    ];
    const THREE: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
    let exponent = match currency {
        _ if NONE.contains(&currency) => 0,
        _ if THREE.contains(&currency) => 3,
        // Older editions of the table and the current one disagree.
        "CLF" => return None,
        _ => 2,
    };
    money::rescale(amount, exponent, currency)
}
