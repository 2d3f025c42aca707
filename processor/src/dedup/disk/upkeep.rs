//! The slow part of a store's life, away from the worker: writing segments, merging them, replacing the
//! manifest. Two threads serve all stores of the process: one for what is short and replaces manifests, one
//! for merges, which take long and only write a file. Each store has at most one task on each.

use super::{StoreError, files, manifest::Manifest, segment::Segment, table::Table};
use crate::dedup::Original;
use sluice_service::faults::{CrashPoint, crash_point};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

/// What a task writes.
#[derive(Debug)]
pub(super) enum Work {
    /// A segment of a full table.
    Seal(Arc<Table>),
    /// One segment of several, without originals older than `not_before` (ms). Given up when `abandoned` is set.
    Merge { segments: Vec<Arc<Segment>>, not_before: i64, abandoned: Arc<AtomicBool> },
    /// The manifest alone: segments were merged or have expired.
    Manifest,
}

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) folder: PathBuf,
    /// Name of the new segment.
    pub(super) name: String,
    pub(super) work: Work,
    /// What the folder holds when the task is done, but for the new segment; `None` leaves it as it is.
    pub(super) manifest: Option<Manifest>,
    /// Files that are of no use then.
    pub(super) remove: Vec<PathBuf>,
}

/// What came of it: the new segment, where one was written.
pub(super) type Done = Result<Option<Arc<Segment>>, StoreError>;

impl Task {
    fn run(self) -> Done {
        let path = self.folder.join(&self.name);
        let merge = matches!(self.work, Work::Merge { .. });
        let segment = match &self.work {
            Work::Seal(table) => Some(Segment::write(&path, table.sorted().into_iter().map(Ok))?),
            Work::Merge { segments, not_before, abandoned } => {
                let young = merged(segments)
                    .filter(|original| {
                        original.as_ref().map_or(true, |original| original.time >= *not_before)
                    })
                    .map(|original| match abandoned.load(Ordering::Relaxed) {
                        true => Err(StoreError::Stopped),
                        false => original,
                    });
                Some(Segment::write(&path, young)?)
            }
            Work::Manifest => None,
        };
        if segment.is_some() {
            // Before any manifest names it: a power failure must not leave the name without the file.
            files::sync_folder(&self.folder)
                .map_err(|source| StoreError::Io { path: self.folder.clone(), source })?;
            crash_point(if merge { CrashPoint::DuringMerge } else { CrashPoint::DuringSealing });
        }
        if let Some(mut manifest) = self.manifest {
            if segment.is_some() {
                manifest.segments.push(self.name);
            }
            manifest.write(&self.folder)?;
        }
        for path in &self.remove {
            // What stays behind is removed when the store is opened again.
            if let Err(error) = files::remove(path) {
                tracing::warn!(path = %path.display(), %error, "an old segment stays behind");
            }
        }
        Ok(segment.map(Arc::new))
    }
}

/// The originals of several segments in order, each once.
fn merged(segments: &[Arc<Segment>]) -> impl Iterator<Item = Result<Original, StoreError>> {
    let mut sources: Vec<_> = segments.iter().map(|segment| segment.scan()).collect();
    let mut heads = BinaryHeap::new();
    let mut failed = None;
    let mut last = None;
    let mut pull = move |source: usize, heads: &mut BinaryHeap<_>| match sources[source].next() {
        Some(Ok(original)) => {
            heads.push(Reverse((original.key, original.offset, original.time, source)));
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    for source in 0..segments.len() {
        failed = failed.or(pull(source, &mut heads));
    }
    std::iter::from_fn(move || {
        loop {
            if let Some(error) = failed.take() {
                heads.clear();
                return Some(Err(error));
            }
            let Reverse((key, offset, time, source)) = heads.pop()?;
            failed = pull(source, &mut heads);
            if last.replace((key, offset)) != Some((key, offset)) {
                return Some(Ok(Original { key, offset, time }));
            }
        }
    })
}

/// Where tasks run.
#[derive(Debug, Clone)]
pub enum Upkeep {
    /// At once, in the caller's thread: for tools and tests.
    Inline,
    /// On threads of their own, which end when the last of these is dropped.
    Threads(Threads),
}

/// The ways to the two threads.
#[derive(Debug, Clone)]
pub struct Threads {
    brief: mpsc::Sender<Order>,
    long: mpsc::Sender<Order>,
}

/// A task and where its end is reported.
#[derive(Debug)]
struct Order(Task, mpsc::Sender<Done>);

impl Upkeep {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn threads() -> std::io::Result<Upkeep> {
        Ok(Upkeep::Threads(Threads { brief: thread("dedup-store")?, long: thread("dedup-merge")? }))
    }

    pub(super) fn start(&self, task: Task) -> Running {
        let (sender, receiver) = mpsc::channel();
        match self {
            Upkeep::Inline => {
                let _ = sender.send(task.run());
            }
            // A thread that is gone drops the sender, which `Running` reports.
            Upkeep::Threads(Threads { brief, long }) => {
                let long_lasting = matches!(task.work, Work::Merge { .. });
                let _ = if long_lasting { long } else { brief }.send(Order(task, sender));
            }
        }
        Running(receiver)
    }
}

fn thread(name: &str) -> std::io::Result<mpsc::Sender<Order>> {
    let (sender, orders) = mpsc::channel::<Order>();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        for Order(task, done) in orders {
            // Nobody waits any more where the store was dropped.
            let _ = done.send(task.run());
        }
    })?;
    Ok(sender)
}

/// A task under way.
#[derive(Debug)]
pub(super) struct Running(mpsc::Receiver<Done>);

impl Running {
    /// What came of it, if it is done.
    pub(super) fn poll(&self) -> Option<Done> {
        match self.0.try_recv() {
            Ok(done) => Some(done),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err(StoreError::Stopped)),
        }
    }

    /// What came of it, once it is done.
    pub(super) fn wait(&self) -> Done {
        self.0.recv().unwrap_or(Err(StoreError::Stopped))
    }
}
