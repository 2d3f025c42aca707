//! Partitions that nobody holds.
//!
//! With cooperative rebalancing a partition moves in two rebalances: its owner gives it up and joins again, so
//! that another one gets it. If the owner is killed between the two it comes back as the static member that
//! it was, and the broker gives it its place without a rebalance. The second one never comes: the group is stable,
//! all are ready, and the partition is nobody's until a member joins or leaves.
//!
//! So every worker looks at its group now and then. A partition that has been missing for longer than a session
//! lasts is not on its way any more; the worker then leaves and joins again, which makes a rebalance.

use super::options::Subscription;
use crate::client::{ClientSettings, Events, Isolation};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use std::{
    collections::BTreeSet,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// State of a group in which nothing is on its way.
const STABLE: &str = "Stable";

type Partition = (String, i32);

/// Looks after a group, for one of its workers.
pub(super) struct Watcher {
    client: BaseConsumer<Events>,
    group: String,
    subscription: Subscription,
    /// How long a partition may be nobody's.
    patience: Duration,
}

impl Watcher {
    pub fn new(
        settings: &ClientSettings,
        group: &str,
        subscription: &Subscription,
        patience: Duration,
    ) -> Result<Watcher, KafkaError> {
        Ok(Watcher {
            client: settings
                .reader_config(Isolation::ReadUncommitted)
                .create_with_context(Events::default())?,
            group: group.to_owned(),
            subscription: subscription.clone(),
            patience,
        })
    }

    /// Tells of partitions that were nobody's for the whole of the patience, and again each time it has passed
    /// once more. Ends when the worker is to stop.
    pub fn run(self, orphaned: &SyncSender<Vec<(String, i32)>>, stop: &AtomicBool) {
        let mut known: (BTreeSet<Partition>, Instant) = (BTreeSet::new(), Instant::now());
        while !stop.load(Ordering::Acquire) {
            std::thread::sleep(self.patience / 4);
            // Its log and errors are served here; nothing is ever delivered.
            self.client.poll(Duration::ZERO);
            // What cannot be asked now is asked next time; whether Kafka answers is others' to tell.
            let missing = self.look().unwrap_or_default();
            known.0.retain(|partition| missing.contains(partition));
            if known.0.is_empty() {
                known = (missing, Instant::now());
                continue;
            }
            if known.1.elapsed() < self.patience {
                continue;
            }
            match orphaned.try_send(known.0.iter().cloned().collect()) {
                Err(TrySendError::Disconnected(_)) => return,
                Ok(()) | Err(TrySendError::Full(_)) => known.1 = Instant::now(),
            }
        }
    }

    /// The partitions that the group reads and no member has; none while members are changing.
    fn look(&self) -> Result<BTreeSet<Partition>, KafkaError> {
        let found = self.client.fetch_group_list(Some(&self.group), ANSWER_LIMIT)?;
        let group = found.groups().iter().find(|group| group.name() == self.group);
        let Some(group) = group.filter(|group| group.state() == STABLE) else {
            return Ok(BTreeSet::new());
        };
        let mut missing = BTreeSet::new();
        let metadata = self.client.fetch_metadata(None, ANSWER_LIMIT)?;
        for topic in metadata.topics().iter().filter(|topic| self.subscription.has(topic.name())) {
            for partition in topic.partitions() {
                missing.insert((topic.name().to_owned(), partition.id()));
            }
        }
        for member in group.members() {
            match member.assignment().map(assigned) {
                Some(Some(held)) => missing.retain(|partition| !held.contains(partition)),
                // A member that does not say what it has may have anything.
                _ => return Ok(BTreeSet::new()),
            }
        }
        Ok(missing)
    }
}

/// What a member holds: `ConsumerProtocolAssignment`, of which all versions begin alike (version, then topics
/// with their partitions). `None` if it is not whole.
fn assigned(mut bytes: &[u8]) -> Option<BTreeSet<Partition>> {
    let rest = &mut bytes;
    if rest.is_empty() {
        return Some(BTreeSet::new());
    }
    take::<2>(rest)?;
    let mut held = BTreeSet::new();
    for _ in 0..i32::from_be_bytes(take(rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        *rest = after;
        let topic = std::str::from_utf8(name).ok()?;
        for _ in 0..i32::from_be_bytes(take(rest)?) {
            held.insert((topic.to_owned(), i32::from_be_bytes(take(rest)?)));
        }
    }
    Some(held)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_assignment_is_read_whole_or_not_at_all() {
        // Version 1, two topics, user data of no bytes.
        let mut bytes = vec![0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];
        bytes.extend([0, 2, b'b', b'c', 0, 0, 0, 1, 0, 0, 0, 3]);
        let end = bytes.len();
        bytes.extend([0, 0, 0, 0]);
        let wanted =
            BTreeSet::from([("a".to_owned(), 0), ("a".to_owned(), 7), ("bc".to_owned(), 3)]);
        assert_eq!(assigned(&bytes), Some(wanted));
        assert_eq!(assigned(&[]), Some(BTreeSet::new()), "a member that has nothing yet");
        for length in 1..end {
            assert_eq!(assigned(&bytes[..length]), None, "{length}");
        }
        assert_eq!(assigned(&[0, 0, 0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff]), None);
    }
}
