//! Does what the plan says, and as much of it at a time as leaves the pipeline able to go on.
//!
//! Faults that could begin lie in a small window; the first of them that is compatible with what is under
//! way begins. Each runs in a task of its own, which also takes it back.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::sys::signal::Signal;
use rdkafka::{consumer::Consumer, metadata::Metadata};
use sluice_service::faults::{CLOCK_OFFSET_MS, CRASH, CrashPoint};
use sluice_tests::read::{Isolation, consumer};
use tokio::task::JoinSet;

use crate::{
    crew::{Crew, Environment},
    load::Bursts,
    plan::{Fault, Kind, Slot},
    proxy,
    site::Site,
    timeline::Timeline,
};

/// Pause between two looks at what could begin.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for an armed crash point to be reached.
const REACHED: Duration = Duration::from_secs(30);
/// Longest wait for a restarted broker to have caught up, and for a dead one to be missed.
const CAUGHT_UP: Duration = Duration::from_secs(60);
/// Longest wait for a broker to end once its disk is full.
const DISK_FULL: Duration = Duration::from_secs(30);
/// Longest wait for a process to be ready, between two faults that need it so.
const READY: Duration = Duration::from_secs(20);
/// Longest wait for metadata.
const METADATA: Duration = Duration::from_secs(5);

/// What faults are done to.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Brokers, registry, proxy.
    pub site: Arc<Site>,
    /// The processes.
    pub crew: Arc<Crew>,
    /// The sender of duplicates.
    pub bursts: Bursts,
    /// Where every fault is entered.
    pub timeline: Arc<Timeline>,
    /// A topic with as many replicas as there are brokers should be.
    pub topic: String,
    /// Whether brokers are started again before the others have missed them.
    pub hasty: bool,
}

/// How often each kind has happened.
pub type Counts = BTreeMap<String, u64>;

#[derive(Debug)]
struct Doer {
    targets: Targets,
    counts: Mutex<Counts>,
}

/// What runs at the moment, by what it needs to itself.
#[derive(Debug, Default)]
struct Busy {
    slots: BTreeSet<Slot>,
    /// Roles of which a process sleeps.
    asleep: BTreeSet<Kind>,
    broker: bool,
    registry: bool,
    storm: bool,
}

impl Busy {
    fn allows(&self, fault: &Fault) -> bool {
        if fault.slot().is_some_and(|slot| self.slots.contains(&slot)) {
            return false;
        }
        match fault {
            // While one of a role sleeps, the other one has to live.
            Fault::Zombie(slot, _) | Fault::Pause(slot, _) => !self.asleep.contains(&slot.kind),
            Fault::Kill(slot) | Fault::Clock(slot, _) | Fault::Crash { slot, .. } => {
                !self.asleep.contains(&slot.kind) || slot.kind != Kind::Gateway
            }
            Fault::RegistryAway(_) => !self.registry,
            Fault::RebalanceStorm(..) => !self.storm,
            _ => !(fault.takes_broker() && self.broker),
        }
    }

    fn mark(&mut self, fault: &Fault, busy: bool) {
        if let Some(slot) = fault.slot() {
            if busy {
                self.slots.insert(slot)
            } else {
                self.slots.remove(&slot)
            };
            if matches!(fault, Fault::Zombie(..) | Fault::Pause(..)) {
                if busy {
                    self.asleep.insert(slot.kind)
                } else {
                    self.asleep.remove(&slot.kind)
                };
            }
        }
        match fault {
            Fault::RegistryAway(_) => self.registry = busy,
            Fault::RebalanceStorm(..) => self.storm = busy,
            _ if fault.takes_broker() => self.broker = busy,
            _ => {}
        }
    }
}

/// Carries a plan out.
#[derive(Debug)]
pub struct Executor {
    doer: Arc<Doer>,
    window: VecDeque<(Duration, Fault)>,
    width: usize,
    busy: Busy,
    running: JoinSet<(Fault, anyhow::Result<()>)>,
    last: Instant,
}

impl Executor {
    /// Nothing has happened yet. So many faults of the plan are looked at together; 1 keeps their order.
    pub fn new(targets: Targets, window: usize) -> Executor {
        let doer = Arc::new(Doer { targets, counts: Mutex::default() });
        Executor {
            doer,
            window: VecDeque::new(),
            width: window,
            busy: Busy::default(),
            running: JoinSet::new(),
            last: Instant::now(),
        }
    }

    /// How often each kind has happened so far.
    pub fn counts(&self) -> Counts {
        self.doer.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the plan a little further: begins at most one fault, and waits a moment.
    ///
    /// # Errors
    /// A fault could not be taken back, such as a broker that does not start again.
    pub async fn step(
        &mut self,
        plan: &mut dyn Iterator<Item = (Duration, Fault)>,
    ) -> anyhow::Result<()> {
        while let Some(done) = self.running.try_join_next() {
            let (fault, outcome) = done.context("a fault's task")?;
            self.busy.mark(&fault, false);
            outcome.with_context(|| format!("{fault:?}"))?;
        }
        while self.window.len() < self.width {
            let Some(next) = plan.next() else { break };
            self.window.push_back(next);
        }
        let rested = self.last.elapsed();
        let may = |(pause, fault): &(Duration, Fault)| rested >= *pause && self.busy.allows(fault);
        if let Some(at) = self.window.iter().position(may)
            && let Some((_, fault)) = self.window.remove(at)
        {
            self.last = Instant::now();
            self.busy.mark(&fault, true);
            let doer = self.doer.clone();
            self.running.spawn(async move {
                let outcome = doer.perform(&fault).await;
                (fault, outcome)
            });
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Begins nothing more; waits until everything is taken back.
    ///
    /// # Errors
    /// As [`Executor::step`].
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        self.window.clear();
        while let Some(done) = self.running.join_next().await {
            let (fault, outcome) = done.context("a fault's task")?;
            outcome.with_context(|| format!("{fault:?}"))?;
        }
        Ok(())
    }
}

impl Doer {
    fn count(&self, kind: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kind.to_owned()).or_default() += 1;
    }

    fn note(&self, what: impl Into<String>) {
        self.targets.timeline.note(what.into());
    }

    async fn perform(&self, fault: &Fault) -> anyhow::Result<()> {
        let Targets { site, crew, bursts, .. } = &self.targets;
        let kind = fault.kind();
        match fault {
            Fault::Kill(slot) => {
                self.kill(*slot, Environment::new(), "").await;
            }
            Fault::Zombie(slot, asleep) | Fault::Pause(slot, asleep) => {
                if crew.signal(*slot, Signal::SIGSTOP).await {
                    self.note(format!("SIGSTOP {slot} for {asleep:?}"));
                    tokio::time::sleep(*asleep).await;
                    if crew.signal(*slot, Signal::SIGCONT).await {
                        self.note(format!("SIGCONT {slot}"));
                        self.count(&kind);
                    }
                }
            }
            Fault::Crash { slot, point, visit, delay } => {
                self.crash(*slot, *point, *visit, *delay).await;
            }
            Fault::Clock(slot, aside) => {
                let env = vec![(CLOCK_OFFSET_MS.to_owned(), aside.to_string())];
                if self.kill(*slot, env, &format!(", back with its clock {aside} ms aside")).await {
                    self.count(&kind);
                    self.ready(*slot).await;
                }
            }
            Fault::RebalanceStorm(times, kills) => {
                self.storm(*times, *kills).await;
                self.count(&kind);
            }
            Fault::BrokerKill(broker, away) => {
                self.note(format!("SIGKILL broker {broker}, away for {away:?}"));
                site.stack.lock().await.kill_broker(*broker).await?;
                self.count(&kind);
                self.bring_back(*broker, *away).await?;
            }
            Fault::BrokerStop(broker, away) => {
                self.note(format!("SIGTERM broker {broker}, away for {away:?}"));
                site.stack.lock().await.stop_broker(*broker).await?;
                self.count(&kind);
                self.bring_back(*broker, *away).await?;
            }
            Fault::RollingRestart => {
                for broker in site.brokers.clone() {
                    self.note(format!("rolling restart: SIGTERM broker {broker}"));
                    site.stack.lock().await.stop_broker(broker).await?;
                    self.bring_back(broker, Duration::ZERO).await?;
                }
                self.count(&kind);
            }
            Fault::RegistryAway(away) => {
                self.note(format!("SIGKILL registry, away for {away:?}"));
                site.stack.lock().await.kill_registry().await;
                self.count(&kind);
                tokio::time::sleep(*away).await;
                self.start_registry().await?;
                self.note("registry up");
            }
            Fault::Wire(wire, times) => {
                if let Some(proxy) = &site.proxy {
                    for _ in 0..*times {
                        // Full: what is armed has not found its frame yet, and is enough.
                        if proxy.arm(wire.clone()).is_err() {
                            break;
                        }
                    }
                }
            }
            Fault::CutAll => {
                if let Some(proxy) = &site.proxy {
                    self.note("every connection is cut");
                    proxy.cut_all();
                }
            }
            Fault::Partition(broker, span) => {
                if let Some(proxy) = &site.proxy {
                    self.note(format!("broker {broker} cannot be reached for {span:?}"));
                    proxy.partition(*broker, true)?;
                    tokio::time::sleep(*span).await;
                    proxy.partition(*broker, false)?;
                    self.note(format!("broker {broker} can be reached again"));
                }
            }
            Fault::Duplicates(copies) => {
                self.note(format!("one event {copies} times"));
                bursts.send(*copies).await;
                self.count(&kind);
            }
            Fault::DiskFull(broker) => self.fill_disk(*broker).await?,
        }
        Ok(())
    }

    async fn kill(&self, slot: Slot, next: Environment, then: &str) -> bool {
        let killed = self.targets.crew.kill(slot, next).await;
        if killed {
            self.note(format!("SIGKILL {slot}{then}"));
            self.count(&format!("sigkill {}", slot.kind.name()));
        }
        killed
    }

    async fn ready(&self, slot: Slot) {
        let begun = Instant::now();
        while begun.elapsed() < READY && !self.targets.crew.is_ready(slot).await {
            tokio::time::sleep(LOOK * 4).await;
        }
    }

    async fn crash(&self, slot: Slot, point: CrashPoint, visit: u32, delay: Duration) {
        let name = point.name();
        let mut value = format!("{name}:{visit}");
        if point == CrashPoint::DuringCommit {
            value.push_str(&format!(":{}", delay.as_micros()));
        }
        let reached =
            || self.targets.crew.seen(|seen| seen.crashes.get(name).copied().unwrap_or(0));
        let before = reached();
        let then = format!(", back to die at {value}");
        // What is not up cannot be killed, and would not come back with the point armed.
        self.ready(slot).await;
        if !self.kill(slot, vec![(CRASH.to_owned(), value)], &then).await {
            return;
        }
        let begun = Instant::now();
        while reached() == before && begun.elapsed() < REACHED {
            tokio::time::sleep(LOOK * 2).await;
        }
    }

    async fn storm(&self, times: u32, kills: u32) {
        for round in 0..times {
            let mut third = self.targets.crew.further(Kind::Processor, "p3");
            let begun = Instant::now();
            while begun.elapsed() < READY && third.status().is_none() && !third.is_ready().await {
                tokio::time::sleep(LOOK * 4).await;
            }
            let killed = kills >> (round % 32) & 1 == 1;
            self.note(format!(
                "processor 3 has joined and {}",
                if killed { "is killed" } else { "leaves" }
            ));
            if !killed && third.status().is_none() {
                third.signal(Signal::SIGTERM);
                let begun = Instant::now();
                while third.status().is_none() && begun.elapsed() < READY {
                    tokio::time::sleep(LOOK).await;
                }
            }
            third.kill();
        }
    }

    /// Starts a broker again after a while, and returns when every partition is in sync: so that the
    /// next fault takes the first broker away, and not the second.
    ///
    /// Not before the others have missed it, unless that is asked for: a broker that comes back earlier takes
    /// itself for the leader that it was, and Kafka 4.3.1 then commits transactions in part
    /// (docs/reliability.md).
    async fn bring_back(&self, broker: u16, away: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(away).await;
        if self.targets.site.brokers.len() > 1 && !self.targets.hasty {
            let id = i32::from(broker);
            let missed = move |found: &Metadata| found.brokers().iter().all(|up| up.id() != id);
            if !self.comes_true(missed).await? {
                self.note(format!("broker {broker} was not missed in time"));
            }
        }
        self.targets.site.stack.lock().await.start_broker(broker).await?;
        let complete = |found: &Metadata| {
            found.topics().iter().flat_map(|topic| topic.partitions()).all(|partition| {
                partition.leader() >= 0 && partition.isr().len() == partition.replicas().len()
            })
        };
        if !self.comes_true(complete).await? {
            self.note("a restarted broker has not caught up in time");
        }
        self.note(format!("broker {broker} is back and has caught up"));
        Ok(())
    }

    /// Starts the registry, which keeps its schemas in Kafka: so not while a broker is away. Whoever takes
    /// one away waits for the stack, and so for the registry.
    async fn start_registry(&self) -> anyhow::Result<()> {
        let site = &self.targets.site;
        loop {
            let mut stack = site.stack.lock().await;
            if site.brokers.iter().all(|broker| stack.broker_pid(*broker).is_some()) {
                return Ok(stack.start_registry().await?);
            }
            drop(stack);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until this holds for the brokers' metadata; false when it takes too long.
    async fn comes_true(
        &self,
        holds: impl Fn(&Metadata) -> bool + Send + 'static,
    ) -> anyhow::Result<bool> {
        let (cluster, topic) = (self.targets.site.cluster.clone(), self.targets.topic.clone());
        let look = tokio::task::spawn_blocking(move || {
            let consumer = consumer(&cluster, None, Isolation::Uncommitted);
            let begun = Instant::now();
            loop {
                let found = consumer.fetch_metadata(Some(&topic), METADATA);
                let true_now = found.is_ok_and(|found| holds(&found));
                if true_now || begun.elapsed() > CAUGHT_UP {
                    return true_now;
                }
                std::thread::sleep(LOOK * 4);
            }
        });
        Ok(look.await?)
    }

    async fn fill_disk(&self, broker: u16) -> anyhow::Result<()> {
        let site = &self.targets.site;
        self.note(format!("the disk of broker {broker} is full"));
        site.fill_disk()?;
        // The broker gives a log folder up that cannot be written, and ends when it was its last.
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < DISK_FULL {
            let mut stack = site.stack.lock().await;
            let _ = tokio::time::timeout(LOOK * 4, stack.wait_failed()).await;
            ended = stack.broker_pid(broker).is_none();
        }
        if ended {
            self.note(format!("broker {broker} has ended for want of space"));
            self.count("disk full");
        } else {
            self.note(format!("broker {broker} goes on with a full disk; it is killed"));
            site.stack.lock().await.kill_broker(broker).await?;
        }
        site.empty_disk()?;
        self.bring_back(broker, Duration::ZERO).await
    }
}

/// What the proxy did, by kind.
pub fn fired(proxy: Option<&proxy::Proxy>) -> Counts {
    proxy.map(proxy::Proxy::fired).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn slot(kind: Kind, number: usize) -> Slot {
        Slot { kind, number }
    }

    #[test]
    fn what_has_to_live_is_left_alone() {
        let mut busy = Busy::default();
        let (one, two) = (slot(Kind::Processor, 0), slot(Kind::Processor, 1));
        assert!(
            busy.allows(&Fault::Zombie(one, SECOND)) && busy.allows(&Fault::BrokerKill(1, SECOND))
        );
        busy.mark(&Fault::Zombie(one, SECOND), true);
        busy.mark(&Fault::BrokerKill(1, SECOND), true);
        for fault in [
            Fault::Kill(one),
            Fault::Zombie(two, SECOND),
            Fault::Pause(two, SECOND),
            Fault::BrokerStop(2, SECOND),
            Fault::Partition(2, SECOND),
            Fault::DiskFull(3),
            Fault::RollingRestart,
        ] {
            assert!(!busy.allows(&fault), "{fault:?}");
        }
        for fault in [
            Fault::Kill(two),
            Fault::Zombie(slot(Kind::RetryRouter, 0), SECOND),
            Fault::RegistryAway(SECOND),
            Fault::Duplicates(7),
            Fault::CutAll,
        ] {
            assert!(busy.allows(&fault), "{fault:?}");
        }
        busy.mark(&Fault::Zombie(one, SECOND), false);
        busy.mark(&Fault::BrokerKill(1, SECOND), false);
        assert!(busy.allows(&Fault::Zombie(two, SECOND)) && busy.allows(&Fault::DiskFull(3)));
    }
}
