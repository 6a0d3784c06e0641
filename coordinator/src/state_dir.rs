//! What must survive a restart of the coordinator: what its journal amounts to.
//!
//! [`StateDir::journal`] returns once a record is safe on disk, and the shell announces nothing before that.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use lockstep_core::{Memory, Record};

/// A folder that belongs to one run.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    dir: PathBuf,
    memory: Memory,
}

impl StateDir {
    /// Makes the folder if needed; with what is in it.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make the folder {}", dir.display()))?;
        let mut state = Self { dir: dir.to_owned(), memory: Memory::default() };
        let path = state.journal_file();
        match fs::read(&path) {
            Ok(text) => {
                state.memory = serde_json::from_slice(&text).with_context(|| {
                    format!("read the journal {}; or choose another --state-dir", path.display())
                })?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
        Ok(state)
    }

    /// What was journaled up to now.
    pub(crate) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Adds a record; it is on disk when this returns.
    pub(crate) fn journal(&mut self, record: Record) -> anyhow::Result<()> {
        self.memory.apply(record);
        let path = self.journal_file();
        let text = serde_json::to_string(&self.memory).context("write the journal as JSON")?;
        write_atomically(&path, &text).with_context(|| format!("write {}", path.display()))
    }

    fn journal_file(&self) -> PathBuf {
        self.dir.join("journal.json")
    }
}

/// Writes a file that is either the old one or the whole new one, whenever the machine stops.
pub(crate) fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use lockstep_proto::ids::Step;

    use super::*;

    #[test]
    fn a_journal_is_found_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let mut state = StateDir::open(&dir).unwrap();
        assert_eq!(state.memory(), Memory::default());
        state.journal(Record::Checkpoint(Step(41))).unwrap();
        state.journal(Record::Checkpoint(Step(42))).unwrap();
        let expected = [Record::Checkpoint(Step(42))].into_iter().collect();
        assert_eq!(StateDir::open(&dir).unwrap().memory(), expected);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_journal_is_an_error_and_not_a_new_run() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("journal.json"), "").unwrap();
        let error = format!("{:#}", StateDir::open(folder.path()).unwrap_err());
        assert!(error.contains("choose another --state-dir"), "{error}");
    }
}
