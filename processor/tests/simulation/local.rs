//! What a worker keeps of its originals beside the journal, and what is left of it when the worker dies.

use sluice_processor::{
    dedup::{
        KeyHash, Original,
        disk::{
            StoreError,
            manifest::Checkpoint,
            store::{Limits, Store},
            upkeep::Upkeep,
        },
        index::{InMemory, Indexes, MemoryIndex, OriginalIndex},
    },
    logic::ProcessorLogic,
};
use std::{
    cell::Cell,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A worker's logic, and the folder of its index, if it has one.
pub struct Life<I> {
    pub inner: ProcessorLogic<I>,
    pub folder: Option<PathBuf>,
}

/// Makes a logic with these indexes.
pub type Make<'a, I> = &'a mut dyn FnMut(Arc<dyn Indexes<I>>) -> ProcessorLogic<I>;

/// A way to keep originals.
pub trait Local {
    type Index: OriginalIndex;
    /// A worker starts. `stored`: what [`Local::store`] made of an earlier life, if it survived.
    fn start(
        &mut self,
        worker: usize,
        stored: Option<&Life<Self::Index>>,
        make: Make<'_, Self::Index>,
    ) -> Life<Self::Index>;
    /// A copy of what a worker keeps at this moment.
    fn store(&mut self, of: &Life<Self::Index>, make: Make<'_, Self::Index>) -> Life<Self::Index>;
}

/// Originals in memory; what survives is a copy of all of it.
pub struct Memory;

impl Local for Memory {
    type Index = MemoryIndex;

    fn start(
        &mut self,
        _worker: usize,
        stored: Option<&Life<MemoryIndex>>,
        make: Make<'_, MemoryIndex>,
    ) -> Life<MemoryIndex> {
        let inner = match stored {
            Some(stored) => stored.inner.clone(),
            None => make(Arc::new(InMemory)),
        };
        Life { inner, folder: None }
    }

    fn store(&mut self, of: &Life<MemoryIndex>, _make: Make<'_, MemoryIndex>) -> Life<MemoryIndex> {
        Life { inner: of.inner.committed_state(), folder: None }
    }
}

/// How often what happened to indexes on disk.
#[derive(Debug, Default)]
pub struct Counts {
    /// Tables that became segments.
    pub sealed: AtomicUsize,
    /// Times that there were fewer segments than before: merged or expired.
    pub fewer: AtomicUsize,
    /// Indexes that were opened with something in them.
    pub resumed: AtomicUsize,
    /// Starts with the folder as the last life left it, with an older copy, and with none.
    pub kept: AtomicUsize,
    pub older: AtomicUsize,
    pub lost: AtomicUsize,
}

/// Originals on disk. What survives is the folder as it is, an older copy of it, or nothing.
pub struct OnDisk {
    root: tempfile::TempDir,
    limits: Limits,
    /// The mistake: so many originals are left out of the store though its checkpoint says that they are in it.
    held_back: usize,
    /// Folders made so far; a number also decides what survives.
    folders: u64,
    /// Each worker's folder.
    current: HashMap<usize, PathBuf>,
    counts: Arc<Counts>,
}

impl OnDisk {
    pub fn new(limits: Limits, held_back: usize, counts: Arc<Counts>) -> OnDisk {
        // In memory where there is such a file system: nothing here depends on what is durable.
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let current = HashMap::new();
        OnDisk { root, limits, held_back, folders: 0, current, counts }
    }

    /// A new folder with what is in another one.
    fn copy(&mut self, of: Option<&Path>) -> PathBuf {
        self.folders += 1;
        let path = self.root.path().join(self.folders.to_string());
        fs::create_dir(&path).unwrap();
        for partition in of.into_iter().flat_map(|of| fs::read_dir(of).unwrap()) {
            let partition = partition.unwrap();
            let to = path.join(partition.file_name());
            fs::create_dir(&to).unwrap();
            for file in fs::read_dir(partition.path()).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        path
    }

    fn life(&self, folder: PathBuf, make: Make<'_, Lagging>) -> Life<Lagging> {
        let shelf = Shelf {
            folder: folder.clone(),
            limits: self.limits,
            held_back: self.held_back,
            counts: self.counts.clone(),
        };
        Life { inner: make(Arc::new(shelf)), folder: Some(folder) }
    }
}

impl Local for OnDisk {
    type Index = Lagging;

    fn start(
        &mut self,
        worker: usize,
        stored: Option<&Life<Lagging>>,
        make: Make<'_, Lagging>,
    ) -> Life<Lagging> {
        let left = self.current.remove(&worker);
        let dice = self.folders.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62;
        let (from, count) = match stored.and_then(|stored| stored.folder.clone()) {
            Some(copy) if dice < 2 => (Some(copy), &self.counts.older),
            _ if dice < 3 && left.is_some() => (left.clone(), &self.counts.kept),
            _ => (None, &self.counts.lost),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let folder = self.copy(from.as_deref());
        if let Some(left) = left {
            fs::remove_dir_all(left).unwrap();
        }
        self.current.insert(worker, folder.clone());
        self.life(folder, make)
    }

    fn store(&mut self, of: &Life<Lagging>, make: Make<'_, Lagging>) -> Life<Lagging> {
        let folder = self.copy(of.folder.as_deref());
        self.life(folder, make)
    }
}

/// One life's stores.
struct Shelf {
    folder: PathBuf,
    limits: Limits,
    held_back: usize,
    counts: Arc<Counts>,
}

impl Indexes<Lagging> for Shelf {
    fn open(&self, partition: i32) -> Result<(Lagging, Option<Checkpoint>), StoreError> {
        let folder = self.folder.join(partition.to_string());
        let (store, checkpoint) = Store::open(&folder, self.limits, Upkeep::Inline)?;
        self.counts.resumed.fetch_add(usize::from(!store.is_empty()), Ordering::Relaxed);
        let (most, counts) = (self.held_back, self.counts.clone());
        Ok((Lagging { store, held: Vec::new(), most, counts }, checkpoint))
    }

    fn discard(&self, partition: i32) -> Result<(), StoreError> {
        Store::discard(&self.folder.join(partition.to_string()))
    }
}

/// A store that is told of originals late: by none in the real runs.
pub struct Lagging {
    store: Store,
    held: Vec<Original>,
    most: usize,
    counts: Arc<Counts>,
}

impl OriginalIndex for Lagging {
    fn visit(
        &self,
        key: KeyHash,
        not_before: i64,
        visit: &mut dyn FnMut(i64, i64),
    ) -> Result<(), StoreError> {
        self.store.visit(key, not_before, visit)?;
        let held = self.held.iter().filter(|original| original.key == key);
        held.for_each(|original| visit(original.offset, original.time));
        Ok(())
    }

    fn insert(&mut self, original: Original) {
        self.held.push(original);
        while self.held.len() > self.most {
            self.store.insert(self.held.remove(0));
        }
    }

    fn maintain(
        &mut self,
        not_before: i64,
        checkpoint: &dyn Fn() -> Checkpoint,
    ) -> Result<(), StoreError> {
        let before = self.store.asked(i64::MIN);
        let sealed = Cell::new(0);
        self.store.maintain(not_before, &|| {
            sealed.set(1);
            checkpoint()
        })?;
        self.counts.sealed.fetch_add(sealed.get(), Ordering::Relaxed);
        let fewer = usize::from(self.store.asked(i64::MIN) < before);
        self.counts.fewer.fetch_add(fewer, Ordering::Relaxed);
        Ok(())
    }

    fn len(&self) -> usize {
        self.store.len() + self.held.len()
    }
}
