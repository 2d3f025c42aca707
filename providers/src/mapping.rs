//! Finding the row of a provider's mapping table that an event meets.

use serde_json::value::RawValue;

use crate::{Condition, Mapping, json};

/// The first row of this event type whose conditions all hold.
pub(crate) fn find(
    rows: &'static [Mapping],
    event_type: &str,
    meets: impl Fn(&Condition) -> bool,
) -> Option<&'static Mapping> {
    rows.iter().find(|row| row.event_type == event_type && row.when.iter().all(&meets))
}

/// A row that holds for every event of its type.
pub(crate) const fn row(
    event_type: &'static str,
    kind: &'static str,
    amount: &'static [&'static str],
) -> Mapping {
    Mapping { event_type, when: &[], kind, amount }
}

/// A row with conditions.
pub(crate) const fn row_when(
    event_type: &'static str,
    when: &'static [Condition],
    kind: &'static str,
    amount: &'static [&'static str],
) -> Mapping {
    Mapping { event_type, when, kind, amount }
}

/// Whether the object meets a condition on its own fields. What changed it does not know, so
/// [`Condition::Became`] never holds.
pub(crate) fn meets<const N: usize>(object: &json::Object<'_, N>, condition: &Condition) -> bool {
    match condition {
        Condition::Is(field, value) => reads(object.get(field), value),
        Condition::Absent(field) => object.get(field).is_none(),
        Condition::Present(field) => object.get(field).is_some(),
        Condition::Became(..) => false,
    }
}

/// Whether a JSON value reads as `value`: strings without quotes, `true`, `false`, integers.
pub(crate) fn reads(found: Option<&RawValue>, value: &str) -> bool {
    match json::boolean(found) {
        Some(boolean) => value == if boolean { "true" } else { "false" },
        None => json::text_or_integer(found).as_deref() == Some(value),
    }
}
