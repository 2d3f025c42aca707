//! What the two pumps of a connection share: which requests are on the way, and which of them the proxy answers
//! itself.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::api::ApiKey;

/// Requests whose answer is remembered as outstanding; the oldest are forgotten. A client that asks for
/// no answer (`acks=0`) leaves them behind.
pub(super) const OUTSTANDING_LIMIT: usize = 16 * 1024;

/// What is known of the requests on the way.
#[derive(Default)]
pub(super) struct Outstanding {
    pub(super) client_id: Vec<u8>,
    pub(super) requests: VecDeque<Pending>,
    /// What has been asked for at all.
    pub(super) seen: BTreeSet<ApiKey>,
}

impl Outstanding {
    /// Takes the first answer of the proxy's own to one of the `count` oldest requests.
    pub(super) fn own_answer(&mut self, count: usize) -> Option<OwnAnswer> {
        let mine = |pending: &Pending| pending.own.is_some();
        let index = self.requests.iter().take(count).position(mine)?;
        self.requests.drain(..=index).next_back()?.own
    }

    pub(super) fn find(&mut self, correlation: i32) -> Option<&mut Pending> {
        // It is one of the latest.
        self.requests.iter_mut().rev().find(|pending| pending.correlation == correlation)
    }
}

pub(super) struct Pending {
    pub(super) correlation: i32,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    /// The first of its kind on this connection.
    pub(super) first: bool,
    /// What the client is told instead of a broker's answer.
    pub(super) own: Option<OwnAnswer>,
    /// Of AddPartitionsToTxn.
    pub(super) transactional_id: Option<Box<[u8]>>,
}

/// An answer of the proxy's own.
pub(super) struct OwnAnswer {
    /// Not before.
    pub(super) at: Instant,
    pub(super) frame: Vec<u8>,
}

/// What both pumps of a connection share.
#[derive(Default)]
pub(super) struct Exchange {
    outstanding: Mutex<Outstanding>,
    /// A request has been given an answer of the proxy's own.
    pub(super) answered: Notify,
}

impl Exchange {
    /// Waits until the next answer is one of the proxy's own, and its time has come. Nothing is lost when this is given up.
    pub(super) async fn own_answer(&self) -> Vec<u8> {
        loop {
            let next = self.lock().requests.front().and_then(|next| Some(next.own.as_ref()?.at));
            match next {
                None => self.answered.notified().await,
                Some(at) => {
                    sleep_until(at).await;
                    if let Some(own) = self.lock().own_answer(1) {
                        return own.frame;
                    }
                }
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
