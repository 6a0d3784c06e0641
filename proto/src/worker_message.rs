//! What a worker says to the coordinator, and the checks that turn wire messages into it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::border::{Border, Malformed, clip};
use crate::communicators::{Backend, CommunicatorIds};
use crate::ids::{Cursor, Digest, Generation, Rank, Slot, Step, WorkerUid};
use crate::report::StepReports;
use crate::wire;

/// Anything that a worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage {
    /// The first message of a session.
    Hello(Hello),
    /// Ready for a world.
    Enlist(Enlist),
    /// Alive.
    Heartbeat(Heartbeat),
    /// Steps are finished.
    Reports(StepReports),
    /// The world is over for this worker.
    WorldEnded(WorldEnded),
    /// A checkpoint is on disk.
    CheckpointWritten(CheckpointWritten),
    /// The worker ends by its own will.
    Goodbye(Goodbye),
    /// Where the ranks of its world, whose rank 0 it is, meet.
    CommunicatorIds(CommunicatorIds),
}

/// Who is calling, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version of the worker.
    pub protocol: u32,
    /// The run this worker expects; `None`: any run.
    pub run_id: Option<String>,
    /// Unique per process start.
    pub worker: WorkerUid,
    /// The worker's place in its job; `None`: the coordinator chooses.
    pub slot: Option<Slot>,
    /// Host name, for people.
    pub host: String,
    /// Version of the worker binary.
    pub version: String,
    /// Device of the engine, for people.
    pub device: String,
    /// The data set as this worker sees it.
    pub data: DataSet,
    /// The world that it is in and has not ended.
    pub member: Option<Membership>,
}

/// What a worker says of the world that it is in when it connects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The world.
    pub generation: Generation,
    /// Its rank there.
    pub rank: Rank,
    /// Step in flight.
    pub step: Step,
    /// Newest state in this world whose digest was taken.
    pub proven: Option<TrainingState>,
}

/// Identity and shape of a packed data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSet {
    /// Hash of the manifest.
    pub fingerprint: String,
    /// Samples in all shards, at least 1.
    pub samples: u64,
    /// Number of labelled classes; 0: no labels.
    pub classes: u32,
}

/// "I am ready for a world."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enlist {
    /// Where the collectives of this worker listen.
    pub collective_address: SocketAddr,
    /// Newest training state that this worker holds; `None`: it would start from the seed.
    pub state: Option<TrainingState>,
    /// Newest world that it was given, and has left; 0: none.
    pub ended: Generation,
    /// What carries its collectives.
    pub backend: Backend,
}

/// A point in training, named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Optimizer steps applied.
    pub step: Step,
    /// Global batches consumed.
    pub cursor: Cursor,
    /// Digest of the full state.
    pub digest: Digest,
}

impl TrainingState {
    /// The state that follows from the seed alone. Its digest is known to workers only, so it is 0 here.
    pub const INITIAL: Self = Self { step: Step(0), cursor: Cursor(0), digest: Digest(0) };
}

/// "I am alive."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// World that the worker trains in; 0: none.
    pub generation: Generation,
    /// Step in flight.
    pub step: Step,
    /// Collective operations issued in this generation, at this moment.
    pub collective_sequence: u64,
    /// What it does in that world; `None`: it is in none.
    pub activity: Option<Activity>,
}

/// What a member of a world does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Connects with its peers and takes over the state.
    Joining,
    /// Runs a step.
    Stepping,
    /// Has done all steps that it has plans for.
    AwaitingPlan,
    /// Writes a checkpoint while nothing else goes on.
    Saving,
    /// Evaluates.
    Evaluating,
}

/// This worker has left its world and keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldEnded {
    /// The world that ended.
    pub generation: Generation,
    /// Why.
    pub reason: WorldEnd,
    /// For people: the error, or empty.
    pub detail: String,
    /// Rank that this worker holds responsible.
    pub culprit: Option<Rank>,
}

/// Why a world ended for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorldEnd {
    /// All planned steps of the run are applied.
    Complete,
    /// The ranks stopped at a step edge that they agreed on or that was planned.
    Stopped,
    /// A collective failed, or the world could not be formed.
    Failed,
}

/// A checkpoint is safe on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointWritten {
    /// The world that wrote it.
    pub generation: Generation,
    /// The state it holds.
    pub state: TrainingState,
    /// Where, for people.
    pub path: String,
}

/// The last message of a worker that ends by its own will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// For people; may be empty.
    pub reason: String,
}

impl TryFrom<wire::WorkerMessage> for WorkerMessage {
    type Error = Malformed;

    fn try_from(message: wire::WorkerMessage) -> Result<Self, Malformed> {
        use wire::worker_message::Kind;
        let wire::WorkerMessage { kind } = message;
        Ok(match Border("WorkerMessage").required("kind", kind)? {
            Kind::Hello(hello) => Self::Hello(hello.try_into()?),
            Kind::Enlist(enlist) => Self::Enlist(enlist.try_into()?),
            Kind::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat.try_into()?),
            Kind::Reports(reports) => Self::Reports(reports.try_into()?),
            Kind::WorldEnded(ended) => Self::WorldEnded(ended.try_into()?),
            Kind::CheckpointWritten(written) => Self::CheckpointWritten(written.try_into()?),
            Kind::Goodbye(goodbye) => Self::Goodbye(goodbye.into()),
            Kind::CommunicatorIds(ids) => Self::CommunicatorIds(ids.try_into()?),
        })
    }
}

impl From<WorkerMessage> for wire::WorkerMessage {
    fn from(message: WorkerMessage) -> Self {
        use wire::worker_message::Kind;
        let kind = match message {
            WorkerMessage::Hello(hello) => Kind::Hello(hello.into()),
            WorkerMessage::Enlist(enlist) => Kind::Enlist(enlist.into()),
            WorkerMessage::Heartbeat(heartbeat) => Kind::Heartbeat(heartbeat.into()),
            WorkerMessage::Reports(reports) => Kind::Reports(reports.into()),
            WorkerMessage::WorldEnded(ended) => Kind::WorldEnded(ended.into()),
            WorkerMessage::CheckpointWritten(written) => Kind::CheckpointWritten(written.into()),
            WorkerMessage::Goodbye(goodbye) => Kind::Goodbye(goodbye.into()),
            WorkerMessage::CommunicatorIds(ids) => Kind::CommunicatorIds(ids.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = Malformed;

    fn try_from(hello: wire::Hello) -> Result<Self, Malformed> {
        const B: Border = Border("Hello");
        let wire::Hello { protocol, run_id, worker_uid, slot, host, version, device, data, member } =
            hello;
        Ok(Self {
            protocol: B.positive("protocol", protocol)?,
            run_id: run_id.map(|id| B.name("run_id", id)).transpose()?,
            worker: WorkerUid(B.name("worker_uid", worker_uid)?),
            slot: slot.map(Slot),
            host: B.name_or_empty("host", host)?,
            version: B.name("version", version)?,
            device: B.name("device", device)?,
            data: B.required("data", data)?.try_into()?,
            member: member.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        let Hello { protocol, run_id, worker, slot, host, version, device, data, member } = hello;
        Self {
            protocol,
            run_id,
            worker_uid: worker.0,
            slot: slot.map(|slot| slot.0),
            host,
            version,
            device,
            data: Some(data.into()),
            member: member.map(Into::into),
        }
    }
}

impl TryFrom<wire::Membership> for Membership {
    type Error = Malformed;

    fn try_from(member: wire::Membership) -> Result<Self, Malformed> {
        let wire::Membership { generation, rank, step, proven } = member;
        Ok(Self {
            generation: Generation(Border("Membership").positive("generation", generation)?),
            rank: Rank(rank),
            step: Step(step),
            proven: proven.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Membership> for wire::Membership {
    fn from(member: Membership) -> Self {
        let Membership { generation, rank, step, proven } = member;
        Self {
            generation: generation.0,
            rank: rank.0,
            step: step.0,
            proven: proven.map(Into::into),
        }
    }
}

impl TryFrom<wire::DataSet> for DataSet {
    type Error = Malformed;

    fn try_from(data: wire::DataSet) -> Result<Self, Malformed> {
        const B: Border = Border("DataSet");
        let wire::DataSet { fingerprint, samples, classes } = data;
        Ok(Self {
            fingerprint: B.name("fingerprint", fingerprint)?,
            samples: B.positive("samples", samples)?,
            classes,
        })
    }
}

impl From<DataSet> for wire::DataSet {
    fn from(data: DataSet) -> Self {
        let DataSet { fingerprint, samples, classes } = data;
        Self { fingerprint, samples, classes }
    }
}

impl TryFrom<wire::Enlist> for Enlist {
    type Error = Malformed;

    fn try_from(enlist: wire::Enlist) -> Result<Self, Malformed> {
        const B: Border = Border("Enlist");
        let wire::Enlist { collective_address, state, ended, backend, backend_version } = enlist;
        Ok(Self {
            collective_address: B.address("collective_address", &collective_address)?,
            state: state.map(TryInto::try_into).transpose()?,
            ended: Generation(ended),
            backend: Backend::from_wire(B, (backend, backend_version))?,
        })
    }
}

impl From<Enlist> for wire::Enlist {
    fn from(enlist: Enlist) -> Self {
        let Enlist { collective_address, state, ended, backend } = enlist;
        let (backend, backend_version) = backend.to_wire();
        Self {
            collective_address: collective_address.to_string(),
            state: state.map(Into::into),
            ended: ended.0,
            backend,
            backend_version,
        }
    }
}

impl TryFrom<wire::TrainingState> for TrainingState {
    type Error = Malformed;

    fn try_from(state: wire::TrainingState) -> Result<Self, Malformed> {
        let wire::TrainingState { step, cursor, digest } = state;
        if cursor < step {
            let problem = format!("is {cursor} at step {step}; every step consumes a batch");
            return Err(Border("TrainingState").malformed("cursor", problem));
        }
        Ok(Self { step: Step(step), cursor: Cursor(cursor), digest: Digest(digest) })
    }
}

impl From<TrainingState> for wire::TrainingState {
    fn from(state: TrainingState) -> Self {
        let TrainingState { step, cursor, digest } = state;
        Self { step: step.0, cursor: cursor.0, digest: digest.0 }
    }
}

impl TryFrom<wire::Heartbeat> for Heartbeat {
    type Error = Malformed;

    fn try_from(heartbeat: wire::Heartbeat) -> Result<Self, Malformed> {
        let wire::Heartbeat { generation, step, collective_sequence, activity } = heartbeat;
        let activity = match wire::Activity::try_from(activity) {
            Ok(wire::Activity::Unspecified) => None,
            Ok(wire::Activity::Joining) => Some(Activity::Joining),
            Ok(wire::Activity::Stepping) => Some(Activity::Stepping),
            Ok(wire::Activity::AwaitingPlan) => Some(Activity::AwaitingPlan),
            Ok(wire::Activity::Saving) => Some(Activity::Saving),
            Ok(wire::Activity::Evaluating) => Some(Activity::Evaluating),
            Err(_) => {
                let problem = format!("is {activity}, which has no meaning");
                return Err(Border("Heartbeat").malformed("activity", problem));
            }
        };
        let generation = Generation(generation);
        Ok(Self { generation, step: Step(step), collective_sequence, activity })
    }
}

impl From<Heartbeat> for wire::Heartbeat {
    fn from(heartbeat: Heartbeat) -> Self {
        let Heartbeat { generation, step, collective_sequence, activity } = heartbeat;
        let activity = match activity {
            None => wire::Activity::Unspecified,
            Some(Activity::Joining) => wire::Activity::Joining,
            Some(Activity::Stepping) => wire::Activity::Stepping,
            Some(Activity::AwaitingPlan) => wire::Activity::AwaitingPlan,
            Some(Activity::Saving) => wire::Activity::Saving,
            Some(Activity::Evaluating) => wire::Activity::Evaluating,
        };
        let activity = activity.into();
        Self { generation: generation.0, step: step.0, collective_sequence, activity }
    }
}

impl TryFrom<wire::WorldEnded> for WorldEnded {
    type Error = Malformed;

    fn try_from(ended: wire::WorldEnded) -> Result<Self, Malformed> {
        const B: Border = Border("WorldEnded");
        let wire::WorldEnded { generation, reason, detail, culprit } = ended;
        let reason = match wire::WorldEnd::try_from(reason) {
            Ok(wire::WorldEnd::Complete) => WorldEnd::Complete,
            Ok(wire::WorldEnd::Stopped) => WorldEnd::Stopped,
            Ok(wire::WorldEnd::Failed) => WorldEnd::Failed,
            Ok(wire::WorldEnd::Unspecified) | Err(_) => {
                return Err(B.malformed("reason", format!("is {reason}, which has no meaning")));
            }
        };
        Ok(Self {
            generation: Generation(B.positive("generation", generation)?),
            reason,
            detail: clip(detail),
            culprit: culprit.map(Rank),
        })
    }
}

impl From<WorldEnded> for wire::WorldEnded {
    fn from(ended: WorldEnded) -> Self {
        let WorldEnded { generation, reason, detail, culprit } = ended;
        let reason = match reason {
            WorldEnd::Complete => wire::WorldEnd::Complete,
            WorldEnd::Stopped => wire::WorldEnd::Stopped,
            WorldEnd::Failed => wire::WorldEnd::Failed,
        };
        Self {
            generation: generation.0,
            reason: reason.into(),
            detail: clip(detail),
            culprit: culprit.map(|rank| rank.0),
        }
    }
}

impl TryFrom<wire::CheckpointWritten> for CheckpointWritten {
    type Error = Malformed;

    fn try_from(written: wire::CheckpointWritten) -> Result<Self, Malformed> {
        const B: Border = Border("CheckpointWritten");
        let wire::CheckpointWritten { generation, state, path } = written;
        Ok(Self {
            generation: Generation(B.positive("generation", generation)?),
            state: B.required("state", state)?.try_into()?,
            path: clip(path),
        })
    }
}

impl From<CheckpointWritten> for wire::CheckpointWritten {
    fn from(written: CheckpointWritten) -> Self {
        let CheckpointWritten { generation, state, path } = written;
        Self { generation: generation.0, state: Some(state.into()), path: clip(path) }
    }
}

impl From<wire::Goodbye> for Goodbye {
    fn from(goodbye: wire::Goodbye) -> Self {
        let wire::Goodbye { reason } = goodbye;
        Self { reason: clip(reason) }
    }
}

impl From<Goodbye> for wire::Goodbye {
    fn from(goodbye: Goodbye) -> Self {
        let Goodbye { reason } = goodbye;
        Self { reason: clip(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_message_survives_the_wire() {
        let state = state();
        let messages = [
            WorkerMessage::Hello(hello()),
            WorkerMessage::Enlist(Enlist {
                collective_address: "10.0.0.1:4000".parse().unwrap(),
                state: Some(state),
                ended: Generation(4),
                backend: Backend::Nccl { version: 22_907 },
            }),
            heartbeat(None),
            heartbeat(Some(Activity::Joining)),
            heartbeat(Some(Activity::Stepping)),
            heartbeat(Some(Activity::AwaitingPlan)),
            heartbeat(Some(Activity::Saving)),
            heartbeat(Some(Activity::Evaluating)),
            WorkerMessage::Reports(StepReports {
                generation: Generation(1),
                reports: vec![crate::report::tests::report()],
            }),
            WorkerMessage::WorldEnded(WorldEnded {
                generation: Generation(1),
                reason: WorldEnd::Failed,
                detail: "lost the connection".into(),
                culprit: Some(Rank(1)),
            }),
            WorkerMessage::CheckpointWritten(CheckpointWritten {
                generation: Generation(1),
                state,
                path: "checkpoints/step-7".into(),
            }),
            WorkerMessage::Goodbye(Goodbye { reason: "asked to leave".into() }),
        ];
        for message in messages {
            let wire = wire::WorkerMessage::from(message.clone());
            assert_eq!(WorkerMessage::try_from(wire).unwrap(), message);
        }
    }

    #[test]
    fn a_message_of_no_kind_is_refused() {
        let error = WorkerMessage::try_from(wire::WorkerMessage { kind: None }).unwrap_err();
        assert_eq!(error.to_string(), "WorkerMessage.kind is missing");
    }

    #[test]
    fn a_hello_without_a_name_or_a_data_set_is_refused() {
        let mut nameless = wire::Hello::from(hello());
        nameless.worker_uid.clear();
        let error = Hello::try_from(nameless).unwrap_err();
        assert_eq!(error.to_string(), "Hello.worker_uid is empty");

        let mut homeless = wire::Hello::from(hello());
        homeless.data = None;
        let error = Hello::try_from(homeless).unwrap_err();
        assert_eq!(error.to_string(), "Hello.data is missing");
    }

    #[test]
    fn an_activity_without_a_meaning_is_refused() {
        let beat = wire::Heartbeat { activity: 99, ..Default::default() };
        let error = Heartbeat::try_from(beat).unwrap_err();
        assert_eq!(error.to_string(), "Heartbeat.activity is 99, which has no meaning");
    }

    #[test]
    fn a_world_end_of_unknown_reason_is_refused() {
        let ended = |reason| wire::WorldEnded { generation: 1, reason, ..Default::default() };
        for reason in [0, 99] {
            let error = WorldEnded::try_from(ended(reason)).unwrap_err();
            assert!(error.to_string().starts_with("WorldEnded.reason is"), "{error}");
        }
    }

    #[test]
    fn a_state_that_applied_more_steps_than_it_read_batches_is_refused() {
        let error = TrainingState::try_from(wire::TrainingState { step: 5, cursor: 4, digest: 0 });
        assert_eq!(
            error.unwrap_err().to_string(),
            "TrainingState.cursor is 4 at step 5; every step consumes a batch"
        );
    }

    fn hello() -> Hello {
        Hello {
            protocol: 1,
            run_id: Some("demo".into()),
            worker: WorkerUid("w-1".into()),
            slot: Some(Slot(0)),
            host: "node-1".into(),
            version: "0.1.0".into(),
            device: "cpu".into(),
            data: DataSet { fingerprint: "abc".into(), samples: 70_000, classes: 10 },
            member: Some(Membership {
                generation: Generation(3),
                rank: Rank(1),
                step: Step(8),
                proven: Some(state()),
            }),
        }
    }

    fn state() -> TrainingState {
        TrainingState { step: Step(7), cursor: Cursor(8), digest: Digest(9) }
    }

    fn heartbeat(activity: Option<Activity>) -> WorkerMessage {
        let (generation, step) = (Generation(1), Step(2));
        WorkerMessage::Heartbeat(Heartbeat { generation, step, collective_sequence: 3, activity })
    }
}
