//! From when on events lie where this release puts them.
//!
//! An event that begins to tell the state of its object moves to the object's partition, where all that tell the
//! same are looked at together. Redeliveries of what an earlier release took in must not move: on the other
//! partition nobody knows their original, and they would come out twice. A redelivery has the same body, and the
//! bodies in question say when they were made. So what was made before the *changeover* stays where it was, for
//! ever and whichever release takes it, and what was made after it goes to its object.
//!
//! When that was, `webhooks.raw` itself tells: earlier releases gave each record CloudEvents headers, this one gives
//! none. The changeover is the broker time of the newest such record, and [`ROLL`] more for the gateways of the old
//! release that are still running. All gateways find the same, also after a restart. Where there is no such record
//! (a new installation, or an upgrade longer ago than records are kept), all events go to their object.

use std::time::Duration;

use sluice_kafka::client::{ClientError, ClientSettings, Isolation};
use sluice_kafka::inspect::{OwnedRecord, Reader};

/// How long gateways of both releases may run side by side.
const ROLL: Duration = Duration::from_secs(3600);

/// The header that every record of an earlier release has.
const EARLIER: &str = "ce_id";

/// When the changeover was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changeover {
    /// There was none: everything is as this release has it.
    Never,
    /// At this time, in milliseconds since the Unix epoch.
    At(i64),
    /// It cannot be found out: everything stays as earlier releases had it.
    Unknown,
}

impl Changeover {
    /// Whether an event that was made at this time, as its signed body says, lies where this release puts it. One that
    /// does not say is treated as one made before.
    pub(crate) fn is_past(self, made_at_ms: Option<i64>) -> bool {
        match self {
            Self::Never => true,
            Self::At(changeover) => made_at_ms.is_some_and(|made| made >= changeover),
            Self::Unknown => false,
        }
    }

    /// Asks the topic of raw webhooks. Blocks its thread: 10 s a partition at most for each of a few dozen questions.
    ///
    /// # Errors
    /// The cluster does not answer now.
    pub(crate) fn find(settings: &ClientSettings, topic: &str) -> Result<Self, ClientError> {
        let reader = Reader::new(settings, Isolation::ReadUncommitted)?;
        let newest = reader.newest_of_the_first(topic, is_earlier)?;
        let roll = i64::try_from(ROLL.as_millis()).unwrap_or(i64::MAX);
        Ok(newest.map_or(Self::Never, |newest| Self::At(newest.saturating_add(roll))))
    }
}

fn is_earlier(record: &OwnedRecord) -> bool {
    record.headers.iter().any(|(name, _)| name == EARLIER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_stays_where_it_was() {
        let at = Changeover::At(100);
        assert!(!at.is_past(Some(99)) && at.is_past(Some(100)));
        assert!(!at.is_past(None), "a redelivery that does not say when it was made");
        assert!(Changeover::Never.is_past(None) && Changeover::Never.is_past(Some(1)));
        assert!(!Changeover::Unknown.is_past(Some(i64::MAX)));
    }
}
