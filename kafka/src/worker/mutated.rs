//! The deliberate mistakes of [`Mutation`] that are more than a condition. Only a build with fault injection
//! comes here: elsewhere [`mutated`] is the constant `false`, so that nothing here can be reached, and an optimised
//! build leaves it out.

use super::{
    context::{WorkerContext, list_at},
    producer::TxnProducer,
    types::{Output, TopicPartition, TxnError},
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use sluice_service::faults::{Mutation, mutated};
use std::sync::Arc;

/// How often a commit that timed out is asked for its answer, each time for the transaction's time-out.
const ASKED_AGAIN: usize = 4;

/// [`Mutation::NoTransactions`]: the consumer commits its offsets, after the records are written.
pub(super) fn commit_offsets(
    consumer: &BaseConsumer<WorkerContext>,
    offsets: &[(TopicPartition, i64)],
) -> Result<Vec<(i32, i64)>, TxnError> {
    list_at(offsets)
        .and_then(|list| consumer.commit(&list, CommitMode::Sync))
        .map(|()| Vec::new())
        .map_err(|error| TxnError::Abortable(format!("committing offsets: {error}")))
}

/// [`Mutation::ReuseProducer`]: what the last transaction was made of, to do it again.
#[derive(Default)]
pub(super) struct LastTransaction {
    outputs: Vec<Output>,
    offsets: Vec<(TopicPartition, i64)>,
    group: Option<Arc<ConsumerGroupMetadata>>,
    committing: bool,
}

impl LastTransaction {
    pub fn produces(&mut self, outputs: &[Output]) {
        if mutated(Mutation::ReuseProducer) {
            *self = LastTransaction { outputs: outputs.to_vec(), ..LastTransaction::default() };
        }
    }

    pub fn sends(&mut self, offsets: &[(TopicPartition, i64)], group: &Arc<ConsumerGroupMetadata>) {
        if mutated(Mutation::ReuseProducer) {
            self.offsets = offsets.to_vec();
            self.group = Some(Arc::clone(group));
        }
    }

    pub fn commits(&mut self) {
        self.committing = true;
    }

    /// After an unknown outcome: whether the same producer went on, as if it had been an abort.
    pub fn is_done_again(&mut self, producer: Option<&TxnProducer>) -> bool {
        let last = std::mem::take(self);
        mutated(Mutation::ReuseProducer)
            && producer.is_some_and(|producer| match last.again(producer) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "the same producer cannot go on");
                    false
                }
            })
    }

    fn again(self, producer: &TxnProducer) -> Result<(), TxnError> {
        let (true, Some(group)) = (self.committing, self.group) else {
            return producer.abort();
        };
        // The client begins nothing new before a commit that timed out has answered. The answer is thrown away: this
        // is the mistake.
        for _ in 0..ASKED_AGAIN {
            if !matches!(producer.commit(), Err(TxnError::Unknown(_))) {
                break;
            }
        }
        tracing::warn!("the outcome is unknown; doing it again with the same producer");
        producer.begin()?;
        producer.produce(self.outputs.clone())?;
        producer.send_offsets(&self.offsets, &group)?;
        producer.commit()
    }
}
