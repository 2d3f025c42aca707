//! Opens lanes: offsets and journal, read beside the worker's poll loop on a thread of its own.
//!
//! The order matters. First the group's committed offsets, *stable* ones (a read_committed client waits
//! while a transaction is pending on them, KIP-447); then the journal's high watermark, through a
//! read_uncommitted client, because a read_committed one is told the last stable offset, which hides
//! committed blocks behind a crashed writer's open transaction; then the journal up to there, through a
//! read_committed client, by `position()`: control records take offsets and are never delivered. If a
//! transaction of a dead worker is still open below the end, the position waits for the coordinator to
//! abort it, so the deadline without progress lies beyond the transaction time-out.

use super::{
    context::list,
    types::{InputFacts, JournalFacts, JournalRecord, LaneFacts, TopicPartition},
};
use crate::client::{ClientSettings, Events, Isolation};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender},
    time::{Duration, Instant},
};

/// Bound of one request to the brokers; requests are repeated until the deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the thread waits for work at a time.
const IDLE: Duration = Duration::from_secs(1);

/// Journal records handed over at a time.
const CHUNK: usize = 200;

/// A lane to open.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub lane: TopicPartition,
    pub epoch: u64,
    pub inputs: Vec<TopicPartition>,
    pub journal_from: i64,
}

/// What the thread tells the worker.
#[derive(Debug)]
pub(super) enum Opening {
    Journal { lane: TopicPartition, epoch: u64, records: Vec<JournalRecord> },
    Opened { lane: TopicPartition, epoch: u64, facts: Result<LaneFacts, String> },
}

/// A lane's inputs, and from where to where its journal must be read.
type LookedUp = (Vec<InputFacts>, (i64, i64));

/// The thread's clients.
pub(super) struct Opener {
    stable: BaseConsumer<Events>,
    uncommitted: BaseConsumer<Events>,
    journal: Option<String>,
    /// Longest time without progress.
    patience: Duration,
    active: Vec<Reading>,
}

/// A journal being read.
struct Reading {
    request: OpenRequest,
    facts: Vec<InputFacts>,
    position: i64,
    end: i64,
    chunk: Vec<JournalRecord>,
    progress: Instant,
}

impl Opener {
    pub fn new(
        settings: &ClientSettings,
        group: &str,
        journal: Option<String>,
        patience: Duration,
    ) -> Result<Opener, KafkaError> {
        Ok(Opener {
            stable: settings
                .group_reader_config(group, Isolation::ReadCommitted)
                .create_with_context(Events::default())?,
            uncommitted: settings
                .reader_config(Isolation::ReadUncommitted)
                .create_with_context(Events::default())?,
            journal,
            patience,
            active: Vec::new(),
        })
    }

    /// Serves requests until the worker hangs up.
    pub fn run(mut self, requests: &Receiver<OpenRequest>, answers: &SyncSender<Opening>) {
        loop {
            // Idle: wait for work. Busy: take what is there and go on reading.
            let wait = if self.active.is_empty() { IDLE } else { Duration::ZERO };
            let mut asked = Vec::new();
            let mut next = requests.recv_timeout(wait);
            loop {
                match next {
                    Ok(request) => asked.push(request),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                next = requests.recv_timeout(Duration::ZERO);
            }
            let started = !asked.is_empty() && self.start(asked, answers);
            if self.active.is_empty() {
                self.discard_events();
            }
            if self.step(started, answers).is_none() {
                return;
            }
        }
    }

    /// Takes what the idle clients report, which would pile up in them during an outage.
    fn discard_events(&self) {
        for client in [&self.stable, &self.uncommitted] {
            for _ in 0..CHUNK {
                if client.poll(Duration::ZERO).is_none() {
                    break;
                }
            }
        }
    }

    /// Looks the offsets of these lanes up, of all of them together: a request for each of their partitions would
    /// make a rebalance longer with each. Returns whether there is something to read.
    fn start(&mut self, requests: Vec<OpenRequest>, answers: &SyncSender<Opening>) -> bool {
        let mut asked: Vec<OpenRequest> = Vec::with_capacity(requests.len());
        for request in requests {
            // A newer opening of the same lane makes an older one pointless.
            asked.retain(|older| older.lane != request.lane);
            self.active.retain(|reading| reading.request.lane != request.lane);
            asked.push(request);
        }
        let begun = Instant::now();
        let looked_up = loop {
            match self.look_up(&asked) {
                Ok(found) => break Ok(found),
                Err(error) if begun.elapsed() > self.patience => break Err(error.to_string()),
                Err(error) => {
                    tracing::warn!(%error, lanes = asked.len(), "offsets cannot be read yet");
                    // The brokers do not answer; asking without a pause would only add load.
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        };
        match looked_up {
            Ok(found) => {
                let readings = asked.into_iter().zip(found).map(|(request, (facts, journal))| {
                    let (position, end) = journal;
                    let (chunk, progress) = (Vec::new(), Instant::now());
                    Reading { request, facts, position, end, chunk, progress }
                });
                self.active.extend(readings);
                true
            }
            Err(why) => {
                for OpenRequest { lane, epoch, .. } in asked {
                    answers.send(Opening::Opened { lane, epoch, facts: Err(why.clone()) }).ok();
                }
                false
            }
        }
    }

    /// For each lane its inputs' offsets, and from where to where its journal must be read.
    fn look_up(&self, asked: &[OpenRequest]) -> Result<Vec<LookedUp>, KafkaError> {
        let inputs: Vec<TopicPartition> =
            asked.iter().flat_map(|request| request.inputs.iter().cloned()).collect();
        let committed = self.stable.committed_offsets(list(&inputs), REQUEST_TIMEOUT)?;
        let journal_of = |request: &OpenRequest| {
            let topic = self.journal.as_ref()?;
            Some(TopicPartition::new(topic.as_str(), request.lane.partition))
        };
        let mut all = inputs;
        all.extend(asked.iter().filter_map(journal_of));
        // Asked through the client that will read the journal, which so learns of its topic. Assigned a topic that
        // it has not heard of, librdkafka waits for a timer that looks for such topics once a second.
        let low = bounds(&self.stable, &all, Offset::Beginning)?;
        let high = bounds(&self.uncommitted, &all, Offset::End)?;
        let mut found = Vec::with_capacity(asked.len());
        for request in asked {
            let mut facts = Vec::with_capacity(request.inputs.len());
            for tp in &request.inputs {
                let element = committed.find_partition(&tp.topic, tp.partition);
                if let Some(element) = &element {
                    element.error()?;
                }
                let committed = match element.map(|element| element.offset()) {
                    Some(Offset::Offset(offset)) => Some(offset),
                    _ => None,
                };
                let (low, high) = (offset_in(&low, tp)?, offset_in(&high, tp)?);
                facts.push(InputFacts { tp: tp.clone(), committed, low, high });
            }
            let journal = match journal_of(request) {
                // Blocks that retention has deleted hold nothing that is still needed.
                Some(tp) => {
                    (request.journal_from.max(offset_in(&low, &tp)?), offset_in(&high, &tp)?)
                }
                None => (0, 0),
            };
            found.push((facts, journal));
        }
        Ok(found)
    }

    /// Reads on, and reports every lane that is done. `None` when nobody listens.
    fn step(&mut self, mut changed: bool, answers: &SyncSender<Opening>) -> Option<()> {
        let (done, rest): (Vec<_>, Vec<_>) =
            self.active.drain(..).partition(|reading| reading.position >= reading.end);
        self.active = rest;
        changed |= !done.is_empty();
        for reading in done {
            self.report(reading, answers)?;
        }
        if self.active.is_empty() {
            if changed {
                self.stable.unassign().ok();
            }
            return Some(());
        }
        if changed && let Err(error) = self.assign() {
            tracing::warn!(%error, "the journal cannot be read");
        }
        self.read();
        let patience = self.patience;
        let stuck = |reading: &Reading| reading.progress.elapsed() > patience;
        for reading in &mut self.active {
            if reading.chunk.len() >= CHUNK {
                send_chunk(reading, answers)?;
            }
        }
        let (stuck, rest): (Vec<_>, Vec<_>) = self.active.drain(..).partition(stuck);
        self.active = rest;
        for Reading { request, position, end, .. } in stuck {
            let OpenRequest { lane, epoch, .. } = request;
            let why = format!(
                "the journal could not be read beyond offset {position} of {end} for {patience:?}; a \
                 transaction on it may be hanging (`kafka-transactions find-hanging`)"
            );
            answers.send(Opening::Opened { lane, epoch, facts: Err(why) }).ok()?;
        }
        Some(())
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let Some(topic) = &self.journal else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        for reading in &self.active {
            list.add_partition_offset(
                topic,
                reading.request.lane.partition,
                Offset::Offset(reading.position),
            )?;
        }
        self.stable.assign(&list)
    }

    fn read(&mut self) {
        let mut wait = Duration::from_millis(20);
        for _ in 0..CHUNK {
            match self.stable.poll(wait) {
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let offset = message.offset();
                    let of = |reading: &&mut Reading| reading.request.lane.partition == partition;
                    if let Some(reading) = self.active.iter_mut().find(of) {
                        let value = message.payload().unwrap_or_default().to_vec();
                        reading.chunk.push(JournalRecord { offset, value });
                        reading.position = offset + 1;
                        reading.progress = Instant::now();
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "reading the journal"),
                None => break,
            }
            wait = Duration::ZERO;
        }
        // Control records move the position without being delivered.
        if let Ok(positions) = self.stable.position() {
            for element in positions.elements() {
                let of =
                    |reading: &&mut Reading| reading.request.lane.partition == element.partition();
                if let (Offset::Offset(position), Some(reading)) =
                    (element.offset(), self.active.iter_mut().find(of))
                    && position > reading.position
                {
                    reading.position = position;
                    reading.progress = Instant::now();
                }
            }
        }
    }

    fn report(&self, mut reading: Reading, answers: &SyncSender<Opening>) -> Option<()> {
        send_chunk(&mut reading, answers)?;
        let Reading { request: OpenRequest { lane, epoch, .. }, facts: inputs, end, .. } = reading;
        let journal = self.journal.as_ref().map(|_| JournalFacts { high: end });
        let facts = Ok(LaneFacts { inputs, journal });
        answers.send(Opening::Opened { lane, epoch, facts }).ok()
    }
}

/// The first or the next offset of each partition. In the protocol these are the offsets of two special
/// times (ListOffsets: -2 and -1), so one call asks for all of them.
fn bounds(
    client: &BaseConsumer<Events>,
    tps: &[TopicPartition],
    which: Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut times = list(tps);
    times.set_all_offsets(which)?;
    client.offsets_for_times(times, REQUEST_TIMEOUT)
}

/// The offset of a partition in a list of answers, all of which are needed.
fn offset_in(answers: &TopicPartitionList, tp: &TopicPartition) -> Result<i64, KafkaError> {
    let element = answers.find_partition(&tp.topic, tp.partition);
    match element.map(|element| element.error().map(|()| element.offset())).transpose()? {
        Some(Offset::Offset(offset)) => Ok(offset),
        _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset)),
    }
}

fn send_chunk(reading: &mut Reading, answers: &SyncSender<Opening>) -> Option<()> {
    let records = std::mem::take(&mut reading.chunk);
    if records.is_empty() {
        return Some(());
    }
    let lane = reading.request.lane.clone();
    answers.send(Opening::Journal { lane, epoch: reading.request.epoch, records }).ok()
}
