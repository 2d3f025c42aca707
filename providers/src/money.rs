//! Amounts: from what providers write to minor units of the currency, exactly.
//!
//! The exponent is ISO 4217's (JPY 0, EUR 2, KWD 3). Nothing here is a floating-point number, and an
//! amount that cannot be expressed exactly is none rather than a rounded one.

use iso_currency::Currency;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// Decimal places of a currency by ISO 4217; `None` for codes it does not know or gives none
/// (crypto-currencies, precious metals).
pub(crate) fn exponent(currency: &str) -> Option<u32> {
    Currency::from_code(&currency.to_ascii_uppercase())?.exponent().map(u32::from)
}

/// A decimal amount as written (`"10.50"`, `10.5`, `1e3`) in minor units of `currency`.
pub(crate) fn minor_units(decimal: &str, currency: &str) -> Option<i64> {
    let decimal = decimal.trim_matches('"');
    let amount =
        Decimal::from_str_exact(decimal).or_else(|_| Decimal::from_scientific(decimal)).ok()?;
    exact(amount, exponent(currency)?)
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
        ] {
            assert_eq!(minor_units(decimal, currency), minor, "{decimal} {currency}");
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
