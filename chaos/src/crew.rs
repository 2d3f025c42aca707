//! The six processes of a run, and their supervisor: whatever ends is started again under its name.
//!
//! An end is *expected* when a fault brought it about. Others are allowed too (a worker that is fenced ends
//! with status 1, by design), but not every kind of end: success unasked and a panic are failures of the run.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, Mutex as Plain, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use sluice_tests::sluice::{Pipeline, Role};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
};

use crate::{
    plan::{Kind, Slot},
    timeline::Timeline,
};

/// Pause between two looks at a process.
const LOOK: Duration = Duration::from_millis(50);
/// Pause before a process that ended by itself is started again, as a supervisor backs off.
const BACK_OFF: Duration = Duration::from_millis(400);
/// Longest wait for a process to end after SIGTERM.
const END: Duration = Duration::from_secs(60);
/// Bytes at the end of a log that tell how a process ended.
const LAST_WORDS: u64 = 16 * 1024;
/// Most kinds of failure that are kept, with an example each.
const MOST_FAILURES: usize = 20;

/// Environment of one start.
pub type Environment = Vec<(String, String)>;

/// What has been seen of the processes.
#[derive(Debug, Default)]
pub struct Seen {
    /// Ends by how they came about.
    pub ends: BTreeMap<String, u64>,
    /// Crash points that were reached, by name.
    pub crashes: BTreeMap<String, u64>,
    /// What must not happen: success unasked, panics.
    pub failures: Vec<String>,
}

/// One process and what its next start is to be.
#[derive(Debug)]
pub struct Post {
    slot: Slot,
    role: Option<Role>,
    next: Environment,
    /// The end that comes next was brought about by a fault.
    expected: bool,
    /// It is not to be started again.
    retired: bool,
    /// Length of the log when the process was started.
    log_from: u64,
}

/// All processes of a run.
#[derive(Debug)]
pub struct Crew {
    pipeline: Arc<Pipeline>,
    common: Environment,
    posts: Vec<Mutex<Post>>,
    seen: Plain<Seen>,
    timeline: Arc<Timeline>,
    stopping: AtomicBool,
}

impl Crew {
    /// Starts two processes of each role. `common` goes into every start's environment.
    pub fn start(
        pipeline: Arc<Pipeline>,
        common: Environment,
        timeline: Arc<Timeline>,
    ) -> (Arc<Crew>, JoinHandle<()>) {
        let post = |slot| Post {
            slot,
            role: None,
            next: Environment::new(),
            expected: false,
            retired: false,
            log_from: 0,
        };
        let posts = Slot::all().map(|slot| Mutex::new(post(slot))).collect();
        let (seen, stopping) = (Plain::default(), AtomicBool::new(false));
        let crew = Arc::new(Crew { pipeline, common, posts, seen, timeline, stopping });
        let watched = crew.clone();
        let supervisor = tokio::spawn(async move {
            let posts = watched.posts.iter().map(|post| watched.supervise(post));
            futures::future::join_all(posts).await;
        });
        (crew, supervisor)
    }

    async fn supervise(&self, post: &Mutex<Post>) {
        while !self.stopping.load(Ordering::Acquire) {
            let mut by_itself = false;
            {
                let mut post = post.lock().await;
                let ended = post.role.as_mut().map(Role::status);
                match ended {
                    None if post.retired => {}
                    None => self.begin(&mut post),
                    Some(None) => {}
                    Some(Some(status)) => {
                        by_itself = !self.ended(&mut post, status);
                    }
                }
            }
            tokio::time::sleep(if by_itself { BACK_OFF } else { LOOK }).await;
        }
    }

    fn begin(&self, post: &mut Post) {
        let env: Vec<(&str, &str)> = self
            .common
            .iter()
            .chain(&post.next)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let instance = instance(post.slot);
        let role = self.pipeline.start(post.slot.kind.name(), &instance, &env);
        post.log_from = std::fs::metadata(role.log_path()).map_or(0, |file| file.len());
        post.role = Some(role);
        post.next.clear();
        post.expected = false;
    }

    /// Enters the end of a process; true when a fault brought it about.
    fn ended(&self, post: &mut Post, status: ExitStatus) -> bool {
        let Some(role) = post.role.take() else { return true };
        let words = last_words(&role, post.log_from);
        let slot = post.slot;
        drop(role);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let how = if let Some(point) = crash_point(&words, status) {
            self.timeline.note(format!("{slot} died at crash point {point}"));
            *seen.crashes.entry(point).or_default() += 1;
            post.expected = true;
            "at a crash point".to_owned()
        } else if post.expected {
            "as a fault demanded".to_owned()
        } else {
            self.timeline.note(format!("{slot} ended by itself: {status}"));
            format!("{} by itself: {status}", slot.kind.name())
        };
        let panicked =
            words.lines().find(|line| line.contains("panic: ") || line.contains("panicked"));
        let failure = match panicked {
            Some(line) => Some(format!("{slot} panicked: {line}")),
            None if status.success() && !post.expected => {
                Some(format!("{slot} ended with success though nobody asked it to"))
            }
            None => None,
        };
        if let Some(failure) = failure
            && seen.failures.len() < MOST_FAILURES
        {
            seen.failures.push(failure);
        }
        *seen.ends.entry(how).or_default() += 1;
        post.expected
    }

    /// What has been seen so far.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn post(&self, slot: Slot) -> MutexGuard<'_, Post> {
        self.posts[slot.index()].lock().await
    }

    /// Kills a process; its next start has this environment beside the common one. False if it had ended.
    pub async fn kill(&self, slot: Slot, next: Environment) -> bool {
        let mut post = self.post(slot).await;
        post.next = next;
        let Some(role) = &mut post.role else { return false };
        if role.status().is_some() {
            return false;
        }
        role.kill();
        post.expected = true;
        true
    }

    /// Sends a signal; false if the process has ended.
    pub async fn signal(&self, slot: Slot, signal: Signal) -> bool {
        let mut post = self.post(slot).await;
        let Some(role) = &mut post.role else { return false };
        if role.status().is_some() {
            return false;
        }
        role.signal(signal);
        true
    }

    /// Whether a process is up and says that it is ready.
    pub async fn is_ready(&self, slot: Slot) -> bool {
        let post = self.post(slot).await;
        match &post.role {
            Some(role) => role.is_ready().await,
            None => false,
        }
    }

    /// Base URLs of the gateways, once they run.
    pub async fn gateways(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for slot in Slot::all().filter(|slot| slot.kind == Kind::Gateway) {
            if let Some(role) = &self.post(slot).await.role {
                urls.push(role.url());
            }
        }
        urls
    }

    /// Starts a further process that nobody supervises.
    pub fn further(&self, kind: Kind, instance: &str) -> Role {
        let env: Vec<(&str, &str)> =
            self.common.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.pipeline.start(kind.name(), instance, &env)
    }

    /// Stops the processes of a role with SIGTERM and starts them no more. What does not end with success
    /// is a failure of the run, unless it reached the crash point that was armed in it: stopping is the first
    /// occasion for some of them.
    pub async fn stop(&self, kinds: &[Kind]) {
        for slot in Slot::all().filter(|slot| kinds.contains(&slot.kind)) {
            let mut post = self.post(slot).await;
            post.retired = true;
            let Some(mut role) = post.role.take() else { continue };
            if role.status().is_none() {
                role.signal(Signal::SIGTERM);
            }
            let deadline = tokio::time::Instant::now() + END;
            let status = loop {
                match role.status() {
                    Some(status) => break Some(status),
                    None if tokio::time::Instant::now() > deadline => break None,
                    None => tokio::time::sleep(LOOK).await,
                }
            };
            let words = last_words(&role, post.log_from);
            let point = status.and_then(|status| crash_point(&words, status));
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(point) = point {
                *seen.crashes.entry(point).or_default() += 1;
            } else if !status.is_some_and(|status| status.success()) {
                let how = status.map_or("did not end".to_owned(), |status| status.to_string());
                seen.failures.push(format!("{slot} was asked to stop, and: {how}"));
            }
        }
    }

    /// Ends the supervision: whoever ends from now on stays down.
    pub fn dismiss(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

/// The name of a process, under which it keeps ports, state and transactional ids.
fn instance(slot: Slot) -> String {
    format!("{}{}", &slot.kind.name()[..1], slot.number + 1)
}

/// The crash point that a process died at, by the end of its log.
fn crash_point(words: &str, status: ExitStatus) -> Option<String> {
    let reached = words.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("crash point ")?;
        rest.split_once(" reached").map(|(name, _)| name.to_owned())
    });
    reached.filter(|_| status.signal() == Some(6))
}

/// The end of what a process has logged since its start.
fn last_words(role: &Role, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(role.log_path())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LAST_WORDS))))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
