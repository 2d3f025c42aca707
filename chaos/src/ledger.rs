//! What was sent, and what was promised for it: one byte an event.
//!
//! Events are numbered from 0, and the number is in the event's ID. So the ledger needs neither keys nor
//! hashes, and millions of events fit.

use std::{
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What is to become of an event, decided when it is made and written into its ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Processed at the first attempt.
    Plain,
    /// As [`Fate::Plain`]; it is posted only after the event of its object before it was acknowledged,
    /// and must come out behind it.
    Ordered,
    /// As [`Fate::Plain`], sent in a batch of many under one signature.
    Batched,
    /// Asks the API, which knows it.
    Known,
    /// Asks the API, which fails so often (1 or 2 times) before it answers. It is processed in the
    /// end, or becomes a dead letter where other faults took its further attempts.
    Flaky(u8),
    /// The API says 404: a dead letter at once.
    Gone,
    /// The API says 503 every time: a dead letter after the last tier.
    Hopeless,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Fate; 8] = [
        Fate::Plain,
        Fate::Ordered,
        Fate::Batched,
        Fate::Known,
        Fate::Flaky(1),
        Fate::Flaky(2),
        Fate::Gone,
        Fate::Hopeless,
    ];

    /// The first letter of the event's ID.
    pub fn letter(self) -> char {
        match self {
            Fate::Plain => 'b',
            Fate::Ordered => 'o',
            Fate::Batched => 'm',
            Fate::Known => 'k',
            Fate::Flaky(1) => 'p',
            Fate::Flaky(_) => 'q',
            Fate::Gone => 'g',
            Fate::Hopeless => 'h',
        }
    }

    /// The source that the event is posted to.
    pub fn source(self) -> &'static str {
        match self {
            Fate::Plain => "bulk",
            Fate::Ordered => "line",
            Fate::Batched => "many",
            _ => "thin",
        }
    }

    /// Whether the event may end in `webhooks.processed`.
    pub fn may_be_processed(self) -> bool {
        !matches!(self, Fate::Gone | Fate::Hopeless)
    }

    /// Whether the event may end in `webhooks.dlq`. A paused process lets its questions to the API time
    /// out, which takes attempts: so whatever asks the API may.
    pub fn may_die(self) -> bool {
        !matches!(self, Fate::Plain | Fate::Ordered | Fate::Batched)
    }

    /// The provider's ID of the event with this number.
    pub fn event_id(self, number: u64) -> String {
        format!("{}{number}", self.letter())
    }

    /// The event key with this number.
    pub fn event_key(self, number: u64) -> String {
        format!("{}:{}{number}", self.source(), self.letter())
    }

    /// Fate and number from an event's ID.
    pub fn of_id(id: &str) -> Option<(Fate, u64)> {
        let mut letters = id.chars();
        let letter = letters.next()?;
        let fate = Fate::ALL.into_iter().find(|fate| fate.letter() == letter)?;
        Some((fate, letters.as_str().parse().ok()?))
    }

    /// Fate and number from an event key.
    pub fn of_key(key: &str) -> Option<(Fate, u64)> {
        let (source, id) = key.split_once(':')?;
        Fate::of_id(id).filter(|(fate, _)| fate.source() == source)
    }

    fn code(self) -> u8 {
        Fate::ALL.iter().position(|fate| *fate == self).map_or(0, |at| at as u8)
    }
}

const ACKNOWLEDGED: u8 = 0x80;

/// One event as the ledger knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What is to become of it.
    pub fate: Fate,
    /// Whether any post of it was answered with a 2xx.
    pub acknowledged: bool,
}

/// All events of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    events: Mutex<Vec<u8>>,
    acknowledged: AtomicU64,
    extra: AtomicU64,
    posts: AtomicU64,
}

impl Ledger {
    /// Enters so many new events; returns their numbers.
    pub fn enter(&self, fate: Fate, count: u64) -> Range<u64> {
        let mut events = self.events();
        let first = events.len() as u64;
        events.extend((0..count).map(|_| fate.code()));
        first..first + count
    }

    /// A post of these events was answered with a 2xx.
    pub fn acknowledge(&self, numbers: Range<u64>) {
        let mut events = self.events();
        for number in numbers {
            let known = usize::try_from(number).ok().and_then(|at| events.get_mut(at));
            if let Some(event) = known
                && *event & ACKNOWLEDGED == 0
            {
                *event |= ACKNOWLEDGED;
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A request with so many events is sent; `again` where they were acknowledged before, or another copy is
    /// on its way.
    pub fn post(&self, events: u64, again: bool) {
        self.posts.fetch_add(1, Ordering::Relaxed);
        if again {
            self.extra.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Number of events.
    pub fn events_sent(&self) -> u64 {
        self.events().len() as u64
    }

    /// Number of events that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Number of copies that were sent on purpose.
    pub fn duplicates_sent(&self) -> u64 {
        self.extra.load(Ordering::Relaxed)
    }

    /// Number of requests.
    pub fn posts(&self) -> u64 {
        self.posts.load(Ordering::Relaxed)
    }

    /// Every event by its number, as it is now.
    pub fn entries(&self) -> Vec<Entry> {
        let read = |event: &u8| Entry {
            fate: Fate::ALL[usize::from(event & !ACKNOWLEDGED)],
            acknowledged: event & ACKNOWLEDGED != 0,
        };
        self.events().iter().map(read).collect()
    }

    fn events(&self) -> MutexGuard<'_, Vec<u8>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_tell_fate_and_number() {
        for fate in Fate::ALL {
            assert_eq!(Fate::of_key(&fate.event_key(1_234_567)), Some((fate, 1_234_567)));
        }
        for strange in ["", "bulk", "bulk:", "bulk:b", "bulk:x1", "thin:b1", "bulk:b1/fact"] {
            assert_eq!(Fate::of_key(strange), None, "{strange}");
        }
    }

    #[test]
    fn an_event_is_acknowledged_once() {
        let ledger = Ledger::default();
        assert_eq!(ledger.enter(Fate::Plain, 1), 0..1);
        assert_eq!(ledger.enter(Fate::Hopeless, 3), 1..4);
        ledger.acknowledge(1..2);
        ledger.acknowledge(1..3);
        ledger.acknowledge(7..9);
        assert_eq!((ledger.events_sent(), ledger.acknowledged()), (4, 2));
        let entries = ledger.entries();
        assert_eq!(entries[0], Entry { fate: Fate::Plain, acknowledged: false });
        assert_eq!(entries[1], Entry { fate: Fate::Hopeless, acknowledged: true });
        assert_eq!(entries[3], Entry { fate: Fate::Hopeless, acknowledged: false });
    }
}
