//! Which canonical kind an Adyen event is, as a table, and Adyen's own currency exponents.
//!
//! Whether an authorisation takes the money is set in the merchant account and not told by any signed
//! field, so the operator says it (`settings.capture`). Where it does, the authorisation is
//! `payment.succeeded` and no capture is reported; where it does not, the money is in
//! `payment.captured`, and nothing is `payment.succeeded`. A payment is never both.
//!
//! `success` says whether the request behind the event went well. A refused cancellation or capture
//! request changes nothing about its payment and is passed through; `CAPTURE_FAILED` does, since the
//! money of a captured payment does not arrive. `CANCEL_OR_REFUND` does not say which of the two it was
//! in any signed field, and is passed through.
//!
//! A dispute is opened by the notification of it; the chargeback that follows, with the money, updates
//! it. Some schemes and payment methods charge back without a notification before, and nothing in the
//! item says whether there was one, so such a dispute begins with `dispute.updated`. The other choice
//! would open every other dispute twice. One that is reversed is won, though a second chargeback may lose it again.

use std::borrow::Cow;

use crate::Condition::{self, Absent, Is};
use crate::mapping::{row, row_when};
use crate::{Mapping, mapping, money};

const AMOUNT: &[&str] = &["amount.value"];
const DATA_AMOUNT: &[&str] = &["data.amount.value"];
const YES: &[Condition] = &[Is("success", "true")];
const NO: &[Condition] = &[Is("success", "false")];

/// A transfer to a bank account outside the platform.
const OUT: [Condition; 2] = [Is("data.category", "bank"), Is("data.direction", "outgoing")];
/// What a transfer says first when it is booked: later notices of it say so again, with where the money is.
const BOOKED: &[Condition] =
    &[OUT[0], OUT[1], Is("data.status", "booked"), Absent("data.tracking"), Absent("data.tracing")];
const FAILED: &[Condition] = &[OUT[0], OUT[1], Is("data.status", "failed")];
const RETURNED: &[Condition] = &[OUT[0], OUT[1], Is("data.status", "returned")];
const REFUSED: &[Condition] = &[OUT[0], OUT[1], Is("data.status", "refused")];

const TRANSFER_CREATED: &str = "balancePlatform.transfer.created";
const TRANSFER_UPDATED: &str = "balancePlatform.transfer.updated";

pub(super) const MAPPINGS: &[Mapping] = &[
    row_when(
        "AUTHORISATION",
        &[Is("success", "true"), Is("settings.capture", "automatic")],
        "payment.succeeded",
        AMOUNT,
    ),
    row_when("AUTHORISATION", YES, "payment.authorized", AMOUNT),
    row_when("AUTHORISATION", NO, "payment.failed", AMOUNT),
    row("PENDING", "payment.pending", AMOUNT),
    row_when("CAPTURE", YES, "payment.captured", AMOUNT),
    row("CAPTURE_FAILED", "payment.failed", AMOUNT),
    row_when("CANCELLATION", YES, "payment.cancelled", AMOUNT),
    row_when("TECHNICAL_CANCEL", YES, "payment.cancelled", AMOUNT),
    row_when("EXPIRE", YES, "payment.cancelled", AMOUNT),
    row_when("OFFER_CLOSED", YES, "payment.cancelled", AMOUNT),
    row_when("REFUND", YES, "refund.succeeded", AMOUNT),
    row_when("REFUND", NO, "refund.failed", AMOUNT),
    row("REFUND_FAILED", "refund.failed", AMOUNT),
    row("REFUNDED_REVERSED", "refund.failed", AMOUNT),
    row("NOTIFICATION_OF_CHARGEBACK", "dispute.opened", AMOUNT),
    row("CHARGEBACK", "dispute.updated", AMOUNT),
    row("INFORMATION_SUPPLIED", "dispute.updated", AMOUNT),
    row("CHARGEBACK_REVERSED", "dispute.won", AMOUNT),
    row("PREARBITRATION_WON", "dispute.won", AMOUNT),
    row("SECOND_CHARGEBACK", "dispute.lost", AMOUNT),
    row("PREARBITRATION_LOST", "dispute.lost", AMOUNT),
    row_when("PAYOUT_THIRDPARTY", YES, "payout.paid", AMOUNT),
    row_when("PAYOUT_THIRDPARTY", NO, "payout.failed", AMOUNT),
    row("PAYOUT_DECLINE", "payout.failed", AMOUNT),
    row("PAYOUT_EXPIRE", "payout.failed", AMOUNT),
    row("PAIDOUT_REVERSED", "payout.failed", AMOUNT),
    row_when(TRANSFER_CREATED, &OUT, "payout.created", DATA_AMOUNT),
    row_when(TRANSFER_UPDATED, BOOKED, "payout.paid", DATA_AMOUNT),
    row_when(TRANSFER_UPDATED, FAILED, "payout.failed", DATA_AMOUNT),
    row_when(TRANSFER_UPDATED, RETURNED, "payout.failed", DATA_AMOUNT),
    row_when(TRANSFER_UPDATED, REFUSED, "payout.failed", DATA_AMOUNT),
];

/// What the status of a transfer to a bank account proves of it, if `field` reads one that proves anything. Notices of
/// a transfer repeat its status whenever anything else of it is known. Booked is the success that every payout comes
/// to: the money has left the account. Of instant payouts alone Adyen tells later that it was credited.
pub(super) fn outcome<'a>(
    event_type: &str,
    field: impl Fn(&str) -> Option<Cow<'a, str>>,
) -> Option<(&'static str, &'static str)> {
    let reads = |name: &str, value: &str| field(name).is_some_and(|found| found == value);
    if event_type != TRANSFER_UPDATED
        || !reads("data.category", "bank")
        || !reads("data.direction", "outgoing")
    {
        return None;
    }
    let outcomes = [
        ("booked", "payout.paid"),
        ("failed", "payout.failed"),
        ("returned", "payout.failed"),
        ("refused", "payout.failed"),
    ];
    outcomes.into_iter().find(|(status, _)| reads("data.status", status))
}

/// The first row whose conditions hold of the fields that `field` reads.
pub(super) fn find<'a>(
    event_type: &str,
    field: impl Fn(&str) -> Option<Cow<'a, str>>,
) -> Option<&'static Mapping> {
    mapping::find(MAPPINGS, event_type, |condition| match condition {
        Condition::Is(name, value) | Condition::Became(name, value) => {
            field(name).is_some_and(|found| found == *value)
        }
        Condition::Absent(name) => field(name).is_none(),
        Condition::Present(name) => field(name).is_some(),
    })
}

/// Three upper-case letters.
pub(super) fn currency(code: &str) -> Option<String> {
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    is_code.then(|| code.to_owned())
}

/// Adyen's minor units in ISO 4217's. The four currencies that differ are marked so in Adyen's list
/// (docs.adyen.com/development-resources/currency-codes). CNH is in that list, with two decimals, but
/// is no code of ISO 4217, so there is nothing to convert it to: it stays as Adyen writes it.
pub(super) fn minor_units(value: i64, currency: &str) -> Option<i64> {
    let exponent = match currency {
        "CNH" => return Some(value),
        "CLP" | "ISK" => 2,
        "CVE" | "IDR" => 0,
        other => money::exponent(other)?,
    };
    money::rescale(value, exponent, currency)
}
