//! Checkpoints: the full training state of one step, in a folder of its own.
//!
//! ```text
//! CHECKPOINTS/step-000000123/state.safetensors   flat buffers and running averages
//!                            checkpoint.json     meta data and the state's checksum; written last
//! ```
//!
//! A folder appears under its final name only when it is whole: written as `.tmp-…`, synced, renamed,
//! and the parent synced. So a full disk or a power cut leaves older checkpoints as they were.
//! Resuming takes the newest one that verifies.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lockstep_nn::Byol;
use lockstep_proto::config::RunConfig;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use xxhash_rust::xxh3::xxh3_64;

use crate::tensor_file;

/// Version of the layout on disk.
const FORMAT: u32 = 1;
const STATE_FILE: &str = "state.safetensors";
const META_FILE: &str = "checkpoint.json";

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the layout on disk.
    pub format: u32,
    /// The run that wrote it.
    pub run_id: String,
    /// Optimizer steps applied.
    pub step: u64,
    /// Global batches consumed.
    pub cursor: u64,
    /// K: optimizer steps of the whole run.
    pub total_steps: u64,
    /// Classes of the online probe's data set; 0: no labels.
    pub classes: u32,
    /// Fingerprint of the data set.
    pub dataset: String,
    /// Digest of the state at this step and cursor.
    pub digest: u64,
    /// XXH3 (64 bits) of `state.safetensors`.
    pub checksum: u64,
    /// The run's configuration.
    pub config: RunConfig,
}

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },

    /// The content is not what was written.
    #[error(
        "checkpoint {path} is damaged: {problem}; remove it, and the one before it will be used"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        problem: String,
    },

    /// It is for another model, data set or run.
    #[error(
        "checkpoint {path} is of another run: {differences}; \
         give this run another --checkpoints folder, or the settings that wrote it"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What differs.
        differences: String,
    },
}

impl CheckpointError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// The state at one moment, copied from the model, on its way to disk.
#[derive(Debug)]
pub struct Snapshot {
    meta: Meta,
    tensors: Vec<(&'static str, Tensor)>,
}

impl Snapshot {
    /// Copies the model's state to the host. `meta.checksum` is filled in when it is written.
    pub fn take(model: &Byol, meta: Meta) -> Self {
        let copy =
            |(name, flat): (&'static str, &Tensor)| (name, flat.to_device(tch::Device::Cpu).copy());
        Self { meta, tensors: model.state().map(copy).into() }
    }

    /// What will be written.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Writes it below `folder` and returns the checkpoint's own folder. Atomic and durable.
    ///
    /// # Panics
    ///
    /// If the meta data can't be written as JSON: never.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, CheckpointError> {
        let name = format!("step-{:09}", self.meta.step);
        let (path, partial) = (folder.join(&name), folder.join(format!(".tmp-{name}")));
        fs::create_dir_all(folder).map_err(CheckpointError::io("create", folder))?;
        remove(&partial)?;
        fs::create_dir(&partial).map_err(CheckpointError::io("create", &partial))?;

        let state = self.serialize(&partial)?;
        write_synced(&partial.join(STATE_FILE), &state)?;
        let meta = Meta { format: FORMAT, checksum: xxh3_64(&state), ..self.meta.clone() };
        let json = serde_json::to_vec_pretty(&meta).expect("meta data is plain");
        write_synced(&partial.join(META_FILE), &json)?;
        sync_folder(&partial)?;

        remove(&path)?;
        fs::rename(&partial, &path).map_err(CheckpointError::io("rename", &partial))?;
        sync_folder(folder)?;
        Ok(path)
    }

    fn serialize(&self, path: &Path) -> Result<Vec<u8>, CheckpointError> {
        let tensors = self.tensors.iter().map(|(name, flat)| (*name, flat));
        tensor_file::serialize(tensors).map_err(|error| CheckpointError::Io {
            action: "serialize",
            path: path.to_owned(),
            source: io::Error::other(error),
        })
    }
}

/// A checkpoint on disk, verified.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    meta: Meta,
    state: Vec<u8>,
}

impl Checkpoint {
    /// The newest checkpoint below `folder` that verifies; says in the log when it had to go back.
    pub fn newest(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        for path in list(folder)?.into_iter().rev() {
            match Self::open(&path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error @ CheckpointError::Damaged { .. }) => {
                    tracing::warn!(%error, "going back to an older checkpoint");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Reads and verifies one checkpoint.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |problem: String| CheckpointError::Damaged { path: path.to_owned(), problem };
        let read = |name: &str| match fs::read(path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(damaged(format!("{name} is missing")))
            }
            content => content.map_err(CheckpointError::io("read", path)),
        };
        let json = read(META_FILE)?;
        let meta: Meta = serde_json::from_slice(&json)
            .map_err(|error| damaged(format!("{META_FILE} can't be read: {error}")))?;
        if meta.format != FORMAT {
            let problem = format!("format {}, this program reads {FORMAT}", meta.format);
            return Err(damaged(problem));
        }
        let state = read(STATE_FILE)?;
        if xxh3_64(&state) != meta.checksum {
            return Err(damaged(format!(
                "{STATE_FILE} has another checksum than when it was written"
            )));
        }
        Ok(Self { path: path.to_owned(), meta, state })
    }

    /// What it says of itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a checkpoint of another run, data set, or configuration that computes something else.
    pub fn check(
        &self,
        run_id: &str,
        dataset: &str,
        config: &RunConfig,
    ) -> Result<(), CheckpointError> {
        let differs = |what: &str, theirs: &str, ours: &str| {
            (theirs != ours).then(|| format!("{what} is `{theirs}` there, `{ours}` here"))
        };
        let mut differences: Vec<String> = [
            differs("run.id", &self.meta.run_id, run_id),
            differs("the data set", &self.meta.dataset, dataset),
        ]
        .into_iter()
        .flatten()
        .collect();
        let settings = config.diff(&self.meta.config);
        differences.extend(settings.iter().filter_map(|d| differs(&d.key, &d.theirs, &d.ours)));
        if differences.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::Foreign {
            path: self.path.clone(),
            differences: differences.join("; "),
        })
    }

    /// Puts the state into a model of the same shape.
    pub fn load_into(&self, model: &mut Byol) -> Result<(), CheckpointError> {
        let damaged =
            |problem: String| CheckpointError::Damaged { path: self.path.clone(), problem };
        let stored = SafeTensors::deserialize(&self.state).map_err(|e| damaged(e.to_string()))?;
        for (name, flat) in model.state_mut() {
            let view = stored.tensor(name).map_err(|e| damaged(format!("`{name}`: {e}")))?;
            if view.data().len() != flat.numel() * flat.kind().elt_size_in_bytes() {
                let want = flat.numel();
                return Err(damaged(format!(
                    "`{name}` has {:?} elements, not {want}",
                    view.shape()
                )));
            }
            flat.copy_(&Tensor::from_data_size(view.data(), &flat.size(), flat.kind()));
        }
        if model.digest(self.meta.step, self.meta.cursor) != self.meta.digest {
            return Err(damaged("its digest is not the one of the state that was saved".into()));
        }
        Ok(())
    }
}

/// Removes checkpoints that are neither among the `keep_last` newest nor a multiple of `keep_every`.
pub fn prune(folder: &Path, keep_last: usize, keep_every: u64) -> Result<(), CheckpointError> {
    let paths = list(folder)?;
    let old = paths.len().saturating_sub(keep_last.max(1));
    for path in &paths[..old] {
        let kept = step_of(path).is_some_and(|step| keep_every > 0 && step % keep_every == 0);
        if !kept {
            remove(path)?;
        }
    }
    Ok(())
}

/// Checkpoint folders, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(CheckpointError::io("read", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(CheckpointError::io("read", folder))?.path();
        if step_of(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort_by_key(|path| step_of(path));
    Ok(paths)
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(CheckpointError::io("remove", path)),
    }
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(CheckpointError::io("create", path))?;
    file.write_all(content).map_err(CheckpointError::io("write", path))?;
    file.sync_all().map_err(CheckpointError::io("sync", path))
}

fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(CheckpointError::io("sync", path))
}
