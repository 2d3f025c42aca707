//! Bookkeeping of one lane: whether it is open, and a bounded look-ahead buffer per input.

use super::types::{Record, TopicPartition};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of records in one transaction, unless a single record is larger. Below the batch size of
/// the transactional producer, so that what goes to one partition fits one produce request.
pub(super) const MAX_BATCH_BYTES: usize = 12 << 20;

/// Bytes buffered per input before it is paused.
pub(super) const MAX_BUFFERED_BYTES: usize = 24 << 20;

/// One input of a lane.
#[derive(Debug)]
pub(super) struct Input {
    pub tp: TopicPartition,
    /// Records polled and not yet planned, in offset order.
    pub buffer: VecDeque<Record>,
    /// Sum of the buffered records' sizes, bytes.
    pub bytes: usize,
    pub paused: bool,
    /// First offset that has not been polled since the lane was opened.
    pub position: i64,
}

impl Input {
    pub fn new(tp: TopicPartition) -> Input {
        Input { tp, buffer: VecDeque::new(), bytes: 0, paused: false, position: 0 }
    }

    /// Takes a polled record. Offsets only ever grow: one from before the position is ignored, since
    /// taking it would move the committed offset back. (That nothing from an earlier assignment is
    /// delivered after a later one is librdkafka's promise: its operations carry the assignment's version.)
    pub fn push(&mut self, record: Record) {
        if record.offset < self.position {
            return;
        }
        self.position = record.offset + 1;
        self.bytes += record.size();
        self.buffer.push_back(record);
    }

    pub fn pop(&mut self) -> Option<Record> {
        let record = self.buffer.pop_front()?;
        self.bytes -= record.size();
        Some(record)
    }

    /// How many records at the head are `ready`; counts no further than `limit`.
    pub fn ready(&self, limit: usize, ready: impl Fn(&Record) -> bool) -> usize {
        self.buffer.iter().take(limit).take_while(|record| ready(record)).count()
    }

    /// Gives a record back that was taken last.
    pub fn unpop(&mut self, record: Record) {
        self.bytes += record.size();
        self.buffer.push_front(record);
    }

    /// Whether to stop fetching: `look_ahead` records are held, and this input's share of the worker's bytes.
    pub fn is_full(&self, look_ahead: usize, share: usize) -> bool {
        (self.buffer.len() >= look_ahead && self.bytes >= share) || self.bytes >= MAX_BUFFERED_BYTES
    }

    /// Whether to go on fetching: half of that is left, so that it does not flutter, and is not empty before more is
    /// there.
    pub fn has_room(&self, look_ahead: usize, share: usize) -> bool {
        (self.buffer.len() < look_ahead.div_ceil(2) || self.bytes < share / 2)
            && self.bytes < MAX_BUFFERED_BYTES / 2
    }

    pub fn clear(&mut self) {
        self.buffer.clear();
        self.bytes = 0;
        self.paused = false;
    }
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// Counts openings; answers to an earlier one are ignored.
    pub epoch: u64,
    /// False until the journal is restored and the inputs are assigned.
    pub open: bool,
    pub inputs: Vec<Input>,
}

impl Lane {
    pub fn input(&mut self, tp: &TopicPartition) -> Option<&mut Input> {
        self.inputs.iter_mut().find(|input| input.tp == *tp)
    }

    pub fn tps(&self) -> Vec<TopicPartition> {
        self.inputs.iter().map(|input| input.tp.clone()).collect()
    }
}

/// The input of an open lane.
pub(super) fn find<'a>(
    lanes: &'a mut BTreeMap<TopicPartition, Lane>,
    tp: &TopicPartition,
) -> Option<&'a mut Input> {
    lanes.values_mut().filter(|lane| lane.open).find_map(|lane| lane.input(tp))
}

/// What one transaction takes in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub records: Vec<Record>,
    /// Next offset per input.
    pub offsets: BTreeMap<TopicPartition, i64>,
    /// Lanes concerned.
    pub lanes: Vec<TopicPartition>,
}

/// Lanes in the order in which they are served: `cursor` rotates them.
fn served(
    lanes: &BTreeMap<TopicPartition, Lane>,
    cursor: usize,
) -> impl Iterator<Item = &TopicPartition> {
    lanes.keys().cycle().skip(cursor % lanes.len().max(1)).take(lanes.len())
}

/// The inputs of a lane in the order in which they are served.
fn turns(inputs: usize, lanes: usize, cursor: usize) -> impl Iterator<Item = usize> {
    (0..inputs).map(move |turn| (turn + cursor / lanes.max(1)) % inputs)
}

/// What [`take`] will probably take: it may find more by then.
pub(super) fn upcoming(
    lanes: &BTreeMap<TopicPartition, Lane>,
    cursor: usize,
    max: usize,
) -> impl Iterator<Item = &Record> {
    let open = served(lanes, cursor).filter_map(|tp| lanes.get(tp)).filter(|lane| lane.open);
    let inputs = open.flat_map(move |lane| {
        turns(lane.inputs.len(), lanes.len(), cursor).map(|turn| &lane.inputs[turn])
    });
    let mut bytes = 0;
    inputs.flat_map(|input| &input.buffer).take(max).take_while(move |record| {
        bytes += record.size();
        bytes <= MAX_BATCH_BYTES
    })
}

/// Takes at most `max` records and [`MAX_BATCH_BYTES`] from the heads that are ready. Whoever is served
/// first may fill the batch, so `cursor` rotates lanes, and the inputs within them: new events must not
/// starve retries that are due, nor the other way round.
pub(super) fn take(
    lanes: &mut BTreeMap<TopicPartition, Lane>,
    cursor: usize,
    max: usize,
    ready: impl Fn(&Record) -> bool,
) -> Taken {
    let held: usize =
        lanes.values().flat_map(|lane| &lane.inputs).map(|input| input.buffer.len()).sum();
    let mut taken = Taken { records: Vec::with_capacity(held.min(max)), ..Taken::default() };
    let mut bytes = 0;
    let count = lanes.len();
    let order: Vec<TopicPartition> = served(lanes, cursor).cloned().collect();
    for tp in order {
        let Some(lane) = lanes.get_mut(&tp).filter(|lane| lane.open) else { continue };
        let before = taken.records.len();
        let mut full = false;
        for turn in turns(lane.inputs.len(), count, cursor) {
            let input = &mut lane.inputs[turn];
            let mut next = None;
            while let Some(record) = input.pop() {
                let size = record.size();
                full = taken.records.len() >= max
                    || (bytes + size > MAX_BATCH_BYTES && !taken.records.is_empty());
                if full || !ready(&record) {
                    input.unpop(record);
                    break;
                }
                bytes += size;
                next = Some(record.offset + 1);
                taken.records.push(record);
            }
            if let Some(next) = next {
                taken.offsets.insert(input.tp.clone(), next);
            }
        }
        if taken.records.len() > before {
            taken.lanes.push(tp);
        }
        if full {
            break;
        }
    }
    taken
}
