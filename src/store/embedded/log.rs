//! The log on disk: revision -> row, in one redb table, and the few numbers beside it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::Record;
use super::state::{Change, Garbage, Live, State};
use crate::store::{KeyValue, StoreError};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// The oldest revision that can be read.
const COMPACTED: &str = "compacted";

/// redb's page cache. Reads of the newest state never come here.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// How long the process that has the directory may take to end.
const LOCK_TIME_MAX: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Why a store could not be opened. All of them are for an operator; none is mended by trying again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process (it holds the lock of {0}/LOCK)")]
    Locked(PathBuf),
    /// The directory or a file in it.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database file.
    #[error("the database cannot be opened: {0}")]
    Database(String),
    /// What is in it cannot have been written by this program.
    #[error("the database is corrupt: {0}")]
    Corrupt(String),
}

fn database(error: impl Into<redb::Error>) -> OpenError {
    OpenError::Database(error.into().to_string())
}

/// Reading failed although the database is open.
pub(super) fn read_error(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(text) => StoreError::Corrupt(text.into()),
        error => StoreError::Failed(error.to_string().into()),
    }
}

/// The open database and the lock on its directory.
pub(super) struct Log {
    db: Database,
    /// Released by the system when the process ends, however it ends.
    _lock: Option<File>,
}

impl Log {
    /// Opens or makes the log in a directory.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let lock = lock(dir)?;
        let path = dir.join("store.redb");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io(&path))?;
        // The file's name must be on disk before anything in it is acknowledged.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
        let mut builder = Builder::new();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        builder.set_repair_callback(|_| tracing::debug!("the store was not closed, checking its pages"));
        let db = builder.create_file(file).map_err(database)?;
        Self::prepare(db, Some(lock))
    }

    /// A log in memory.
    pub(super) fn ephemeral() -> Result<Self, OpenError> {
        Self::on(redb::backends::InMemoryBackend::new())
    }

    /// A log on whatever looks like a disk.
    pub(super) fn on(disk: impl redb::StorageBackend) -> Result<Self, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        Self::prepare(builder.create_with_backend(disk).map_err(database)?, None)
    }

    fn prepare(db: Database, lock: Option<File>) -> Result<Self, OpenError> {
        // Only a new one needs a commit, that is two waits for the disk.
        if db.begin_read().map_err(database)?.list_tables().map_err(database)?.next().is_none() {
            let txn = db.begin_write().map_err(database)?;
            txn.open_table(LOG).map_err(database)?;
            txn.open_table(NUMBERS).map_err(database)?;
            txn.commit().map_err(database)?;
        }
        Ok(Self { db, _lock: lock })
    }

    /// Reads everything once, in order of revision.
    pub(super) fn load(&self) -> Result<State, OpenError> {
        let txn = self.db.begin_read().map_err(database)?;
        let mut state = State::empty();
        for row in txn.open_table(LOG).map_err(database)?.iter().map_err(database)? {
            let (revision, row) = row.map_err(database)?;
            let change = change(revision.value(), row.value())?;
            if change.revision <= state.revision {
                return Err(OpenError::Corrupt(format!("revision {} below the first", change.revision)));
            }
            state.apply(&change);
        }
        let numbers = txn.open_table(NUMBERS).map_err(database)?;
        state.compacted = numbers.get(COMPACTED).map_err(database)?.map_or(0, |number| number.value());
        state.revision = state.revision.max(state.compacted);
        state.forget_recent();
        Ok(state)
    }

    /// Writes changes so that they are on disk when this returns. An error leaves the disk in an unknown state.
    pub(super) fn append(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let txn = self.begin_write()?;
        {
            let mut log = txn.open_table(LOG)?;
            for change in changes {
                let record = record(change);
                log.insert_reserve(change.revision, record.encoded_len())
                    .map(|mut row| record.encode(row.as_mut()))?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Removes rows and remembers from where on history can be read.
    pub(super) fn remove(&self, garbage: &[Garbage], compacted: u64) -> Result<(), redb::Error> {
        let txn = self.begin_write()?;
        {
            txn.open_table(NUMBERS)?.insert(COMPACTED, compacted)?;
            let mut log = txn.open_table(LOG)?;
            for row in garbage {
                log.remove(row.revision)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Each commit is durable. (redb would let go of pages only with the next durable one, so this is also right in memory,
    /// where it costs nothing.)
    fn begin_write(&self) -> Result<redb::WriteTransaction, redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        Ok(txn)
    }

    /// A view of the log as it is now.
    pub(super) fn view(&self) -> Result<View, StoreError> {
        let txn = self.db.begin_read().map_err(read_error)?;
        Ok(View(txn.open_table(LOG).map_err(read_error)?))
    }
}

/// The log at one moment.
pub(super) struct View(redb::ReadOnlyTable<u64, &'static [u8]>);

impl View {
    /// The change of one revision; `None`: it has been compacted.
    pub(super) fn get(&self, revision: u64) -> Result<Option<Change>, StoreError> {
        let Some(row) = self.0.get(revision).map_err(read_error)? else { return Ok(None) };
        change(revision, row.value()).map(Some).map_err(|error| StoreError::Corrupt(error.to_string().into()))
    }

    /// The changes from `first` to `last` whose key begins with `prefix`, at most `limit` rows looked at; and the revision
    /// up to which that is all.
    pub(super) fn scan(
        &self,
        first: u64,
        last: u64,
        prefix: &[u8],
        limit: usize,
    ) -> Result<(Vec<Change>, u64), StoreError> {
        let mut changes = Vec::new();
        for (seen, row) in self.0.range(first..=last).map_err(read_error)?.enumerate() {
            let (revision, row) = row.map_err(read_error)?;
            let revision = revision.value();
            if seen == limit {
                return Ok((changes, revision - 1));
            }
            let corrupt = |error: OpenError| StoreError::Corrupt(error.to_string().into());
            if Record::decode(revision, row.value()).map_err(corrupt)?.key.starts_with(prefix) {
                changes.push(change(revision, row.value()).map_err(corrupt)?);
            }
        }
        Ok((changes, last))
    }
}

fn record(change: &Change) -> Record<'_> {
    let live = change.live.as_deref();
    Record {
        key: &change.key,
        value: live.map(|live| &live.kv.value[..]),
        create_revision: live.map_or(0, |live| live.kv.create_revision),
        version: live.map_or(0, |live| live.kv.version),
        deadline_ms: live.map_or(0, |live| live.deadline_ms),
    }
}

fn change(revision: u64, row: &[u8]) -> Result<Change, OpenError> {
    let record = Record::decode(revision, row)?;
    let key = Bytes::copy_from_slice(record.key);
    let live = record.value.map(|value| {
        let kv = KeyValue {
            key: key.clone(),
            value: Bytes::copy_from_slice(value),
            create_revision: record.create_revision,
            mod_revision: revision,
            version: record.version,
        };
        Arc::new(Live { kv, deadline_ms: record.deadline_ms })
    });
    Ok(Change { revision, key, live })
}

/// Takes the directory for this process, as long as the file stays open. One that was just killed may not be gone yet: whoever
/// starts the next at once, as supervisors do, waits for it.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
    let until = Instant::now() + LOCK_TIME_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
    // For whoever looks; the lock itself is the system's.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}
