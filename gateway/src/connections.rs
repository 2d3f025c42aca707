//! Who is connected, from where, and who has to go when there is no room.
//!
//! A connection costs its sender nothing, so a limit alone would be a lever: whoever opened that many would shut everybody
//! else out. Therefore no address has more than its share, and when all places are taken the connection that has been
//! without a request for longest makes room for the next one, and after those the oldest that has sent no whole request:
//! nothing of it can have been stored. The cost of a request is two atomic counters; the list is
//! locked only when a connection begins or ends, and when somebody looks at the gauge.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{contains, subscriber};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not sent a request yet.
    Opening,
    /// It waits for an answer.
    Active,
    /// It has its answers.
    Idle,
}

impl State {
    /// All of them, with the label's value.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Opening, "opening"), (Self::Active, "active"), (Self::Idle, "idle")];
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    address: IpAddr,
    opened: Instant,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// Requests whose bodies are on their way.
    reading: AtomicUsize,
    /// Milliseconds after `opened` at which the last request ended.
    idle_since_ms: AtomicU64,
    leave: Notify,
}

impl Activity {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
            leave: Notify::new(),
        }
    }

    /// Begins a request, which ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> State {
        if self.in_flight.load(Ordering::Acquire) > 0 {
            State::Active
        } else if self.requests.load(Ordering::Relaxed) == 0 {
            State::Opening
        } else {
            State::Idle
        }
    }

    /// Whether nothing is lost with it: it has no request, or none that is there as a whole.
    fn is_expendable(&self) -> bool {
        // In this order: a request that becomes whole in between counts. Even if one did not, its sender would send again.
        let in_flight = self.in_flight.load(Ordering::Acquire);
        in_flight <= self.reading.load(Ordering::Acquire)
    }

    /// Whether a body is on its way.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Acquire) > 0
    }

    /// Since when it has been without a request.
    fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed))
    }

    /// Comes back when there has been no request for too long: `opening` before the first one, `idle` after it. What
    /// arrives meanwhile without being a request does not count.
    pub(crate) async fn unused(&self, opening: Duration, idle: Duration) {
        loop {
            let limit = match self.state() {
                State::Opening => opening,
                State::Active | State::Idle => idle,
            };
            let end =
                if self.state() == State::Active { Instant::now() } else { self.idle_since() };
            let end = end + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// Comes back when the connection has to make room.
    pub(crate) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    /// The body is on its way as long as the guard is there.
    pub(crate) fn reading(&self) -> Reading<'_> {
        self.0.reading.fetch_add(1, Ordering::AcqRel);
        Reading(&self.0)
    }
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a Activity);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let since = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since_ms.store(since, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: HashMap<u64, Arc<Activity>>,
    by_address: HashMap<IpAddr, usize>,
}

impl Table {
    fn remove(&mut self, id: u64) -> Option<Arc<Activity>> {
        let activity = self.all.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&activity.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&activity.address);
            }
        }
        Some(activity)
    }

    /// Sends away the connection that has been without a request for longest, else without a whole one: of this address, if
    /// one is given.
    fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        let expendable = self.all.iter().filter(|(_, activity)| {
            address.is_none_or(|address| activity.address == address) && activity.is_expendable()
        });
        let oldest = expendable
            .min_by_key(|(_, activity)| (activity.state() == State::Active, activity.idle_since()));
        let oldest = oldest.map(|(id, _)| *id);
        let Some(activity) = oldest.and_then(|id| self.remove(id)) else { return false };
        activity.leave.notify_one();
        true
    }
}

/// Every connection there is.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Mutex<Table>,
    most: usize,
    most_per_address: usize,
    /// Proxies, behind which there are many senders.
    exempt: Vec<IpNet>,
}

/// How a new connection fares.
#[derive(Debug)]
pub(crate) enum Admission {
    /// There is a place; `true` where another one had to go for it.
    Admitted(Place, bool),
    /// All places, or all of this address's, are taken by connections that wait for answers to whole requests.
    Refused,
}

impl Connections {
    /// None yet.
    pub(crate) fn new(most: usize, most_per_address: usize, exempt: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), most, most_per_address, exempt })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in here can leave it half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a place for a connection from `peer`.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Admission {
        let address = subscriber(peer.ip());
        let mut table = self.table();
        let of_address = table.by_address.get(&address).copied().unwrap_or(0);
        let mut evicted = false;
        if of_address >= self.most_per_address && !contains(&self.exempt, peer.ip().to_canonical())
        {
            if !table.make_room(Some(address)) {
                return Admission::Refused;
            }
            evicted = true;
        }
        if table.all.len() >= self.most {
            if !table.make_room(None) {
                return Admission::Refused;
            }
            evicted = true;
        }
        let id = table.next;
        table.next += 1;
        let activity = Arc::new(Activity::new(address));
        table.all.insert(id, Arc::clone(&activity));
        *table.by_address.entry(address).or_default() += 1;
        Admission::Admitted(Place { connections: Arc::clone(self), id, activity }, evicted)
    }

    /// How many there are in each state, in the order of [`State::ALL`].
    pub(crate) fn count(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for activity in self.table().all.values() {
            counts[activity.state() as usize] += 1;
        }
        counts
    }
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: u64,
    activity: Arc<Activity>,
}

impl Place {
    /// What is known of the connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn admit(connections: &Arc<Connections>, peer: &str) -> Option<(Place, bool)> {
        match connections.admit(peer.parse().unwrap()) {
            Admission::Admitted(place, evicted) => Some((place, evicted)),
            Admission::Refused => None,
        }
    }

    fn must_leave(place: &Place) -> bool {
        let leave = std::pin::pin!(place.activity().must_leave());
        std::task::Poll::is_ready(
            &leave.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())),
        )
    }

    #[test]
    fn the_oldest_without_a_request_makes_room() {
        let connections = Connections::new(3, 9, vec![]);
        let (busy, _) = admit(&connections, "192.0.2.1:1").unwrap();
        let request = busy.activity().begin();
        std::thread::sleep(Duration::from_millis(5));
        let (first, _) = admit(&connections, "192.0.2.2:1").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let (second, evicted) = admit(&connections, "192.0.2.3:1").unwrap();
        assert!(!evicted);
        assert_eq!(connections.count(), [2, 1, 0]);
        // The first has a request after the second came, so it is the younger one.
        std::thread::sleep(Duration::from_millis(5));
        drop(first.activity().begin());
        let (third, evicted) = admit(&connections, "192.0.2.4:1").unwrap();
        assert!(evicted && must_leave(&second) && !must_leave(&first) && !must_leave(&busy));
        assert_eq!(connections.count(), [1, 1, 1]);
        // Where all wait for answers nobody has to go.
        let others = [first.activity().begin(), third.activity().begin()];
        assert!(admit(&connections, "192.0.2.5:1").is_none());
        // But for who has not sent all of its request.
        let body = others[1].reading();
        let (fourth, evicted) = admit(&connections, "192.0.2.5:1").unwrap();
        assert!(evicted && must_leave(&third) && !must_leave(&first));
        drop((body, fourth));
        drop(others);
        drop(request);
        assert!(admit(&connections, "192.0.2.5:1").is_some());
        drop((busy, first, second, third));
        assert_eq!(connections.count(), [0, 0, 0]);
        assert!(connections.table().by_address.is_empty());
    }

    #[test]
    fn an_address_takes_only_its_own_places() {
        let connections = Connections::new(9, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let other = admit(&connections, "[2001:db8:1::1]:1").unwrap().0;
        std::thread::sleep(Duration::from_millis(5));
        let own = ["[2001:db8::1]:1", "[2001:db8::2]:1"].map(|peer| admit(&connections, peer));
        let (_third, evicted) = admit(&connections, "[2001:db8::3]:1").unwrap();
        let [first, _] = own.map(Option::unwrap);
        assert!(evicted && must_leave(&first.0) && !must_leave(&other));
        let proxy: Vec<_> = (0..5).map(|_| admit(&connections, "10.1.1.1:1").unwrap()).collect();
        assert!(proxy.iter().all(|(_, evicted)| !evicted), "many senders are behind it");
    }

    #[tokio::test]
    async fn a_connection_without_requests_ends() {
        let connections = Connections::new(1, 1, vec![]);
        let (place, _) = admit(&connections, "192.0.2.1:1").unwrap();
        let (opening, idle) = (Duration::from_millis(20), Duration::from_millis(100));
        let started = Instant::now();
        place.activity().unused(opening, idle).await;
        assert!(started.elapsed() >= opening && started.elapsed() < idle * 5);
        let request = place.activity().begin();
        let busy = tokio::time::timeout(idle * 3, place.activity().unused(opening, idle)).await;
        assert!(busy.is_err(), "control: a request is on its way");
        drop(request);
        let ended = Instant::now();
        place.activity().unused(opening, idle).await;
        assert!(ended.elapsed() >= idle - Duration::from_millis(2));
    }
}
