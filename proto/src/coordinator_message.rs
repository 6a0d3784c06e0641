//! What the coordinator says to a worker, and the checks that turn wire messages into it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::border::{Border, Malformed, clip};
use crate::communicators::CommunicatorIds;
use crate::config::RunConfig;
use crate::exit::Exit;
use crate::ids::{Generation, Rank, Slot, Step};
use crate::limits::{MAX_CONFIG_BYTES, MAX_MEMBERS, MAX_PLAN_STEPS, SECRET_BYTES};
use crate::members::Members;
use crate::wire;
use crate::worker_message::TrainingState;

/// Anything that the coordinator says.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorMessage {
    /// The session is accepted; the run's configuration.
    Welcome(Box<Welcome>),
    /// A world that the receiver is a member of.
    World(World),
    /// Schedules of the next steps.
    Plan(PlanWindow),
    /// Leave the world at once.
    Abort(Abort),
    /// Stop at the next step edge.
    Stop(Stop),
    /// Exit.
    Dismiss(Dismiss),
    /// Write a checkpoint at the next step edge of this world, and go on.
    Save(Generation),
    /// Leave the world, write the state to a file, and exit with 75.
    Dump(Dump),
    /// Where the ranks of this world meet.
    CommunicatorIds(CommunicatorIds),
}

/// The run, as every worker must see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    /// Name of the run.
    pub run_id: String,
    /// The slot this worker has now.
    pub slot: Slot,
    /// The whole configuration.
    pub config: RunConfig,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// The world of its hello, which it goes on in; `None`: it leaves any that it may be in, and enlists.
    pub member_of: Option<Generation>,
}

/// The ranks that train together from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Number of this world.
    pub generation: Generation,
    /// Rank of the receiver.
    pub rank: Rank,
    /// Members in rank order.
    pub members: Members,
    /// Proves membership to the other ranks.
    pub secret: Secret,
    /// Rank whose state everyone starts from.
    pub state_source: Rank,
    /// The state that it holds.
    pub start: TrainingState,
    /// K: optimizer steps of the whole run, at least 1.
    pub total_steps: u64,
}

/// Contiguous lanes, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRange {
    /// The first lane.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Secret of one generation. Prints nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Schedules of the next steps of one world, in step order, without gaps. May repeat steps that were sent before.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanWindow {
    /// The world this plan is for.
    pub generation: Generation,
    /// At least one.
    pub steps: Vec<StepPlan>,
}

/// What the coordinator decides about one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepPlan {
    /// k.
    pub step: Step,
    /// τ of step k, in [0, 1].
    pub decay: f64,
    /// η of step k, ≥ 0.
    pub learning_rate: f64,
    /// Write a checkpoint once this step is applied.
    pub checkpoint: bool,
    /// Once this step is applied, all ranks leave the world as stopped, and enlist. The last of a world's plan.
    pub regroup: bool,
}

/// Leave this world at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// The world to abort.
    pub generation: Generation,
    /// Ranks held responsible.
    pub culprits: Vec<Rank>,
    /// For people.
    pub reason: String,
}

/// Stop at the next step edge that all ranks agree on, and write a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The world to stop.
    pub generation: Generation,
    /// For people.
    pub reason: String,
}

/// This worker's state differs from that of the other ranks. The last message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// The world in which it was found.
    pub generation: Generation,
    /// For people.
    pub reason: String,
}

/// The run needs this worker no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dismiss {
    /// How to exit.
    pub exit: Exit,
    /// For people.
    pub reason: String,
}

impl TryFrom<wire::CoordinatorMessage> for CoordinatorMessage {
    type Error = Malformed;

    fn try_from(message: wire::CoordinatorMessage) -> Result<Self, Malformed> {
        use wire::coordinator_message::Kind;
        let wire::CoordinatorMessage { kind } = message;
        Ok(match Border("CoordinatorMessage").required("kind", kind)? {
            Kind::Welcome(welcome) => Self::Welcome(Box::new(welcome.try_into()?)),
            Kind::World(world) => Self::World(world.try_into()?),
            Kind::Plan(plan) => Self::Plan(plan.try_into()?),
            Kind::Abort(abort) => Self::Abort(abort.try_into()?),
            Kind::Stop(stop) => Self::Stop(stop.try_into()?),
            Kind::Save(wire::Save { generation }) => {
                Self::Save(Generation(Border("Save").positive("generation", generation)?))
            }
            Kind::Dump(dump) => Self::Dump(dump.try_into()?),
            Kind::CommunicatorIds(ids) => Self::CommunicatorIds(ids.try_into()?),
            Kind::Dismiss(dismiss) => Self::Dismiss(dismiss.try_into()?),
        })
    }
}

impl From<CoordinatorMessage> for wire::CoordinatorMessage {
    fn from(message: CoordinatorMessage) -> Self {
        use wire::coordinator_message::Kind;
        let kind = match message {
            CoordinatorMessage::Welcome(welcome) => Kind::Welcome((*welcome).into()),
            CoordinatorMessage::World(world) => Kind::World(world.into()),
            CoordinatorMessage::Plan(plan) => Kind::Plan(plan.into()),
            CoordinatorMessage::Abort(abort) => Kind::Abort(abort.into()),
            CoordinatorMessage::Stop(stop) => Kind::Stop(stop.into()),
            CoordinatorMessage::Save(world) => Kind::Save(wire::Save { generation: world.0 }),
            CoordinatorMessage::Dump(dump) => Kind::Dump(dump.into()),
            CoordinatorMessage::CommunicatorIds(ids) => Kind::CommunicatorIds(ids.into()),
            CoordinatorMessage::Dismiss(dismiss) => Kind::Dismiss(dismiss.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Welcome> for Welcome {
    type Error = Malformed;

    fn try_from(welcome: wire::Welcome) -> Result<Self, Malformed> {
        const B: Border = Border("Welcome");
        let wire::Welcome { run_id, slot, config_json, heartbeat_ms, generation } = welcome;
        B.at_most("config_json", config_json.as_bytes(), MAX_CONFIG_BYTES)?;
        let config = RunConfig::from_json(&config_json).map_err(|faults| {
            let problem = format!("is not valid here; use one version everywhere: {faults}");
            B.malformed("config_json", problem)
        })?;
        Ok(Self {
            run_id: B.name("run_id", run_id)?,
            slot: Slot(slot),
            config,
            heartbeat: Duration::from_millis(B.positive("heartbeat_ms", heartbeat_ms)?.into()),
            member_of: (generation > 0).then_some(Generation(generation)),
        })
    }
}

impl From<Welcome> for wire::Welcome {
    fn from(welcome: Welcome) -> Self {
        let Welcome { run_id, slot, config, heartbeat, member_of } = welcome;
        Self {
            run_id,
            slot: slot.0,
            config_json: config.to_json(),
            heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
            generation: member_of.map_or(0, |generation| generation.0),
        }
    }
}

impl TryFrom<wire::World> for World {
    type Error = Malformed;

    fn try_from(world: wire::World) -> Result<Self, Malformed> {
        const B: Border = Border("World");
        let wire::World { generation, rank, members, secret, state_source, start, total_steps } =
            world;
        let members = Members::decode(members)?;
        let size = members.len();
        let rank_within = |field, rank: u32| {
            if (rank as usize) < size {
                return Ok(Rank(rank));
            }
            Err(B.malformed(field, format!("is {rank} in a world of {size}")))
        };
        let secret = <[u8; SECRET_BYTES]>::try_from(secret).map_err(|secret| {
            let problem = format!("has {} bytes, expected {SECRET_BYTES}", secret.len());
            B.malformed("secret", problem)
        })?;
        Ok(Self {
            generation: Generation(B.positive("generation", generation)?),
            rank: rank_within("rank", rank)?,
            state_source: rank_within("state_source", state_source)?,
            members,
            secret: Secret(secret),
            start: B.required("start", start)?.try_into()?,
            total_steps: B.positive("total_steps", total_steps)?,
        })
    }
}

impl From<World> for wire::World {
    fn from(world: World) -> Self {
        let World { generation, rank, members, secret, state_source, start, total_steps } = world;
        Self {
            generation: generation.0,
            rank: rank.0,
            members: members.encoded(),
            secret: secret.0.to_vec(),
            state_source: state_source.0,
            start: Some(start.into()),
            total_steps,
        }
    }
}

impl TryFrom<wire::PlanWindow> for PlanWindow {
    type Error = Malformed;

    fn try_from(window: wire::PlanWindow) -> Result<Self, Malformed> {
        const B: Border = Border("PlanWindow");
        let wire::PlanWindow { generation, steps } = window;
        B.some("steps", &steps, MAX_PLAN_STEPS)?;
        if let Some(pair) =
            steps.windows(2).find(|pair| pair[0].step.checked_add(1) != Some(pair[1].step))
        {
            let problem = format!("has step {} after step {}", pair[1].step, pair[0].step);
            return Err(B.malformed("steps", problem));
        }
        Ok(Self {
            generation: Generation(B.positive("generation", generation)?),
            steps: steps.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<PlanWindow> for wire::PlanWindow {
    fn from(window: PlanWindow) -> Self {
        let PlanWindow { generation, steps } = window;
        Self { generation: generation.0, steps: steps.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::StepPlan> for StepPlan {
    type Error = Malformed;

    fn try_from(plan: wire::StepPlan) -> Result<Self, Malformed> {
        const B: Border = Border("StepPlan");
        let wire::StepPlan { step, decay, learning_rate, checkpoint, regroup } = plan;
        Ok(Self {
            step: Step(step),
            decay: B.within("decay", decay, (0.0, 1.0))?,
            learning_rate: B.within("learning_rate", learning_rate, (0.0, f64::MAX))?,
            checkpoint,
            regroup,
        })
    }
}

impl From<StepPlan> for wire::StepPlan {
    fn from(plan: StepPlan) -> Self {
        let StepPlan { step, decay, learning_rate, checkpoint, regroup } = plan;
        Self { step: step.0, decay, learning_rate, checkpoint, regroup }
    }
}

impl TryFrom<wire::Abort> for Abort {
    type Error = Malformed;

    fn try_from(abort: wire::Abort) -> Result<Self, Malformed> {
        const B: Border = Border("Abort");
        let wire::Abort { generation, culprits, reason } = abort;
        B.at_most("culprits", &culprits, MAX_MEMBERS)?;
        Ok(Self {
            generation: Generation(B.positive("generation", generation)?),
            culprits: culprits.into_iter().map(Rank).collect(),
            reason: clip(reason),
        })
    }
}

impl From<Abort> for wire::Abort {
    fn from(abort: Abort) -> Self {
        let Abort { generation, culprits, reason } = abort;
        Self {
            generation: generation.0,
            culprits: culprits.into_iter().map(|rank| rank.0).collect(),
            reason: clip(reason),
        }
    }
}

impl TryFrom<wire::Stop> for Stop {
    type Error = Malformed;

    fn try_from(stop: wire::Stop) -> Result<Self, Malformed> {
        let wire::Stop { generation, reason } = stop;
        let generation = Generation(Border("Stop").positive("generation", generation)?);
        Ok(Self { generation, reason: clip(reason) })
    }
}

impl From<Stop> for wire::Stop {
    fn from(stop: Stop) -> Self {
        let Stop { generation, reason } = stop;
        Self { generation: generation.0, reason: clip(reason) }
    }
}

impl TryFrom<wire::Dump> for Dump {
    type Error = Malformed;

    fn try_from(dump: wire::Dump) -> Result<Self, Malformed> {
        let wire::Dump { generation, reason } = dump;
        let generation = Generation(Border("Dump").positive("generation", generation)?);
        Ok(Self { generation, reason: clip(reason) })
    }
}

impl From<Dump> for wire::Dump {
    fn from(dump: Dump) -> Self {
        let Dump { generation, reason } = dump;
        Self { generation: generation.0, reason: clip(reason) }
    }
}

impl TryFrom<wire::Dismiss> for Dismiss {
    type Error = Malformed;

    fn try_from(dismiss: wire::Dismiss) -> Result<Self, Malformed> {
        let wire::Dismiss { exit_code, reason } = dismiss;
        let exit = Exit::from_wire(Border("Dismiss"), exit_code)?;
        Ok(Self { exit, reason: clip(reason) })
    }
}

impl From<Dismiss> for wire::Dismiss {
    fn from(dismiss: Dismiss) -> Self {
        let Dismiss { exit, reason } = dismiss;
        Self { exit_code: exit.code().into(), reason: clip(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Cursor, Digest, WorkerUid};
    use crate::layers::Layers;
    use crate::members::Member;

    #[test]
    fn every_coordinator_message_survives_the_wire() {
        let config = Layers::default().resolve().unwrap().config;
        let messages = [
            CoordinatorMessage::Welcome(Box::new(Welcome {
                run_id: config.run.id.clone(),
                slot: Slot(1),
                heartbeat: Duration::from_millis(500),
                member_of: Some(Generation(3)),
                config,
            })),
            CoordinatorMessage::World(world()),
            CoordinatorMessage::Plan(PlanWindow {
                generation: Generation(3),
                steps: vec![plan(4), plan(5)],
            }),
            CoordinatorMessage::Abort(Abort {
                generation: Generation(3),
                culprits: vec![Rank(1)],
                reason: "rank 1 is gone".into(),
            }),
            CoordinatorMessage::Stop(Stop { generation: Generation(3), reason: "asked".into() }),
            CoordinatorMessage::Save(Generation(3)),
            CoordinatorMessage::Dump(Dump { generation: Generation(3), reason: "odd".into() }),
            CoordinatorMessage::Dismiss(Dismiss { exit: Exit::Done, reason: "complete".into() }),
        ];
        for message in messages {
            let wire = wire::CoordinatorMessage::from(message.clone());
            assert_eq!(CoordinatorMessage::try_from(wire).unwrap(), message);
        }
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert!(!format!("{:?}", world()).contains("77"));
    }

    #[test]
    fn a_rank_outside_the_world_is_refused() {
        let mut wire = wire::World::from(world());
        wire.rank = 2;
        let error = World::try_from(wire).unwrap_err();
        assert_eq!(error.to_string(), "World.rank is 2 in a world of 1");
    }

    #[test]
    fn a_short_secret_is_refused() {
        let mut wire = wire::World::from(world());
        wire.secret.pop();
        let error = World::try_from(wire).unwrap_err();
        assert_eq!(error.to_string(), "World.secret has 31 bytes, expected 32");
    }

    #[test]
    fn a_plan_with_a_gap_is_refused() {
        let gap = PlanWindow { generation: Generation(1), steps: vec![plan(4), plan(6)] };
        let error = PlanWindow::try_from(wire::PlanWindow::from(gap)).unwrap_err();
        assert_eq!(error.to_string(), "PlanWindow.steps has step 6 after step 4");
    }

    #[test]
    fn a_dismissal_with_an_unknown_code_is_refused() {
        let wire = wire::Dismiss { exit_code: 7, reason: String::new() };
        let error = Dismiss::try_from(wire).unwrap_err();
        assert_eq!(error.to_string(), "Dismiss.exit_code is 7, expected 0, 42, 75 or 93");
    }

    #[test]
    fn a_configuration_of_another_version_is_refused_with_the_remedy() {
        let wire = wire::Welcome {
            run_id: "demo".into(),
            slot: 0,
            config_json: "{\"novelty\": 1}".into(),
            heartbeat_ms: 500,
            generation: 0,
        };
        let error = Welcome::try_from(wire).unwrap_err().to_string();
        assert!(error.starts_with("Welcome.config_json is not valid here; use one"), "{error}");
        assert!(error.contains("novelty"), "{error}");
    }

    fn world() -> World {
        World {
            generation: Generation(3),
            rank: Rank(0),
            members: Members::from_iter([Member {
                worker: WorkerUid("w-1".into()),
                slot: Slot(0),
                collective_address: "127.0.0.1:5000".parse().unwrap(),
                lanes: LaneRange { first: 0, count: 8 },
            }]),
            secret: Secret([77; SECRET_BYTES]),
            state_source: Rank(0),
            start: TrainingState { step: Step(4), cursor: Cursor(4), digest: Digest(1) },
            total_steps: 100,
        }
    }

    fn plan(step: u64) -> StepPlan {
        let marked = step == 5;
        StepPlan {
            step: Step(step),
            decay: 0.99,
            learning_rate: 0.1,
            checkpoint: marked,
            regroup: marked,
        }
    }
}
