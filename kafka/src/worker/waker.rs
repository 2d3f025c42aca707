//! Wakes the consumer's fetching.
//!
//! When a partition is resumed, by us or by the client itself after a rebalance, librdkafka 2.12.1 does not wake the
//! thread of its broker: one that has nothing else to fetch sleeps on for up to a second
//! (`rd_kafka_toppar_pause_resume` wakes nobody; confluent-kafka-go#630 shows the delay). A request on its connection
//! wakes it, and so does the answer, so the offsets of what is fetched are asked for. A thread of its own waits for that
//! answer: a worker must not, and a request that is given up soon would cost the connection (`socket.max.fails`).

use super::context::WorkerContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Bound of one request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The worker's end of the thread, which ends with it.
pub(super) struct Waker {
    asked: SyncSender<()>,
}

impl Waker {
    /// Starts the thread.
    pub fn start(worker: &str, consumer: &Arc<BaseConsumer<WorkerContext>>) -> io::Result<Waker> {
        let (asked, asks) = sync_channel(1);
        let consumer = Arc::downgrade(consumer);
        thread::Builder::new().name(format!("wake-{worker}")).spawn(move || {
            while asks.recv().is_ok() {
                let Some(consumer) = consumer.upgrade() else { return };
                if let Some(fetched) = consumer.context().fetched_ends() {
                    // Whatever it says: the broker's thread is awake.
                    consumer.offsets_for_times(fetched, REQUEST_TIMEOUT).ok();
                }
            }
        })?;
        Ok(Waker { asked })
    }

    /// Has the client look again at what it may fetch.
    pub fn wake(&self) {
        // One that is asked for and not begun is enough.
        self.asked.try_send(()).ok();
    }
}
