//! What the coordinator notes about a run, for people to ask for later.

mod support;

use lockstep_core::{Effect, Event, SessionId};
use lockstep_proto::ids::{Generation, Rank, Slot, Step, WorkerUid};
use lockstep_proto::{CheckpointWritten, Exit, Goodbye, Occurrence, WorkerMessage, WorldEnd};
use support::*;

#[test]
fn a_start_says_after_which_generation() {
    let mut core = core(1);
    let effects = core.step(secs(2), Event::Started);
    let [Effect::Noted(event)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((event.sequence, event.unix_ms), (1, 1_002_000));
    assert_eq!(event.what, Occurrence::CoordinatorStarted { generation: Generation(0) });
}

#[test]
fn coming_forming_and_leaving_are_noted_with_names_and_reasons() {
    let mut core = core(1);
    let effects = connect(&mut core, 1, hello("a"));
    let (worker, slot) = (WorkerUid("a".into()), Slot(0));
    let joined = Occurrence::WorkerJoined { worker: worker.clone(), slot, host: "node".into() };
    assert_eq!(noted(&effects), [&joined]);

    let effects = say(&mut core, 1, enlist(Some(state(4))));
    let slots = vec![slot];
    let formed = Occurrence::WorldFormed { generation: Generation(1), step: Step(4), slots };
    assert_eq!(noted(&effects), [&formed]);

    say(&mut core, 1, ended(1, WorldEnd::Stopped));
    let effects = say(&mut core, 1, WorkerMessage::Goodbye(Goodbye { reason: "SIGTERM".into() }));
    let reason = "it said goodbye: SIGTERM".to_owned();
    assert_eq!(noted(&effects), [&Occurrence::WorkerLeft { worker, slot, reason }]);
}

#[test]
fn a_world_that_stops_for_a_leaving_worker_needs_no_reason() {
    let mut core = running(1);
    let effects = say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let reason = String::new();
    assert_eq!(noted(&effects), [&Occurrence::WorldStopped { generation: Generation(1), reason }]);
}

#[test]
fn recovery_is_timed_from_the_first_loss_to_the_first_step() {
    let mut core = running(2);
    let at = |core: &mut lockstep_core::Core, now, session, message| {
        let message = Box::new(message);
        core.step(secs(now), Event::Message { session: SessionId(session), message })
    };
    let effects = at(&mut core, 10, 0, ended(1, WorldEnd::Failed));
    let [Occurrence::WorldAborted { generation, culprits, reason }] = noted(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((*generation, &culprits[..]), (Generation(1), &[Rank(1)][..]));
    assert_eq!(reason, "rank 0 (slot 0 on node): a peer is silent");

    at(&mut core, 11, 0, enlist(None));
    at(&mut core, 11, 1, enlist(None));
    // A second failure before any step: the time goes on from the first.
    at(&mut core, 12, 0, ended(2, WorldEnd::Failed));
    at(&mut core, 13, 0, enlist(None));
    at(&mut core, 13, 1, enlist(None));
    assert!(noted(&at(&mut core, 14, 0, heartbeat(3, 0))).is_empty(), "no step yet");
    let effects = at(&mut core, 15, 0, reports(3, vec![report(0)]));
    let recovered = Occurrence::TrainingRecovered { generation: Generation(3), after_ms: 5_000 };
    assert_eq!(noted(&effects), [&recovered]);
    assert!(noted(&at(&mut core, 16, 1, reports(3, vec![report(0)]))).is_empty(), "told once");
}

#[test]
fn checkpoints_and_the_end_are_noted() {
    let mut core = running(1);
    let (generation, path) = (Generation(1), "/ckpt/3".to_owned());
    let written = CheckpointWritten { generation, state: state(3), path: path.clone() };
    let effects = say(&mut core, 0, WorkerMessage::CheckpointWritten(written));
    assert_eq!(noted(&effects), [&Occurrence::CheckpointSaved { step: Step(3), path }]);

    core.step(secs(1), Event::StopRequested);
    let effects = say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let [
        Occurrence::WorldStopped { reason, .. },
        Occurrence::RunEnded { exit: Exit::Done, reason: end },
    ] = noted(&effects)[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(reason, "the operator asked for it");
    assert_eq!(end, "stopped at step 0: the operator asked for it");
}

#[test]
fn numbers_have_no_gaps_over_a_whole_run() {
    let mut core = core(1);
    let mut effects = core.step(secs(0), Event::Started);
    effects.extend(connect(&mut core, 1, hello("a")));
    effects.extend(say(&mut core, 1, enlist(None)));
    effects.extend(say(&mut core, 1, ended(1, WorldEnd::Complete)));
    effects.extend(lose(&mut core, 1));
    let numbers: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Noted(event) => Some(event.sequence),
            Effect::Send { .. }
            | Effect::Journal(_)
            | Effect::Close { .. }
            | Effect::Applied(_)
            | Effect::Finished(_) => None,
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "started, joined, formed, ended, left");
}
