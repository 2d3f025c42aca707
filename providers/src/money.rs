//! Amounts: from what providers write to minor units of the currency, exactly.
//!
//! The exponent is ISO 4217's (JPY 0, EUR 2, KWD 3). Nothing here is a floating-point number, and an
//! amount that cannot be expressed exactly is none rather than a rounded one.

use std::fmt;

use iso_currency::Currency;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::value::RawValue;

use crate::model::digest_id;

/// Codes that ISO 4217 has withdrawn (its list three) since the nineties, with the decimal places they had. Providers
/// go on telling what was paid in them, and some keep a code for years after its currency has gone.
const WITHDRAWN: &[(u32, &[&str])] = &[
    (
        0,
        &[
            "ADP", "BEF", "BYB", "BYR", "ESP", "GRD", "ITL", "LUF", "MGF", "PTE", "ROL", "TPE",
            "TRL",
        ],
    ),
    (
        2,
        &[
            "AFA", "ANG", "ATS", "AYM", "AZM", "BGL", "BGN", "CSD", "CUC", "CYP", "DEM", "EEK",
            "FIM", "FRF", "GHC", "HRK", "IEP", "LTL", "LVL", "MRO", "MTL", "MZM", "NLG", "SDD",
            "SIT", "SKK", "SLL", "SRG", "STD", "TMM", "VEB", "VEF", "YUM", "ZMK", "ZWD", "ZWL",
            "ZWN", "ZWR",
        ],
    ),
];

/// Decimal places of a currency by ISO 4217, of a withdrawn one those that it had; `None` for codes it does not know or
/// gives none (crypto-currencies, precious metals).
pub(crate) fn exponent(currency: &str) -> Option<u32> {
    let code = currency.to_ascii_uppercase();
    let current = Currency::from_code(&code).and_then(|currency| currency.exponent());
    current.map(u32::from).or_else(|| {
        let (exponent, _) = WITHDRAWN.iter().find(|(_, codes)| codes.contains(&code.as_str()))?;
        Some(*exponent)
    })
}

/// Whether a text is a decimal as JSON writes numbers, leading zeros aside: what else a parser would take for one
/// (`1_500`, `+5`, `.5`) nobody means, or nobody knows how.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, Some(power)),
        None => (text, None),
    };
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let power = power.map(|power| power.strip_prefix(['-', '+']).unwrap_or(power));
    digits(whole) && fraction.is_none_or(digits) && power.is_none_or(digits)
}

/// A decimal amount as written (`"10.50"`, `10.5`, `1e3`) in minor units of `currency`.
pub(crate) fn minor_units(decimal: &str, currency: &str) -> Option<i64> {
    let decimal = decimal.trim_matches('"');
    if !is_decimal(decimal) {
        return None;
    }
    let amount =
        Decimal::from_str_exact(decimal).or_else(|_| Decimal::from_scientific(decimal)).ok()?;
    exact(amount, exponent(currency)?)
}

/// An amount that is more than nothing, such as a total that has been refunded.
///
/// Displayed, it is a part of a fact's name: in minor units, else as the provider spells it, so that another
/// amount is another fact even where neither can be read exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Something<'a> {
    /// In minor units; `None` where it cannot be read exactly, or is negative.
    pub(crate) minor: Option<i64>,
    spelling: &'a str,
}

impl<'a> Something<'a> {
    /// `None` only where the amount is absent, `null` or exactly zero: what cannot be read is not nothing.
    pub(crate) fn of(amount: Option<&'a RawValue>, currency: Option<&str>) -> Option<Self> {
        let spelling = amount?.get();
        if spelling == "null" || is_zero(spelling) {
            return None;
        }
        let minor =
            currency.and_then(|code| minor_units(spelling, code)).filter(|minor| *minor > 0);
        Some(Self { minor, spelling })
    }
}

impl fmt::Display for Something<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longest spelling that becomes a part of a name, in bytes.
        const MAX_BYTES: usize = 64;
        match self.minor {
            Some(minor) => minor.fmt(f),
            None if self.spelling.len() <= MAX_BYTES => f.write_str(self.spelling),
            None => f.write_str(&digest_id(self.spelling.as_bytes())),
        }
    }
}

/// Whether a decimal is zero, with however many digits it is written.
fn is_zero(decimal: &str) -> bool {
    let decimal = decimal.trim_matches('"');
    let digits = decimal.split(['e', 'E']).next().unwrap_or_default();
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    digits.contains('0') && digits.bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

/// An amount in units of 10^-`exponent_used`, in minor units of `currency`: for providers that use an
/// exponent of their own for some currencies.
pub(crate) fn rescale(amount: i64, exponent_used: u32, currency: &str) -> Option<i64> {
    let amount = Decimal::try_from_i128_with_scale(i128::from(amount), exponent_used).ok()?;
    exact(amount, exponent(currency)?)
}

fn exact(amount: Decimal, exponent: u32) -> Option<i64> {
    let scaled = amount.checked_mul(Decimal::from(10_u64.checked_pow(exponent)?))?;
    if scaled.fract().is_zero() { scaled.trunc().to_i64() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_minor_units_by_the_currency_s_own_exponent() {
        for (decimal, currency, minor) in [
            ("10.50", "EUR", Some(1050)),
            ("10.5", "eur", Some(1050)),
            ("\"0.07\"", "USD", Some(7)),
            ("100", "JPY", Some(100)),
            ("100.00", "JPY", Some(100)),
            ("100.5", "JPY", None),
            ("1.234", "KWD", Some(1234)),
            ("1.2345", "KWD", None),
            ("-3.10", "BRL", Some(-310)),
            ("1e3", "EUR", Some(100_000)),
            ("0.1", "EUR", Some(10)),
            ("70.07", "USD", Some(7007)),
            ("92233720368547758.07", "EUR", Some(i64::MAX)),
            ("92233720368547758.08", "EUR", None),
            ("1", "XXQ", None),
            ("", "EUR", None),
            ("ten", "EUR", None),
            ("0x10", "EUR", None),
            ("1_500.00", "EUR", None),
            ("+5", "EUR", None),
            (".5", "EUR", None),
            ("5.", "EUR", None),
            ("5.-1", "EUR", None),
            ("1e", "EUR", None),
            ("١٠", "EUR", None),
            ("NaN", "EUR", None),
            (" 5", "EUR", None),
            ("12.50", "ANG", Some(1250)),
            ("12.50", "hrk", Some(1250)),
            ("100", "TRL", Some(100)),
            ("1.5", "BYR", None),
        ] {
            assert_eq!(minor_units(decimal, currency), minor, "{decimal} {currency}");
        }
    }

    #[test]
    fn only_zero_is_nothing() {
        let name = |amount: &str, currency| {
            let amount = RawValue::from_string(amount.to_owned()).ok();
            Something::of(amount.as_deref(), currency).map(|some| (some.to_string(), some.minor))
        };
        for zero in
            ["null", "0", "0.00", "-0", "0e7", "\"0.00\"", "0.0000000000000000000000000000000000"]
        {
            assert_eq!(name(zero, Some("EUR")), None, "{zero}");
            assert_eq!(name(zero, None), None, "{zero}");
        }
        assert!(Something::of(None, Some("EUR")).is_none());
        let long = format!("\"{}\"", "9".repeat(100));
        for (amount, currency, text, minor) in [
            ("20", Some("EUR"), "2000", Some(2000)),
            ("20.00", Some("EUR"), "2000", Some(2000)),
            ("\"20.0\"", Some("EUR"), "2000", Some(2000)),
            ("0.01", Some("EUR"), "1", Some(1)),
            ("30.299999999999997", Some("BRL"), "30.299999999999997", None),
            ("0.001", Some("EUR"), "0.001", None),
            ("20", None, "20", None),
            ("-5", Some("EUR"), "-5", None),
            ("\"\"", Some("EUR"), "\"\"", None),
            ("{}", Some("EUR"), "{}", None),
            ("false", Some("EUR"), "false", None),
            (&long, Some("EUR"), &digest_id(long.as_bytes()), None),
        ] {
            assert_eq!(name(amount, currency), Some((text.to_owned(), minor)), "{amount}");
        }
    }

    #[test]
    fn other_exponents_are_rescaled() {
        assert_eq!(rescale(500, 2, "ISK"), Some(5));
        assert_eq!(rescale(550, 2, "ISK"), None);
        assert_eq!(rescale(5, 0, "EUR"), Some(500));
        assert_eq!(rescale(1234, 3, "KWD"), Some(1234));
        assert_eq!(rescale(i64::MAX, 0, "EUR"), None);
    }
}
