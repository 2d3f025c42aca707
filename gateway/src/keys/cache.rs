//! What is known of each key document, and what to do about it: pure decisions, with the time given.
//!
//! The rules, and why they are so:
//! * A document is *fresh* for as long as its publisher allows, then *stale*: it is fetched again, and
//!   serves on, for [`SERVED_STALE`] at most, while that fails. A provider's outage must not become ours.
//! * One flight per URL at a time; the others wait for it. How many there may be at a time, and for whom, is
//!   the caller's to admit. Without its leave none is made: the sender tries again.
//! * A failure is remembered for [`AFTER_FAILURE`], a refusal (the provider has no such document) for
//!   [`AFTER_ABSENCE`]. Where a document is held, both count as failures and wait for [`BETWEEN_RENEWALS`].
//! * A document without the key that was asked for is fetched again, at most once in [`BETWEEN_RENEWALS`].
//! * Room: [`MAX_DOCUMENTS`] documents, the longest unused goes first, so that naming others cannot drive
//!   out those in use; [`MAX_REMEMBERED`] URLs besides; URLs of at most [`MAX_URL`] bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_providers::KeyDocument;
use tokio::sync::watch;

/// Most documents held.
pub(super) const MAX_DOCUMENTS: usize = 64;
/// Most URLs remembered of which no document is held.
const MAX_REMEMBERED: usize = 1024;
/// Longest URL, in bytes.
const MAX_URL: usize = 512;
/// Age at which a document is no longer served, whatever happens.
pub(super) const SERVED_STALE: Duration = Duration::from_secs(7 * 86_400);
/// Pause after a failed fetch.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long "there is no such document" is believed.
pub(super) const AFTER_ABSENCE: Duration = Duration::from_secs(60);
/// Pause between two fetches of a document that is held.
pub(super) const BETWEEN_RENEWALS: Duration = Duration::from_secs(60);

/// How a fetch ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With a document, fresh for this long.
    Stored(KeyDocument, Duration),
    /// The provider says that there is none.
    Absent,
    /// In any other way.
    Failed,
}

/// What a request needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// The document it was given does not have the key it names.
    pub(super) outdated: bool,
    /// Generation of the document it was given; 0 for none.
    pub(super) seen: u64,
}

/// What a request may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// Look again: there is a fresh document that it has not seen.
    Ready,
    /// Look again, and be content with a stale document.
    Stale,
    /// Give up for good: the key does not exist.
    Refused,
    /// Give up for now.
    Unavailable,
}

/// The next step of a request.
#[derive(Debug)]
pub(super) enum Step {
    /// No fetch is needed, or none may be made.
    Settled(Settled),
    /// Somebody fetches it already: wait until the sender is gone.
    Wait(watch::Receiver<()>),
    /// Fetch it, say how that ended ([`Cache::ended`]), then drop the sender.
    Fetch(watch::Sender<()>, watch::Receiver<()>),
}

#[derive(Debug)]
struct Held {
    document: Arc<KeyDocument>,
    generation: u64,
    fetched: Instant,
    fresh_for: Duration,
    used: u64,
}

impl Held {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetched)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.fresh_for
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    Absent,
    Failed,
}

/// What is known of one URL.
#[derive(Debug, Default)]
struct Entry {
    held: Option<Held>,
    last: Option<(Instant, Outcome)>,
    flight: Option<watch::Receiver<()>>,
}

impl Entry {
    /// The fetch under way. A sender that is gone ended one, whether or not it said how.
    fn flight(&self) -> Option<&watch::Receiver<()>> {
        self.flight.as_ref().filter(|flight| flight.has_changed().is_ok())
    }

    /// The document, unless it is too old for any use.
    fn usable(&self, now: Instant) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.age(now) < SERVED_STALE)
    }

    fn has_news(&self, need: Need, now: Instant) -> bool {
        self.usable(now).is_some_and(|held| held.generation > need.seen && held.is_fresh(now))
    }

    /// How the last fetch ended, if that still counts.
    fn recent(&self, now: Instant) -> Option<Outcome> {
        let (at, outcome) = self.last?;
        let pause = match outcome {
            _ if self.usable(now).is_some() => BETWEEN_RENEWALS,
            Outcome::Stored => return None,
            Outcome::Absent => AFTER_ABSENCE,
            Outcome::Failed => AFTER_FAILURE,
        };
        (now.saturating_duration_since(at) < pause).then_some(outcome)
    }

    fn settle(&self, need: Need, now: Instant) -> Settled {
        if self.has_news(need, now) {
            return Settled::Ready;
        }
        match (self.usable(now), self.recent(now)) {
            (Some(_), _) if !need.outdated => Settled::Stale,
            (Some(_), Some(Outcome::Stored)) | (None, Some(Outcome::Absent)) => Settled::Refused,
            _ => Settled::Unavailable,
        }
    }
}

/// All that is known, by URL.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<String, Entry>,
    /// Number of documents stored so far.
    generation: u64,
    /// Number of times documents were given out.
    uses: u64,
}

impl Cache {
    /// The document and its generation. Stale ones only where asked for.
    pub(super) fn get(
        &mut self,
        url: &str,
        stale_too: bool,
        now: Instant,
    ) -> Option<(Arc<KeyDocument>, u64)> {
        let held = self.entries.get_mut(url)?.held.as_mut()?;
        let serves = held.is_fresh(now) || stale_too && held.age(now) < SERVED_STALE;
        if !serves {
            return None;
        }
        self.uses += 1;
        held.used = self.uses;
        Some((Arc::clone(&held.document), held.generation))
    }

    /// What to do for a request that cannot be verified with what it was given. `admit` is asked before a
    /// fetch, and told whether a document is held of this URL.
    pub(super) fn need(
        &mut self,
        url: &str,
        need: Need,
        now: Instant,
        admit: impl FnOnce(bool) -> bool,
    ) -> Step {
        if url.len() > MAX_URL {
            return Step::Settled(Settled::Refused);
        }
        let entry = self.entries.get(url);
        if let Some(flight) = entry.and_then(Entry::flight) {
            return Step::Wait(flight.clone());
        }
        if let Some(entry) = entry
            && (entry.has_news(need, now) || entry.recent(now).is_some())
        {
            return Step::Settled(entry.settle(need, now));
        }
        if !admit(entry.is_some_and(|entry| entry.usable(now).is_some())) {
            return Step::Settled(self.settle(url, need, now));
        }
        let (done, flight) = watch::channel(());
        self.entries.entry(url.to_owned()).or_default().flight = Some(flight.clone());
        self.make_room();
        Step::Fetch(done, flight)
    }

    /// What a request may do without another fetch.
    pub(super) fn settle(&self, url: &str, need: Need, now: Instant) -> Settled {
        self.entries.get(url).map_or(Settled::Unavailable, |entry| entry.settle(need, now))
    }

    /// Notes how the fetch of `url` ended. Returns the age of the document that serves on although its
    /// renewal failed.
    pub(super) fn ended(&mut self, url: &str, ended: Ended, now: Instant) -> Option<Duration> {
        let entry = self.entries.entry(url.to_owned()).or_default();
        entry.flight = None;
        let outcome = match ended {
            Ended::Stored(document, fresh_for) => {
                self.generation += 1;
                self.uses += 1;
                entry.held = Some(Held {
                    document: Arc::new(document),
                    generation: self.generation,
                    fetched: now,
                    fresh_for,
                    used: self.uses,
                });
                Outcome::Stored
            }
            Ended::Absent => Outcome::Absent,
            Ended::Failed => Outcome::Failed,
        };
        entry.last = Some((now, outcome));
        if entry.usable(now).is_none() {
            entry.held = None;
        }
        let age = entry.held.as_ref().map(|held| held.age(now));
        self.make_room();
        age.filter(|_| outcome != Outcome::Stored)
    }

    /// Forgets what is over the bounds. Flights are bounded by whoever admits them, and stay.
    fn make_room(&mut self) {
        let documents = || self.entries.iter().filter_map(|(url, e)| Some((url, e.held.as_ref()?)));
        if documents().count() > MAX_DOCUMENTS {
            let oldest = documents().min_by_key(|(_, held)| held.used).map(|(url, _)| url.clone());
            if let Some(entry) = oldest.and_then(|url| self.entries.get_mut(&url)) {
                entry.held = None;
                entry.last = None;
            }
        }
        let remembered = || {
            let bare = |entry: &Entry| entry.held.is_none() && entry.flight().is_none();
            self.entries.iter().filter(move |(_, entry)| bare(entry))
        };
        if remembered().count() > MAX_REMEMBERED {
            // What was never tried, or is a document's trace, is worth least: `None` comes first.
            let oldest = remembered().min_by_key(|(_, entry)| entry.last.map(|(at, _)| at));
            if let Some(url) = oldest.map(|(url, _)| url.clone()) {
                self.entries.remove(&url);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::keys::tests::{HOUR, document};

    const NEW: Need = Need { outdated: false, seen: 0 };
    const SECOND: Duration = Duration::from_secs(1);

    fn begin(cache: &mut Cache, url: &str, need: Need, now: Instant) -> watch::Sender<()> {
        match cache.need(url, need, now, |_| true) {
            Step::Fetch(done, _) => done,
            step => panic!("{step:?}"),
        }
    }

    fn settled(cache: &mut Cache, url: &str, need: Need, now: Instant) -> Settled {
        match cache.need(url, need, now, |_| true) {
            Step::Settled(settled) => settled,
            step => panic!("{step:?}"),
        }
    }

    fn store(cache: &mut Cache, url: &str, now: Instant) -> u64 {
        drop(begin(cache, url, NEW, now));
        assert_eq!(cache.ended(url, Ended::Stored(document(), HOUR), now), None);
        cache.get(url, false, now).unwrap().1
    }

    fn fail(cache: &mut Cache, url: &str, need: Need, ended: Ended, now: Instant) {
        drop(begin(cache, url, need, now));
        cache.ended(url, ended, now);
    }

    #[test]
    fn one_fetches_and_the_others_wait() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let done = begin(&mut cache, "u", NEW, now);
        assert!(matches!(cache.need("u", NEW, now, |_| true), Step::Wait(_)));
        cache.ended("u", Ended::Stored(document(), HOUR), now);
        drop(done);
        assert_eq!(cache.settle("u", NEW, now), Settled::Ready);
        assert_eq!(settled(&mut cache, "u", NEW, now), Settled::Ready);
    }

    #[test]
    fn a_fetch_that_ended_without_a_word_is_over() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        drop(begin(&mut cache, "u", NEW, now));
        assert_eq!(cache.settle("u", NEW, now), Settled::Unavailable);
        drop(begin(&mut cache, "u", NEW, now));
    }

    #[test]
    fn failures_and_absence_are_remembered_for_their_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        fail(&mut cache, "f", NEW, Ended::Failed, now);
        let before = now + AFTER_FAILURE - SECOND;
        assert_eq!(settled(&mut cache, "f", NEW, before), Settled::Unavailable);
        drop(begin(&mut cache, "f", NEW, now + AFTER_FAILURE));
        fail(&mut cache, "a", NEW, Ended::Absent, now);
        let before = now + AFTER_ABSENCE - SECOND;
        assert_eq!(settled(&mut cache, "a", NEW, before), Settled::Refused);
        drop(begin(&mut cache, "a", NEW, now + AFTER_ABSENCE));
    }

    #[test]
    fn a_document_is_renewed_when_stale_and_serves_on_while_that_fails() {
        for ended in [|| Ended::Failed, || Ended::Absent] {
            let (mut cache, now) = (Cache::default(), Instant::now());
            store(&mut cache, "u", now);
            assert!(cache.get("u", false, now + HOUR - SECOND).is_some());
            let later = now + HOUR;
            assert!(cache.get("u", false, later).is_none(), "stale is not served unasked");
            let done = begin(&mut cache, "u", NEW, later);
            assert_eq!(cache.ended("u", ended(), later), Some(HOUR));
            drop(done);
            assert_eq!(settled(&mut cache, "u", NEW, later + SECOND), Settled::Stale);
            assert!(cache.get("u", true, later + SECOND).is_some());
            drop(begin(&mut cache, "u", NEW, later + BETWEEN_RENEWALS));
            let last = now + SERVED_STALE - SECOND;
            assert!(cache.get("u", true, last).is_some());
            let over = now + SERVED_STALE;
            assert!(cache.get("u", true, over).is_none());
            fail(&mut cache, "u", NEW, Ended::Failed, over);
            assert_eq!(settled(&mut cache, "u", NEW, over), Settled::Unavailable);
        }
    }

    #[test]
    fn an_outdated_document_is_renewed_at_most_once_a_minute() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let seen = store(&mut cache, "u", now);
        let need = Need { outdated: true, seen };
        assert_eq!(settled(&mut cache, "u", need, now + SECOND), Settled::Refused);
        let later = now + BETWEEN_RENEWALS;
        let done = begin(&mut cache, "u", need, later);
        cache.ended("u", Ended::Stored(document(), HOUR), later);
        drop(done);
        // Whoever looked at the old one looks again; whoever saw the new one is refused.
        assert_eq!(settled(&mut cache, "u", need, later), Settled::Ready);
        let (_, seen) = cache.get("u", false, later).unwrap();
        let need = Need { outdated: true, seen };
        assert_eq!(settled(&mut cache, "u", need, later), Settled::Refused);
        // While it cannot be found out whether there is a newer one, nobody is refused for good.
        let later = later + BETWEEN_RENEWALS;
        fail(&mut cache, "u", need, Ended::Failed, later);
        assert_eq!(settled(&mut cache, "u", need, later + SECOND), Settled::Unavailable);
        assert!(cache.get("u", false, later).is_some(), "the others are served");
    }

    #[test]
    fn what_is_not_admitted_is_not_fetched() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let refuse = |expected: bool| {
            move |held: bool| {
                assert_eq!(held, expected);
                false
            }
        };
        let step = cache.need("u", NEW, now, refuse(false));
        assert!(matches!(step, Step::Settled(Settled::Unavailable)), "{step:?}");
        store(&mut cache, "u", now);
        // What needs no fetch needs no leave.
        let step = cache.need("u", NEW, now, |_| panic!("asked"));
        assert!(matches!(step, Step::Settled(Settled::Ready)), "{step:?}");
        let step = cache.need("u", NEW, now + HOUR, refuse(true));
        assert!(matches!(step, Step::Settled(Settled::Stale)), "{step:?}");
        let step = cache.need("u", NEW, now + SERVED_STALE, refuse(false));
        assert!(matches!(step, Step::Settled(Settled::Unavailable)), "{step:?}");
        drop(begin(&mut cache, "u", NEW, now + HOUR));
        let step = cache.need("u", NEW, now + HOUR, |_| true);
        assert!(matches!(step, Step::Fetch(..)), "control: {step:?}");
        let long = "u".repeat(MAX_URL + 1);
        assert_eq!(settled(&mut cache, &long, NEW, now), Settled::Refused);
        drop(begin(&mut cache, &long[1..], NEW, now));
    }

    #[test]
    fn room_is_bounded_and_what_is_in_use_stays() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        store(&mut cache, "in-use", now);
        for i in 0..2 * MAX_DOCUMENTS {
            store(&mut cache, &format!("d-{i}"), now);
            assert!(cache.get("in-use", false, now).is_some(), "{i}");
        }
        let held = cache.entries.values().filter(|entry| entry.held.is_some()).count();
        assert_eq!(held, MAX_DOCUMENTS);
        assert!(cache.get("d-0", false, now).is_none());
        for i in 0..2 * MAX_REMEMBERED {
            let at = now + Duration::from_millis(i as u64);
            fail(&mut cache, &format!("a-{i}"), NEW, Ended::Absent, at);
        }
        assert!(cache.entries.len() <= MAX_DOCUMENTS + MAX_REMEMBERED + 1);
        assert!(cache.get("in-use", false, now).is_some());
        let last = format!("a-{}", 2 * MAX_REMEMBERED - 1);
        assert_eq!(settled(&mut cache, &last, NEW, now), Settled::Refused);
    }
}
