//! The faults of a build that has them.

use std::{
    fmt,
    io::Write as _,
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{CrashPoint, FaultError, Mutation};

/// Environment variable that arms a crash point: `<point>:<n>` or `during-commit:<n>:<µs>`.
pub const CRASH: &str = "SLUICE_FAULTS_CRASH";
/// Environment variable that sets the clock aside: milliseconds, negative for the past.
pub const CLOCK_OFFSET_MS: &str = "SLUICE_FAULTS_CLOCK_OFFSET_MS";
/// Environment variable that names a deliberate mistake.
pub const MUTATION: &str = "SLUICE_FAULTS_MUTATION";

/// What the variables' names begin with.
const PREFIX: &str = "SLUICE_FAULTS_";

/// From the call of commit to the abort where no delay is given: a broker takes some milliseconds.
const COMMIT_DELAY: Duration = Duration::from_micros(500);
/// Longest such delay; a commit is over long before.
const MAX_COMMIT_DELAY: Duration = Duration::from_secs(60);

static FAULTS: OnceLock<Faults> = OnceLock::new();

impl CrashPoint {
    /// All of them.
    pub const ALL: [CrashPoint; 9] = [
        CrashPoint::BeforeProduce,
        CrashPoint::AfterProduce,
        CrashPoint::AfterOffsets,
        CrashPoint::DuringCommit,
        CrashPoint::AfterCommit,
        CrashPoint::DuringRestore,
        CrashPoint::DuringRevocation,
        CrashPoint::DuringSealing,
        CrashPoint::DuringMerge,
    ];

    /// Its stable name, as in [`CRASH`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeProduce => "before-produce",
            Self::AfterProduce => "after-produce",
            Self::AfterOffsets => "after-offsets",
            Self::DuringCommit => "during-commit",
            Self::AfterCommit => "after-commit",
            Self::DuringRestore => "during-restore",
            Self::DuringRevocation => "during-revocation",
            Self::DuringSealing => "during-sealing",
            Self::DuringMerge => "during-merge",
        }
    }
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 4] = [
        Mutation::NoDedup,
        Mutation::NoTransactions,
        Mutation::ReuseProducer,
        Mutation::TrustInferred,
    ];

    /// Its stable name, as in [`MUTATION`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDedup => "no-dedup",
            Self::NoTransactions => "no-transactions",
            Self::ReuseProducer => "reuse-producer",
            Self::TrustInferred => "trust-inferred",
        }
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CrashPoint {
    type Err = FaultError;

    fn from_str(name: &str) -> Result<Self, FaultError> {
        named(&Self::ALL, Self::name, name).map_err(|all| {
            FaultError(format!("{CRASH}: there is no crash point `{name}`; there are {all}"))
        })
    }
}

impl FromStr for Mutation {
    type Err = FaultError;

    fn from_str(name: &str) -> Result<Self, FaultError> {
        named(&Self::ALL, Self::name, name).map_err(|all| {
            FaultError(format!("{MUTATION}: there is no mutation `{name}`; there are {all}"))
        })
    }
}

/// The one of that name; else all names.
fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, wanted: &str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| name(*one) == wanted);
    found.ok_or_else(|| all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", "))
}

/// An armed crash point.
#[derive(Debug)]
struct Crash {
    point: CrashPoint,
    /// Which visit is the last one, from 1.
    visit: u64,
    /// From the visit to the end.
    delay: Duration,
    visits: AtomicU64,
}

impl FromStr for Crash {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || {
            FaultError(format!(
                "{CRASH}={text}: expected <point>:<n> with n of at least 1, or during-commit:<n>:<µs>"
            ))
        };
        let mut parts = text.split(':');
        let point: CrashPoint = parts.next().unwrap_or_default().parse()?;
        let visit: u64 = parts.next().and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        let delay = match (parts.next(), point) {
            (None, CrashPoint::DuringCommit) => COMMIT_DELAY,
            (None, _) => Duration::ZERO,
            (Some(us), CrashPoint::DuringCommit) => {
                let delay = Duration::from_micros(us.parse().map_err(|_| wrong())?);
                if delay <= MAX_COMMIT_DELAY { delay } else { return Err(wrong()) }
            }
            (Some(_), _) => return Err(wrong()),
        };
        if visit == 0 || parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Crash { point, visit, delay, visits: AtomicU64::new(0) })
    }
}

impl Crash {
    /// Counts a visit, and says whether it is the one to die at.
    fn is_due(&self, point: CrashPoint) -> bool {
        point == self.point && self.visits.fetch_add(1, Ordering::Relaxed) + 1 == self.visit
    }
}

/// What a process has been asked to do wrong.
#[derive(Debug, Default)]
struct Faults {
    crash: Option<Crash>,
    clock_offset_ms: i64,
    mutation: Option<Mutation>,
}

impl Faults {
    fn parse(variables: impl IntoIterator<Item = (String, String)>) -> Result<Faults, FaultError> {
        let mut faults = Faults::default();
        for (name, value) in variables {
            match name.as_str() {
                CRASH => faults.crash = Some(value.parse()?),
                CLOCK_OFFSET_MS => {
                    faults.clock_offset_ms = value.parse().map_err(|_| {
                        FaultError(format!("{CLOCK_OFFSET_MS}={value}: expected milliseconds"))
                    })?;
                }
                MUTATION => faults.mutation = Some(value.parse()?),
                _ if name.starts_with(PREFIX) => {
                    return Err(FaultError(format!(
                        "there is no {name}; there are {CRASH}, {CLOCK_OFFSET_MS}, {MUTATION}"
                    )));
                }
                _ => {}
            }
        }
        Ok(faults)
    }
}

/// Reads what the environment asks for, and says in the log that this build can do it. Before this nothing
/// fails on purpose. Asking again changes nothing.
///
/// # Errors
/// A variable, point or mutation that does not exist, or a value that cannot be read.
pub fn start() -> Result<(), FaultError> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let faults = FAULTS.get_or_init({
        let faults = Faults::parse(variables)?;
        || faults
    });
    tracing::warn!("built with fault injection: never run this in production");
    if let Some(Crash { point, visit, .. }) = &faults.crash {
        tracing::warn!(%point, visit, "will crash");
    }
    if faults.clock_offset_ms != 0 {
        tracing::warn!(ms = faults.clock_offset_ms, "the clock is set aside");
    }
    if let Some(mutation) = faults.mutation {
        tracing::warn!(%mutation, "works with a deliberate mistake");
    }
    Ok(())
}

/// Ends the process if this is the visit that [`CRASH`] names. [`CrashPoint::DuringCommit`] is visited just before
/// the call, and ends the process a delay later.
pub fn crash_point(point: CrashPoint) {
    let Some(crash) = FAULTS.get().and_then(|faults| faults.crash.as_ref()) else { return };
    if !crash.is_due(point) {
        return;
    }
    if crash.delay.is_zero() {
        die(point);
    }
    let delay = crash.delay;
    let timer = std::thread::Builder::new().name("crash".into()).spawn(move || {
        std::thread::sleep(delay);
        die(point)
    });
    if timer.is_err() {
        die(point);
    }
}

/// What the process writes to standard error before it ends at a point.
#[must_use]
pub fn reached_line(point: CrashPoint) -> String {
    format!("crash point {point} reached")
}

/// As SIGKILL would: no destructor runs, nothing is flushed. SIGABRT, so that a test can tell the two apart.
fn die(point: CrashPoint) -> ! {
    // Writing a core would hold ports and locks for seconds; one that is not dumpable has none, whatever the
    // limits say. If it fails, there is a core.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
    // Standard error that is closed must not keep the process alive.
    let _ = std::io::stderr().write_all(format!("{}\n", reached_line(point)).as_bytes());
    std::process::abort()
}

/// How far the clock is set aside, ms.
#[must_use]
pub fn clock_offset_ms() -> i64 {
    FAULTS.get().map_or(0, |faults| faults.clock_offset_ms)
}

/// Whether to work with this deliberate mistake.
#[must_use]
pub fn mutated(mutation: Mutation) -> bool {
    FAULTS.get().is_some_and(|faults| faults.mutation == Some(mutation))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Faults, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Faults::parse(variables.iter().map(owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_name_is_kebab_case_and_names_what_it_says() {
        for point in CrashPoint::ALL {
            assert_eq!(point.name().parse(), Ok(point));
        }
        for mutation in Mutation::ALL {
            assert_eq!(mutation.name().parse(), Ok(mutation));
        }
        let names = CrashPoint::ALL.map(CrashPoint::name);
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b == b'-' || b.is_ascii_lowercase())));
    }

    #[test]
    fn a_process_dies_at_the_visit_that_was_asked_for_and_at_no_other() {
        let crash: Crash = "after-offsets:3".parse().unwrap();
        assert_eq!(crash.delay, Duration::ZERO);
        let visits = [
            CrashPoint::AfterOffsets,
            CrashPoint::AfterCommit,
            CrashPoint::AfterOffsets,
            CrashPoint::AfterOffsets,
            CrashPoint::AfterOffsets,
        ];
        assert_eq!(visits.map(|point| crash.is_due(point)), [false, false, false, true, false]);
    }

    #[test]
    fn only_the_commit_has_a_delay() {
        let delay = |text: &str| text.parse::<Crash>().unwrap().delay;
        assert_eq!(delay("during-commit:1"), COMMIT_DELAY);
        assert_eq!(delay("during-commit:1:1500"), Duration::from_micros(1500));
        assert_eq!(delay("during-commit:1:0"), Duration::ZERO);
        assert!("after-commit:1:1500".parse::<Crash>().is_err());
    }

    #[test]
    fn what_cannot_be_done_as_asked_is_refused_with_what_there_is() {
        let good = parse(&[
            (CRASH, "before-produce:2"),
            (CLOCK_OFFSET_MS, "-90000"),
            (MUTATION, "no-dedup"),
            ("SLUICE__KAFKA__BOOTSTRAP_SERVERS", "elsewhere"),
        ])
        .unwrap();
        assert_eq!(good.crash.map(|crash| crash.point), Some(CrashPoint::BeforeProduce));
        assert_eq!((good.clock_offset_ms, good.mutation), (-90_000, Some(Mutation::NoDedup)));
        assert_eq!(parse(&[(CLOCK_OFFSET_MS, "+1500")]).unwrap().clock_offset_ms, 1500);
        for value in [
            "after-lunch:1",
            "before-produce",
            "before-produce:0",
            "before-produce:-1",
            "before-produce:1:1",
            "during-commit:1:soon",
            "during-commit:1:61000000",
            "during-commit:1:1:1",
            "",
        ] {
            let error = parse(&[(CRASH, value)]).unwrap_err();
            assert!(error.starts_with(CRASH), "{value}: {error}");
        }
        let error = parse(&[(CRASH, "after-lunch:1")]).unwrap_err();
        assert!(CrashPoint::ALL.iter().all(|point| error.contains(point.name())), "{error}");
        let error = parse(&[(MUTATION, "no-sense")]).unwrap_err();
        assert!(Mutation::ALL.iter().all(|one| error.contains(one.name())), "{error}");
        assert!(parse(&[(CLOCK_OFFSET_MS, "1h")]).unwrap_err().contains("milliseconds"));
        assert!(parse(&[("SLUICE_FAULTS_CRASHES", "x:1")]).unwrap_err().contains(MUTATION));
    }
}
