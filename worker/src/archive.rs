//! Checkpoints written in the background, one at a time.

use std::path::PathBuf;
use std::thread::JoinHandle;

use lockstep_proto::config;
use lockstep_proto::ids::{Cursor, Digest, Generation, Step};
use lockstep_proto::{CheckpointWritten, TrainingState, WorkerMessage};
use lockstep_service::telemetry::chain;

use crate::border::TrainerEnd;
use crate::checkpoint::{self, CheckpointError, Snapshot};

/// Where checkpoints go, and the one that is being written.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: Option<PathBuf>,
    keep_last: usize,
    keep_every: u64,
    writing: Option<Writing>,
}

/// A checkpoint on its way to disk.
#[derive(Debug)]
struct Writing {
    generation: Generation,
    state: TrainingState,
    thread: JoinHandle<Result<PathBuf, CheckpointError>>,
}

impl Archive {
    /// `folder`: none means that nothing is saved.
    pub(crate) fn new(folder: Option<PathBuf>, config: &config::Checkpoint) -> Self {
        let (keep_last, keep_every) = (config.keep_last as usize, config.keep_every);
        Self { folder, keep_last, keep_every, writing: None }
    }

    /// Starts writing; waits for the checkpoint before, if that is not on disk yet. A failure is
    /// reported and training goes on: older checkpoints are untouched.
    pub(crate) fn save(&mut self, snapshot: Snapshot, generation: Generation, end: &TrainerEnd) {
        self.finish_or_log(end);
        let Some(folder) = self.folder.clone() else { return };
        let meta = snapshot.meta();
        let state = TrainingState {
            step: Step(meta.step),
            cursor: Cursor(meta.cursor),
            digest: Digest(meta.digest),
        };
        let (keep_last, keep_every) = (self.keep_last, self.keep_every);
        let thread = std::thread::spawn(move || {
            let path = snapshot.write(&folder)?;
            checkpoint::prune(&folder, keep_last, keep_every)?;
            Ok(path)
        });
        self.writing = Some(Writing { generation, state, thread });
    }

    /// Tells of a checkpoint soon after it is on disk; never waits for one.
    pub(crate) fn tell(&mut self, end: &TrainerEnd) {
        if self.writing.as_ref().is_some_and(|writing| writing.thread.is_finished()) {
            self.finish_or_log(end);
        }
    }

    fn finish_or_log(&mut self, end: &TrainerEnd) {
        if let Err(error) = self.finish(end) {
            tracing::error!(error = chain(&error), "checkpoint not written");
        }
    }

    /// Waits until nothing is being written any more.
    pub(crate) fn finish(&mut self, end: &TrainerEnd) -> Result<(), CheckpointError> {
        let Some(Writing { generation, state, thread }) = self.writing.take() else {
            return Ok(());
        };
        let path = thread.join().expect("writing a checkpoint does not panic")?;
        tracing::info!(step = state.step.0, path = %path.display(), "checkpoint written");
        let path = path.display().to_string();
        end.say(WorkerMessage::CheckpointWritten(CheckpointWritten { generation, state, path }));
        Ok(())
    }
}
