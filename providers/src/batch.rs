//! Batches of JSON lines, for the providers whose payloads are not fixed: one signature over the whole
//! body, and on each line an event of its own.
//!
//! The rules, for who has to rely on them:
//! * Lines end with `\n` or `\r\n`; the last one need not. The line end belongs to no event.
//! * A byte order mark before the first line belongs to no event either.
//! * Lines of nothing but white space carry no event.
//! * Every other line is an event, whatever is in it: one that is no JSON, or has no ID, goes by the
//!   digest of its bytes, as a body of a single event would. A batch without any event is stored as one
//!   unknown event, by [`crate::Source::identify`]'s rule.
//! * Nothing is said here of IDs that repeat: that is for who removes duplicates.
//!
//! No byte is copied: an event's part is a slice of the body.

use bytes::Bytes;

use crate::registry::SettingInfo;
use crate::settings::Settings;
use crate::{BodyPart, BuildError, Identified};

/// The setting read by [`Bodies::new`].
pub(crate) const BATCH: SettingInfo = SettingInfo {
    name: "batch",
    summary: "\"ndjson\": a body is a batch, one JSON object on each line, each an event of its own by id_pointer, which it needs; default \"none\"",
};

/// What an operator should know of batches.
pub(crate) const BATCH_NOTES: &[&str] = &[
    "Amounts: what the pointer points at; sluice does not know whether that is a total.",
    "With `batch = \"ndjson\"` one signature covers a body of many events, one JSON object on each line; `\\n` and `\\r\\n` end lines, blank lines and a byte order mark are skipped. All events are stored before the one 2xx; after any other answer send the whole batch again, what was stored of it is recognised.",
    "A line of a batch that is no JSON, or holds no ID, is stored as well: by the digest of the line, as type `unknown` where no header tells another.",
    "A batch may hold `gateway.max_batch_events` lines, and its records have to fit the send queue (`gateway.queue_max_bytes`) together, the first one, which keeps the whole body beside its own line, 15.75 MiB: else 413.",
];

/// What the bodies of a source hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// One event.
    Single,
    /// One event on each line.
    Lines,
}

impl Bodies {
    /// Reads the setting; `has_id` says whether the events' own IDs are found in the body.
    pub(crate) fn new(settings: &Settings<'_>, has_id: bool) -> Result<Self, BuildError> {
        let choices = [("none", Self::Single), ("ndjson", Self::Lines)];
        let bodies = settings.choice(BATCH.name, &choices, Self::Single)?;
        if bodies == Self::Lines && !has_id {
            // By their digests two equal lines would be one event, and an ID in a header is the request's.
            let problem =
                "needs id_pointer: the lines of a batch are told apart by their IDs alone";
            return Err(settings.bad(BATCH.name, problem));
        }
        Ok(bodies)
    }

    /// How many events a body holds. Reads no event.
    pub(crate) fn count(self, body: &[u8]) -> usize {
        match self {
            Self::Single => 1,
            Self::Lines => lines(body).count(),
        }
    }

    /// A body of this one event, and its content type.
    pub(crate) fn render(self, event: &serde_json::Value) -> (&'static str, String) {
        match self {
            Self::Single => ("application/json", event.to_string()),
            Self::Lines => ("application/x-ndjson", format!("{event}\n")),
        }
    }

    /// The events of a body in order, each as `read` makes it from its bytes and their place.
    pub(crate) fn identify(
        self,
        body: &Bytes,
        read: impl Fn(&[u8], BodyPart) -> Identified,
    ) -> Vec<Identified> {
        if self == Self::Single {
            return vec![read(body, BodyPart::Whole)];
        }
        let mut events = Vec::new();
        let mut rest = lines(body);
        while let Some(line) = rest.next() {
            // Of a batch of one, what follows the line is white space, which JSON ignores. Named as the
            // whole, the line is not kept twice, and so may be as long as a single event's body.
            let alone =
                events.is_empty() && body.starts_with(line) && rest.clone().next().is_none();
            let part = if alone { BodyPart::Whole } else { BodyPart::Part(body.slice_ref(line)) };
            events.push(read(line, part));
        }
        events
    }
}

/// The lines that carry an event, without their ends.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut begin = 0;
    memchr::memchr_iter(b'\n', body)
        .chain([body.len()])
        .map(move |end| &body[std::mem::replace(&mut begin, end + 1)..end])
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    /// The bytes of each event, in order.
    fn parts(body: &[u8]) -> Vec<Vec<u8>> {
        let body = Bytes::copy_from_slice(body);
        let events = Bodies::Lines.identify(&body, |line, part| {
            let place = part.bytes(&body);
            assert!(place.starts_with(line), "a part begins with its line");
            assert!(place[line.len()..].trim_ascii().is_empty(), "and white space alone follows");
            Identified::new(None, line, BodyPart::Part(Bytes::copy_from_slice(line)))
        });
        assert_eq!(Bodies::Lines.count(&body), events.len());
        events.into_iter().map(|event| event.body.bytes(&body).to_vec()).collect()
    }

    #[test]
    fn line_ends_blank_lines_and_a_byte_order_mark_belong_to_no_event() {
        let two: [&[u8]; 2] = [b"{1}", b"{2}"];
        for body in [
            "{1}\n{2}",
            "{1}\n{2}\n",
            "{1}\r\n{2}\r\n",
            "\n{1}\n \t\n\r\n{2}\n\n",
            "\u{feff}{1}\n{2}",
        ] {
            assert_eq!(parts(body.as_bytes()), two, "{body:?}");
        }
        // Only the line end goes: what else a line holds is the event's.
        assert_eq!(parts(b" {1}\r\r\n\xff"), [&b" {1}\r"[..], b"\xff"]);
        for body in ["", "\n", "\r\n \n", "\u{feff}"] {
            assert!(parts(body.as_bytes()).is_empty(), "{body:?}");
        }
    }

    #[test]
    fn a_batch_of_one_is_the_whole_body() {
        let part = |body: &'static [u8]| {
            let body = Bytes::from_static(body);
            let mut events = Bodies::Lines
                .identify(&body, |line, part| Identified::new(None, line, part))
                .into_iter();
            (events.next().unwrap().body, events.next())
        };
        for body in [&b"{1}"[..], b"{1}\n", b"{1}\r\n\n"] {
            assert_eq!(part(body), (BodyPart::Whole, None), "{body:?}");
        }
        // A byte order mark is no JSON, and blank lines before it are not looked past.
        for body in ["\u{feff}{1}\n", "\n{1}"] {
            let wanted = BodyPart::Part(Bytes::from_static(b"{1}"));
            assert_eq!(part(body.as_bytes()), (wanted, None), "{body:?}");
        }
        assert!(part(b"{1}\n{2}").1.is_some(), "control: a batch of two");
    }

    proptest! {
        #[test]
        fn no_byte_of_a_line_is_lost(
            lines in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), any::<bool>()), 0..20),
            open_end in any::<bool>(),
        ) {
            let mut body = Vec::new();
            let mut wanted = Vec::new();
            for (at, (mut line, crlf)) in lines.iter().cloned().enumerate() {
                line.retain(|byte| *byte != b'\n');
                // A carriage return at the end would be part of the line end, a mark at the start of the body none of it.
                while line.last() == Some(&b'\r') {
                    line.pop();
                }
                let marked = at == 0 && line.starts_with(b"\xef\xbb\xbf");
                if !marked && !line.trim_ascii().is_empty() {
                    body.extend_from_slice(&line);
                    wanted.push(line);
                }
                if !open_end || at + 1 < lines.len() {
                    body.extend_from_slice(if crlf { b"\r\n" } else { b"\n" });
                }
            }
            prop_assert_eq!(parts(&body), wanted);
        }
    }
}
