//! The transactional producer: every call's outcome as a type.

use super::{
    context::list_at,
    native,
    types::{Output, TopicPartition, TxnError},
};
use crate::{
    client::{ClientSettings, TransactionalOptions, complain},
    delivery,
};
use rdkafka::{
    ClientContext, Message, Timestamp,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use sluice_service::{
    clock,
    faults::{Mutation, mutated},
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Marks records of the journal, whose offsets are wanted.
const JOURNAL: usize = 1;

/// Why a record is not known to be stored.
#[derive(Clone)]
enum Undelivered {
    Failed(KafkaError),
    /// It was taken for stored without a broker's word.
    Inferred,
}

#[derive(Default)]
struct Deliveries {
    /// The first such record since the transaction began.
    undelivered: Option<Undelivered>,
    /// Next offset per journal partition.
    journal: Vec<(i32, i64)>,
    /// When the transaction began, ms by our clock.
    begun: i64,
    /// Least and largest difference of the brokers' clock to ours, ms, that the acknowledgements allow.
    clock: Option<(i64, i64)>,
}

/// Collects delivery reports. They are delivered by `poll`, on the thread that produces.
#[derive(Default)]
struct Reports(Mutex<Deliveries>);

impl Reports {
    fn lock(&self) -> std::sync::MutexGuard<'_, Deliveries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        complain("transactional producer", &error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        match result {
            Ok(message) => {
                let mut state = self.lock();
                match delivery::offset(message) {
                    None => {
                        state.undelivered.get_or_insert(Undelivered::Inferred);
                    }
                    Some(offset) if mark == JOURNAL => {
                        state.journal.push((message.partition(), offset + 1));
                    }
                    Some(_) => {}
                }
                if let Timestamp::LogAppendTime(stamped) = message.timestamp() {
                    // Stamped after the transaction began and before the acknowledgement arrived.
                    let (least, largest) = (stamped - clock::now_ms(), stamped - state.begun);
                    let (known_least, known_largest) = state.clock.unwrap_or((least, largest));
                    state.clock = Some((known_least.max(least), known_largest.min(largest)));
                }
            }
            Err((error, _)) => {
                let failed = || Undelivered::Failed(error.clone());
                self.lock().undelivered.get_or_insert_with(failed);
            }
        }
    }
}

/// A transactional producer with a stable id.
pub(super) struct TxnProducer {
    client: BaseProducer<Reports>,
    journal: Option<String>,
    timeout: Duration,
}

impl TxnProducer {
    /// Makes a producer and initialises its transactions, which aborts what a predecessor with the same
    /// id left open and fences it.
    pub fn connect(
        settings: &ClientSettings,
        options: &TransactionalOptions,
        journal: Option<String>,
    ) -> Result<TxnProducer, TxnError> {
        let mut config = settings.transactional_producer_config(options);
        if mutated(Mutation::NoTransactions) {
            config.remove("transactional.id");
        }
        let client: BaseProducer<Reports> = config
            .create_with_context(Reports::default())
            .map_err(|error| TxnError::Fatal(error.to_string()))?;
        let producer = TxnProducer { client, journal, timeout: options.transaction_timeout };
        if mutated(Mutation::NoTransactions) {
            return Ok(producer);
        }
        producer
            .client
            .init_transactions(producer.timeout)
            .map_err(|error| producer.classify("init_transactions", &error))?;
        Ok(producer)
    }

    pub fn begin(&self) -> Result<(), TxnError> {
        *self.client.context().0.lock().unwrap_or_else(PoisonError::into_inner) =
            Deliveries { begun: clock::now_ms(), ..Deliveries::default() };
        if mutated(Mutation::NoTransactions) {
            return Ok(());
        }
        self.client.begin_transaction().map_err(|error| self.classify("begin_transaction", &error))
    }

    /// Produces everything and waits until all of it is acknowledged. Returns the next offset of each
    /// journal partition written to.
    pub fn produce(&self, outputs: Vec<Output>) -> Result<Vec<(i32, i64)>, TxnError> {
        let deadline = Instant::now() + self.timeout;
        // Each is let go as soon as the client has its copy.
        for output in outputs {
            self.enqueue(&output, deadline)?;
        }
        while self.client.in_flight_count() > 0 {
            native::flush_briefly(&self.client);
            self.take_reports();
            self.check_delivered()?;
            if Instant::now() >= deadline {
                return Err(TxnError::Unknown(format!(
                    "{} records were not acknowledged within {:?}",
                    self.client.in_flight_count(),
                    self.timeout
                )));
            }
        }
        self.take_reports();
        self.check_delivered()?;
        Ok(std::mem::take(&mut self.client.context().lock().journal))
    }

    fn enqueue(&self, output: &Output, deadline: Instant) -> Result<(), TxnError> {
        let mark = usize::from(self.journal.as_deref() == Some(&*output.topic));
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&output.topic, mark)
            .payload(&output.value)
            .headers(headers(output));
        if let Some(key) = &output.key {
            record = record.key(key);
        }
        if let Some(partition) = output.partition {
            record = record.partition(partition);
        }
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                // Back-pressure: wait for room, then the same record again.
                Err((error, back)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                    if Instant::now() >= deadline {
                        return Err(TxnError::Unknown("the local queue stayed full".into()));
                    }
                    native::flush_briefly(&self.client);
                    self.take_reports();
                    self.check_delivered()?;
                    record = back;
                }
                Err((error, _))
                    if error.rdkafka_error_code() == Some(Code::MessageSizeTooLarge) =>
                {
                    return Err(TxnError::Fatal(format!(
                        "a record of {} bytes for {} is larger than message.max.bytes: {error}",
                        output.value.len(),
                        output.topic
                    )));
                }
                Err((error, _)) => return Err(self.classify("produce", &error)),
            }
        }
    }

    /// Takes all delivery reports at hand. One `poll` takes those of one partition, and while others are left, the
    /// flush before it waits its whole millisecond: a transaction would take as many of them as it has partitions.
    fn take_reports(&self) {
        loop {
            let before = self.client.in_flight_count();
            self.client.poll(Duration::ZERO);
            if self.client.in_flight_count() >= before {
                return;
            }
        }
    }

    fn check_delivered(&self) -> Result<(), TxnError> {
        let undelivered = self.client.context().lock().undelivered.clone();
        match undelivered {
            None => Ok(()),
            Some(Undelivered::Failed(error)) => Err(self.classify("produce", &error)),
            Some(Undelivered::Inferred) => {
                Err(TxnError::Abortable(format!("produce: {}", delivery::INFERRED)))
            }
        }
    }

    /// Asks the brokers for their time, for [`TxnProducer::clock_offset`]: an empty record is written to a topic that
    /// they stamp, and aborted. No protocol request has the time in its answer, and no `read_committed` reader ever
    /// sees the record.
    pub fn ask_time(&self, stamped: &str) -> Result<(), TxnError> {
        if mutated(Mutation::NoTransactions) {
            return Ok(());
        }
        self.begin()?;
        self.produce(vec![Output {
            topic: stamped.into(),
            partition: None,
            key: None,
            value: Vec::new(),
            headers: Vec::new(),
        }])?;
        self.abort()
    }

    /// The brokers' clock minus ours, ms, as far as the last transaction tells: 0 where its
    /// acknowledgements allow the clocks to be equal, else the least difference, so that waiting for a
    /// broker's time never ends early. `None` where no topic written to is stamped by the broker.
    pub fn clock_offset(&self) -> Option<i64> {
        let (least, largest) = self.client.context().lock().clock?;
        Some(if least <= 0 && largest >= 0 { 0 } else { least })
    }

    pub fn send_offsets(
        &self,
        offsets: &[(TopicPartition, i64)],
        group: &ConsumerGroupMetadata,
    ) -> Result<(), TxnError> {
        let list = list_at(offsets).map_err(|error| TxnError::Fatal(error.to_string()))?;
        self.client
            .send_offsets_to_transaction(&list, group, self.timeout)
            .map_err(|error| self.classify("send_offsets_to_transaction", &error))
    }

    pub fn commit(&self) -> Result<(), TxnError> {
        if mutated(Mutation::NoTransactions) {
            return Ok(());
        }
        self.client
            .commit_transaction(self.timeout)
            .map_err(|error| self.classify("commit_transaction", &error))
    }

    pub fn abort(&self) -> Result<(), TxnError> {
        if mutated(Mutation::NoTransactions) {
            return Ok(());
        }
        // An abort with records in flight fails after its time-out; what is queued is not wanted.
        let purge = rdkafka::producer::PurgeConfig::default().queue().inflight();
        self.client.purge(purge);
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.client.in_flight_count() > 0 && Instant::now() < deadline {
            self.client.poll(Duration::from_millis(1));
        }
        self.client
            .abort_transaction(self.timeout)
            .map_err(|error| self.classify("abort_transaction", &error))
    }

    /// What an error means for the transaction. Whatever is not known to be harmless is an unknown
    /// outcome: replacing the producer is always safe, reusing it is not.
    fn classify(&self, call: &str, error: &KafkaError) -> TxnError {
        // A fatal error hides behind others (purged records, for one): ask for it.
        if let Some((code, reason)) = self.client.client().fatal_error() {
            return TxnError::Fatal(format!("{call}: {code}: {reason}"));
        }
        let text = format!("{call}: {error}");
        match error {
            KafkaError::Transaction(inner) if inner.is_fatal() => TxnError::Fatal(text),
            KafkaError::Transaction(inner) if inner.txn_requires_abort() => {
                TxnError::Abortable(text)
            }
            _ => match error.rdkafka_error_code() {
                Some(
                    Code::Fenced
                    | Code::ProducerFenced
                    | Code::InvalidProducerEpoch
                    | Code::InvalidTransactionalState
                    | Code::TransactionalIdAuthorizationFailed
                    | Code::TopicAuthorizationFailed
                    | Code::ClusterAuthorizationFailed
                    // The same records fail in the same way, however often they are tried.
                    | Code::UnknownPartition
                    | Code::MessageSizeTooLarge
                    | Code::InvalidMessageSize,
                ) => TxnError::Fatal(text),
                Some(
                    Code::IllegalGeneration
                    | Code::UnknownMemberId
                    | Code::FencedInstanceId
                    | Code::RebalanceInProgress,
                ) => TxnError::Abortable(text),
                _ => TxnError::Unknown(text),
            },
        }
    }
}

fn headers(output: &Output) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(output.headers.len());
    output.headers.iter().fold(headers, |headers, (name, value)| {
        headers.insert(Header { key: name, value: Some(&**value) })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::delivery::tests::Inferring;

    #[test]
    fn a_transaction_with_a_record_that_is_only_taken_for_stored_is_aborted() {
        let broker = Inferring::start("journal");
        let options = TransactionalOptions {
            transactional_id: "worker".to_owned(),
            transaction_timeout: Duration::from_secs(10),
        };
        let producer =
            TxnProducer::connect(&broker.settings(), &options, Some("journal".to_owned())).unwrap();
        let output = || Output {
            topic: "journal".into(),
            partition: Some(0),
            key: None,
            value: b"v".to_vec(),
            headers: Vec::new(),
        };
        producer.begin().unwrap();
        assert_eq!(producer.produce(vec![output()]).unwrap(), [(0, 1)]);
        broker.infer();
        let produced = producer.produce(vec![output()]);
        assert!(matches!(produced, Err(TxnError::Abortable(_))), "{produced:?}");
        producer.abort().unwrap();
    }
}
