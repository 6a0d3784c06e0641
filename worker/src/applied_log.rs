//! A log of what each step consumed and which state it made, for those who must prove that no sample was lost or
//! used twice (`--applied-log`).
//!
//! One JSON line each, in a file of this process:
//!
//! ```text
//! {"used":    {"generation":3,"rank":1,"step":17,"cursor":17,"samples":[5,90,…]}}     before a step: this rank's samples
//! {"applied": {"generation":3,"rank":1,"step":17,"cursor":17,"before":"…","after":"…"}}   digests of the state
//! {"skipped": {…}}                                                                         the same; not finite
//! ```
//!
//! A step that was in flight when its world broke has a "used" line and no other, or is "applied" on some ranks only:
//! then the newest state wins, and the step counts if it led to that. So the history that counts is the chain of
//! digests that ends in the run's last state, and every step of it consumed what all ranks of one world used.
//! Lines reach the operating system before anything follows from them, so killing a process loses none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use lockstep_data::LoadedBatch;
use lockstep_proto::World;
use lockstep_proto::ids::{Cursor, Digest, Step};
use serde::Serialize;

/// The file, if there is one.
#[derive(Debug, Default)]
pub(crate) struct AppliedLog {
    file: Option<File>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Used { generation: u64, rank: u32, step: u64, cursor: u64, samples: Vec<u64> },
    Applied(Change),
    Skipped(Change),
}

#[derive(Debug, Serialize)]
struct Change {
    generation: u64,
    rank: u32,
    step: u64,
    cursor: u64,
    before: String,
    after: String,
}

/// A batch that was used, and the states around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    pub(crate) step: Step,
    pub(crate) cursor: Cursor,
    pub(crate) applied: bool,
    pub(crate) before: Digest,
    pub(crate) after: Digest,
}

impl AppliedLog {
    /// Appends to `path`; without one, nothing is logged.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: path.map(open).transpose()? })
    }

    /// Whether anybody wants to know digests.
    pub(crate) fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// A step with this rank's part of a batch begins.
    pub(crate) fn used(&mut self, world: &World, step: Step, batch: &LoadedBatch) {
        if self.is_on() {
            self.write(&Line::Used {
                generation: world.generation.0,
                rank: world.rank.0,
                step: step.0,
                cursor: batch.cursor,
                samples: batch.sample_ids.iter().map(|id| id.0).collect(),
            });
        }
    }

    /// The step is over.
    pub(crate) fn moved(&mut self, world: &World, change: Move) {
        let Move { step, cursor, applied, before, after } = change;
        let line = Change {
            generation: world.generation.0,
            rank: world.rank.0,
            step: step.0,
            cursor: cursor.0,
            before: format!("{:016x}", before.0),
            after: format!("{:016x}", after.0),
        };
        self.write(&if applied { Line::Applied(line) } else { Line::Skipped(line) });
    }

    /// A log that can't be written is not worth the run.
    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        let mut text = serde_json::to_string(line).expect("lines are plain");
        text.push('\n');
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(%error, "a line of the applied log is lost; training goes on");
        }
    }
}
