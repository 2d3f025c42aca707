//! What is armed, what has fired, and which EndTxn is held back for whom. Shared by all connections;
//! every list has a bound.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::oneshot;

use super::{Action, ApiKey, Fault, Fired, ProxyError, Side};

/// Most faults that are armed, and most EndTxn that are held, at once.
const ARMED_LIMIT: usize = 64;
/// Most entries of the log; the oldest go first.
const LOG_LIMIT: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Board {
    armed: Mutex<VecDeque<Fault>>,
    /// How many are armed, so that a frame costs no lock while there are none.
    waiting: AtomicUsize,
    record: Mutex<Record>,
    held: Mutex<Vec<Held>>,
}

#[derive(Debug, Default)]
struct Record {
    counts: BTreeMap<String, u64>,
    log: VecDeque<Fired>,
}

#[derive(Debug)]
struct Held {
    transactional_id: Vec<u8>,
    connection: u64,
    deliver: oneshot::Sender<()>,
}

/// A frame as the faults see it.
pub(super) struct Target<'a> {
    pub(super) broker: u16,
    pub(super) api: ApiKey,
    pub(super) side: Side,
    pub(super) client_id: &'a [u8],
    /// Whether it is the first of its kind on its connection, or the answer to that.
    pub(super) first: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these lists as whole as they were.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(super) fn arm(&self, fault: Fault) -> Result<(), ProxyError> {
        let only = match fault.action {
            Action::HoldUntilNextTransaction => Some(ApiKey::EndTxn),
            Action::Refuse(_) => Some(ApiKey::Produce),
            Action::Delay(_) | Action::Drop | Action::Cut => None,
        };
        if only.is_some_and(|only| (fault.api, fault.side) != (only, Side::Request)) {
            return Err(ProxyError::NoSuchFault(fault.kind()));
        }
        let mut armed = locked(&self.armed);
        if armed.len() >= ARMED_LIMIT {
            return Err(ProxyError::TooManyArmed(ARMED_LIMIT));
        }
        armed.push_back(fault);
        self.waiting.store(armed.len(), Ordering::Release);
        Ok(())
    }

    pub(super) fn disarm_all(&self) -> usize {
        let mut armed = locked(&self.armed);
        let count = armed.len();
        armed.clear();
        self.waiting.store(0, Ordering::Release);
        count
    }

    pub(super) fn armed(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes the oldest fault that is armed for this frame.
    pub(super) fn strike(&self, target: &Target<'_>) -> Option<Action> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut armed = locked(&self.armed);
        let index = armed.iter().position(|fault| {
            let client = fault.client.as_deref().unwrap_or_default();
            (fault.api, fault.side) == (target.api, target.side)
                && target.client_id.starts_with(client.as_bytes())
                && (target.first || !fault.first)
        })?;
        let fault = armed.remove(index)?;
        self.waiting.store(armed.len(), Ordering::Release);
        drop(armed);
        let client = String::from_utf8_lossy(target.client_id);
        self.record(fault.kind(), format!("broker {}, client {client}", target.broker));
        Some(fault.action)
    }

    /// Counts a fault and puts it into the log.
    pub(super) fn record(&self, kind: String, note: String) {
        *locked(&self.record).counts.entry(kind.clone()).or_default() += 1;
        self.note(kind, note);
    }

    /// Puts what became of a fault into the log.
    pub(super) fn note(&self, kind: String, note: String) {
        let mut record = locked(&self.record);
        if record.log.len() >= LOG_LIMIT {
            record.log.pop_front();
        }
        record.log.push_back(Fired { at: SystemTime::now(), kind, note });
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        locked(&self.record).counts.clone()
    }

    pub(super) fn log(&self) -> Vec<Fired> {
        locked(&self.record).log.iter().cloned().collect()
    }

    /// Notes that the EndTxn of this transactional.id is held on `connection`. The receiver is told when
    /// it is to be delivered; at once if too many are held.
    pub(super) fn hold(&self, transactional_id: &[u8], connection: u64) -> oneshot::Receiver<()> {
        let (deliver, told) = oneshot::channel();
        let mut held = locked(&self.held);
        held.retain(|held| !held.deliver.is_closed());
        if held.len() < ARMED_LIMIT {
            let transactional_id = transactional_id.to_vec();
            held.push(Held { transactional_id, connection, deliver });
        }
        told
    }

    /// The next transaction of this transactional.id has begun, on `connection`.
    pub(super) fn began(&self, transactional_id: &[u8], connection: u64) {
        let mut held = locked(&self.held);
        let due = |held: &mut Held| {
            held.transactional_id == transactional_id && held.connection != connection
        };
        for held in held.extract_if(.., due) {
            // An error: it has waited too long and was delivered without.
            let _ = held.deliver.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::time::Duration;

    use super::*;

    fn target(api: ApiKey, side: Side, client_id: &[u8]) -> Target<'_> {
        Target { broker: 1, api, side, client_id, first: false }
    }

    #[test]
    fn a_fault_hits_once_and_the_oldest_first() {
        let board = Board::default();
        let delay = |ms| Action::Delay(Duration::from_millis(ms));
        board.arm(Fault::new(ApiKey::Produce, Side::Response, delay(1))).unwrap();
        board.arm(Fault::new(ApiKey::Produce, Side::Response, delay(2))).unwrap();
        let only = Fault::new(ApiKey::Fetch, Side::Request, Action::Cut).of_client("reader-");
        board.arm(only).unwrap();
        assert_eq!(board.strike(&target(ApiKey::Produce, Side::Request, b"c")), None);
        let produce = target(ApiKey::Produce, Side::Response, b"c");
        assert_eq!(board.strike(&produce), Some(delay(1)));
        assert_eq!(board.strike(&produce), Some(delay(2)));
        assert_eq!(board.strike(&produce), None);
        assert_eq!(board.strike(&target(ApiKey::Fetch, Side::Request, b"writer-1")), None);
        let reader = target(ApiKey::Fetch, Side::Request, b"reader-1");
        assert_eq!(board.strike(&reader), Some(Action::Cut));
        let refuse = Action::Refuse(Duration::ZERO);
        let first = Fault::new(ApiKey::Produce, Side::Request, refuse).first_of_connection();
        board.arm(first).unwrap();
        let later = target(ApiKey::Produce, Side::Request, b"c");
        assert_eq!(board.strike(&later), None);
        assert_eq!(board.strike(&Target { first: true, ..later }), Some(refuse));
        assert_eq!(
            board.counts(),
            BTreeMap::from([
                ("cut Fetch request".to_owned(), 1),
                ("delay Produce response".to_owned(), 2),
                ("refuse Produce request".to_owned(), 1)
            ])
        );
        assert_eq!(board.log().len(), 4);
        assert!(board.log()[2].note.contains("reader-1"));
    }

    #[test]
    fn what_is_armed_and_kept_is_bounded() {
        let board = Board::default();
        let fault = || Fault::new(ApiKey::Fetch, Side::Request, Action::Drop);
        for _ in 0..ARMED_LIMIT {
            board.arm(fault()).unwrap();
        }
        assert!(matches!(board.arm(fault()), Err(ProxyError::TooManyArmed(_))));
        assert_eq!(board.disarm_all(), ARMED_LIMIT);
        assert_eq!(board.strike(&target(ApiKey::Fetch, Side::Request, b"")), None);
        for (action, api) in [
            (Action::HoldUntilNextTransaction, ApiKey::EndTxn),
            (Action::Refuse(Duration::ZERO), ApiKey::Produce),
        ] {
            for (api, side) in [(api, Side::Response), (ApiKey::Fetch, Side::Request)] {
                let armed = board.arm(Fault::new(api, side, action));
                assert!(matches!(armed, Err(ProxyError::NoSuchFault(_))), "{api} {side}");
            }
            board.arm(Fault::new(api, Side::Request, action)).unwrap();
        }
        for _ in 0..=LOG_LIMIT {
            board.note("kind".to_owned(), String::new());
        }
        assert_eq!(board.log().len(), LOG_LIMIT);
    }

    #[test]
    fn a_held_end_waits_for_the_same_transaction_elsewhere() {
        let board = Board::default();
        let mut told = board.hold(b"tx", 7);
        board.began(b"other", 8);
        board.began(b"tx", 7);
        assert!(told.try_recv().is_err());
        board.began(b"tx", 8);
        assert_eq!(told.try_recv(), Ok(()));
    }
}
