//! When events become visible to a reader of committed records.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::anyhow;
use rdkafka::{
    Message, Offset,
    consumer::{BaseConsumer, Consumer},
};

use super::{event::Events, open::Timeline};
use crate::lab::{Lab, kafka, until};

/// Longest wait of the reader for a record, after which it looks whether it is to end.
const POLL: Duration = Duration::from_millis(100);

/// A reader on a thread of its own.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Watch {
    /// Reads `topic` from its present end and notes when the `events` of a timeline appear.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn start(
        lab: &Lab,
        topic: &str,
        events: &Events,
        timeline: &Arc<Timeline>,
    ) -> anyhow::Result<Watch> {
        let consumer = kafka::reader(lab, topic, Offset::End)?;
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (timeline, events) = (Arc::clone(timeline), events.clone());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || read(&consumer, &stopped, &counted, &events, &timeline));
        Ok(Watch { stop, count, thread: Some(thread) })
    }

    /// Waits until all `count` events were seen.
    ///
    /// # Errors
    /// They are not within a minute, one was seen twice, or the broker fails.
    pub fn finish(mut self, count: u64) -> anyhow::Result<()> {
        let all = until("all events to be visible", Duration::from_secs(60), POLL, || {
            Ok((self.count.load(Ordering::Acquire) >= count).then_some(()))
        });
        self.stop.store(true, Ordering::Release);
        let read = self.thread.take().map(JoinHandle::join).transpose();
        if let Some(ended) = read.map_err(|_| anyhow!("the reader panicked"))? {
            ended?;
        }
        all
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn read(
    consumer: &BaseConsumer,
    stop: &AtomicBool,
    count: &AtomicU64,
    events: &Events,
    timeline: &Timeline,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(POLL) else { continue };
        let message = message?;
        let now = timeline.now();
        let number = message.key().and_then(|key| events.number(key));
        let Some(times) = number
            .and_then(|number| timeline.events.get(usize::try_from(number).unwrap_or(usize::MAX)))
        else {
            continue;
        };
        anyhow::ensure!(
            times.seen.swap(now, Ordering::AcqRel) == 0,
            "an event became visible twice, at {}/{}",
            message.partition(),
            message.offset()
        );
        count.fetch_add(1, Ordering::AcqRel);
    }
    consumer.unassign()?;
    Ok(())
}
