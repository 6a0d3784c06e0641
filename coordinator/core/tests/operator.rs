//! What operators may ask for.

mod support;

use lockstep_core::{Core, Effect, Event};
use lockstep_proto::ids::{Generation, Step, WorkerUid};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    CheckpointWritten, CoordinatorMessage, Exit, Occurrence, OperatorCommand, Phase, WorkerMessage,
    WorldEnd,
};
use support::*;

#[test]
fn a_paused_run_waits_at_a_step_edge_until_it_is_resumed() {
    let mut core = running(2);
    let (effects, answer) = ask(&mut core, OperatorCommand::Pause);
    for session in [0, 1] {
        assert!(matches!(to(&effects, session)[..], [CoordinatorMessage::Stop(_)]));
    }
    assert!(answer.unwrap().contains("since the operator asked for a pause"));
    end_at_edge(&mut core, 5);
    assert_eq!(core.status().phase, Phase::Paused);
    let sentence = "paused at step 0 until `coordinator resume`: 2 of 2 workers connected, 2 ready";
    assert!(core.explain().starts_with(sentence), "{}", core.explain());

    let (effects, answer) = ask(&mut core, OperatorCommand::Resume);
    let world = world_of(&effects, 1).unwrap();
    assert_eq!((world.generation, world.start.step), (Generation(2), Step(5)));
    assert_eq!(answer.unwrap(), "training: step 5 of 20, 2 workers, generation 2");
}

#[test]
fn every_order_is_idempotent_and_noted_once() {
    for command in [
        OperatorCommand::Pause,
        OperatorCommand::Checkpoint,
        OperatorCommand::Drain(WorkerUid("w1".into())),
        OperatorCommand::Stop,
    ] {
        let mut core = running(2);
        let (effects, _) = ask(&mut core, command.clone());
        let asked = Occurrence::OperatorAsked { command: command.to_string() };
        assert_eq!(noted(&effects), [&asked]);
        let (again, answer) = ask(&mut core, command);
        assert!(again.is_empty(), "{again:?}");
        answer.unwrap();
    }
    let (effects, answer) = ask(&mut running(2), OperatorCommand::Resume);
    assert!(effects.is_empty() && answer.is_ok(), "it is not paused");
}

#[test]
fn a_pause_that_is_taken_back_in_time_costs_a_world_and_nothing_else() {
    let mut core = running(2);
    ask(&mut core, OperatorCommand::Pause).1.unwrap();
    ask(&mut core, OperatorCommand::Resume).1.unwrap();
    let effects = end_at_edge(&mut core, 3);
    assert_eq!(world_of(&effects, 1).unwrap().start.step, Step(3));
}

#[test]
fn a_run_can_be_stopped_while_it_pauses_and_while_it_is_about_to() {
    let mut core = running(2);
    ask(&mut core, OperatorCommand::Pause).1.unwrap();
    let (effects, _) = ask(&mut core, OperatorCommand::Stop);
    assert!(to(&effects, 0).is_empty(), "the ranks know that they are to stop");
    say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let effects = say(&mut core, 1, ended(1, WorldEnd::Stopped));
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));

    let mut core = running(2);
    ask(&mut core, OperatorCommand::Pause).1.unwrap();
    end_at_edge(&mut core, 1);
    let (effects, _) = ask(&mut core, OperatorCommand::Stop);
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
}

#[test]
fn a_worker_that_dies_in_a_pause_breaks_nothing() {
    let mut core = running(2);
    ask(&mut core, OperatorCommand::Pause).1.unwrap();
    end_at_edge(&mut core, 4);
    let effects = lose(&mut core, 1);
    assert!(to(&effects, 0).is_empty(), "there is no world to abort");
    ask(&mut core, OperatorCommand::Resume).1.unwrap();
    connect(&mut core, 2, hello("replacement"));
    let effects = say(&mut core, 2, enlist(None));
    assert_eq!(world_of(&effects, 2).unwrap().start.step, Step(4));
}

#[test]
fn a_failure_before_the_edge_leads_into_the_pause_too() {
    let mut core = running(2);
    ask(&mut core, OperatorCommand::Pause).1.unwrap();
    say(&mut core, 0, ended(1, WorldEnd::Failed));
    say(&mut core, 0, enlist(None));
    assert_eq!(world_of(&say(&mut core, 1, enlist(None)), 1), None);
    assert_eq!(core.status().phase, Phase::Paused);
}

#[test]
fn a_checkpoint_is_asked_of_rank_zero_and_of_nobody_else() {
    let mut core = running(2);
    let (effects, answer) = ask(&mut core, OperatorCommand::Checkpoint);
    assert_eq!(to(&effects, 0), [&CoordinatorMessage::Save(Generation(1))]);
    assert!(to(&effects, 1).is_empty());
    assert_eq!(answer.unwrap(), "rank 0 writes a checkpoint at the next step edge");

    let (generation, path) = (Generation(1), String::new());
    let written = CheckpointWritten { generation, state: state(3), path };
    say(&mut core, 0, WorkerMessage::CheckpointWritten(written));
    let (effects, _) = ask(&mut core, OperatorCommand::Checkpoint);
    assert_eq!(to(&effects, 0).len(), 1, "the one before is written: this asks for another");
}

#[test]
fn a_checkpoint_without_a_world_is_refused_for_now() {
    let (_, answer) = ask(&mut core(2), OperatorCommand::Checkpoint);
    let Err(Refusal::Unavailable(sentence)) = answer else { panic!("{answer:?}") };
    assert!(sentence.contains("waiting for workers: 0 of 2 connected"), "{sentence}");
}

#[test]
fn a_drained_worker_leaves_at_the_edge_and_does_not_come_back() {
    let mut core = running(2);
    ask(&mut core, OperatorCommand::Drain(WorkerUid("w1".into()))).1.unwrap();
    let effects = end_at_edge(&mut core, 6);
    let [CoordinatorMessage::Dismiss(dismiss)] = to(&effects, 1)[..] else { panic!("{effects:?}") };
    assert_eq!((dismiss.exit, dismiss.reason.as_str()), (Exit::Done, "drained by the operator"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Close { refusal: None, .. })));

    let sentence = refusal(&connect(&mut core, 8, hello("w1")), 8).unwrap();
    assert!(sentence.contains("has drained worker w1"), "{sentence}");
    connect(&mut core, 9, hello("w2"));
    let effects = say(&mut core, 9, enlist(None));
    assert_eq!(world_of(&effects, 0).unwrap().start.step, Step(6), "the others go on");
}

#[test]
fn a_worker_that_waits_for_a_world_is_drained_at_once() {
    let mut core = core(2);
    connect(&mut core, 1, hello("a"));
    say(&mut core, 1, enlist(None));
    let (effects, answer) = ask(&mut core, OperatorCommand::Drain(WorkerUid("a".into())));
    assert!(matches!(to(&effects, 1)[..], [CoordinatorMessage::Dismiss(_)]));
    assert!(answer.unwrap().contains("0 of 2 connected"));
}

#[test]
fn a_worker_that_nobody_knows_cannot_be_drained() {
    let (effects, answer) =
        ask(&mut running(2), OperatorCommand::Drain(WorkerUid("stranger".into())));
    assert!(effects.is_empty());
    assert!(answer.unwrap_err().to_string().starts_with("there is no worker `stranger`"));
}

#[test]
fn a_run_that_is_over_takes_no_orders_but_stop() {
    let mut core = core(1);
    core.step(secs(0), Event::StopRequested);
    for command in [OperatorCommand::Pause, OperatorCommand::Resume, OperatorCommand::Checkpoint] {
        let (_, answer) = ask(&mut core, command);
        assert!(matches!(answer, Err(Refusal::Mismatch(_))), "{answer:?}");
    }
    assert!(ask(&mut core, OperatorCommand::Stop).1.unwrap().starts_with("stopped at step 0"));
}

fn ask(core: &mut Core, command: OperatorCommand) -> (Vec<Effect>, Result<String, Refusal>) {
    core.operate(secs(1), command)
}

/// Both ranks of generation 1 leave it behind `step` steps, and enlist.
fn end_at_edge(core: &mut Core, step: u64) -> Vec<Effect> {
    let mut effects = say(core, 0, ended(1, WorldEnd::Stopped));
    effects.extend(say(core, 0, enlist(Some(state(step)))));
    effects.extend(say(core, 1, ended(1, WorldEnd::Stopped)));
    effects.extend(say(core, 1, enlist(Some(state(step)))));
    effects
}
