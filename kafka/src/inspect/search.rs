//! Finding the last record of a kind in a topic that holds all of that kind before all others.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{OwnedRecord, Reader};
use crate::client::{ClientError, Isolation};

/// What is still open of one partition: `holds` is true below the first number and false from the second on.
#[derive(Debug, Clone, Copy)]
struct Open {
    from: i64,
    to: i64,
}

impl Open {
    fn middle(self) -> i64 {
        self.from + (self.to - self.from) / 2
    }
}

impl Reader {
    /// The newest broker time, in milliseconds since 1970, of the records of `topic` for which `holds`; `None` where
    /// it holds for none. In each partition they have to lie before all others, as what an earlier release wrote
    /// does: the time is then found with one record a partition for each doubling of its length. Where a few are
    /// mixed (both releases ran for a while), what is found lies somewhere among them.
    ///
    /// # Errors
    /// As [`Reader::read_range`].
    pub fn newest_of_the_first(
        &self,
        topic: &str,
        holds: impl Fn(&OwnedRecord) -> bool,
    ) -> Result<Option<i64>, ClientError> {
        let watermarks = self.watermarks(topic)?;
        let mut open: BTreeMap<i32, Open> = watermarks
            .into_iter()
            .map(|(partition, low, high)| (partition, Open { from: low, to: high }))
            .collect();
        let mut newest = None;
        // The ends first: nearly always none is of the kind, or all are.
        let last = self.one_of_each(topic, &open, |open| open.to - 1)?;
        for (partition, record) in last {
            if holds(&record) {
                newest = newest.max(record.timestamp_ms);
                open.remove(&partition);
            }
        }
        let first = self.one_of_each(topic, &open, |open| open.from)?;
        open.retain(|partition, _| first.get(partition).is_some_and(&holds));
        while !open.is_empty() {
            let found = self.one_of_each(topic, &open, Open::middle)?;
            for (partition, open) in &mut open {
                match found.get(partition).filter(|record| holds(record)) {
                    Some(record) => {
                        newest = newest.max(record.timestamp_ms);
                        open.from = open.middle() + 1;
                    }
                    None => open.to = open.middle(),
                }
            }
            open.retain(|_, open| open.from < open.to);
        }
        Ok(newest)
    }

    /// The record at one offset of each open partition; none where that holds a marker.
    fn one_of_each(
        &self,
        topic: &str,
        open: &BTreeMap<i32, Open>,
        at: impl Fn(Open) -> i64,
    ) -> Result<BTreeMap<i32, OwnedRecord>, ClientError> {
        let ranges = open.iter().filter(|(_, open)| open.from < open.to);
        let ranges: Vec<_> =
            ranges.map(|(partition, open)| (*partition, at(*open), Some(at(*open) + 1))).collect();
        let mut records = BTreeMap::new();
        self.read_ranges(topic, ranges, Isolation::ReadUncommitted, |message| {
            let record = OwnedRecord::read(message);
            records.insert(record.partition, record);
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }
}
