//! The originals of one raw partition on disk, a few of them in memory.
//!
//! New originals go into the *open* table. When it is full it is frozen and becomes a segment, in the
//! background; lookups consult the frozen table until the segment is there.
//!
//! Segments are merged within *spans*: a segment belongs to the span of time in which its newest original lies.
//! In the span that is being filled, segments of like size become one as soon as there are `fan` of them. In a
//! span that is done, all become one, but for large ones that would be rewritten for the sake of
//! a small one. So there are few segments to ask: one for each span that is kept, and the tiers of the one
//! that is being filled. Expiry is the deletion of whole files, at most a span late. An original is
//! written once when its table is sealed, once for each tier, and once when its span is done: with 100 tables
//! in a span and a fan of four, five times.
//!
//! The store is a prefix of the partition's journal: its manifest carries the rest of the partition's state
//! as it was when the newest segment was frozen, and the journal block after which a restore reads on.

use super::{
    StoreError, files,
    manifest::{Checkpoint, Manifest},
    segment::Segment,
    table::Table,
    upkeep::{Running, Task, Upkeep, Work},
};
use crate::dedup::{KeyHash, Original, index::OriginalIndex};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// When segments are made and merged.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Originals in the open table that make a segment. At most twice as many are in memory.
    pub open: usize,
    /// Segments of like size that are merged into one.
    pub fan: usize,
    /// Width of the spans of time within which segments are merged, ms.
    pub span: i64,
    /// Segments above which nothing is sealed until a merge is done: a bound on what a lookup asks.
    pub segments: usize,
}

impl Limits {
    /// What the processor works with: segments are merged by fours, within an eighth of the time that is kept,
    /// because expiry deletes whole files.
    ///
    /// `open` as in [`Limits`]; `kept` is how long originals are kept, ms.
    pub const fn keeping(open: usize, kept: i64) -> Limits {
        Limits { open, fan: 4, span: kept / 8, segments: 64 }
    }
}

/// The store of one raw partition.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    limits: Limits,
    upkeep: Upkeep,
    open: Table,
    segments: Vec<Arc<Segment>>,
    next_segment: u64,
    /// Of the manifest.
    durable: Checkpoint,
    /// Broker time of the newest original that was sealed last, ms: its span is the one that is being filled.
    filling: i64,
    /// Files of segments that have expired since the manifest was written.
    expired: Vec<PathBuf>,
    /// The manifest that is being written.
    writing: Option<(Change, Running)>,
    /// The merge under way.
    merging: Option<(Vec<Arc<Segment>>, Running)>,
    /// A merge that is done, but not in the manifest.
    merged: Option<Merged>,
    /// Tells the merge under way that nobody wants it any more.
    abandoned: Arc<AtomicBool>,
}

impl Drop for Store {
    /// Nothing of this store may be written once another is opened in its folder.
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // What has been written stands, or is removed as remains.
        if let Some((_, running)) = self.writing.take() {
            let _ = running.wait();
        }
        if let Some((_, running)) = self.merging.take() {
            let _ = running.wait();
        }
    }
}

/// What holds once a manifest is written.
#[derive(Debug)]
enum Change {
    /// This table is a segment, and the store is as far as this.
    Sealed(Arc<Table>, Checkpoint),
    /// Segments have become one.
    Adopted(Merged),
    /// Expired segments are gone.
    Forgotten,
}

#[derive(Debug)]
struct Merged {
    inputs: Vec<Arc<Segment>>,
    segment: Arc<Segment>,
}

impl Store {
    /// Opens the store in `folder`, or begins one. The checkpoint is what the rest of the partition's state
    /// starts from; `None` for a store without one, which has to be filled from the journal's start.
    ///
    /// # Errors
    /// [`StoreError`]; [`Store::discard`] makes the next opening begin anew.
    pub fn open(
        folder: &Path,
        limits: Limits,
        upkeep: Upkeep,
    ) -> Result<(Store, Option<Checkpoint>), StoreError> {
        let io = |source| StoreError::Io { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let manifest = Manifest::read(folder)?;
        let found = manifest.is_some();
        let manifest = manifest.unwrap_or_default();
        remove_remains(folder, &manifest.segments).map_err(io)?;
        let segments = manifest.segments.iter().map(|name| Segment::open(&folder.join(name)));
        let store = Store {
            segments: segments.map(|segment| segment.map(Arc::new)).collect::<Result<_, _>>()?,
            folder: folder.to_owned(),
            limits,
            upkeep,
            open: Table::default(),
            next_segment: manifest.next_segment,
            durable: manifest.checkpoint.clone(),
            filling: manifest.checkpoint.newest,
            expired: Vec::new(),
            writing: None,
            merging: None,
            merged: None,
            abandoned: Arc::default(),
        };
        Ok((store, found.then_some(manifest.checkpoint)))
    }

    /// Makes the store in `folder` count for nothing, so that the next opening fills it from the journal.
    ///
    /// # Errors
    /// The manifest cannot be removed.
    pub fn discard(folder: &Path) -> Result<(), StoreError> {
        Manifest::discard(folder)
    }

    /// Whether something is being written or merged, or will be at the next
    /// [`OriginalIndex::maintain`].
    pub fn is_busy(&self) -> bool {
        self.writing.is_some()
            || self.merging.is_some()
            || self.merged.is_some()
            || !self.expired.is_empty()
            || self.mergeable().is_some()
    }

    /// The table that is becoming a segment.
    fn frozen(&self) -> Option<&Table> {
        match &self.writing {
            Some((Change::Sealed(table, _), _)) => Some(table),
            _ => None,
        }
    }

    /// Takes in the manifest that has been written; with `wait`, waits for it.
    fn collect_writing(&mut self, wait: bool) -> Result<(), StoreError> {
        let Some((change, running)) = self.writing.take() else { return Ok(()) };
        let Some(done) = (if wait { Some(running.wait()) } else { running.poll() }) else {
            self.writing = Some((change, running));
            return Ok(());
        };
        let segment = done?;
        match change {
            Change::Sealed(_, checkpoint) => {
                self.filling = segment.as_ref().map_or(self.filling, |segment| segment.newest());
                self.segments.extend(segment);
                self.durable = checkpoint;
            }
            Change::Adopted(merged) => {
                self.segments = without(&self.segments, &merged.inputs, Some(&merged.segment))
            }
            Change::Forgotten => {}
        }
        Ok(())
    }

    /// Takes in the merge that is done; with `wait`, waits for it.
    fn collect_merging(&mut self, wait: bool) -> Result<(), StoreError> {
        let Some((inputs, running)) = self.merging.take() else { return Ok(()) };
        match if wait { Some(running.wait()) } else { running.poll() } {
            None => self.merging = Some((inputs, running)),
            Some(done) => self.merged = done?.map(|segment| Merged { inputs, segment }),
        }
        Ok(())
    }

    /// Stops asking segments of which everything has expired. Their files go with the next manifest.
    fn expire(&mut self, not_before: i64) {
        let merging = self.merging.iter().flat_map(|(inputs, _)| inputs);
        let merged = self.merged.iter().flat_map(|merged| &merged.inputs);
        let adopting = self.writing.iter().flat_map(|(change, _)| match change {
            Change::Adopted(merged) => merged.inputs.as_slice(),
            Change::Sealed(..) | Change::Forgotten => &[],
        });
        let busy: Vec<_> = merging.chain(merged).chain(adopting).map(Arc::as_ptr).collect();
        let expired = self.segments.extract_if(.., |segment| {
            segment.newest() < not_before && !busy.contains(&Arc::as_ptr(segment))
        });
        self.expired.extend(expired.map(|segment| segment.path().to_owned()));
    }

    fn seal(&mut self, checkpoint: Checkpoint) {
        let table = Arc::new(std::mem::take(&mut self.open));
        let kept = self.segments.clone();
        let name = self.next_name();
        let task = Task {
            work: Work::Seal(table.clone()),
            manifest: Some(self.manifest(&kept, &checkpoint)),
            remove: std::mem::take(&mut self.expired),
            name,
            folder: self.folder.clone(),
        };
        self.writing = Some((Change::Sealed(table, checkpoint), self.upkeep.start(task)));
    }

    /// Begins to merge segments, where there is reason to.
    fn merge(&mut self, not_before: i64) {
        if self.merging.is_some() || self.merged.is_some() {
            return;
        }
        // A manifest on its way may be about to replace some of them.
        if matches!(self.writing, Some((Change::Adopted(_), _))) {
            return;
        }
        let Some(inputs) = self.mergeable() else { return };
        let task = Task {
            work: Work::Merge {
                segments: inputs.clone(),
                not_before,
                abandoned: self.abandoned.clone(),
            },
            manifest: None,
            remove: Vec::new(),
            name: self.next_name(),
            folder: self.folder.clone(),
        };
        self.merging = Some((inputs, self.upkeep.start(task)));
    }

    /// Writes the manifest without what was merged or has expired.
    fn tidy(&mut self) {
        let mut remove = std::mem::take(&mut self.expired);
        let (kept, change) = match self.merged.take() {
            Some(merged) => {
                remove.extend(merged.inputs.iter().map(|input| input.path().to_owned()));
                let kept = without(&self.segments, &merged.inputs, Some(&merged.segment));
                (kept, Change::Adopted(merged))
            }
            None => (self.segments.clone(), Change::Forgotten),
        };
        let task = Task {
            work: Work::Manifest,
            manifest: Some(self.manifest(&kept, &self.durable)),
            remove,
            name: String::new(),
            folder: self.folder.clone(),
        };
        self.writing = Some((change, self.upkeep.start(task)));
    }

    /// How many segments a lookup asks for originals that are no older than `not_before` (ms).
    pub fn asked(&self, not_before: i64) -> usize {
        self.segments.iter().filter(|segment| segment.newest() >= not_before).count()
    }

    /// Segments that are to become one: small ones first, because they come fastest.
    fn mergeable(&self) -> Option<Vec<Arc<Segment>>> {
        let span = |time: i64| time.div_euclid(self.limits.span.max(1));
        let (filled, done): (Vec<_>, Vec<_>) = self
            .segments
            .iter()
            .cloned()
            .partition(|segment| span(segment.newest()) == span(self.filling));
        self.alike(filled).or_else(|| {
            let mut spans: BTreeMap<i64, Vec<_>> = BTreeMap::new();
            for segment in done {
                spans.entry(span(segment.newest())).or_default().push(segment);
            }
            spans.into_values().find_map(|segments| self.worthwhile(segments))
        })
    }

    /// The segments of the lowest tier that has enough of them.
    fn alike(&self, segments: Vec<Arc<Segment>>) -> Option<Vec<Arc<Segment>>> {
        let fan = self.limits.fan.max(2);
        let mut tiers: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for segment in segments {
            let tables = segment.originals() as f64 / self.limits.open.max(1) as f64;
            let tier = tables.max(1.0).log(fan as f64).round() as u32;
            tiers.entry(tier).or_default().push(segment);
        }
        tiers.into_values().find(|segments| segments.len() >= fan)
    }

    /// As many of a span's segments as can become one without rewriting a large one for too little: the
    /// largest is at most `fan` times as large as the others together. So each time that an original is rewritten
    /// its segment has grown, however many stragglers come.
    fn worthwhile(&self, mut segments: Vec<Arc<Segment>>) -> Option<Vec<Arc<Segment>>> {
        segments.sort_by_key(|segment| segment.originals());
        let fan = self.limits.fan.max(2) as u64;
        let (mut smaller, mut worth) = (0_u64, 0);
        for (index, segment) in segments.iter().enumerate() {
            if index > 0 && segment.originals() <= smaller.saturating_mul(fan) {
                worth = index + 1;
            }
            smaller = smaller.saturating_add(segment.originals());
        }
        segments.truncate(worth);
        (worth > 1).then_some(segments)
    }

    fn next_name(&mut self) -> String {
        let name = format!("{:010}.segment", self.next_segment);
        self.next_segment += 1;
        name
    }

    fn manifest(&self, segments: &[Arc<Segment>], checkpoint: &Checkpoint) -> Manifest {
        let file_name = |segment: &Arc<Segment>| {
            segment.path().file_name().map(|name| name.to_string_lossy().into_owned())
        };
        Manifest {
            checkpoint: checkpoint.clone(),
            segments: segments.iter().filter_map(file_name).collect(),
            next_segment: self.next_segment,
        }
    }
}

impl OriginalIndex for Store {
    fn visit(
        &self,
        key: KeyHash,
        not_before: i64,
        visit: &mut dyn FnMut(i64, i64),
    ) -> Result<(), StoreError> {
        let frozen = self.frozen().into_iter().flat_map(|table| table.originals(key));
        self.open.originals(key).chain(frozen).for_each(|(offset, time)| visit(offset, time));
        for segment in self.segments.iter().filter(|segment| segment.newest() >= not_before) {
            segment.any(key, |offset, time| {
                visit(offset, time);
                false
            })?;
        }
        Ok(())
    }

    fn insert(&mut self, original: Original) {
        self.open.insert(original);
    }

    /// Seals the open table when it is full and merges segments, in the background. Waits only where the disk is
    /// too slow for what comes in.
    fn maintain(
        &mut self,
        not_before: i64,
        checkpoint: &dyn Fn() -> Checkpoint,
    ) -> Result<(), StoreError> {
        self.collect_writing(false)?;
        self.collect_merging(false)?;
        // What has expired as a whole is not worth merging.
        self.expire(not_before);
        self.merge(not_before);
        if self.writing.is_none() && (self.merged.is_some() || !self.expired.is_empty()) {
            self.tidy();
        }
        if self.open.len() >= self.limits.open {
            let full = self.open.len() >= self.limits.open.saturating_mul(2);
            self.collect_writing(full)?;
            if full && self.segments.len() >= self.limits.segments {
                self.collect_merging(true)?;
                self.tidy();
                self.collect_writing(true)?;
            }
            if self.writing.is_none() {
                self.seal(checkpoint());
            }
        }
        Ok(())
    }

    /// Expired originals of younger segments included.
    fn len(&self) -> usize {
        let sealed: u64 = self.segments.iter().map(|segment| segment.originals()).sum();
        let frozen = self.frozen().map_or(0, Table::len);
        self.open.len() + frozen + usize::try_from(sealed).unwrap_or(usize::MAX)
    }
}

/// `segments` without `gone`, with `new`.
fn without(
    segments: &[Arc<Segment>],
    gone: &[Arc<Segment>],
    new: Option<&Arc<Segment>>,
) -> Vec<Arc<Segment>> {
    let stays = |segment: &&Arc<Segment>| gone.iter().all(|gone| !Arc::ptr_eq(gone, segment));
    segments.iter().filter(stays).chain(new).cloned().collect()
}

/// Removes segment files that the manifest does not name: what a crash left behind.
fn remove_remains(folder: &Path, named: &[String]) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".segment") && !named.contains(&name) {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;
#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
