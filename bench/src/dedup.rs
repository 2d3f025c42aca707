//! The index of events seen, filled with as many originals as asked for.
//!
//! The keys are numbers put through a bijection, so they are spread as hashes are and no two are alike. Their
//! times cover the whole time that originals are kept, so that segments are merged and expire as in
//! service. Commits of 1,000 originals are what a busy worker makes.

use std::{
    fs::File,
    hint::black_box,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sluice_processor::dedup::{
    KeyHash, Original,
    block::{BlockMark, DedupBlock},
    disk::{
        manifest::Checkpoint,
        store::{Limits, Store},
        upkeep::Upkeep,
    },
    index::OriginalIndex,
};

use crate::row::Row;

/// How long originals are kept by default, ms: 30 days of raw retention and as much of a window.
const KEPT: i64 = 60 * 86_400_000;
/// The processor's own, with the default `processor.index_buffer`.
const LIMITS: Limits = Limits::keeping(100_000, KEPT);
const COMMIT: u64 = 1_000;
/// The default dedup window, ms: what a lookup in service goes back.
const WINDOW: i64 = 30 * 86_400_000;
const ROUNDS: usize = 9;
const LOOKUPS: u64 = 200_000;
/// Lookups whose every block comes from the disk.
const COLD_LOOKUPS: u64 = 300;

/// Arguments of `dedup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many originals the index holds
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    keys: u64,
    /// Where it keeps them; 40 bytes for each are needed, and twice that while it works
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

/// Runs the measurement.
///
/// # Errors
/// The disk is full or fails, or the index answers wrongly.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir_in(&args.folder)
        .with_context(|| format!("making a folder in {}", args.folder.display()))?;
    let (resident, written) = ("VmRSS:", "wchar:");
    let before = status(resident)?;
    let written_before = io(written)?;
    let mut rows = Vec::new();
    let mut store = fill(args.keys, folder.path(), &mut rows)?;
    let written = io(written)?.saturating_sub(written_before);
    rows.push(Row::of("bytes written per key", "B", vec![written as f64 / args.keys as f64]));
    let mut megabytes = |name: &str, bytes: u64| {
        let more = bytes.saturating_sub(before) as f64 / 1e6;
        rows.push(Row::of(name, "MB", vec![more]));
    };
    megabytes("resident, open table included", status(resident)?);
    megabytes("resident at most, while it was filled", status("VmHWM:")?);
    lookups(&mut store, args.keys, &mut rows)?;
    drop(store);
    cold(folder.path(), args.keys, &mut rows)?;
    restart(folder.path(), args.keys, &mut rows)?;
    Ok(rows)
}

fn original(number: u64, keys: u64) -> Original {
    let time = (u128::from(number) * KEPT as u128 / u128::from(keys)) as i64;
    Original { key: key(number), offset: number as i64, time }
}

/// The finaliser of SplitMix64, twice: a bijection of the number.
fn key(number: u64) -> KeyHash {
    fn mix(word: u64) -> u64 {
        let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    KeyHash(u128::from(mix(number)) << 64 | u128::from(mix(!number)))
}

fn checkpoint(next: u64) -> Checkpoint {
    let last_block = Some((next as i64, BlockMark(next)));
    Checkpoint { last_block, through: next as i64, newest: KEPT, chains: Vec::new() }
}

fn fill(keys: u64, folder: &Path, rows: &mut Vec<Row>) -> anyhow::Result<Store> {
    let (mut store, _) = Store::open(folder, LIMITS, Upkeep::threads()?)?;
    let progress = ProgressBar::new(keys);
    progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} originals, {eta} left")?);
    let tenth = keys.div_ceil(10);
    let (mut rates, mut stalls) = (Vec::new(), Vec::new());
    let (mut started, mut counted) = (Instant::now(), 0);
    for first in (0..keys).step_by(COMMIT as usize) {
        let end = (first + COMMIT).min(keys);
        let begun = Instant::now();
        for number in first..end {
            store.insert(original(number, keys));
        }
        store.maintain(i64::MIN, &|| checkpoint(end))?;
        stalls.push(begun.elapsed().as_secs_f64() * 1e3);
        progress.inc(end - first);
        if end % tenth < COMMIT || end == keys {
            rates.push((end - counted) as f64 / started.elapsed().as_secs_f64() / 1e6);
            (started, counted) = (Instant::now(), end);
        }
    }
    progress.finish_and_clear();
    ensure!(store.len() as u64 == keys, "the index holds {} of {keys}", store.len());
    rows.push(Row::of("insert, with sealing and merging", "M/s", rates));
    rows.push(Row::of("commit of 1,000", "ms", stalls));
    settle(&mut store, keys)?;
    Ok(store)
}

/// Waits until nothing is left to be merged.
fn settle(store: &mut Store, keys: u64) -> anyhow::Result<()> {
    while store.is_busy() {
        std::thread::sleep(Duration::from_millis(20));
        store.maintain(i64::MIN, &|| checkpoint(keys))?;
    }
    Ok(())
}

fn found(store: &Store, key: KeyHash, not_before: i64) -> anyhow::Result<bool> {
    let mut found = false;
    store.visit(key, not_before, &mut |_, _| found = true)?;
    Ok(found)
}

/// Lookups in all that is kept, and of new keys in the window alone, as the processor asks; µs each.
fn lookups(store: &mut Store, keys: u64, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let in_window = KEPT - WINDOW;
    for (name, not_before) in [("segments asked", 0), ("segments asked, in the window", in_window)]
    {
        rows.push(Row::of(name, "count", vec![store.asked(not_before) as f64]));
    }
    let mut measure = |name: &str, of: &dyn Fn(u64) -> u64, not_before: i64, expected: bool| {
        let (mut rounds, mut computing) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS as u64 {
            let (started, computed) = (Instant::now(), thread_time()?);
            for number in 0..LOOKUPS {
                let key = key(of(round * LOOKUPS + number));
                let hit = black_box(found(store, key, not_before)?);
                ensure!(hit == expected, "{name}: the index answers wrongly");
            }
            let computed = thread_time()?.saturating_sub(computed);
            computing.push(computed as f64 / 1e3 / LOOKUPS as f64);
            rounds.push(started.elapsed().as_secs_f64() * 1e6 / LOOKUPS as f64);
        }
        rows.push(Row::of(name, "µs", rounds));
        rows.push(Row::of(format!("{name}, CPU"), "µs", computing));
        anyhow::Ok(())
    };
    measure("lookup of a new key", &|number| keys + number, 0, false)?;
    let others = |number| 2 * keys + number;
    measure("lookup of a new key, in the window", &others, in_window, false)?;
    // A stride that visits keys of every age in no order.
    let known = |number: u64| number.wrapping_mul(0x9e37_79b1) % keys;
    measure("lookup of a known key, pages cached", &known, 0, true)
}

/// Lookups of known keys whose pages were driven out of the system's cache.
fn cold(folder: &Path, keys: u64, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let (store, _) = Store::open(folder, LIMITS, Upkeep::Inline)?;
    // What had not been sealed is not in the files.
    let sealed = (store.len() as u64).min(keys);
    ensure!(sealed > 0, "nothing was sealed; ask for more keys");
    let mut rounds = Vec::new();
    for round in 0..ROUNDS as u64 {
        for entry in std::fs::read_dir(folder)? {
            let file = File::open(entry?.path())?;
            posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        let started = Instant::now();
        for number in 0..COLD_LOOKUPS {
            let number = (round * COLD_LOOKUPS + number).wrapping_mul(0x9e37_79b1) % sealed;
            ensure!(found(&store, key(number), 0)?, "the index has lost original {number}");
        }
        rounds.push(started.elapsed().as_secs_f64() * 1e6 / COLD_LOOKUPS as f64);
    }
    rows.push(Row::of("lookup of a known key, from the disk", "µs", rounds));
    Ok(())
}

/// From a process that was killed to one that is ready: opening the files, and the journal's tail that had not
/// been sealed, decoded and applied.
fn restart(folder: &Path, keys: u64, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let tail: Vec<Vec<u8>> = (0..2 * LIMITS.open as u64)
        .step_by(COMMIT as usize)
        .map(|first| {
            let originals = (first..first + COMMIT).map(|n| original(keys + n, keys)).collect();
            DedupBlock { through: 0, originals, chains: Vec::new() }.encode()
        })
        .collect();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let (mut store, checkpoint) = Store::open(folder, LIMITS, Upkeep::Inline)?;
        ensure!(checkpoint.is_some(), "the store was not found again");
        for block in &tail {
            DedupBlock::decode(block)?.originals.into_iter().for_each(|one| store.insert(one));
        }
        rounds.push(started.elapsed().as_secs_f64());
        black_box(store);
    }
    rows.push(Row::of("kill -9 to ready, without Kafka's part", "s", rounds));
    Ok(())
}

/// What the kernel says of this process's memory, bytes.
fn status(what: &str) -> anyhow::Result<u64> {
    let line = line_of("/proc/self/status", what)?;
    let kilobytes = line.strip_suffix(" kB").context("not in kB")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

/// How long this thread has had a processor, ns: time that does not grow with what else the machine does.
fn thread_time() -> anyhow::Result<u64> {
    let file = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    Ok(text.split(' ').next().context("it is empty")?.parse()?)
}

/// What the kernel says of the bytes that this process has read and written.
fn io(what: &str) -> anyhow::Result<u64> {
    Ok(line_of("/proc/self/io", what)?.parse()?)
}

fn line_of(file: &str, what: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    Ok(line.with_context(|| format!("no {what} in {file}"))?.trim().to_owned())
}
