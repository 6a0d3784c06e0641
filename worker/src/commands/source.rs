//! Where commands find weights and configuration.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lockstep_proto::config::RunConfig;
use lockstep_proto::layers::{Layers, parse_assignment};

use crate::checkpoint::Checkpoint;
use crate::commands::Misuse;

/// A configuration without a coordinator.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Built-in configuration, unless a checkpoint brings one.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Configuration file, unless a checkpoint brings one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    set: Vec<(String, String)>,
}

impl ConfigArgs {
    /// The configuration; `None` if neither a preset nor a file is named.
    pub(crate) fn resolve(&self) -> anyhow::Result<Option<RunConfig>> {
        if self.preset.is_none() && self.config.is_none() {
            return Ok(None);
        }
        Ok(Some(self.layers()?.resolve()?.config))
    }

    /// The layers of the configuration; none is needed, since there are defaults.
    pub(crate) fn layers(&self) -> anyhow::Result<Layers> {
        let file = self.config.as_ref().map(|path| {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Misuse(format!("cannot read {}: {error}", path.display())))?;
            Ok::<_, Misuse>((path.display().to_string(), text))
        });
        Ok(Layers {
            preset: self.preset.clone(),
            file: file.transpose()?,
            env: Vec::new(),
            flags: self.set.clone(),
        })
    }
}

/// A checkpoint that must be named.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckpointArgs {
    /// Folder of a run's checkpoints; the newest sound one is taken.
    #[arg(long, value_name = "DIR", required_unless_present = "checkpoint")]
    checkpoints: Option<PathBuf>,
    /// One checkpoint.
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoints")]
    checkpoint: Option<PathBuf>,
}

impl CheckpointArgs {
    pub(crate) fn open(&self) -> anyhow::Result<Checkpoint> {
        let found = checkpoint(self.checkpoint.as_deref(), self.checkpoints.as_deref())?;
        Ok(found.expect("the arguments require one of the two"))
    }
}

/// The checkpoint in a folder of its own, or the newest sound one of a run; `None` if neither is named.
pub(crate) fn checkpoint(
    one: Option<&Path>,
    of_a_run: Option<&Path>,
) -> anyhow::Result<Option<Checkpoint>> {
    match (one, of_a_run) {
        (Some(path), _) => Ok(Some(Checkpoint::open(path).context("open the checkpoint")?)),
        (None, Some(folder)) => newest(folder).map(Some),
        (None, None) => Ok(None),
    }
}

/// The newest sound checkpoint of a run.
pub(crate) fn newest(folder: &Path) -> anyhow::Result<Checkpoint> {
    let none = || Misuse(format!("there is no sound checkpoint in {}", folder.display()));
    Ok(Checkpoint::newest(folder).context("find a checkpoint")?.ok_or_else(none)?)
}
