//! A closed loop: each connection sends its next request when the last one is answered. It finds the greatest rate, and
//! says nothing of latency: a slow server is asked less often.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{anyhow, ensure};
use tokio::{runtime::Builder, task::JoinSet};

use super::{Work, http::Connection};

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicU64,
    answered: AtomicU64,
    problem: Mutex<Option<String>>,
}

/// A load that runs until it is ended.
#[derive(Debug)]
pub struct Closed {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Closed {
    /// Starts it.
    pub fn start(target: SocketAddr, work: Work, connections: usize) -> Closed {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let outcome = Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(drive(&own, target, &work, connections)));
            if let Err(error) = outcome {
                own.fail(error.to_string());
            }
        });
        Closed { shared, thread: Some(thread) }
    }

    /// Events answered with 2xx so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends it once what is in flight is answered. Returns how many events were answered with 2xx.
    ///
    /// # Errors
    /// A request was not.
    pub fn end(mut self) -> anyhow::Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the load generator panicked"))?;
        }
        let problem = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        ensure!(problem.is_none(), "a request failed: {}", problem.unwrap_or_default());
        Ok(self.answered())
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Keeps the first problem, and ends the load: a run with one is invalid.
    fn fail(&self, problem: String) {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn drive(shared: &Arc<Shared>, target: SocketAddr, work: &Work, connections: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (shared, work) = (Arc::clone(shared), work.clone());
        tasks.spawn(async move {
            if let Err(error) = converse(&shared, target, &work).await {
                shared.fail(error);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn converse(shared: &Shared, target: SocketAddr, work: &Work) -> Result<(), String> {
    let mut connection = Connection::open(target).await.map_err(|error| error.to_string())?;
    let mut request = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(work.events, Ordering::Relaxed);
        (work.compose)(number, &mut request);
        let status = connection.exchange(&request).await.map_err(|error| error.to_string())?;
        if !(200..300).contains(&status) {
            return Err(format!("answered {status}"));
        }
        shared.answered.fetch_add(work.events, Ordering::Relaxed);
    }
    Ok(())
}
