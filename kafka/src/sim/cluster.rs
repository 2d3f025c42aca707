//! The simulated brokers: every call here happens at once and entirely; that calls are lost, late or
//! half done is the harness's part.

use crate::worker::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};

/// A stored record.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
    /// Broker time, ms.
    pub timestamp: i64,
    /// Headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

#[derive(Debug)]
enum Entry {
    Data {
        record: Stored,
        txn: Option<usize>,
    },
    /// Commit and abort markers take an offset and are never delivered.
    Control,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
struct Transaction {
    epoch: u32,
    current: Option<usize>,
    partitions: BTreeSet<TopicPartition>,
    offsets: Vec<(TopicPartition, i64)>,
}

/// Why a broker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The producer's epoch is old.
    Fenced,
    /// The member or its generation is not current.
    IllegalGeneration,
    /// No transaction is open (an EndTxn without one).
    InvalidState,
}

/// One partition.
#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    /// First offset of each open transaction.
    open: BTreeMap<usize, i64>,
}

impl Log {
    fn high(&self) -> i64 {
        self.entries.len() as i64
    }

    fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.high())
    }
}

/// Brokers, transaction coordinator and group coordinator.
#[derive(Debug, Default)]
pub struct Cluster {
    logs: BTreeMap<TopicPartition, Log>,
    fates: Vec<Fate>,
    transactions: BTreeMap<usize, Transaction>,
    committed: BTreeMap<TopicPartition, i64>,
    /// Generation of the consumer group.
    pub generation: i32,
    /// Current members of the group: worker and its incarnation.
    pub members: BTreeMap<usize, u64>,
}

impl Cluster {
    /// Appends outside any transaction; returns the offset.
    pub fn append(&mut self, tp: &TopicPartition, record: Stored) -> i64 {
        self.push(tp, Entry::Data { record, txn: None })
    }

    fn push(&mut self, tp: &TopicPartition, entry: Entry) -> i64 {
        let log = self.logs.entry(tp.clone()).or_default();
        let offset = log.high();
        if let Entry::Data { txn: Some(txn), .. } = entry {
            log.open.entry(txn).or_insert(offset);
        }
        log.entries.push(entry);
        offset
    }

    /// High watermark.
    pub fn high(&self, tp: &TopicPartition) -> i64 {
        self.logs.get(tp).map_or(0, Log::high)
    }

    /// Last stable offset: the first offset of an open transaction, or the high watermark.
    pub fn stable(&self, tp: &TopicPartition) -> i64 {
        self.logs.get(tp).map_or(0, Log::stable)
    }

    /// The next committed record at or after `from`, below the last stable offset, and the position
    /// after it; at the end `None` and the last stable offset.
    pub fn read(&self, tp: &TopicPartition, from: i64) -> (Option<(i64, &Stored)>, i64) {
        let Some(log) = self.logs.get(tp) else {
            return (None, from);
        };
        let stable = log.stable();
        for offset in from..stable {
            if let Entry::Data { record, txn } = &log.entries[offset as usize]
                && txn.is_none_or(|txn| self.fates[txn] == Fate::Committed)
            {
                return (Some((offset, record)), offset + 1);
            }
        }
        (None, stable.max(from))
    }

    /// The offsets of records that were aborted, or belong to a transaction that is still open.
    pub fn invisible(&self, tp: &TopicPartition) -> Vec<i64> {
        let entries = self.logs.get(tp).map_or(&[][..], |log| &log.entries);
        let hidden = |entry: &Entry| matches!(entry, Entry::Data { txn: Some(txn), .. } if self.fates[*txn] != Fate::Committed);
        (0..).zip(entries).filter(|(_, entry)| hidden(entry)).map(|(offset, _)| offset).collect()
    }

    /// Every committed record of a partition.
    pub fn read_all(&self, tp: &TopicPartition) -> Vec<(i64, Stored)> {
        let mut found = Vec::new();
        let mut position = 0;
        while let (Some((offset, record)), next) = self.read(tp, position) {
            found.push((offset, record.clone()));
            position = next;
        }
        found
    }

    /// The group's offset as a fetch that does not require stable ones sees it.
    pub fn last_committed(&self, tp: &TopicPartition) -> Option<i64> {
        self.committed.get(tp).copied()
    }

    /// The group's offset, or `None` while a transaction is pending on it (a stable fetch waits).
    pub fn committed(&self, tp: &TopicPartition) -> Option<Option<i64>> {
        let pending = self.transactions.values().any(|transaction| {
            transaction.current.is_some() && transaction.offsets.iter().any(|(of, _)| of == tp)
        });
        (!pending).then(|| self.last_committed(tp))
    }

    /// Sets an offset as Kafka's reset tool does.
    pub fn reset_offset(&mut self, tp: &TopicPartition, offset: i64) {
        self.committed.insert(tp.clone(), offset);
    }

    /// InitProducerId: bumps the epoch and aborts what the predecessor left open.
    pub fn init(&mut self, id: usize) -> u32 {
        let transaction = self.transactions.entry(id).or_default();
        transaction.epoch += 1;
        let epoch = transaction.epoch;
        self.finish(id, Fate::Aborted);
        epoch
    }

    fn open(&mut self, id: usize, epoch: u32) -> Result<usize, Refused> {
        let next = self.fates.len();
        let transaction = self.transactions.entry(id).or_default();
        if transaction.epoch != epoch {
            return Err(Refused::Fenced);
        }
        Ok(match transaction.current {
            Some(txn) => txn,
            None => {
                transaction.current = Some(next);
                self.fates.push(Fate::Open);
                next
            }
        })
    }

    /// Produce in a transaction; returns the offset.
    pub fn produce(
        &mut self,
        id: usize,
        epoch: u32,
        tp: &TopicPartition,
        record: Stored,
    ) -> Result<i64, Refused> {
        let txn = self.open(id, epoch)?;
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.partitions.insert(tp.clone());
        }
        Ok(self.push(tp, Entry::Data { record, txn: Some(txn) }))
    }

    /// TxnOffsetCommit.
    pub fn send_offsets(
        &mut self,
        id: usize,
        epoch: u32,
        member: (usize, u64, i32),
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Refused> {
        let (worker, incarnation, generation) = member;
        self.open(id, epoch)?;
        if self.members.get(&worker) != Some(&incarnation) || generation != self.generation {
            return Err(Refused::IllegalGeneration);
        }
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.offsets.extend_from_slice(offsets);
        }
        Ok(())
    }

    /// EndTxn.
    pub fn end(&mut self, id: usize, epoch: u32, commit: bool) -> Result<(), Refused> {
        match self.transactions.get(&id) {
            Some(transaction) if transaction.epoch != epoch => Err(Refused::Fenced),
            Some(Transaction { current: None, .. }) | None => Err(Refused::InvalidState),
            Some(_) => {
                self.finish(id, if commit { Fate::Committed } else { Fate::Aborted });
                Ok(())
            }
        }
    }

    /// The coordinator aborts a transaction that has been open for too long, and fences its producer.
    pub fn expire(&mut self, id: usize) {
        if self.transactions.get(&id).is_some_and(|transaction| transaction.current.is_some()) {
            self.init(id);
        }
    }

    fn finish(&mut self, id: usize, fate: Fate) {
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return;
        };
        let Some(txn) = transaction.current.take() else {
            return;
        };
        let partitions = std::mem::take(&mut transaction.partitions);
        let offsets = std::mem::take(&mut transaction.offsets);
        self.fates[txn] = fate;
        if fate == Fate::Committed {
            self.committed.extend(offsets);
        }
        for tp in partitions {
            if let Some(log) = self.logs.get_mut(&tp) {
                log.open.remove(&txn);
            }
            self.push(&tp, Entry::Control);
        }
    }
}
