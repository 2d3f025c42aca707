//! What a run consists of, and how often what happens.

use crate::worker::{MachineSettings, TopicPartition};
use rand::{RngExt, rngs::StdRng};

/// Deliberate mistakes, to prove that the simulation sees them. All false in the real runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defects {
    /// Keep using a producer after an unknown outcome.
    pub reuse_producer: bool,
    /// Restore the journal to the last stable offset instead of the high watermark.
    pub restore_to_stable: bool,
    /// Start at committed offsets on which a transaction is still pending.
    pub unstable_offsets: bool,
}

/// What a run consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Determines the run.
    pub seed: u64,
    /// Workers in the group.
    pub workers: usize,
    /// Subscribed partitions (lanes).
    pub lanes: Vec<TopicPartition>,
    /// Journal topic, where the logic has one.
    pub journal: Option<String>,
    /// Random steps under faults before the drain.
    pub steps: usize,
    /// Per cent of transactional calls whose answer does not arrive in time.
    pub fault_percent: u32,
    /// How often everything else happens while the faults last.
    pub pace: Pace,
    /// Deliberate mistakes.
    pub defects: Defects,
    /// Bounds of the machines.
    pub settings: MachineSettings,
}

/// How often things happen: each number but the last two is a weight in parts of [`Pace::WHOLE`] of
/// the steps. What is left of the steps goes to the workers.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A process is killed and started again.
    pub crash: u32,
    /// A process stops for a while.
    pub freeze: u32,
    /// The group is rebalanced for a reason of its own.
    pub rebalance: u32,
    /// An operator stops the group, resets its offsets and starts it.
    pub replay: u32,
    /// A request whose sender has given up waiting arrives.
    pub late: u32,
    /// A frozen process goes on.
    pub thaw: u32,
    /// The coordinator aborts a transaction that nobody works on.
    pub expire: u32,
    /// The outside world acts: a new event, an operator, the other role.
    pub outside: u32,
    /// Per cent of the transactions that find their process frozen once their records are produced,
    /// and as many of the rest once their offsets are sent: only the open transaction is left.
    pub freeze_open_percent: u32,
    /// Frozen processes at the same time, at the most.
    pub frozen: usize,
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    Crash,
    Freeze,
    Rebalance,
    Replay,
    Late,
    Thaw,
    Expire,
    Outside,
    Work,
}

impl Pace {
    /// What the weights are parts of.
    pub const WHOLE: u32 = 1000;

    /// Some of everything.
    pub const MIXED: Pace = Pace {
        crash: 12,
        freeze: 10,
        rebalance: 10,
        replay: 4,
        late: 10,
        thaw: 6,
        expire: 2,
        outside: 200,
        freeze_open_percent: 2,
        frozen: usize::MAX,
    };

    /// Processes stop with a transaction open and stay away for long, while those that took over
    /// commit, crash and hand on: journals with committed blocks behind an open transaction.
    pub const ZOMBIES: Pace = Pace {
        crash: 16,
        freeze: 1,
        rebalance: 8,
        replay: 0,
        late: 10,
        thaw: 2,
        expire: 1,
        outside: 300,
        freeze_open_percent: 8,
        frozen: 2,
    };

    /// Without faults: what was late arrives, what is open is ended.
    pub(super) const DRAIN: Pace = Pace {
        crash: 0,
        freeze: 0,
        rebalance: 0,
        replay: 0,
        late: 20,
        thaw: 0,
        expire: 30,
        outside: 150,
        freeze_open_percent: 0,
        frozen: 0,
    };

    pub(super) fn pick(&self, rng: &mut StdRng) -> Happening {
        let table = [
            (self.crash, Happening::Crash),
            (self.freeze, Happening::Freeze),
            (self.rebalance, Happening::Rebalance),
            (self.replay, Happening::Replay),
            (self.late, Happening::Late),
            (self.thaw, Happening::Thaw),
            (self.expire, Happening::Expire),
            (self.outside, Happening::Outside),
        ];
        let mut dice = rng.random_range(0..Pace::WHOLE);
        for (weight, happening) in table {
            if dice < weight {
                return happening;
            }
            dice -= weight;
        }
        Happening::Work
    }
}
