//! What must survive a restart of the coordinator: the number of the newest generation.
//!
//! The seam for a journal: [`StateDir::journal`] returns once the generation is safe on disk, and
//! the shell announces no world before that.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use lockstep_proto::ids::Generation;

/// A folder that belongs to one run.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// Makes the folder if needed; the newest generation in it, 0 if there is none.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<(Self, Generation)> {
        fs::create_dir_all(dir).with_context(|| format!("make the folder {}", dir.display()))?;
        let state = Self { dir: dir.to_owned() };
        let path = state.generation_file();
        let generation = match fs::read_to_string(&path) {
            Ok(text) => parse(&text).with_context(|| format!("read {}", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Generation(0),
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", path.display()));
            }
        };
        Ok((state, generation))
    }

    /// Stores a generation; it is on disk when this returns.
    pub(crate) fn journal(&self, generation: Generation) -> anyhow::Result<()> {
        let path = self.generation_file();
        write_atomically(&path, &format!("{}\n", generation.0))
            .with_context(|| format!("store generation {} in {}", generation.0, path.display()))
    }

    fn generation_file(&self) -> PathBuf {
        self.dir.join("generation")
    }
}

fn parse(text: &str) -> anyhow::Result<Generation> {
    match text.trim().parse() {
        Ok(generation) => Ok(Generation(generation)),
        Err(_) => bail!(
            "it holds no generation number; put one there that is larger than any in the \
             workers' logs, or choose another --state-dir"
        ),
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
    use super::*;

    #[test]
    fn a_generation_is_found_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let (state, generation) = StateDir::open(&dir).unwrap();
        assert_eq!(generation, Generation(0));
        state.journal(Generation(41)).unwrap();
        state.journal(Generation(42)).unwrap();
        assert_eq!(StateDir::open(&dir).unwrap().1, Generation(42));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_generation_is_an_error_and_not_a_restart_from_zero() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("generation"), "").unwrap();
        let error = format!("{:#}", StateDir::open(folder.path()).unwrap_err());
        assert!(error.contains("it holds no generation number"), "{error}");
    }
}
