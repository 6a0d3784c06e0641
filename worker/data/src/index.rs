//! Indexing: a manifest and offsets for WebDataset tars that are there already. Nothing is copied or changed.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::manifest::{FILE_NAME, Manifest};
use crate::{parallel, shard};

/// Most classes that labels may ask for: one damaged label must not make a billion names.
const MAX_CLASSES: usize = 1_000_000;

/// What to index, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexConfig {
    /// Folder of the tars; manifest and offsets are written beside them.
    pub folder: PathBuf,
    /// A file with the name of each class, one per line in label order; labels name themselves if not given.
    pub classes: Option<PathBuf>,
    /// Threads that read; 0: one per core. The result does not depend on it.
    pub threads: usize,
    /// Replace a manifest that is already there.
    pub overwrite: bool,
}

/// How far indexing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexProgress {
    /// Tars read.
    pub done: usize,
    /// Tars in the folder.
    pub total: usize,
}

/// Writes the manifest of the tars in a folder, which are its shards in the order of their names, and where the
/// samples of each lie.
///
/// Each is read once, for its checksums; images are left to [`crate::verify_shards`]. `progress` is called
/// after every tar.
///
/// # Errors
///
/// If there are no tars, one is not a shard (samples of an image and a `.cls`), there are fewer class names
/// than labels, or a manifest is in the way.
pub fn index_shards(
    config: &IndexConfig,
    progress: &mut dyn FnMut(IndexProgress),
) -> Result<Manifest, DataError> {
    let folder = &config.folder;
    if !config.overwrite && folder.join(FILE_NAME).exists() {
        let found = FILE_NAME.to_owned();
        return Err(DataError::OutputExists { path: folder.clone(), found });
    }
    let names = config.classes.as_deref().map(class_names).transpose()?;
    let limit = names.as_ref().map_or(MAX_CLASSES, Vec::len);
    let tars = tars_in(folder)?;
    let (mut shards, mut classes) = (Vec::new(), 0);
    let mut workers = vec![(); parallel::thread_count(config.threads)];
    let numbers: Vec<usize> = (0..tars.len()).collect();
    let work = |(): &mut (), number: usize| shard::describe(&tars[number], limit);
    parallel::in_order(&mut workers, &numbers, work, |described| {
        let (shard, labels) = described?;
        classes = classes.max(labels);
        shards.push(shard);
        progress(IndexProgress { done: shards.len(), total: tars.len() });
        Ok::<_, DataError>(())
    })?;
    let names = names.unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
    let manifest = Manifest::new(names, None, shards);
    manifest.store(folder)?;
    Ok(manifest)
}

fn class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(DataError::io("read", path))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Tars of a folder by name; hidden ones are the system's, not the user's.
fn tars_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut tars = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::io("list folder", folder))? {
        let entry = entry.map_err(DataError::io("list folder", folder))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        if !hidden && path.extension().is_some_and(|ending| ending == "tar") {
            tars.push(path);
        }
    }
    tars.sort_unstable();
    if tars.is_empty() {
        let problem = "holds no .tar files; expected WebDataset shards (or pack images with \
                       `worker pack`)";
        return Err(DataError::BadSource { path: folder.to_owned(), problem: problem.to_owned() });
    }
    Ok(tars)
}
