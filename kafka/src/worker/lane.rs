//! Bookkeeping of one lane: whether it is open, and a bounded look-ahead buffer per input.

use super::types::{Record, TopicPartition};
use std::collections::VecDeque;

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
        Input {
            tp,
            buffer: VecDeque::new(),
            bytes: 0,
            paused: false,
            position: 0,
        }
    }

    /// Takes a polled record. One from before the position is left over from an earlier assignment:
    /// taking it would move the committed offset back.
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

    /// Gives a record back that was taken last.
    pub fn unpop(&mut self, record: Record) {
        self.bytes += record.size();
        self.buffer.push_front(record);
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
