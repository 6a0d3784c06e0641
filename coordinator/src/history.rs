//! `--reports`: one JSON line per applied step.

use std::path::Path;
use std::time::Duration;

use lockstep_core::AppliedStep;
use serde::Serialize;

use crate::json_lines::JsonLines;

/// Appends to a file.
#[derive(Debug)]
pub(crate) struct History {
    lines: JsonLines,
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
        Ok(Self { lines: JsonLines::open(path)? })
    }

    pub(crate) fn append(&mut self, now: Duration, step: &AppliedStep) {
        self.lines.append(&Line { seconds: now.as_secs_f64(), step });
    }
}
