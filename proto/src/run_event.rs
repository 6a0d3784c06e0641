//! What happened in a run: entries of the list that the coordinator keeps.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::border::{Border, Malformed, clip};
use crate::exit::Exit;
use crate::ids::{Generation, Rank, Slot, Step, WorkerUid};
use crate::limits::MAX_MEMBERS;
use crate::wire;
use crate::wire::run_event::What;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Position in the list, from 1, growing; gaps are events that could not be stored.
    pub sequence: u64,
    /// When, in milliseconds since 1970 (UTC), by the coordinator's clock.
    pub unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: Occurrence,
}

/// What happened. Written out it is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Occurrence {
    /// A coordinator process took the run up.
    CoordinatorStarted {
        /// Newest world of the processes before it; 0: none.
        generation: Generation,
    },
    /// A worker was welcomed.
    WorkerJoined {
        /// Which process.
        worker: WorkerUid,
        /// Its slot.
        slot: Slot,
        /// Its host.
        host: String,
    },
    /// A worker's session is over.
    WorkerLeft {
        /// Which process.
        worker: WorkerUid,
        /// Its slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
    /// A world was announced.
    WorldFormed {
        /// Its number.
        generation: Generation,
        /// Step that it goes on from.
        step: Step,
        /// Slots of its ranks, in rank order.
        slots: Vec<Slot>,
    },
    /// A coordinator that was started again goes on with the world of the one before.
    WorldAdopted {
        /// Its number.
        generation: Generation,
        /// Ranks that had come back by then: more than half.
        ranks: u32,
    },
    /// A world was broken.
    WorldAborted {
        /// Its number.
        generation: Generation,
        /// Ranks held responsible.
        culprits: Vec<Rank>,
        /// Why.
        reason: String,
    },
    /// All ranks left a world at one step edge.
    WorldStopped {
        /// Its number.
        generation: Generation,
        /// Why; empty: a worker wanted to leave.
        reason: String,
    },
    /// The first step was applied since a world was broken.
    TrainingRecovered {
        /// The world that applied it.
        generation: Generation,
        /// Milliseconds since the first loss that it made good.
        after_ms: u64,
    },
    /// A checkpoint is safe on disk.
    CheckpointSaved {
        /// Step that it holds.
        step: Step,
        /// Where, as the worker sees it.
        path: String,
    },
    /// An operator asked for something that was not so already.
    OperatorAsked {
        /// For what, as on the command line.
        command: String,
    },
    /// The run is over for this coordinator.
    RunEnded {
        /// How its process ends.
        exit: Exit,
        /// How the run ended.
        reason: String,
    },
}

impl Display for Occurrence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoordinatorStarted { generation: Generation(0) } => {
                write!(f, "coordinator started")
            }
            Self::CoordinatorStarted { generation } => {
                write!(f, "coordinator started again, after generation {}", generation.0)
            }
            Self::WorkerJoined { worker, slot, host } => {
                write!(f, "worker {} joined as slot {} on {host}", worker.0, slot.0)
            }
            Self::WorkerLeft { worker, slot, reason } => {
                write!(f, "worker {} of slot {} left: {reason}", worker.0, slot.0)
            }
            Self::WorldFormed { generation, step, slots } => {
                let (number, size) = (generation.0, slots.len());
                write!(f, "generation {number} formed: {size} ranks, from step {}", step.0)
            }
            Self::WorldAdopted { generation, ranks } => {
                write!(f, "generation {} goes on: {ranks} ranks came back", generation.0)
            }
            Self::WorldAborted { generation, culprits, reason } => {
                write!(f, "generation {} aborted", generation.0)?;
                for (separator, rank) in
                    std::iter::once(" by rank ").chain(std::iter::repeat(", ")).zip(culprits)
                {
                    write!(f, "{separator}{}", rank.0)?;
                }
                write!(f, ": {reason}")
            }
            Self::WorldStopped { generation, reason } if reason.is_empty() => {
                write!(f, "generation {} stopped at a step edge: a worker leaves", generation.0)
            }
            Self::WorldStopped { generation, reason } => {
                write!(f, "generation {} stopped at a step edge: {reason}", generation.0)
            }
            Self::TrainingRecovered { generation, after_ms } => {
                let number = generation.0;
                write!(f, "generation {number} trains, {after_ms} ms after the loss")
            }
            Self::CheckpointSaved { step, path } => {
                write!(f, "checkpoint of step {} written to {path}", step.0)
            }
            Self::OperatorAsked { command } => write!(f, "operator asked: {command}"),
            Self::RunEnded { exit, reason } => {
                write!(f, "run ended with exit code {}: {reason}", exit.code())
            }
        }
    }
}

impl TryFrom<wire::RunEvent> for RunEvent {
    type Error = Malformed;

    fn try_from(event: wire::RunEvent) -> Result<Self, Malformed> {
        const B: Border = Border("RunEvent");
        let wire::RunEvent { sequence, unix_ms, what } = event;
        let sequence = B.positive("sequence", sequence)?;
        Ok(Self { sequence, unix_ms, what: B.required("what", what)?.try_into()? })
    }
}

impl From<RunEvent> for wire::RunEvent {
    fn from(event: RunEvent) -> Self {
        let RunEvent { sequence, unix_ms, what } = event;
        Self { sequence, unix_ms, what: Some(what.into()) }
    }
}

impl TryFrom<What> for Occurrence {
    type Error = Malformed;

    fn try_from(what: What) -> Result<Self, Malformed> {
        Ok(match what {
            What::CoordinatorStarted(wire::CoordinatorStarted { generation }) => {
                Self::CoordinatorStarted { generation: Generation(generation) }
            }
            What::WorkerJoined(wire::WorkerJoined { worker_uid, slot, host }) => {
                const B: Border = Border("WorkerJoined");
                let worker = WorkerUid(B.name("worker_uid", worker_uid)?);
                let host = B.name_or_empty("host", host)?;
                Self::WorkerJoined { worker, slot: Slot(slot), host }
            }
            What::WorkerLeft(wire::WorkerLeft { worker_uid, slot, reason }) => {
                let worker = WorkerUid(Border("WorkerLeft").name("worker_uid", worker_uid)?);
                Self::WorkerLeft { worker, slot: Slot(slot), reason: clip(reason) }
            }
            What::WorldFormed(wire::WorldFormed { generation, step, slots }) => {
                const B: Border = Border("WorldFormed");
                B.some("slots", &slots, MAX_MEMBERS)?;
                let generation = Generation(B.positive("generation", generation)?);
                let slots = slots.into_iter().map(Slot).collect();
                Self::WorldFormed { generation, step: Step(step), slots }
            }
            What::WorldAdopted(wire::WorldAdopted { generation, ranks }) => {
                let generation = Border("WorldAdopted").positive("generation", generation)?;
                Self::WorldAdopted { generation: Generation(generation), ranks }
            }
            What::WorldAborted(wire::WorldAborted { generation, culprits, reason }) => {
                const B: Border = Border("WorldAborted");
                B.at_most("culprits", &culprits, MAX_MEMBERS)?;
                let generation = Generation(B.positive("generation", generation)?);
                let culprits = culprits.into_iter().map(Rank).collect();
                Self::WorldAborted { generation, culprits, reason: clip(reason) }
            }
            What::WorldStopped(wire::WorldStopped { generation, reason }) => {
                let generation = Border("WorldStopped").positive("generation", generation)?;
                Self::WorldStopped { generation: Generation(generation), reason: clip(reason) }
            }
            What::TrainingRecovered(wire::TrainingRecovered { generation, after_ms }) => {
                let generation = Border("TrainingRecovered").positive("generation", generation)?;
                Self::TrainingRecovered { generation: Generation(generation), after_ms }
            }
            What::CheckpointSaved(wire::CheckpointSaved { step, path }) => {
                Self::CheckpointSaved { step: Step(step), path: clip(path) }
            }
            What::OperatorAsked(wire::OperatorAsked { command }) => {
                Self::OperatorAsked { command: clip(command) }
            }
            What::RunEnded(wire::RunEnded { exit_code, reason }) => {
                let exit = Exit::from_wire(Border("RunEnded"), exit_code)?;
                Self::RunEnded { exit, reason: clip(reason) }
            }
        })
    }
}

impl From<Occurrence> for What {
    fn from(what: Occurrence) -> Self {
        match what {
            Occurrence::CoordinatorStarted { generation } => {
                Self::CoordinatorStarted(wire::CoordinatorStarted { generation: generation.0 })
            }
            Occurrence::WorkerJoined { worker, slot, host } => {
                Self::WorkerJoined(wire::WorkerJoined { worker_uid: worker.0, slot: slot.0, host })
            }
            Occurrence::WorkerLeft { worker, slot, reason } => {
                let (worker_uid, reason) = (worker.0, clip(reason));
                Self::WorkerLeft(wire::WorkerLeft { worker_uid, slot: slot.0, reason })
            }
            Occurrence::WorldFormed { generation, step, slots } => {
                let slots = slots.into_iter().map(|slot| slot.0).collect();
                let (generation, step) = (generation.0, step.0);
                Self::WorldFormed(wire::WorldFormed { generation, step, slots })
            }
            Occurrence::WorldAdopted { generation, ranks } => {
                Self::WorldAdopted(wire::WorldAdopted { generation: generation.0, ranks })
            }
            Occurrence::WorldAborted { generation, culprits, reason } => {
                let culprits = culprits.into_iter().map(|rank| rank.0).collect();
                let (generation, reason) = (generation.0, clip(reason));
                Self::WorldAborted(wire::WorldAborted { generation, culprits, reason })
            }
            Occurrence::WorldStopped { generation, reason } => {
                let (generation, reason) = (generation.0, clip(reason));
                Self::WorldStopped(wire::WorldStopped { generation, reason })
            }
            Occurrence::TrainingRecovered { generation, after_ms } => {
                let generation = generation.0;
                Self::TrainingRecovered(wire::TrainingRecovered { generation, after_ms })
            }
            Occurrence::CheckpointSaved { step, path } => {
                Self::CheckpointSaved(wire::CheckpointSaved { step: step.0, path: clip(path) })
            }
            Occurrence::OperatorAsked { command } => {
                Self::OperatorAsked(wire::OperatorAsked { command })
            }
            Occurrence::RunEnded { exit, reason } => {
                let exit_code = exit.code().into();
                Self::RunEnded(wire::RunEnded { exit_code, reason: clip(reason) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_the_wire_and_a_line_of_json() {
        for (sequence, what) in (1..).zip(samples()) {
            let event = RunEvent { sequence, unix_ms: 1_700_000_000_000, what };
            assert_eq!(RunEvent::try_from(wire::RunEvent::from(event.clone())).unwrap(), event);
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<RunEvent>(&line).unwrap(), event, "{line}");
        }
    }

    #[test]
    fn an_event_of_nothing_is_refused() {
        let event = wire::RunEvent { sequence: 1, unix_ms: 0, what: None };
        assert_eq!(RunEvent::try_from(event).unwrap_err().to_string(), "RunEvent.what is missing");
    }

    #[test]
    fn an_abort_names_its_culprits() {
        let culprits = vec![Rank(1), Rank(3)];
        let reason = "gone".into();
        let what = Occurrence::WorldAborted { generation: Generation(2), culprits, reason };
        assert_eq!(what.to_string(), "generation 2 aborted by rank 1, 3: gone");
    }

    fn samples() -> Vec<Occurrence> {
        let (generation, slot, worker) = (Generation(2), Slot(1), WorkerUid("w-1".into()));
        let reason = "why".to_owned();
        vec![
            Occurrence::CoordinatorStarted { generation: Generation(0) },
            Occurrence::WorkerJoined { worker: worker.clone(), slot, host: "node".into() },
            Occurrence::WorkerLeft { worker, slot, reason: reason.clone() },
            Occurrence::WorldFormed { generation, step: Step(7), slots: vec![slot] },
            Occurrence::WorldAdopted { generation, ranks: 2 },
            Occurrence::WorldAborted {
                generation,
                culprits: vec![Rank(0)],
                reason: reason.clone(),
            },
            Occurrence::WorldStopped { generation, reason: reason.clone() },
            Occurrence::TrainingRecovered { generation, after_ms: 1234 },
            Occurrence::CheckpointSaved { step: Step(9), path: "/ckpt/9".into() },
            Occurrence::OperatorAsked { command: "pause".into() },
            Occurrence::RunEnded { exit: Exit::Done, reason },
        ]
    }
}
