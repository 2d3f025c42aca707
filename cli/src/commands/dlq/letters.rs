//! Reading and choosing dead letters.

use std::{collections::BTreeMap, fmt, ops::ControlFlow, str::FromStr};

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use sluice_kafka::{
    client::ClientError,
    inspect::{End, OwnedRecord, Reader, Start},
};
use sluice_schemas::{DeadLetter, DeadReason, DecodeError};

use crate::{decode::Decoder, exit::Usage, when};

/// The place of a letter in the dead-letter topic, written `PARTITION:OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Partition, from 0.
    pub partition: i32,
    /// Offset, from 0.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("{text:?} is not a position; write PARTITION:OFFSET, such as 3:17");
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (partition, offset) = text.split_once(':').ok_or_else(refused)?;
        if !digits(partition) || !digits(offset) {
            return Err(refused());
        }
        Ok(Self {
            partition: partition.parse().map_err(|_| refused())?,
            offset: offset.parse().map_err(|_| refused())?,
        })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why letters are dead, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reason {
    /// Every tier was tried.
    Exhausted,
    /// Trying again could not help.
    Permanent,
    /// The record could not be decoded.
    Undecodable,
    /// It lay in a tier whose delay is not known.
    UnknownTier,
}

impl Reason {
    fn is(self, reason: DeadReason) -> bool {
        matches!(
            (self, reason),
            (Self::Exhausted, DeadReason::Exhausted)
                | (Self::Permanent, DeadReason::Permanent)
                | (Self::Undecodable, DeadReason::Undecodable)
                | (Self::UnknownTier, DeadReason::UnknownTier)
        )
    }
}

/// The word for a reason in the output; what `--reason` takes.
pub fn reason_word(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Exhausted => "exhausted",
        DeadReason::Permanent => "permanent",
        DeadReason::Undecodable => "undecodable",
        DeadReason::UnknownTier => "unknown-tier",
    }
}

/// Which letters are meant; all that is given must hold.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only letters that are dead for this reason
    #[arg(long, value_enum, value_name = "R")]
    pub reason: Option<Reason>,
    /// Only letters of this source
    #[arg(long, value_name = "S")]
    pub source: Option<String>,
    /// Only letters written since this time (2026-01-31T12:00:00Z, 2d, Unix seconds)
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
}

impl Filter {
    /// Whether nothing is given, so that every letter is meant.
    pub fn is_empty(&self) -> bool {
        self.reason.is_none() && self.source.is_none() && self.since.is_none()
    }

    /// Where reading starts.
    ///
    /// # Errors
    /// `--since` is no time.
    pub fn start(&self) -> anyhow::Result<Start> {
        match &self.since {
            None => Ok(Start::Earliest),
            Some(text) => when::parse(text, when::now_ms())
                .map(Start::Time)
                .map_err(|error| Usage(format!("--since: {error}")).into()),
        }
    }

    /// Whether a letter is meant. One that cannot be read has no source and no reason.
    pub fn takes(&self, letter: &Letter) -> bool {
        let Ok(letter) = &letter.letter else {
            return self.reason.is_none() && self.source.is_none();
        };
        self.reason.is_none_or(|reason| reason.is(letter.reason))
            && self.source.as_ref().is_none_or(|source| letter.source.as_ref() == Some(source))
    }
}

/// A record of the dead-letter topic.
#[derive(Debug)]
pub struct Letter {
    /// Where it is.
    pub position: Position,
    /// When it was written, ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// Record headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The letter, or why it cannot be read.
    pub letter: Result<DeadLetter, DecodeError>,
}

/// A row of the list.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Where it is.
    pub position: Position,
    /// When it died, RFC 3339.
    pub dead_at: String,
    /// The same in ms since 1970.
    #[serde(skip)]
    pub dead_at_ms: i64,
    /// Why.
    pub reason: &'static str,
    /// `source:event_id`; empty when unreadable.
    pub event_key: String,
    /// Source.
    pub source: Option<String>,
    /// The provider's event type.
    pub event_type: Option<String>,
    /// Failed attempts.
    pub attempts: Option<i32>,
    /// Code and message of the last attempt.
    pub last_error: String,
}

/// Where reading starts to find all of `positions`.
pub fn start_at<'a>(positions: impl IntoIterator<Item = &'a Position>) -> Start {
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    for Position { partition, offset } in positions {
        let first = offsets.entry(*partition).or_insert(*offset);
        *first = (*first).min(*offset);
    }
    Start::Offsets(offsets)
}

/// Reads letters until the end or until `on_letter` breaks; blocks its thread.
///
/// # Errors
/// Kafka or the registry does not answer, or what `on_letter` says.
pub fn read(
    reader: &Reader,
    decoder: &Decoder,
    topic: &str,
    start: &Start,
    end: End,
    mut on_letter: impl FnMut(Letter) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut failure = None;
    let mut each = |record: OwnedRecord| {
        let letter = Letter {
            position: Position { partition: record.partition, offset: record.offset },
            timestamp_ms: record.timestamp_ms,
            headers: record.headers,
            letter: decoder.decode(record.value.as_deref())?,
        };
        on_letter(letter)
    };
    reader
        .read_range(topic, start, end, |record| match each(record) {
            Ok(flow) => flow,
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })
        .map_err(or_absent)?;
    failure.map_or(Ok(()), Err)
}

/// Nothing lies where a letter was looked for.
pub fn absent(position: Position, topic: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no dead letter at {position} of {topic}; `sluice dlq list` shows where they are"
    )
}

/// A position outside of what the topic holds is one without a letter; other errors stay what they are.
pub fn or_absent(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::OffsetOutOfRange { topic, partition, offset, .. } => {
            absent(Position { partition, offset }, &topic)
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_position_is_two_numbers() {
        let position: Position = "3:17".parse().unwrap();
        assert_eq!(position, Position { partition: 3, offset: 17 });
        assert_eq!(position.to_string(), "3:17");
        for text in ["", "3", "3:", ":17", "3:-1", "-3:1", "3:1:1", "a:1", "3:+1", "99999999999:1"]
        {
            let error = text.parse::<Position>().unwrap_err();
            assert!(error.contains("PARTITION:OFFSET"), "{text}: {error}");
        }
    }

    #[test]
    fn reading_starts_at_the_first_of_each_partition() {
        let positions: Vec<Position> =
            ["1:7", "0:9", "1:3"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(start_at(&positions), Start::Offsets(BTreeMap::from([(0, 9), (1, 3)])));
    }

    #[test]
    fn every_reason_is_written_as_the_option_takes_it() {
        for (option, reason) in [
            (Reason::Exhausted, DeadReason::Exhausted),
            (Reason::Permanent, DeadReason::Permanent),
            (Reason::Undecodable, DeadReason::Undecodable),
            (Reason::UnknownTier, DeadReason::UnknownTier),
        ] {
            assert_eq!(Reason::from_str(reason_word(reason), false).unwrap(), option);
            assert!(option.is(reason));
        }
        assert!(!Reason::Exhausted.is(DeadReason::Permanent));
    }

    #[test]
    fn a_filter_without_source_or_reason_takes_what_cannot_be_read() {
        let letter = Letter {
            position: Position { partition: 0, offset: 0 },
            timestamp_ms: None,
            headers: Vec::new(),
            letter: Err(DecodeError::SchemaAbsent(7)),
        };
        assert!(Filter::default().takes(&letter));
        let filter = Filter { source: Some("stripe".into()), ..Filter::default() };
        assert!(!filter.takes(&letter));
    }
}
