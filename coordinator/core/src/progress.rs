//! How far the run is, and how fast: rank 0's reports, and what only sums over ranks can tell.

use std::collections::VecDeque;
use std::time::Duration;

use lockstep_proto::ids::{Cursor, Generation, Step};
use lockstep_proto::{StepReport, TrainingState};

use crate::event::AppliedStep;
use crate::journal::Memory;
use crate::plan::RunPlan;

/// Steps that the shown speed is a mean of.
const SPEED_WINDOW: usize = 32;

/// Everything that the status tells about training.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Optimizer steps applied.
    pub(crate) step: Step,
    /// Global batches consumed.
    pub(crate) cursor: Cursor,
    pub(crate) loss: Option<f64>,
    pub(crate) z_std: Option<f64>,
    pub(crate) learning_rate: f64,
    pub(crate) decay: f64,
    pub(crate) probe_accuracy: Option<f64>,
    pub(crate) knn_accuracy: Option<f64>,
    pub(crate) replaced_samples: u64,
    pub(crate) checkpoint: Option<Step>,
    /// Steps skipped since the last one that was applied.
    pub(crate) skipped_in_a_row: u32,
    durations: VecDeque<Duration>,
}

impl Progress {
    /// As far as the journal tells.
    pub(crate) fn recall(memory: &Memory) -> Self {
        let mut progress = Self { checkpoint: memory.checkpoint, ..Self::default() };
        if let Some(last) = &memory.last {
            (progress.step, progress.cursor) = (last.planned.step, last.planned.cursor);
        }
        progress
    }

    /// A world goes on from `start`, which may be before the newest step seen.
    pub(crate) fn restart(&mut self, start: TrainingState) {
        (self.step, self.cursor) = (start.step, start.cursor);
        self.durations.clear();
    }

    /// Steps skipped so far: batches that were consumed and moved nothing.
    pub(crate) fn skipped_steps(&self) -> u64 {
        self.cursor.0.saturating_sub(self.step.0)
    }

    /// Mean duration of the last steps; `None` before the first of a world.
    pub(crate) fn step_time(&self) -> Option<Duration> {
        let count = u32::try_from(self.durations.len()).expect("at most SPEED_WINDOW");
        let total: Duration = self.durations.iter().sum();
        (count > 0 && !total.is_zero()).then(|| total / count)
    }

    /// Median duration of the last steps; `None` before the first of a world.
    pub(crate) fn median_step(&self) -> Option<Duration> {
        let mut durations: Vec<_> = self.durations.iter().copied().collect();
        durations.sort_unstable();
        durations.get(durations.len() / 2).copied()
    }

    /// Takes in a report of rank 0; the applied step as a line of history, if it was applied.
    pub(crate) fn report(
        &mut self,
        plan: &RunPlan,
        generation: Generation,
        report: &StepReport,
        world: WorldPace,
    ) -> Option<AppliedStep> {
        self.cursor = Cursor(report.cursor.0.saturating_add(1));
        self.durations.push_back(report.duration);
        if self.durations.len() > SPEED_WINDOW {
            self.durations.pop_front();
        }
        if !report.applied {
            self.skipped_in_a_row = self.skipped_in_a_row.saturating_add(1);
            return None;
        }
        self.skipped_in_a_row = 0;
        let planned = plan.step(report.step);
        self.step = Step(report.step.0 + 1);
        self.loss = Some(report.loss);
        self.z_std = Some(report.z_std);
        self.learning_rate = planned.learning_rate;
        self.decay = planned.decay;
        self.probe_accuracy = report.probe_accuracy;
        self.knn_accuracy = report.knn_accuracy.or(self.knn_accuracy);
        Some(AppliedStep {
            generation,
            step: report.step,
            cursor: report.cursor,
            data_epoch: plan.data_epoch(self.cursor),
            loss: report.loss,
            z_std: report.z_std,
            learning_rate: planned.learning_rate,
            decay: planned.decay,
            images_per_second: per_second(world.global_batch, report.duration),
            data_wait: world.data_wait_ratio,
            probe_loss: report.probe_loss,
            probe_accuracy: report.probe_accuracy,
            knn_accuracy: report.knn_accuracy,
        })
    }
}

/// What a report of one rank cannot know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorldPace {
    pub(crate) global_batch: u32,
    /// Worst rank's, 0 to 1.
    pub(crate) data_wait_ratio: f64,
}

/// Images per second; 0 where no time was measured.
pub(crate) fn per_second(images: u32, duration: Duration) -> f64 {
    if duration.is_zero() { 0.0 } else { f64::from(images) / duration.as_secs_f64() }
}
