//! What survives a restart of the coordinator: `store.redb` in its state folder.
//!
//! * `journal`: what the core must know again, on disk before anything that builds on it is announced;
//! * `events`: what happened, for people;
//! * `about`: which run this is.
//!
//! A damaged store is an error, never an empty run: the file is made under another name and renamed once it is
//! whole, every page has a checksum that is looked at on each start, and each commit is followed by an empty one,
//! so that both roots in the head of the file lead to it and damage to one can't bring back the state before.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use lockstep_core::EventLog;
use lockstep_proto::RunEvent;
use lockstep_proto::config::RunConfig;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Records of the journal, as JSON, by number.
const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
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
    /// `None` after a write has failed: the file is opened and checked anew before the next.
    database: Option<Database>,
    /// Held as long as the store is open.
    _lock: File,
}

/// What was in it.
#[derive(Debug, Default)]
pub(crate) struct Found<R> {
    /// The journal, in order.
    pub(crate) journal: Vec<R>,
    /// The newest events.
    pub(crate) events: EventLog,
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
    /// Opens the store in a folder, or makes it there; with what is in it.
    pub(crate) fn open<R: DeserializeOwned>(
        folder: &Path,
        config: &RunConfig,
    ) -> anyhow::Result<(Self, Found<R>)> {
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
        let found = read(&database, config).with_context(|| format!("read {}", path.display()))?;
        Ok((Self { path, database: Some(database), _lock: lock }, found))
    }

    /// Adds records and events; they are on disk when this returns.
    pub(crate) fn append<R: Serialize>(
        &mut self,
        records: &[R],
        events: &[RunEvent],
    ) -> anyhow::Result<()> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_checked(&self.path)?,
        };
        commit(&database, records, events)
            .with_context(|| format!("write to the store {}", self.path.display()))?;
        self.database = Some(database);
        Ok(())
    }
}

impl About {
    fn of(config: &RunConfig) -> Self {
        Self { format: FORMAT, run_id: config.run.id.clone(), settings: config.compatibility() }
    }

    /// Whether a coordinator with `config` may go on with this run.
    fn check(&self, config: &RunConfig) -> anyhow::Result<()> {
        if self.format != FORMAT {
            bail!(
                "it has format {}, this program reads format {FORMAT}; use the program that wrote it",
                self.format
            );
        }
        let now = Self::of(config);
        if self.run_id != now.run_id {
            bail!(
                "it belongs to run `{}`, not `{}`; choose another --state-dir",
                self.run_id,
                now.run_id
            );
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
            bail!(
                "the run in it has another configuration: {}; set these back, or choose another --state-dir",
                changes.join("; ")
            );
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
    transaction.open_table(JOURNAL)?;
    transaction.open_table(EVENTS)?;
    transaction.open_table(ABOUT)?.insert((), serde_json::to_vec(about)?.as_slice())?;
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

fn read<R: DeserializeOwned>(database: &Database, config: &RunConfig) -> anyhow::Result<Found<R>> {
    let transaction = database.begin_read()?;
    let about =
        transaction.open_table(ABOUT)?.get(())?.context("it does not say of which run it is")?;
    let about: About =
        serde_json::from_slice(about.value()).context("it does not say of which run it is")?;
    about.check(config)?;
    let mut journal = Vec::new();
    for entry in transaction.open_table(JOURNAL)?.iter()? {
        let (number, record) = entry?;
        let record = serde_json::from_slice(record.value());
        journal.push(record.with_context(|| format!("understand record {}", number.value()))?);
    }
    let mut events = EventLog::default();
    for entry in transaction.open_table(EVENTS)?.iter()? {
        let (sequence, event) = entry?;
        let event = serde_json::from_slice(event.value());
        events.push(event.with_context(|| format!("understand event {}", sequence.value()))?);
    }
    Ok(Found { journal, events })
}

fn commit<R: Serialize>(
    database: &Database,
    records: &[R],
    events: &[RunEvent],
) -> anyhow::Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut journal = transaction.open_table(JOURNAL)?;
        let next = journal.last()?.map_or(1, |(number, _)| number.value() + 1);
        for (number, record) in (next..).zip(records) {
            journal.insert(number, serde_json::to_vec(record)?.as_slice())?;
        }
        let mut list = transaction.open_table(EVENTS)?;
        for event in events {
            list.insert(event.sequence, serde_json::to_vec(event)?.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(database.begin_write()?.commit()?)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use lockstep_proto::Occurrence;
    use lockstep_proto::ids::Generation;
    use lockstep_proto::layers::Layers;
    use proptest::prelude::*;

    use super::*;

    /// Records in the store of [`bytes`].
    const RECORDS: u64 = 3;

    #[test]
    fn records_and_events_are_found_again_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=RECORDS {
            let (mut store, found) = open(folder.path()).unwrap();
            assert_eq!(found.journal, (1..number).map(Generation).collect::<Vec<_>>());
            assert_eq!(found.events.next(), number);
            store.append(&[Generation(number)], &[event(number)]).unwrap();
        }
    }

    #[test]
    fn a_second_coordinator_is_kept_out_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("another coordinator uses the state folder"), "{error}");
        drop(first);
        open(folder.path()).unwrap();
    }

    #[test]
    fn a_store_of_another_run_or_configuration_is_refused_with_the_difference() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        let refused = |config: &RunConfig| {
            let error = Store::open::<Generation>(folder.path(), config).unwrap_err();
            format!("{error:#}")
        };
        let error = refused(&config(&[("run.id", "other")]));
        assert!(error.contains("it belongs to run `tiny`, not `other`"), "{error}");
        let error = refused(&config(&[("run.seed", "99")]));
        assert!(error.contains("run.seed is 99, was "), "{error}");
        Store::open::<Generation>(folder.path(), &config(&[("run.world", "7")])).unwrap();
    }

    #[test]
    fn a_store_that_a_crash_left_half_made_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(UNFINISHED), "half").unwrap();
        assert!(open(folder.path()).unwrap().1.journal.is_empty());
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
            Ok((journal, next)) => {
                prop_assert_eq!(journal, (1..=RECORDS).map(Generation).collect::<Vec<_>>());
                prop_assert_eq!(next, RECORDS + 1);
            }
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
                store.append(&[Generation(number)], &[event(number)]).unwrap();
            }
            fs::read(folder.path().join(STORE)).unwrap()
        };
        BYTES.get_or_init(make).clone()
    }

    /// The journal of a store with these bytes, and its next event.
    fn opened(bytes: &[u8]) -> Result<(Vec<Generation>, u64), String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STORE), bytes).unwrap();
        let opened = open(folder.path());
        opened
            .map(|(_, found)| (found.journal, found.events.next()))
            .map_err(|error| format!("{error:#}"))
    }

    fn open(folder: &Path) -> anyhow::Result<(Store, Found<Generation>)> {
        Store::open(folder, &config(&[]))
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
