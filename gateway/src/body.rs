//! Bodies on their way, and the memory that requests may hold together.
//!
//! A body is paid for while it grows, before there is memory for it: of an allowance for all requests, and of one for those
//! of the same address. So neither many senders nor a single one can make the gateway hold more than it was told, however
//! they cut what they send, and one cannot take the share of the others. What is paid is given back when the request is
//! answered.
//!
//! Memory is bounded by construction: addresses share a fixed number of cells, as in [`crate::limits`].

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::limits::subscriber;
use crate::problem::Problem;

/// Cells that addresses are spread over: half a MiB.
const CELLS: usize = 1 << 16;

/// What a body grows by at least.
const LEAST_GROWTH: usize = 4096;

/// A declared length up to which the buffer is made at once; beyond it, only as bytes arrive.
const AT_ONCE: usize = 256 << 10;

/// When to come again once the allowance of one's own address is used up.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// Bytes that requests may still take.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicUsize,
    most_per_address: usize,
    taken: Box<[AtomicUsize]>,
    hasher: RandomState,
}

impl Budget {
    /// `all` bytes, `most_per_address` of them for one address.
    pub(crate) fn new(all: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            free: AtomicUsize::new(all),
            most_per_address,
            taken: (0..CELLS).map(|_| AtomicUsize::new(0)).collect(),
            hasher: RandomState::new(),
        })
    }

    /// The account of a request from `address`, with nothing on it.
    pub(crate) fn open(self: &Arc<Self>, address: IpAddr) -> Claim {
        let hash = self.hasher.hash_one(subscriber(address));
        // The remainder is below CELLS.
        let cell = usize::try_from(hash % (CELLS as u64)).unwrap_or(0);
        Claim { budget: Arc::clone(self), cell, bytes: 0 }
    }
}

/// What one request has taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    budget: Arc<Budget>,
    cell: usize,
    bytes: usize,
}

impl Claim {
    fn of_address(&self) -> Option<&AtomicUsize> {
        self.budget.taken.get(self.cell)
    }

    /// Takes `more` bytes.
    ///
    /// # Errors
    /// [`Problem::RateLimited`] where the address has used up its share, [`Problem::Overloaded`] where all have.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Problem> {
        let most = self.budget.most_per_address;
        let Some(taken) = self.of_address() else { return Err(Problem::Overloaded) };
        let within = |taken: usize| taken.checked_add(more).filter(|sum| *sum <= most);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .map_err(|_| Problem::RateLimited(COME_AGAIN))?;
        let left = |free: usize| free.checked_sub(more);
        if self.budget.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err() {
            taken.fetch_sub(more, Ordering::Relaxed);
            return Err(Problem::Overloaded);
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(taken) = self.of_address() {
            taken.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.budget.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body of at most `most` bytes into one buffer, and pays for it with `claim`. `declared` is what its head says.
///
/// # Errors
/// [`Problem::BodyTooLarge`], [`Problem::BodyBroken`], and those of [`Claim::grow`].
pub(crate) async fn read(
    mut body: Incoming,
    declared: Option<usize>,
    most: usize,
    claim: &mut Claim,
) -> Result<Bytes, Problem> {
    let mut whole: Vec<u8> = Vec::new();
    let expected = declared.unwrap_or(0).min(AT_ONCE);
    let enough = declared.map_or(most, |declared| declared.min(most));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::BodyBroken)?;
        let Ok(data) = frame.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > most {
            return Err(Problem::BodyTooLarge);
        }
        if whole.is_empty() && body.is_end_stream() {
            claim.grow(data.len())?;
            return Ok(data);
        }
        if length > whole.capacity() {
            let grown = (whole.capacity() * 2).max(expected).max(LEAST_GROWTH);
            let grown = grown.min(enough).max(length);
            claim.grow(grown - whole.capacity())?;
            whole.reserve_exact(grown - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_address_cannot_take_the_share_of_the_others() {
        let budget = Budget::new(100, 40);
        let open = |address: &str| budget.open(address.parse().unwrap());
        let mut greedy = [open("192.0.2.1"), open("192.0.2.1")];
        greedy[0].grow(30).unwrap();
        assert_eq!(greedy[1].grow(11), Err(Problem::RateLimited(COME_AGAIN)));
        greedy[1].grow(10).unwrap();
        let mut other = open("192.0.2.2");
        other.grow(40).unwrap();
        let mut third = open("192.0.2.3");
        assert_eq!(third.grow(21), Err(Problem::Overloaded), "all together have a bound too");
        third.grow(20).unwrap();
        drop(greedy);
        drop(other);
        third.grow(20).unwrap();
        drop(third);
        assert_eq!(budget.free.load(Ordering::Relaxed), 100, "everything is given back");
        assert!(budget.taken.iter().all(|taken| taken.load(Ordering::Relaxed) == 0));
        open("192.0.2.1").grow(40).unwrap();
    }
}
