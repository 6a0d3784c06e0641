//! `--reports`: one JSON line per applied step.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use lockstep_core::AppliedStep;
use serde::Serialize;

/// Appends to a file.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: File,
    /// Whether the last line could not be written, so that a full disk is told once.
    failing: bool,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    /// Since the coordinator started.
    seconds: f64,
    #[serde(flatten)]
    step: &'a AppliedStep,
}

impl History {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("open the reports {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, failing: false })
    }

    /// Appends a step. Training goes on where that fails: the history is for looking at.
    pub(crate) fn append(&mut self, now: Duration, step: &AppliedStep) {
        let result = self.write(&Line { seconds: now.as_secs_f64(), step });
        if let Err(error) = &result
            && !self.failing
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot append to the reports");
        }
        self.failing = result.is_err();
    }

    fn write(&mut self, line: &Line<'_>) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}
