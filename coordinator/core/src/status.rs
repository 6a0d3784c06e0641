//! The run for people: one sentence, and all numbers.

use std::time::Duration;

use lockstep_proto::ids::Slot;
use lockstep_proto::{Phase, RunStatus, Straggler, WorkerStatus};

use crate::core::{Core, State};
use crate::forming::Forming;
use crate::journal::Stopping;
use crate::plan::RunPlan;
use crate::progress::per_second;
use crate::roster::Session;
use crate::world::LiveWorld;

/// Slots that a sentence lists before it says "and more".
const MAX_LISTED: usize = 8;

impl Core {
    /// One sentence: what the run does or waits for, since when and until when.
    pub fn explain(&self) -> String {
        match &self.state {
            State::Forming(forming) => self.explain_forming(forming),
            State::Running(world) if !world.is_carried() => self.explain_adoption(world),
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

    fn explain_forming(&self, forming: &Forming) -> String {
        let expected = self.settings.config.run.world;
        let ready = self.roster.by_slot().filter(|(_, s)| s.enlisted().is_some()).count();
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
        let absent = (0..expected).map(Slot).filter(|slot| self.roster.holder(*slot).is_none());
        let absent = list(absent.map(|slot| slot.0));
        if connected < expected as usize && !absent.is_empty() {
            parts.push(format!("absent: slot {absent}"));
        }
        parts.extend(self.explain_cooldown());
        parts.extend(self.waited());
        if let Some(until) = self.call_ends(forming) {
            parts.push(format!("goes on without the others in {}", seconds(self.left(until))));
        }
        parts.extend(forming.after.clone());
        parts.join("; ")
    }

    fn explain_cooldown(&self) -> Option<String> {
        let sessions = self.roster.by_slot().map(|(_, session)| session);
        let cooling: Vec<_> = sessions.filter(|s| !self.cooldown(s).is_zero()).collect();
        let first = cooling.iter().min_by_key(|session| self.cooldown(session))?;
        Some(format!(
            "slot {} failed {} times in a row and is kept out for {}",
            list(cooling.iter().map(|session| session.slot.0)),
            self.cooldowns.times(&first.place()),
            seconds(self.cooldown(first))
        ))
    }

    fn explain_adoption(&self, world: &LiveWorld) -> String {
        let mut parts = vec![format!(
            "waiting for the members of generation {} to come back: {} of {} are here",
            world.generation().0,
            world.record.members.len() - world.missing.len(),
            world.size()
        )];
        parts.push(format!("absent: rank {}", list(world.missing.iter().map(|rank| rank.0))));
        parts.extend(self.waited());
        let left = seconds(self.left(world.missing_until));
        parts.push(format!("forms another world in {left}"));
        parts.join("; ")
    }

    fn explain_running(&self, world: &LiveWorld) -> String {
        let generation = world.generation().0;
        let ranks = list(self.roster.members().iter().map(|(_, rank)| rank.0));
        let waited = self.waited().map_or_else(String::new, |waited| format!("; {waited}"));
        if let Some(Stopping { why, .. }) = &world.stopping {
            return format!(
                "stopping generation {generation} at a step edge, since {why}; waiting for rank {ranks}{waited}"
            );
        }
        if !world.ends.is_empty() {
            return format!("generation {generation} is ending; waiting for rank {ranks}{waited}");
        }
        let total = self.plan.as_ref().map_or(0, RunPlan::total_steps);
        let mut parts = vec![format!(
            "training: step {} of {total}, {} workers, generation {generation}",
            self.progress.step.0,
            world.size()
        )];
        if !world.missing.is_empty() {
            let missing = list(world.missing.iter().map(|rank| rank.0));
            let left = seconds(self.left(world.missing_until));
            parts.push(format!("rank {missing} has {left} to come back"));
        }
        if world.feed.closed {
            parts.push(format!("others join behind step {}", world.feed.next.0 - 1));
        }
        parts.join("; ")
    }

    /// Until when it does or waits for that, at the latest.
    fn until(&self) -> Option<Duration> {
        match &self.state {
            State::Forming(forming) => self.call_ends(forming),
            State::Running(world) if !world.missing.is_empty() => Some(world.missing_until),
            State::Running(_) | State::Over(_) => None,
        }
    }

    fn call_ends(&self, forming: &Forming) -> Option<Duration> {
        Some(forming.quorum? + self.last_call(forming.call))
    }

    fn left(&self, until: Duration) -> Duration {
        until.saturating_sub(self.now)
    }

    /// "for 12 s", once it is a second.
    fn waited(&self) -> Option<String> {
        let waited = self.now.saturating_sub(self.since);
        (waited.as_secs() > 0).then(|| format!("for {} s", waited.as_secs()))
    }

    fn straggler(&self) -> Option<Straggler> {
        let world = self.live()?;
        let rank = world.arrivals.last()?;
        Some(Straggler { slot: world.place(rank)?.slot, late: world.arrivals.late(rank)? })
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
            world_size: self.live().map_or(0, LiveWorld::size),
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
            since_unix_ms: self.unix_ms(self.since),
            until_unix_ms: self.until().map(|until| self.unix_ms(until)),
            spare_workers: self
                .live()
                .map_or(0, |_| u32::try_from(self.spares()).unwrap_or(u32::MAX)),
            straggler: self.straggler(),
        }
    }

    /// Every worker with a session, by slot.
    pub fn workers(&self, now: Duration) -> Vec<WorkerStatus> {
        self.roster.by_slot().map(|(_, session)| self.worker(session, now)).collect()
    }

    fn worker(&self, session: &Session, now: Duration) -> WorkerStatus {
        let rank = session.rank();
        let place = self.live().zip(rank).and_then(|(world, rank)| world.place(rank));
        let late = self.live().zip(rank).and_then(|(world, rank)| world.arrivals.late(rank));
        WorkerStatus {
            worker: session.worker.clone(),
            slot: session.slot,
            rank,
            host: session.host.clone(),
            device: session.device.clone(),
            version: session.version.clone(),
            step: session.step,
            lanes: place.map_or(0, |place| place.lanes.count),
            silent: now.saturating_sub(session.last_heard),
            images_per_second: session.pace.images_per_second,
            late,
            cooldown: self.cooldowns.left(&session.place(), now),
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Forming(_) if self.paused => Phase::Paused,
            State::Forming(_) => Phase::Forming,
            State::Running(world) if !world.is_carried() => Phase::Forming,
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

/// "12 s", rounded up.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_millis().div_ceil(1000))
}

/// "0, 1, 5", shortened.
fn list(numbers: impl Iterator<Item = u32>) -> String {
    let numbers: Vec<_> = numbers.take(MAX_LISTED + 1).collect();
    let shown: Vec<_> = numbers.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    let more = if numbers.len() > MAX_LISTED { " and more" } else { "" };
    shown.join(", ") + more
}
