//! Which faults, in which order: a pure function of the seed.
//!
//! Faults come in *decks*: a deck holds every kind as often as its share says, shuffled, each with
//! parameters of its own. So a run that is long enough has seen every kind, whatever the seed. When a fault
//! begins depends on the machine (nothing waits for what cannot be done yet); which one is next does not.

use std::{collections::VecDeque, fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sluice_service::faults::CrashPoint;

use crate::proxy::{Action, ApiKey, Fault as Wire, Side};

/// The roles that are run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `sluice gateway`
    Gateway,
    /// `sluice processor`
    Processor,
    /// `sluice retry-router`
    RetryRouter,
}

impl Kind {
    /// Every role.
    pub const ALL: [Kind; 3] = [Kind::Gateway, Kind::Processor, Kind::RetryRouter];

    /// The subcommand that runs it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Processor => "processor",
            Kind::RetryRouter => "retry-router",
        }
    }
}

/// One process of the run, by its role and its number there (0 or 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Its role.
    pub kind: Kind,
    /// Which of the two.
    pub number: usize,
}

impl Slot {
    /// Its place in a list of all six.
    pub fn index(self) -> usize {
        self.kind as usize * 2 + self.number
    }

    /// All six.
    pub fn all() -> impl Iterator<Item = Slot> {
        Kind::ALL.into_iter().flat_map(|kind| (0..2).map(move |number| Slot { kind, number }))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.number + 1)
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill(Slot),
    /// SIGSTOP past the session's time-out, then SIGCONT: others have its partitions by then.
    Zombie(Slot, Duration),
    /// SIGSTOP and SIGCONT within the session.
    Pause(Slot, Duration),
    /// A restart with this crash point armed.
    Crash {
        /// The process.
        slot: Slot,
        /// Where it dies.
        point: CrashPoint,
        /// At which visit, from 1.
        visit: u32,
        /// How long after the request, for [`CrashPoint::DuringCommit`].
        delay: Duration,
    },
    /// A restart with the clock set aside, ms.
    Clock(Slot, i64),
    /// A third processor joins and leaves so often; it is killed instead of stopped where the bit of the
    /// round is set.
    RebalanceStorm(u32, u32),
    /// SIGKILL of a broker, and its start after this time. Brokers count from 1.
    BrokerKill(u16, Duration),
    /// SIGTERM of a broker, and its start after this time.
    BrokerStop(u16, Duration),
    /// SIGTERM and start of every broker, one after the other.
    RollingRestart,
    /// The registry is killed, and started after this time.
    RegistryAway(Duration),
    /// Requests or answers are delayed, swallowed or cut: this fault on the next so many frames that match.
    Wire(Wire, u32),
    /// Every connection to the brokers is cut at once.
    CutAll,
    /// A broker can be reached by nobody but the other brokers, for this time.
    Partition(u16, Duration),
    /// A new event is posted so often.
    Duplicates(u32),
    /// A broker's disk is full; it ends, is given room and started again.
    DiskFull(u16),
}

impl Fault {
    /// Its name in tables; no parameters.
    pub fn kind(&self) -> String {
        match self {
            Fault::Kill(slot) => format!("sigkill {}", slot.kind.name()),
            Fault::Zombie(slot, _) => format!("zombie pause {}", slot.kind.name()),
            Fault::Pause(slot, _) => format!("short pause {}", slot.kind.name()),
            Fault::Crash { point, .. } => format!("crash {}", point.name()),
            Fault::Clock(..) => "clock offset".to_owned(),
            Fault::RebalanceStorm(..) => "rebalance storm".to_owned(),
            Fault::BrokerKill(..) => "broker kill".to_owned(),
            Fault::BrokerStop(..) => "broker stop".to_owned(),
            Fault::RollingRestart => "rolling restart".to_owned(),
            Fault::RegistryAway(_) => "registry away".to_owned(),
            Fault::Wire(..) => "proxied".to_owned(),
            Fault::CutAll => "cut all".to_owned(),
            Fault::Partition(..) => "partition".to_owned(),
            Fault::Duplicates(_) => "burst of duplicates".to_owned(),
            Fault::DiskFull(_) => "disk full".to_owned(),
        }
    }

    /// The process it needs to itself.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Fault::Kill(slot)
            | Fault::Zombie(slot, _)
            | Fault::Pause(slot, _)
            | Fault::Clock(slot, _)
            | Fault::Crash { slot, .. } => Some(*slot),
            _ => None,
        }
    }

    /// Whether it takes a broker away; only one may at a time, or nothing could be acknowledged.
    pub fn takes_broker(&self) -> bool {
        matches!(
            self,
            Fault::BrokerKill(..)
                | Fault::BrokerStop(..)
                | Fault::RollingRestart
                | Fault::Partition(..)
                | Fault::DiskFull(_)
        )
    }
}

/// What a run can do.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Number of brokers.
    pub brokers: u16,
    /// Whether clients go through the proxy.
    pub proxy: bool,
    /// Whether a broker's disk can be made full.
    pub small_disk: bool,
    /// The session's time-out of workers.
    pub session: Duration,
    /// Longest pause between the beginnings of two faults.
    pub pause: Duration,
}

/// How the client.id of a gateway begins.
const GATEWAY: &str = "sluice-gateway";
/// How the client.id of a processor begins.
const PROCESSOR: &str = "sluice-processor";
/// How the client.id of a retry router begins.
const ROUTER: &str = "sluice-retry";

/// Where in the protocol something can go wrong, with the relative shares of delay, cut, drop.
const WIRES: &[(ApiKey, Side, [u32; 3])] = &[
    (ApiKey::EndTxn, Side::Request, [3, 3, 1]),
    (ApiKey::EndTxn, Side::Response, [3, 6, 1]),
    (ApiKey::TxnOffsetCommit, Side::Request, [2, 3, 1]),
    (ApiKey::TxnOffsetCommit, Side::Response, [2, 3, 1]),
    (ApiKey::AddPartitionsToTxn, Side::Request, [2, 2, 1]),
    (ApiKey::AddPartitionsToTxn, Side::Response, [2, 3, 1]),
    (ApiKey::AddOffsetsToTxn, Side::Request, [2, 2, 1]),
    (ApiKey::AddOffsetsToTxn, Side::Response, [2, 3, 1]),
    (ApiKey::Produce, Side::Request, [3, 4, 1]),
    (ApiKey::Produce, Side::Response, [3, 6, 1]),
    (ApiKey::InitProducerId, Side::Request, [1, 1, 0]),
    (ApiKey::InitProducerId, Side::Response, [1, 1, 0]),
    (ApiKey::FindCoordinator, Side::Request, [1, 1, 0]),
    (ApiKey::FindCoordinator, Side::Response, [1, 1, 0]),
    (ApiKey::Fetch, Side::Request, [2, 3, 1]),
    (ApiKey::Fetch, Side::Response, [2, 3, 1]),
    (ApiKey::Heartbeat, Side::Request, [2, 2, 1]),
    (ApiKey::Heartbeat, Side::Response, [2, 2, 1]),
];

/// The endless sequence of a seed: how long to wait, and what to do then.
#[derive(Debug)]
pub struct Plan {
    rng: StdRng,
    means: Means,
    deck: VecDeque<Fault>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, means: Means) -> Plan {
        Plan { rng: StdRng::seed_from_u64(seed), means, deck: VecDeque::new() }
    }

    fn slot(&mut self, kinds: &[Kind]) -> Slot {
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        Slot { kind, number: self.rng.random_range(0..2) }
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..=to))
    }

    fn broker(&mut self) -> u16 {
        self.rng.random_range(1..=self.means.brokers)
    }

    /// One deck. The shares are chosen so that brokers, which take longest to come back, are busy coming back
    /// most of the time, without everything else having to wait for them: for each SIGKILL of a broker there are
    /// six of roles, and two roles that sleep past their session. The registry takes as long, and no broker can be
    /// taken away until it is up: it comes rarely.
    fn shuffle(&mut self) {
        use Kind::{Gateway, Processor, RetryRouter};
        let mut deck = Vec::new();
        for _ in 0..14 {
            deck.push(Fault::Kill(self.slot(&[Gateway, Processor, Processor, RetryRouter])));
        }
        for point in CrashPoint::ALL {
            let fault = self.crash(point);
            deck.push(fault);
        }
        let session = self.means.session;
        for _ in 0..8 {
            let slot = self.slot(&[Processor, Processor, RetryRouter]);
            let asleep = session + self.millis(1_000, 3_000);
            deck.push(Fault::Zombie(slot, asleep));
        }
        let slot = self.slot(&[Gateway, Processor, RetryRouter]);
        let asleep = self.millis(200, 3_000);
        deck.push(Fault::Pause(slot, asleep));
        for _ in 0..3 {
            let (broker, away) = (self.broker(), self.millis(500, 5_000));
            deck.push(Fault::BrokerKill(broker, away));
        }
        let (broker, away) = (self.broker(), self.millis(500, 5_000));
        deck.push(match self.rng.random_range(0..12) {
            0..2 => Fault::BrokerStop(broker, away),
            2 if self.means.brokers > 1 => Fault::RollingRestart,
            3..5 if self.means.proxy => Fault::Partition(broker, away + away),
            5 if self.means.small_disk => Fault::DiskFull(self.means.brokers),
            _ => Fault::BrokerKill(broker, away),
        });
        let slot = self.slot(&[Gateway, Processor, RetryRouter]);
        let aside = self.rng.random_range(500..60_000) * if self.rng.random() { 1 } else { -1 };
        deck.push(Fault::Clock(slot, aside));
        let copies = 10f64.powf(self.rng.random_range(0.0..3.0)) as u32;
        deck.push(Fault::Duplicates(copies.clamp(1, 1000)));
        let choice = self.rng.random_range(0..6);
        deck.push(match choice {
            0..3 => Fault::RebalanceStorm(self.rng.random_range(2..5), self.rng.random()),
            3..5 if self.means.proxy => Fault::CutAll,
            _ => Fault::RegistryAway(self.millis(1_000, 15_000)),
        });
        if self.means.proxy {
            for _ in 0..24 {
                let fault = self.wire();
                deck.push(fault);
            }
        }
        deck.shuffle(&mut self.rng);
        self.deck = deck.into();
    }

    fn crash(&mut self, point: CrashPoint) -> Fault {
        // The router has no journal and no index; and it works less often.
        let (kinds, visits): (&[Kind], u32) = match point {
            CrashPoint::DuringRestore => (&[Kind::Processor], 3),
            CrashPoint::DuringSealing => (&[Kind::Processor], 3),
            CrashPoint::DuringMerge | CrashPoint::DuringRevocation => (&[Kind::Processor], 1),
            _ => (&[Kind::Processor, Kind::Processor, Kind::RetryRouter], 4),
        };
        let slot = self.slot(kinds);
        // Early visits: a process that waits long for its turn to die is killed for another reason before.
        let visits = if slot.kind == Kind::RetryRouter { 1 } else { visits };
        let visit = self.rng.random_range(1..=visits.max(1));
        let delay = Duration::from_micros(self.rng.random_range(0..6_000));
        Fault::Crash { slot, point, visit, delay }
    }

    fn wire(&mut self) -> Fault {
        if self.rng.random_range(0..12) == 0 {
            // Silence for longer than a commit is waited for: the client repeats the request, so one lost
            // answer is not enough to leave the outcome unknown.
            let side = if self.rng.random() { Side::Request } else { Side::Response };
            let role = if self.rng.random_range(0..4) > 0 { PROCESSOR } else { ROUTER };
            let wire = Wire::new(ApiKey::EndTxn, side, Action::Drop).of_client(role);
            return Fault::Wire(wire, self.rng.random_range(4..=8));
        }
        if self.rng.random_range(0..12) == 0 {
            // As leaders that have just been elected do. Only of a producer that it does not know a leader takes a
            // later record without the one it refused: so most are for those that have just been started.
            let refuse = Action::Refuse(self.millis(10, 500));
            let wire = Wire::new(ApiKey::Produce, Side::Request, refuse);
            let wire = match self.rng.random_range(0..4) {
                0 => wire.of_client(PROCESSOR).first_of_connection(),
                1..3 => wire.of_client(GATEWAY).first_of_connection(),
                _ => wire,
            };
            return Fault::Wire(wire, self.rng.random_range(1..=4));
        }
        let (api, side, shares) = WIRES[self.rng.random_range(0..WIRES.len())];
        if api == ApiKey::EndTxn && side == Side::Request && self.rng.random_range(0..4) == 0 {
            let action = Action::HoldUntilNextTransaction;
            return Fault::Wire(Wire::new(api, side, action), 1);
        }
        let choice = self.rng.random_range(0..shares.iter().sum::<u32>());
        let action = if choice < shares[0] {
            // Up to what a worker still waits for, and beyond.
            Action::Delay(self.millis(20, 7_000))
        } else if choice < shares[0] + shares[1] {
            Action::Cut
        } else {
            Action::Drop
        };
        // What is rare on the wire, or stalls for long, is asked for once.
        let often = matches!(action, Action::Cut)
            && matches!(api, ApiKey::Produce | ApiKey::EndTxn | ApiKey::Fetch);
        let times = if often { self.rng.random_range(1..=4) } else { 1 };
        Fault::Wire(Wire::new(api, side, action), times)
    }
}

impl Iterator for Plan {
    type Item = (Duration, Fault);

    fn next(&mut self) -> Option<(Duration, Fault)> {
        if self.deck.is_empty() {
            self.shuffle();
        }
        let longest = u64::try_from(self.means.pause.as_millis()).unwrap_or(u64::MAX);
        let pause = self.millis(0, longest);
        self.deck.pop_front().map(|fault| (pause, fault))
    }
}

/// Pause between two faults of a control.
const MOMENT: Duration = Duration::from_millis(400);
/// Time that a gateway has to come back, and for others to be behind its first record.
const BACK: Duration = Duration::from_millis(1_200);
/// Gateways that are started anew while a swallowed commit becomes of unknown outcome.
const NEW_GATEWAYS: usize = 7;

/// The schedule of the controls: over and over what a planted mistake cannot survive. Deaths between
/// producing and committing betray who writes without transactions; cut answers to commits, who goes on with the
/// same producer; duplicates, who does not look for them; and new gateways whose first record is refused, who trusts what
/// its client infers.
///
/// It takes many of the last: a client has five requests on its way, and the first is only lost if one of the four behind it
/// is for the same partition.
pub fn control(proxy: bool) -> impl Iterator<Item = (Duration, Fault)> {
    let crash = |number| Fault::Crash {
        slot: Slot { kind: Kind::Processor, number },
        point: CrashPoint::AfterProduce,
        visit: 3,
        delay: Duration::ZERO,
    };
    // The client repeats an EndTxn once before its call gives up: two answers must be swallowed for each of
    // the four workers. Then there is time for the outcome to become unknown, and for what follows.
    let cut = Wire::new(ApiKey::EndTxn, Side::Response, Action::Cut);
    let swallow = Wire::new(ApiKey::EndTxn, Side::Response, Action::Drop).of_client(PROCESSOR);
    // For as long as it takes that others are behind it.
    let refuse = Wire::new(ApiKey::Produce, Side::Request, Action::Refuse(MOMENT));
    let refuse = refuse.of_client(GATEWAY).first_of_connection();
    let new_gateway = |number| {
        let kill = Fault::Kill(Slot { kind: Kind::Gateway, number });
        [(BACK, Fault::Wire(refuse.clone(), 1)), (MOMENT, kill)]
    };
    let mut round = vec![
        (MOMENT, Fault::Wire(cut, 4)),
        (MOMENT, crash(0)),
        (MOMENT, Fault::Duplicates(40)),
        (MOMENT, crash(1)),
        (MOMENT, Fault::Wire(swallow, 8)),
    ];
    // Where nothing can be refused, a new gateway betrays nobody.
    let new_gateways = if proxy { NEW_GATEWAYS } else { 0 };
    round.extend((0..new_gateways).flat_map(|turn| new_gateway(turn % 2)));
    round.push((BACK, Fault::Duplicates(40)));
    round.retain(|(_, fault)| proxy || !matches!(fault, Fault::Wire(..)));
    round.into_iter().cycle()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    const MEANS: Means = Means {
        brokers: 3,
        proxy: true,
        small_disk: true,
        session: Duration::from_secs(6),
        pause: Duration::from_secs(1),
    };

    #[test]
    fn a_seed_determines_the_plan() {
        let plan = |seed| Plan::new(seed, MEANS).take(500).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_comes_and_parameters_are_in_bounds() {
        let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
        let (mut refused, mut of_new) = (0, 0);
        for (pause, fault) in Plan::new(1, MEANS).take(10_000) {
            assert!(pause <= MEANS.pause);
            *kinds.entry(fault.kind()).or_default() += 1;
            match fault {
                Fault::Zombie(_, asleep) => assert!(asleep > MEANS.session),
                Fault::Pause(_, asleep) => assert!(asleep < MEANS.session),
                Fault::Crash { visit, slot, .. } => {
                    assert!(visit >= 1 && slot.kind != Kind::Gateway);
                }
                Fault::BrokerKill(broker, _) | Fault::Partition(broker, _) => {
                    assert!((1..=3).contains(&broker))
                }
                Fault::Duplicates(copies) => assert!((1..=1000).contains(&copies)),
                Fault::Wire(Wire { action: Action::Refuse(_), first, .. }, _) => {
                    refused += 1;
                    of_new += u32::from(first);
                }
                _ => {}
            }
        }
        assert!(of_new > 50 && refused - of_new > 50, "{refused}, {of_new}");
        for point in CrashPoint::ALL {
            assert!(kinds[&format!("crash {}", point.name())] > 100, "{kinds:?}");
        }
        for kind in [
            "sigkill gateway",
            "sigkill processor",
            "sigkill retry-router",
            "zombie pause processor",
            "zombie pause retry-router",
            "broker kill",
            "broker stop",
            "rolling restart",
            "registry away",
            "clock offset",
            "rebalance storm",
            "proxied",
            "cut all",
            "partition",
            "burst of duplicates",
            "disk full",
        ] {
            assert!(kinds[kind] > 5, "{kind}: {kinds:?}");
        }
    }

    #[test]
    fn a_control_kills_gateways_only_to_refuse_what_they_send_first() {
        let kinds = |proxy| -> Vec<String> {
            control(proxy).take(100).map(|(_, fault)| fault.kind()).collect()
        };
        let killed = |kinds: &[String]| kinds.iter().any(|kind| kind == "sigkill gateway");
        assert!(!killed(&kinds(false)) && !kinds(false).contains(&"proxied".to_owned()));
        assert!(kinds(false).contains(&"crash after-produce".to_owned()));
        let kinds = kinds(true);
        assert!(killed(&kinds), "control: they are");
        for pair in kinds.windows(2).filter(|pair| pair[1] == "sigkill gateway") {
            assert_eq!(pair[0], "proxied");
        }
    }

    #[test]
    fn nothing_is_planned_that_cannot_be_done() {
        let means = Means { brokers: 1, proxy: false, small_disk: false, ..MEANS };
        let kinds: Vec<String> =
            Plan::new(1, means).take(3_000).map(|(_, fault)| fault.kind()).collect();
        let impossible = ["proxied", "cut all", "partition", "disk full", "rolling restart"];
        for kind in impossible {
            assert!(!kinds.iter().any(|planned| planned == kind), "{kind}");
        }
        assert!(kinds.iter().any(|planned| planned == "broker kill"), "control: others are");
    }
}
