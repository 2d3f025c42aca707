//! The rebalance callback: it acknowledges and reports, nothing else.
//!
//! An assignment is acknowledged without fetching anything; the partitions are added at their committed
//! offsets once their lane is open. A revocation removes everything of the lanes concerned. Callbacks
//! run inside `poll` on the worker's thread, where no transaction is ever open.

use super::types::TopicPartition;
use crate::client::complain;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    client::OAuthToken,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use sluice_service::faults::{CrashPoint, crash_point};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// What the callback saw.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

/// Inputs of the lane of a subscribed partition.
pub(super) type InputsOf = Box<dyn Fn(&TopicPartition) -> Vec<TopicPartition> + Send + Sync>;

/// Context of the worker's consumer.
pub(super) struct WorkerContext {
    /// Inputs of the lane of a subscribed partition.
    inputs: InputsOf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Partitions being fetched.
    fetched: BTreeSet<TopicPartition>,
    seen: Vec<Rebalanced>,
}

impl WorkerContext {
    pub fn new(inputs: InputsOf) -> WorkerContext {
        WorkerContext { inputs, state: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened since the last call, in order.
    pub fn take(&self) -> Vec<Rebalanced> {
        std::mem::take(&mut self.lock().seen)
    }

    /// Starts fetching.
    ///
    /// Nothing of it is paused then. librdkafka keeps a pause of the application's from one assignment of a partition
    /// to the next; the machine begins anew with a lane that is opened anew, so nobody would ever resume it.
    pub fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        starts: &[(TopicPartition, i64)],
    ) -> KafkaResult<()> {
        let starts_at = list_at(starts)?;
        consumer.resume(&starts_at)?;
        consumer.incremental_assign(&starts_at)?;
        self.lock().fetched.extend(starts.iter().map(|(tp, _)| tp.clone()));
        Ok(())
    }

    /// The partitions that are fetched, each with its end for an offset; `None` when there are none.
    pub fn fetched_ends(&self) -> Option<TopicPartitionList> {
        let fetched: Vec<_> = self.lock().fetched.iter().cloned().collect();
        let mut ends = list(&fetched);
        (ends.count() > 0 && ends.set_all_offsets(Offset::End).is_ok()).then_some(ends)
    }

    /// Stops fetching whichever of these are fetched.
    pub fn unassign(
        &self,
        consumer: &BaseConsumer<Self>,
        tps: &[TopicPartition],
    ) -> KafkaResult<()> {
        let mut state = self.lock();
        let fetched: Vec<_> = tps.iter().filter(|tp| state.fetched.remove(tp)).cloned().collect();
        drop(state);
        consumer.incremental_unassign(&list(&fetched))
    }
}

/// A list for calls that take no offsets.
pub(super) fn list(tps: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(tps.len());
    for tp in tps {
        list.add_partition(&tp.topic, tp.partition);
    }
    list
}

/// A list with offsets.
pub(super) fn list_at(offsets: &[(TopicPartition, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (tp, offset) in offsets {
        list.add_partition_offset(&tp.topic, tp.partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

impl ClientContext for WorkerContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = false;

    fn error(&self, error: KafkaError, reason: &str) {
        complain("worker consumer", &error, reason);
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        Err("not used".into())
    }
}

impl ConsumerContext for WorkerContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        tpl: &mut TopicPartitionList,
    ) {
        let lanes: Vec<TopicPartition> = tpl
            .elements()
            .iter()
            .map(|element| TopicPartition::new(element.topic(), element.partition()))
            .collect();
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let answered = if assigned {
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            crash_point(CrashPoint::DuringRevocation);
            let inputs: Vec<_> = lanes.iter().flat_map(|lane| (self.inputs)(lane)).collect();
            self.unassign(consumer, &inputs)
        };
        if let Err(error) = answered {
            tracing::error!(%error, ?lanes, assigned, "a rebalance could not be acknowledged");
        }
        tracing::debug!(?lanes, assigned, "rebalance");
        self.lock().seen.push(if assigned {
            Rebalanced::Assigned(lanes)
        } else {
            Rebalanced::Revoked(lanes)
        });
    }
}
