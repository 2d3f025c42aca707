//! The thread that produces a transaction's records while the worker prepares its next batch.
//!
//! There is one for the life of a worker. A new thread for every transaction would also be a new heap of the
//! allocator each time, given up with the client's copies of all records still in it.

use super::{
    producer::TxnProducer,
    types::{Output, TxnError},
};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Next offset of each journal partition written to.
type Produced = Result<Vec<(i32, i64)>, TxnError>;

/// A thread that produces. It ends with this handle.
pub(super) struct ProduceThread {
    work: SyncSender<(Arc<TxnProducer>, Vec<Output>)>,
    outcomes: Receiver<Produced>,
}

impl ProduceThread {
    pub fn start() -> io::Result<ProduceThread> {
        // One transaction is open at a time, so neither side ever waits for room.
        let (work, requests) = sync_channel::<(Arc<TxnProducer>, Vec<Output>)>(1);
        let (answers, outcomes) = sync_channel(1);
        thread::Builder::new().name("produce".to_owned()).spawn(move || {
            while let Ok((producer, outputs)) = requests.recv() {
                let produced = producer.produce(outputs);
                // Before the answer: a producer that has to go must go when the worker lets go of it.
                drop(producer);
                if answers.send(produced).is_err() {
                    break;
                }
            }
        })?;
        Ok(ProduceThread { work, outcomes })
    }

    /// As [`TxnProducer::produce`]. Meanwhile `work` is done, which is given what tells when to stop.
    pub fn produce(
        &self,
        producer: &Arc<TxnProducer>,
        outputs: Vec<Output>,
        work: impl FnOnce(&mut dyn FnMut() -> bool),
    ) -> Produced {
        let ended = || TxnError::Fatal("the thread that produces has ended".to_owned());
        self.work.send((Arc::clone(producer), outputs)).map_err(|_| ended())?;
        let mut produced = None;
        work(&mut || {
            if produced.is_none() {
                produced = self.outcomes.try_recv().ok();
            }
            produced.is_some()
        });
        match produced {
            Some(produced) => produced,
            None => self.outcomes.recv().map_err(|_| ended())?,
        }
    }
}
