//! The run for people: one sentence, and all numbers.

use std::time::Duration;

use lockstep_proto::ids::Slot;
use lockstep_proto::{Phase, RunStatus, WorkerStatus};

use crate::core::{Core, State};
use crate::plan::RunPlan;
use crate::progress::per_second;
use crate::roster::Session;
use crate::world::{LiveWorld, Stopping};

/// Slots that a sentence lists before it says "and more".
const MAX_LISTED: usize = 8;

impl Core {
    /// One sentence: what the run does or waits for.
    pub fn explain(&self) -> String {
        match &self.state {
            State::Forming { after } => self.explain_forming(after.as_deref()),
            State::Running(world) => self.explain_running(world),
            State::Over(verdict) => match verdict.phase {
                Phase::Complete => format!("complete: {}", verdict.reason),
                Phase::Failed => format!("failed: {}", verdict.reason),
                Phase::Forming | Phase::Running | Phase::Stopping | Phase::Paused => {
                    verdict.reason.clone()
                }
            },
        }
    }

    fn explain_forming(&self, after: Option<&str>) -> String {
        let expected = self.settings.config.run.world;
        let ready = self.roster.by_slot().filter(|(_, s)| s.enlisted().is_some()).count();
        let absent = (0..expected).map(Slot).filter(|slot| self.roster.holder(*slot).is_none());
        let absent = list(absent.map(|slot| slot.0));
        let connected = self.roster.len();
        let mut parts = vec![if self.paused {
            format!(
                "paused at step {} until `coordinator resume`: {connected} of {expected} workers \
                 connected, {ready} ready",
                self.progress.step.0
            )
        } else {
            format!("waiting for workers: {connected} of {expected} connected, {ready} ready")
        }];
        if !absent.is_empty() {
            parts.push(format!("absent: slot {absent}"));
        }
        parts.extend(after.map(ToOwned::to_owned));
        parts.join("; ")
    }

    fn explain_running(&self, world: &LiveWorld) -> String {
        let generation = world.generation.0;
        let ranks = list(self.roster.members().iter().map(|(_, rank)| rank.0));
        if let Some(Stopping { why, .. }) = &world.stopping {
            return format!(
                "stopping generation {generation} at a step edge, since {why}; waiting for rank {ranks}"
            );
        }
        if !world.ends.is_empty() {
            return format!("generation {generation} is ending; waiting for rank {ranks}");
        }
        let total = self.plan.as_ref().map_or(0, RunPlan::total_steps);
        format!(
            "training: step {} of {total}, {} workers, generation {generation}",
            self.progress.step.0, world.size
        )
    }

    /// The run now.
    pub fn status(&self) -> RunStatus {
        let (plan, progress) = (self.plan.as_ref(), &self.progress);
        let total_steps = plan.map_or(0, RunPlan::total_steps);
        let step_time = progress.step_time();
        let batch = self.settings.config.schedule.global_batch;
        RunStatus {
            run_id: self.settings.config.run.id.clone(),
            phase: self.phase(),
            summary: self.explain(),
            generation: self.generation,
            world_size: self.live().map_or(0, |world| world.size),
            expected_workers: self.settings.config.run.world,
            connected_workers: u32::try_from(self.roster.len()).unwrap_or(u32::MAX),
            step: progress.step,
            total_steps,
            data_epoch: plan.map_or(0.0, |plan| plan.data_epoch(progress.cursor)),
            loss: progress.loss,
            z_std: progress.z_std,
            learning_rate: progress.learning_rate,
            decay: progress.decay,
            images_per_second: step_time.map_or(0.0, |time| per_second(batch, time)),
            data_wait_ratio: self.worst_data_wait(),
            eta_seconds: step_time
                .map(|time| remaining(time, total_steps.saturating_sub(progress.step.0))),
            probe_accuracy: progress.probe_accuracy,
            knn_accuracy: progress.knn_accuracy,
            skipped_steps: progress.skipped_steps(),
            replaced_samples: progress.replaced_samples,
            checkpoint_step: progress.checkpoint,
            since_unix_ms: 0,
            until_unix_ms: None,
            spare_workers: 0,
            straggler: None,
        }
    }

    /// Every worker with a session, by slot.
    pub fn workers(&self, now: Duration) -> Vec<WorkerStatus> {
        self.roster.by_slot().map(|(_, session)| self.worker(session, now)).collect()
    }

    fn worker(&self, session: &Session, now: Duration) -> WorkerStatus {
        let rank = session.rank();
        let lanes = self.live().zip(rank).map_or(0, |(w, rank)| w.lanes[rank.0 as usize].count);
        WorkerStatus {
            worker: session.worker.clone(),
            slot: session.slot,
            rank,
            host: session.host.clone(),
            device: session.device.clone(),
            version: session.version.clone(),
            step: session.step,
            lanes,
            silent: now.saturating_sub(session.last_heard),
            images_per_second: session.pace.images_per_second,
            late: None,
            cooldown: Duration::ZERO,
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Forming { .. } if self.paused => Phase::Paused,
            State::Forming { .. } => Phase::Forming,
            State::Running(world) if world.stopping.is_some() => Phase::Stopping,
            State::Running(_) => Phase::Running,
            State::Over(verdict) => verdict.phase,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn remaining(step_time: Duration, steps: u64) -> f64 {
    step_time.as_secs_f64() * steps as f64
}

/// "0, 1, 5", shortened.
fn list(numbers: impl Iterator<Item = u32>) -> String {
    let numbers: Vec<_> = numbers.take(MAX_LISTED + 1).collect();
    let shown: Vec<_> = numbers.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    let more = if numbers.len() > MAX_LISTED { " and more" } else { "" };
    shown.join(", ") + more
}
