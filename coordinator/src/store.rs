//! What survives a restart of the coordinator: `store.redb` in its state folder.
//!
//! * `memory`: what the core must know again, on disk before anything that builds on it is announced;
//! * `events`: what happened, for people;
//! * `about`: which run this is.
//!
//! A damaged store is an error, never an empty run: the file is made under another name and renamed once it is
//! whole, every page has a checksum that is looked at on each start, and each commit is followed by an empty one,
//! so that both roots in the head of the file lead to it and damage to one can't bring back the state before.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use lockstep_core::{EventLog, Memory, Record};
use lockstep_proto::RunEvent;
use lockstep_proto::config::RunConfig;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

/// One entry, what all records amount to, as JSON.
const MEMORY: TableDefinition<(), &[u8]> = TableDefinition::new("memory");
/// Events, as JSON, by sequence number.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// One entry, [`About`] as JSON.
const ABOUT: TableDefinition<(), &[u8]> = TableDefinition::new("about");

const STORE: &str = "store.redb";
/// A store that is being made. It holds nothing yet, so one that a crash has left is made anew.
const UNFINISHED: &str = "store.redb.new";
const LOCK: &str = "lock";

/// Memory for pages; a store is a few hundred kilobytes.
const CACHE_BYTES: usize = 4 << 20;
/// How this page's tables look.
const FORMAT: u32 = 1;

/// The store of one run, open in one process.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    memory: Memory,
    /// `None` after a write has failed: the file is opened and checked anew before the next.
    database: Option<Database>,
    /// Held as long as the store is open.
    _lock: File,
}

/// A whole store that this program can't go on with.
#[derive(Debug, thiserror::Error)]
enum WrongStore {
    #[error("it has format {0}, this program reads format {FORMAT}; use the program that wrote it")]
    Format(u32),
    #[error("it belongs to run `{0}`, not `{1}`; choose another --state-dir")]
    Run(String, String),
    #[error(
        "the run in it has another configuration: {0}; set these back, or choose another --state-dir"
    )]
    Configuration(String),
}

/// Whether starting again can't help: the store is damaged, or of something else.
pub(crate) fn is_hopeless(error: &anyhow::Error) -> bool {
    let damaged =
        |cause: &DatabaseError| matches!(cause, DatabaseError::Storage(StorageError::Corrupted(_)));
    error.chain().any(|cause| cause.is::<WrongStore>() || cause.downcast_ref().is_some_and(damaged))
}

/// Which run a store is of.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    format: u32,
    run_id: String,
    /// What may not change in a run, as TOML by key.
    settings: Vec<(String, String)>,
}

impl Store {
    /// Opens the store in a folder, or makes it there; with the newest events in it.
    pub(crate) fn open(folder: &Path, config: &RunConfig) -> anyhow::Result<(Self, EventLog)> {
        fs::create_dir_all(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
        let lock = lock(folder)?;
        let path = folder.join(STORE);
        let is_there = path.try_exists().with_context(|| format!("look for {}", path.display()))?;
        if !is_there {
            make(folder, &About::of(config))
                .with_context(|| format!("make the store {}", path.display()))?;
        }
        let database = open_checked(&path)?;
        let (memory, events) =
            read(&database, config).with_context(|| format!("read {}", path.display()))?;
        Ok((Self { path, memory, database: Some(database), _lock: lock }, events))
    }

    /// What the coordinators before this one have journaled, and this one.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Adds records and events; they are on disk when this returns.
    pub(crate) fn append(
        &mut self,
        records: Vec<Record>,
        events: &[RunEvent],
    ) -> anyhow::Result<()> {
        for record in records {
            self.memory.apply(record);
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => open_checked(&self.path)?,
        };
        commit(&database, &self.memory, events)
            .with_context(|| {
                format!(
                    "write to the store {}; once there is room, start the coordinator again: workers go on with \
                     the steps they have plans for, and then with it",
                    self.path.display()
                )
            })?;
        self.database = Some(database);
        Ok(())
    }
}

impl About {
    fn of(config: &RunConfig) -> Self {
        Self { format: FORMAT, run_id: config.run.id.clone(), settings: config.compatibility() }
    }

    /// Whether a coordinator with `config` may go on with this run.
    fn check(&self, config: &RunConfig) -> Result<(), WrongStore> {
        if self.format != FORMAT {
            return Err(WrongStore::Format(self.format));
        }
        let now = Self::of(config);
        if self.run_id != now.run_id {
            return Err(WrongStore::Run(self.run_id.clone(), now.run_id));
        }
        let was = |key: &String| self.settings.iter().find(|(name, _)| name == key);
        let changes: Vec<_> = now
            .settings
            .iter()
            .filter_map(|(key, value)| was(key).map(|(_, before)| (key, before, value)))
            .filter(|(_, before, value)| before != value)
            .map(|(key, before, value)| format!("{key} is {value}, was {before}"))
            .collect();
        if !changes.is_empty() {
            return Err(WrongStore::Configuration(changes.join("; ")));
        }
        Ok(())
    }
}

/// Keeps other coordinators out. The operating system lets go of it however this process ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK);
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(anyhow!(
            "another coordinator uses the state folder {}; stop it, or choose another --state-dir",
            folder.display()
        )),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// Makes an empty store, which appears whole or not at all.
fn make(folder: &Path, about: &About) -> anyhow::Result<()> {
    let unfinished = folder.join(UNFINISHED);
    if unfinished.try_exists()? {
        fs::remove_file(&unfinished)?;
    }
    let database = Builder::new().create(&unfinished)?;
    let transaction = database.begin_write()?;
    write(&transaction, MEMORY, &Memory::default())?;
    transaction.open_table(EVENTS)?;
    write(&transaction, ABOUT, about)?;
    transaction.commit()?;
    database.close()?;
    fs::rename(&unfinished, folder.join(STORE))?;
    Ok(File::open(folder)?.sync_all()?)
}

fn open_checked(path: &Path) -> anyhow::Result<Database> {
    let opened =
        Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(path);
    opened.with_context(|| {
        format!(
            "the store {} can't be used; put a copy of it back, or choose another --state-dir (the run then goes \
             on from its newest checkpoint)",
            path.display()
        )
    })
}

fn read(database: &Database, config: &RunConfig) -> anyhow::Result<(Memory, EventLog)> {
    let transaction = database.begin_read()?;
    let about = transaction.open_table(ABOUT)?.get(())?.context("it does not say of which run")?;
    let about: About = serde_json::from_slice(about.value()).context("understand of which run")?;
    about.check(config)?;
    let memory = transaction.open_table(MEMORY)?.get(())?.context("it has no memory")?;
    let memory = serde_json::from_slice(memory.value()).context("understand its memory")?;
    let mut events = EventLog::default();
    for entry in transaction.open_table(EVENTS)?.iter()? {
        let (sequence, event) = entry?;
        let event = serde_json::from_slice(event.value());
        events.push(event.with_context(|| format!("understand event {}", sequence.value()))?);
    }
    Ok((memory, events))
}

fn commit(database: &Database, memory: &Memory, events: &[RunEvent]) -> anyhow::Result<()> {
    let transaction = database.begin_write()?;
    write(&transaction, MEMORY, memory)?;
    {
        let mut list = transaction.open_table(EVENTS)?;
        for event in events {
            list.insert(event.sequence, serde_json::to_vec(event)?.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(database.begin_write()?.commit()?)
}

/// Sets the one entry of a table.
fn write(
    transaction: &WriteTransaction,
    table: TableDefinition<(), &[u8]>,
    value: &impl Serialize,
) -> anyhow::Result<()> {
    transaction.open_table(table)?.insert((), serde_json::to_vec(value)?.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use lockstep_proto::Occurrence;
    use lockstep_proto::ids::{Generation, Step};
    use lockstep_proto::layers::Layers;
    use proptest::prelude::*;

    use super::*;

    /// Records in the store of [`bytes`].
    const RECORDS: u64 = 3;

    #[test]
    fn records_and_events_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=RECORDS {
            let (mut store, events) = open(folder.path()).unwrap();
            assert_eq!((store.memory(), events.next()), (&after(number - 1), number));
            store.append(vec![record(number)], &[event(number)]).unwrap();
            assert_eq!(store.memory(), &after(number));
        }
    }

    #[test]
    fn a_second_coordinator_is_kept_out_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(!is_hopeless(&error), "it may end soon");
        let error = error.to_string();
        assert!(error.starts_with("another coordinator uses the state folder"), "{error}");
        drop(first);
        open(folder.path()).unwrap();
    }

    #[test]
    fn a_store_of_another_run_or_configuration_is_refused_with_the_difference() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        let refused = |config: &RunConfig| {
            let error = Store::open(folder.path(), config).unwrap_err();
            assert!(is_hopeless(&error), "{error:#}");
            format!("{error:#}")
        };
        let error = refused(&config(&[("run.id", "other")]));
        assert!(error.contains("it belongs to run `tiny`, not `other`"), "{error}");
        let error = refused(&config(&[("run.seed", "99")]));
        assert!(error.contains("run.seed is 99, was "), "{error}");
        Store::open(folder.path(), &config(&[("run.world", "7")])).unwrap();
    }

    #[test]
    fn a_store_that_a_crash_left_half_made_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(UNFINISHED), "half").unwrap();
        assert_eq!(open(folder.path()).unwrap().1.next(), 1);
    }

    #[test]
    fn a_store_cut_anywhere_is_an_error() {
        let whole = bytes();
        let lengths = (0..whole.len()).step_by(509).chain([1, 255, 4095, whole.len() - 1]);
        for length in lengths {
            let error = opened(whole.get(..length).unwrap()).unwrap_err();
            assert!(
                error.contains("store.redb can't be used; put a copy of it back"),
                "{length}: {error}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// The damage hits a byte that matters, and is an error, or one that does not, and all is there.
        #[test]
        fn a_damaged_store_keeps_every_record_or_is_an_error(
            at in any::<prop::sample::Index>(),
            change in any::<NonZeroU8>(),
        ) {
            let mut bytes = bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= change.get();
            check(&bytes)?;
        }

        /// The head of the file names its pages: damage there is the most dangerous.
        #[test]
        fn a_damaged_head_keeps_every_record_or_is_an_error(at in 0_usize..512, change in any::<NonZeroU8>()) {
            let mut bytes = bytes();
            bytes[at] ^= change.get();
            check(&bytes)?;
        }
    }

    fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
        match opened(bytes) {
            Ok(found) => prop_assert_eq!(found, (after(RECORDS), RECORDS + 1)),
            Err(error) => prop_assert!(error.contains("store.redb"), "{}", error),
        }
        Ok(())
    }

    /// A whole store, as a coordinator that was killed leaves it.
    fn bytes() -> Vec<u8> {
        static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            let mut store = open(folder.path()).unwrap().0;
            for number in 1..=RECORDS {
                store.append(vec![record(number)], &[event(number)]).unwrap();
            }
            fs::read(folder.path().join(STORE)).unwrap()
        };
        BYTES.get_or_init(make).clone()
    }

    /// The memory in a store with these bytes, and its next event.
    fn opened(bytes: &[u8]) -> Result<(Memory, u64), String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STORE), bytes).unwrap();
        let opened = open(folder.path()).map_err(|error| format!("{error:#}"));
        opened.map(|(store, events)| (store.memory().clone(), events.next()))
    }

    fn open(folder: &Path) -> anyhow::Result<(Store, EventLog)> {
        Store::open(folder, &config(&[]))
    }

    fn record(number: u64) -> Record {
        Record::Checkpoint(Step(number))
    }

    fn after(records: u64) -> Memory {
        (1..=records).map(record).collect()
    }

    fn config(flags: &[(&str, &str)]) -> RunConfig {
        let flags =
            flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Layers { preset: Some("tiny".into()), flags, ..Layers::default() }.resolve().unwrap().config
    }

    fn event(sequence: u64) -> RunEvent {
        let what = Occurrence::CoordinatorStarted { generation: Generation(sequence) };
        RunEvent { sequence, unix_ms: 5, what }
    }
}
