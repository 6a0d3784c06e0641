//! Answers of the status service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::border::{Border, Malformed, clip};
use crate::ids::{Generation, Rank, Slot, Step, WorkerUid};
use crate::wire;

/// One run, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Name of the run.
    pub run_id: String,
    /// What it is doing.
    pub phase: Phase,
    /// One sentence: what the run does or waits for.
    pub summary: String,
    /// Number of the present world; 0: none yet.
    pub generation: Generation,
    /// Ranks in the present world; 0 when there is none.
    pub world_size: u32,
    /// Workers that the run waits for when it forms a world.
    pub expected_workers: u32,
    /// Workers with a session.
    pub connected_workers: u32,
    /// Optimizer steps applied.
    pub step: Step,
    /// K; 0: not known before the first worker has come.
    pub total_steps: u64,
    /// Data epochs consumed, with fraction.
    pub data_epoch: f64,
    /// Loss of the newest reported step.
    pub loss: Option<f64>,
    /// Standard deviation of the L2-normalized projections.
    pub z_std: Option<f64>,
    /// η of the newest reported step.
    pub learning_rate: f64,
    /// τ of the newest reported step.
    pub decay: f64,
    /// Images per second of the whole world; 0: not known.
    pub images_per_second: f64,
    /// Share of step time spent waiting for input, 0 to 1, worst rank.
    pub data_wait_ratio: f64,
    /// Seconds to the end at the present speed.
    pub eta_seconds: Option<f64>,
    /// Accuracy of the online probe, 0 to 1.
    pub probe_accuracy: Option<f64>,
    /// Accuracy of the newest kNN evaluation, 0 to 1.
    pub knn_accuracy: Option<f64>,
    /// Steps skipped because something was not finite.
    pub skipped_steps: u64,
    /// Corrupt samples replaced since the coordinator started.
    pub replaced_samples: u64,
    /// Newest checkpoint.
    pub checkpoint_step: Option<Step>,
    /// Since when it does or waits for that, in milliseconds since 1970 (UTC).
    pub since_unix_ms: u64,
    /// When it stops waiting for that, at the latest; `None`: it waits as long as it takes.
    pub until_unix_ms: Option<u64>,
    /// Workers that wait for a place in the world.
    pub spare_workers: u32,
    /// The member that arrives last at the first collective of a step, on average over the last steps.
    pub straggler: Option<Straggler>,
}

/// The member of a world that the others wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// Its slot.
    pub slot: Slot,
    /// How much later than the first it arrives, on average.
    pub late: Duration,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for workers.
    Forming,
    /// Training.
    Running,
    /// Ending a world at a step edge.
    Stopping,
    /// All steps are applied.
    Complete,
    /// Ended with an error.
    Failed,
    /// Held at a step edge until an operator resumes it.
    Paused,
}

impl Phase {
    /// The word that `coordinator status` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forming => "forming",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Paused => "paused",
        }
    }
}

/// One worker with a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Which process.
    pub worker: WorkerUid,
    /// Its slot.
    pub slot: Slot,
    /// Its rank in the present world; `None`: not a member.
    pub rank: Option<Rank>,
    /// Host name.
    pub host: String,
    /// Device of its engine.
    pub device: String,
    /// Version of its binary.
    pub version: String,
    /// Step in flight, from its last heartbeat.
    pub step: Step,
    /// Lanes dealt to it in the present world.
    pub lanes: u32,
    /// Time since it was last heard.
    pub silent: Duration,
    /// Images per second of this worker; 0: not known.
    pub images_per_second: f64,
    /// How much later than the first rank it arrives at the first collective of a step, on average over the last steps;
    /// `None`: not known.
    pub late: Option<Duration>,
    /// How long it is kept out of worlds still, since it failed too often; zero: it is not.
    pub cooldown: Duration,
}

impl TryFrom<wire::Run> for RunStatus {
    type Error = Malformed;

    fn try_from(run: wire::Run) -> Result<Self, Malformed> {
        const B: Border = Border("Run");
        let wire::Run {
            run_id,
            phase,
            summary,
            generation,
            world_size,
            expected_workers,
            connected_workers,
            step,
            total_steps,
            data_epoch,
            loss,
            z_std,
            learning_rate,
            decay,
            images_per_second,
            data_wait_ratio,
            eta_seconds,
            probe_accuracy,
            skipped_steps,
            replaced_samples,
            checkpoint_step,
            knn_accuracy,
            since_unix_ms,
            until_unix_ms,
            spare_workers,
            straggler_slot,
            straggler_late_us,
        } = run;
        Ok(Self {
            run_id: B.name("run_id", run_id)?,
            phase: phase_from_wire(phase)?,
            summary: clip(summary),
            generation: Generation(generation),
            world_size,
            expected_workers,
            connected_workers,
            step: Step(step),
            total_steps,
            data_epoch,
            loss,
            z_std,
            learning_rate,
            decay,
            images_per_second,
            data_wait_ratio,
            eta_seconds,
            probe_accuracy,
            knn_accuracy,
            skipped_steps,
            replaced_samples,
            checkpoint_step: checkpoint_step.map(Step),
            since_unix_ms,
            until_unix_ms,
            spare_workers,
            straggler: straggler_slot.map(|slot| Straggler {
                slot: Slot(slot),
                late: Duration::from_micros(straggler_late_us),
            }),
        })
    }
}

impl From<RunStatus> for wire::Run {
    fn from(run: RunStatus) -> Self {
        let RunStatus {
            run_id,
            phase,
            summary,
            generation,
            world_size,
            expected_workers,
            connected_workers,
            step,
            total_steps,
            data_epoch,
            loss,
            z_std,
            learning_rate,
            decay,
            images_per_second,
            data_wait_ratio,
            eta_seconds,
            probe_accuracy,
            knn_accuracy,
            skipped_steps,
            replaced_samples,
            checkpoint_step,
            since_unix_ms,
            until_unix_ms,
            spare_workers,
            straggler,
        } = run;
        Self {
            run_id,
            phase: phase_to_wire(phase).into(),
            summary: clip(summary),
            generation: generation.0,
            world_size,
            expected_workers,
            connected_workers,
            step: step.0,
            total_steps,
            data_epoch,
            loss,
            z_std,
            learning_rate,
            decay,
            images_per_second,
            data_wait_ratio,
            eta_seconds,
            probe_accuracy,
            skipped_steps,
            replaced_samples,
            checkpoint_step: checkpoint_step.map(|step| step.0),
            knn_accuracy,
            since_unix_ms,
            until_unix_ms,
            spare_workers,
            straggler_slot: straggler.map(|straggler| straggler.slot.0),
            straggler_late_us: straggler.map_or(0, |straggler| micros(straggler.late)),
        }
    }
}

fn phase_from_wire(phase: i32) -> Result<Phase, Malformed> {
    match wire::Phase::try_from(phase) {
        Ok(wire::Phase::Forming) => Ok(Phase::Forming),
        Ok(wire::Phase::Running) => Ok(Phase::Running),
        Ok(wire::Phase::Stopping) => Ok(Phase::Stopping),
        Ok(wire::Phase::Complete) => Ok(Phase::Complete),
        Ok(wire::Phase::Failed) => Ok(Phase::Failed),
        Ok(wire::Phase::Paused) => Ok(Phase::Paused),
        Ok(wire::Phase::Unspecified) | Err(_) => {
            Err(Border("Run").malformed("phase", format!("is {phase}, which has no meaning")))
        }
    }
}

fn phase_to_wire(phase: Phase) -> wire::Phase {
    match phase {
        Phase::Forming => wire::Phase::Forming,
        Phase::Running => wire::Phase::Running,
        Phase::Stopping => wire::Phase::Stopping,
        Phase::Complete => wire::Phase::Complete,
        Phase::Failed => wire::Phase::Failed,
        Phase::Paused => wire::Phase::Paused,
    }
}

impl TryFrom<wire::Worker> for WorkerStatus {
    type Error = Malformed;

    fn try_from(worker: wire::Worker) -> Result<Self, Malformed> {
        const B: Border = Border("Worker");
        let wire::Worker {
            worker_uid,
            slot,
            rank,
            host,
            device,
            version,
            step,
            lanes,
            silent_ms,
            images_per_second,
            late_us,
            cooldown_ms,
        } = worker;
        Ok(Self {
            worker: WorkerUid(B.name("worker_uid", worker_uid)?),
            slot: Slot(slot),
            rank: rank.map(Rank),
            host: B.name_or_empty("host", host)?,
            device: B.name_or_empty("device", device)?,
            version: B.name_or_empty("version", version)?,
            step: Step(step),
            lanes,
            silent: Duration::from_millis(silent_ms),
            images_per_second,
            late: late_us.map(Duration::from_micros),
            cooldown: Duration::from_millis(cooldown_ms),
        })
    }
}

impl From<WorkerStatus> for wire::Worker {
    fn from(worker: WorkerStatus) -> Self {
        let WorkerStatus {
            worker,
            slot,
            rank,
            host,
            device,
            version,
            step,
            lanes,
            silent,
            images_per_second,
            late,
            cooldown,
        } = worker;
        Self {
            worker_uid: worker.0,
            slot: slot.0,
            rank: rank.map(|rank| rank.0),
            host,
            device,
            version,
            step: step.0,
            lanes,
            silent_ms: millis(silent),
            images_per_second,
            late_us: late.map(micros),
            cooldown_ms: millis(cooldown),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_wire_in_every_phase() {
        use Phase::{Complete, Failed, Forming, Paused, Running, Stopping};
        for phase in [Forming, Running, Stopping, Complete, Failed, Paused] {
            let status = RunStatus { phase, ..running() };
            assert_eq!(RunStatus::try_from(wire::Run::from(status.clone())).unwrap(), status);
        }
    }

    #[test]
    fn a_status_of_no_phase_is_refused() {
        let mut run = wire::Run::from(running());
        run.phase = 0;
        let error = RunStatus::try_from(run).unwrap_err();
        assert_eq!(error.to_string(), "Run.phase is 0, which has no meaning");
    }

    #[test]
    fn a_worker_survives_the_wire() {
        let worker = WorkerStatus {
            worker: WorkerUid("w-1".into()),
            slot: Slot(3),
            rank: Some(Rank(2)),
            host: "node-1".into(),
            device: "cpu".into(),
            version: "0.1.0".into(),
            step: Step(9),
            lanes: 4,
            silent: Duration::from_millis(120),
            images_per_second: 88.0,
            late: Some(Duration::from_micros(1500)),
            cooldown: Duration::from_secs(20),
        };
        assert_eq!(WorkerStatus::try_from(wire::Worker::from(worker.clone())).unwrap(), worker);
    }

    fn running() -> RunStatus {
        RunStatus {
            run_id: "demo".into(),
            phase: Phase::Running,
            summary: "training".into(),
            generation: Generation(2),
            world_size: 2,
            expected_workers: 2,
            connected_workers: 2,
            step: Step(10),
            total_steps: 100,
            data_epoch: 0.5,
            loss: Some(2.5),
            z_std: Some(0.08),
            learning_rate: 0.1,
            decay: 0.99,
            images_per_second: 120.0,
            data_wait_ratio: 0.02,
            eta_seconds: Some(60.0),
            probe_accuracy: Some(0.3),
            knn_accuracy: None,
            skipped_steps: 1,
            replaced_samples: 2,
            checkpoint_step: Some(Step(5)),
            since_unix_ms: 1_700_000_000_000,
            until_unix_ms: Some(1_700_000_001_000),
            spare_workers: 1,
            straggler: Some(Straggler { slot: Slot(1), late: Duration::from_micros(70) }),
        }
    }
}
