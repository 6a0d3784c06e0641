//! A run of tiny workers, and words for what they say.
#![allow(dead_code, reason = "every test file uses its own part of it")]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use lockstep_core::{Core, Effect, Event, Memory, SessionId, Settings};
use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Cursor, Digest, Generation, Rank, Slot, Step, WorkerUid};
use lockstep_proto::layers::Layers;
use lockstep_proto::{
    Backend, CoordinatorMessage, DataSet, Enlist, Heartbeat, Hello, Occurrence, PROTOCOL_VERSION,
    Secret, StepReport, StepReports, TrainingState, WorkerMessage, World, WorldEnd, WorldEnded,
};

pub(crate) const VERSION: &str = "0.1.0";
pub(crate) const RUN: &str = "tiny";
pub(crate) const TOTAL_STEPS: u64 = 20;

pub(crate) fn config(world: u32) -> RunConfig {
    // Resolved once: simulations ask for it many thousand times.
    static TINY: LazyLock<RunConfig> = LazyLock::new(|| {
        let layers = Layers { preset: Some("tiny".into()), ..Layers::default() };
        layers.resolve().expect("the preset is valid").config
    });
    let mut config = TINY.clone();
    config.run.world = world;
    config
}

pub(crate) fn core(world: u32) -> Core {
    core_with(config(world), Memory::default(), false)
}

pub(crate) fn core_with(config: RunConfig, memory: Memory, paused: bool) -> Core {
    Core::new(Settings {
        config,
        version: VERSION.into(),
        seed: Secret([7; 32]),
        memory,
        started: secs(1_000),
        next_event: 1,
        paused,
    })
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn hello(uid: &str) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        run_id: None,
        worker: WorkerUid(uid.into()),
        slot: None,
        host: "node".into(),
        version: VERSION.into(),
        device: "cpu".into(),
        data: DataSet { fingerprint: "aaaa".into(), samples: 1000, classes: 10 },
        member: None,
    }
}

pub(crate) fn hello_at(uid: &str, slot: u32) -> Hello {
    Hello { slot: Some(Slot(slot)), ..hello(uid) }
}

pub(crate) fn connect(core: &mut Core, session: u64, hello: Hello) -> Vec<Effect> {
    core.step(secs(0), Event::Connected { session: SessionId(session), hello: Box::new(hello) })
}

pub(crate) fn say(core: &mut Core, session: u64, message: WorkerMessage) -> Vec<Effect> {
    let message = Box::new(message);
    core.step(secs(0), Event::Message { session: SessionId(session), message })
}

pub(crate) fn lose(core: &mut Core, session: u64) -> Vec<Effect> {
    let lost = Event::Lost { session: SessionId(session), why: "connection reset".into() };
    core.step(secs(0), lost)
}

pub(crate) fn enlist(state: Option<TrainingState>) -> WorkerMessage {
    enlist_after(0, state)
}

pub(crate) fn enlist_after(ended: u64, state: Option<TrainingState>) -> WorkerMessage {
    enlist_with(Backend::Host, ended, state)
}

pub(crate) fn enlist_with(
    backend: Backend,
    ended: u64,
    state: Option<TrainingState>,
) -> WorkerMessage {
    let collective_address = SocketAddr::from(([127, 0, 0, 1], 9000));
    let ended = Generation(ended);
    WorkerMessage::Enlist(Enlist { collective_address, state, ended, backend })
}

pub(crate) fn state(step: u64) -> TrainingState {
    TrainingState { step: Step(step), cursor: Cursor(step), digest: Digest(step) }
}

pub(crate) fn heartbeat(generation: u64, step: u64) -> WorkerMessage {
    WorkerMessage::Heartbeat(Heartbeat {
        generation: Generation(generation),
        step: Step(step),
        collective_sequence: 0,
        activity: Some(lockstep_proto::Activity::Stepping),
    })
}

pub(crate) fn report(step: u64) -> StepReport {
    StepReport {
        step: Step(step),
        cursor: Cursor(step),
        applied: true,
        loss: 3.0,
        z_std: 0.1,
        images: 32,
        duration: Duration::from_millis(500),
        data_wait: Duration::from_millis(50),
        probe_loss: None,
        probe_accuracy: None,
        knn_accuracy: None,
        arrival_wait: None,
        digest: None,
        replaced_samples: Vec::new(),
    }
}

pub(crate) fn reports(generation: u64, reports: Vec<StepReport>) -> WorkerMessage {
    WorkerMessage::Reports(StepReports { generation: Generation(generation), reports })
}

pub(crate) fn ended(generation: u64, reason: WorldEnd) -> WorkerMessage {
    WorkerMessage::WorldEnded(WorldEnded {
        generation: Generation(generation),
        reason,
        detail: "a peer is silent".into(),
        culprit: (reason == WorldEnd::Failed).then_some(Rank(1)),
    })
}

/// A run whose workers, sessions `0..world`, have just been given generation 1.
pub(crate) fn running(world: u32) -> Core {
    let mut core = core(world);
    for session in 0..u64::from(world) {
        connect(&mut core, session, hello(&format!("w{session}")));
    }
    for session in 0..u64::from(world) {
        say(&mut core, session, enlist(None));
    }
    core
}

/// All messages to one session.
pub(crate) fn to(effects: &[Effect], session: u64) -> Vec<&CoordinatorMessage> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { session: to, message } if to.0 == session => Some(message),
            Effect::Send { .. }
            | Effect::Journal(_)
            | Effect::Close { .. }
            | Effect::Applied(_)
            | Effect::Noted(_)
            | Effect::Finished(_) => None,
        })
        .collect()
}

/// What the machine noted.
pub(crate) fn noted(effects: &[Effect]) -> Vec<&Occurrence> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Noted(event) => Some(&event.what),
            Effect::Send { .. }
            | Effect::Journal(_)
            | Effect::Close { .. }
            | Effect::Applied(_)
            | Effect::Finished(_) => None,
        })
        .collect()
}

/// The world that one session was given.
pub(crate) fn world_of(effects: &[Effect], session: u64) -> Option<&World> {
    to(effects, session).into_iter().find_map(|message| match message {
        CoordinatorMessage::World(world) => Some(world),
        CoordinatorMessage::Welcome(_)
        | CoordinatorMessage::Plan(_)
        | CoordinatorMessage::Abort(_)
        | CoordinatorMessage::Stop(_)
        | CoordinatorMessage::Save(_)
        | CoordinatorMessage::Dump(_)
        | CoordinatorMessage::CommunicatorIds(_)
        | CoordinatorMessage::Dismiss(_) => None,
    })
}

/// Steps planned for one session.
pub(crate) fn planned(effects: &[Effect], session: u64) -> Vec<u64> {
    let windows = to(effects, session).into_iter().filter_map(|message| match message {
        CoordinatorMessage::Plan(window) => Some(window),
        CoordinatorMessage::Welcome(_)
        | CoordinatorMessage::World(_)
        | CoordinatorMessage::Abort(_)
        | CoordinatorMessage::Stop(_)
        | CoordinatorMessage::Save(_)
        | CoordinatorMessage::Dump(_)
        | CoordinatorMessage::CommunicatorIds(_)
        | CoordinatorMessage::Dismiss(_) => None,
    });
    windows.flat_map(|window| window.steps.iter().map(|plan| plan.step.0)).collect()
}

/// The sentence with which a session was closed.
pub(crate) fn refusal(effects: &[Effect], session: u64) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close { session: to, refusal: Some(refusal) } if to.0 == session => {
            Some(refusal.to_string())
        }
        Effect::Send { .. }
        | Effect::Journal(_)
        | Effect::Close { .. }
        | Effect::Applied(_)
        | Effect::Noted(_)
        | Effect::Finished(_) => None,
    })
}
