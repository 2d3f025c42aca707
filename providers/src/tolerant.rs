//! One bad byte must not hide an event.
//!
//! A signature covers bytes, and what follows it reads text. A customer's name in another encoding, half a character
//! at the end of a field that was cut, a body in UTF-16: all of it is verified money, and none of it is JSON. So what
//! is not UTF-8 is read as if it were, with the replacement character for what cannot be. That is done before any
//! provider looks, for all of them. What is verified and stored stays as it came.
//!
//! What comes out is checked here too, for the same reason: once, for all. Times are told if anybody can read them, IDs of
//! objects within the bound that IDs have everywhere, and a type that the gateway has replaced, because it was too long or not
//! printable, is the same to the processor.

use std::borrow::Cow;

use bytes::Bytes;

use crate::json::tellable_ms;
use crate::model::digest_id;
use crate::source::{MAX_ID_BYTES, MAX_TYPE_BYTES};
use crate::{Fact, Fetch, Fetched, Normalise, Normalised, Payload};

/// The text of a body. Borrowed, at the cost of looking, where it is UTF-8.
pub(crate) fn readable(body: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(body).is_ok() {
        return Cow::Borrowed(body);
    }
    let unit = |bytes: fn([u8; 2]) -> u16| {
        let units = body[2..].chunks_exact(2).map(move |pair| bytes([pair[0], pair[1]]));
        char::decode_utf16(units)
            .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect::<String>()
    };
    Cow::Owned(match body {
        [0xff, 0xfe, ..] => unit(u16::from_le_bytes).into_bytes(),
        [0xfe, 0xff, ..] => unit(u16::from_be_bytes).into_bytes(),
        _ => String::from_utf8_lossy(body).into_owned().into_bytes(),
    })
}

/// As [`readable`], of a body that is shared.
pub(crate) fn readable_bytes(body: &Bytes) -> Bytes {
    match readable(body) {
        Cow::Borrowed(_) => body.clone(),
        Cow::Owned(text) => text.into(),
    }
}

/// Reads what a provider's own reader could not.
#[derive(Debug)]
pub(crate) struct Tolerant(pub(crate) Box<dyn Normalise>);

/// What `read` makes of the payload's text.
pub(crate) fn with_text<T>(payload: &Payload<'_>, read: impl FnOnce(&Payload<'_>) -> T) -> T {
    read(&Payload { body: &readable(payload.body), ..*payload })
}

/// What a reader made of an event, within the bounds that are the same for all.
pub(crate) fn checked(event_type: &str, normalised: Normalised) -> Normalised {
    Normalised {
        kind: checked_kind(event_type, normalised.kind),
        object_id: normalised.object_id.and_then(checked_id),
        occurred_at_ms: normalised.occurred_at_ms.and_then(tellable_ms),
        ..normalised
    }
}

fn all_checked(event_type: &str, mut facts: Vec<Fact>) -> Vec<Fact> {
    for fact in &mut facts {
        fact.kind = checked_kind(event_type, std::mem::take(&mut fact.kind));
        fact.since_ms = fact.since_ms.and_then(tellable_ms);
    }
    facts
}

fn checked_kind(event_type: &str, kind: String) -> String {
    match kind.strip_prefix("provider.") {
        Some(own) if own.len() > MAX_TYPE_BYTES || !own.chars().all(is_printable) => {
            format!("provider.{event_type}")
        }
        _ => kind,
    }
}

/// An ID that is not too long, or its digest where it cannot be printed safely.
pub(crate) fn checked_id(id: String) -> Option<String> {
    match id.len() {
        0..=MAX_ID_BYTES if id.chars().all(is_printable) => Some(id),
        0..=MAX_ID_BYTES => Some(digest_id(id.as_bytes())),
        _ => None,
    }
}

/// Whether a character stands for itself wherever it is printed: it is no control character, begins no line, and changes
/// neither direction nor width (Unicode TR 9, TR 36).
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

impl Normalise for Tolerant {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        checked(payload.event_type, with_text(payload, |payload| self.0.normalise(payload)))
    }

    fn facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        all_checked(payload.event_type, with_text(payload, |payload| self.0.facts(payload)))
    }

    fn tells_state(&self, payload: &Payload<'_>) -> bool {
        with_text(payload, |payload| self.0.tells_state(payload))
    }

    fn moved_facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        all_checked(payload.event_type, with_text(payload, |payload| self.0.moved_facts(payload)))
    }

    fn has_moved(&self) -> bool {
        self.0.has_moved()
    }

    fn formerly(&self, payload: &Payload<'_>) -> Vec<String> {
        with_text(payload, |payload| self.0.formerly(payload))
    }

    fn id_is_signed(&self) -> bool {
        self.0.id_is_signed()
    }

    fn fetch(&self, payload: &Payload<'_>) -> Option<Fetch> {
        with_text(payload, |payload| self.0.fetch(payload))
    }

    fn fetched(&self, payload: &Payload<'_>, answer: &[u8]) -> Fetched {
        let answer = readable(answer);
        let Fetched { normalised, facts, bare } =
            with_text(payload, |payload| self.0.fetched(payload, &answer));
        let event_type = payload.event_type;
        let normalised = checked(event_type, normalised);
        Fetched { normalised, facts: all_checked(event_type, facts), bare }
    }

    fn must_fetch(&self) -> bool {
        self.0.must_fetch()
    }

    fn is_test(&self) -> Option<bool> {
        self.0.is_test()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_short_and_can_be_printed() {
        let of = |id: &str| checked_id(id.to_owned());
        assert_eq!(of("pi_1 ü").as_deref(), Some("pi_1 ü"));
        assert_eq!(of(&"x".repeat(512)), Some("x".repeat(512)));
        assert_eq!(of(&"x".repeat(513)), None);
        for odd in ["a\nb", "\u{202e}gpj", "a\u{7f}", "\u{85}", "\u{feff}a", "a\u{2028}b", "\0"] {
            let id = of(odd).unwrap();
            assert!(id.starts_with("sha256:") && id.chars().all(is_printable), "{odd:?}");
        }
        // The gateway has replaced such a type; the processor reads the same.
        let kind = |own: &str| checked_kind("unknown", format!("provider.{own}"));
        assert_eq!(kind("a.b"), "provider.a.b");
        assert_eq!(kind(&"x".repeat(3000)), "provider.unknown");
        assert_eq!(kind("a\u{202e}"), "provider.unknown");
        assert_eq!(checked_kind("unknown", "payment.succeeded".to_owned()), "payment.succeeded");
    }

    #[test]
    fn text_stays_and_what_is_none_is_read_as_far_as_it_goes() {
        assert!(matches!(readable("{\"a\":\"\u{fc}\"}".as_bytes()), Cow::Borrowed(_)));
        assert_eq!(&*readable(b"{\"a\":\"\xfc\"}"), "{\"a\":\"\u{fffd}\"}".as_bytes());
        let wide = |bytes: fn(u16) -> [u8; 2], text: &str| {
            text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
        };
        for bytes in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            assert_eq!(&*readable(&wide(bytes, "\u{feff}{\"\u{fc}\"}")), "{\"\u{fc}\"}".as_bytes());
        }
        assert_eq!(&*readable(b"\xff\xfe"), b"");
        assert_eq!(&*readable(b"\xff"), "\u{fffd}".as_bytes());
    }
}
