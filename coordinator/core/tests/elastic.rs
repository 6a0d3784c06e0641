//! Worlds that grow and shrink, members that are stuck or late, and coordinators that are started again.

mod support;

use std::time::Duration;

use lockstep_core::{Core, Effect, Event, Memory, Record, SessionId};
use lockstep_proto::ids::{Generation, Rank, Slot, Step, WorkerUid};
use lockstep_proto::{
    Activity, CoordinatorMessage, Exit, Heartbeat, Hello, Membership, OperatorCommand, Phase,
    StepReport, WorkerMessage, WorldEnd,
};
use support::*;

#[test]
fn a_world_forms_with_fewer_behind_the_last_call() {
    let mut core = elastic(1, 3, 3);
    connect(&mut core, 0, hello("a"));
    say(&mut core, 0, enlist(None));
    let until = core.status().until_unix_ms.unwrap();
    assert_eq!(until, 1_000_000 + u64::from(config(3).control.cold_call_ms));
    assert!(core.explain().contains("goes on without the others in 15 s"), "{}", core.explain());
    heard(&mut core, secs(14));
    let effects = core.step(secs(15), Event::Tick);
    assert_eq!(world_of(&effects, 0).unwrap().members.len(), 1);
}

#[test]
fn a_joiner_is_admitted_behind_a_step_that_is_planned_for_it() {
    let mut core = elastic(1, 1, 2);
    connect(&mut core, 0, hello("a"));
    say(&mut core, 0, enlist(None));
    connect(&mut core, 1, hello("b"));
    let effects = say(&mut core, 1, enlist(None));
    assert_eq!(planned(&effects, 0), [8], "the first step that was not sent yet");
    assert_eq!(
        core.explain(),
        "training: step 0 of 20, 1 workers, generation 1; others join behind step 8"
    );
    say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let effects = say(&mut core, 0, enlist_after(1, Some(state(9))));
    let world = world_of(&effects, 1).unwrap();
    assert_eq!((world.members.len(), world.start, world.state_source), (2, state(9), Rank(0)));
}

#[test]
fn a_spare_takes_over_a_lost_slot_at_once() {
    let mut core = running(2);
    connect(&mut core, 5, hello("spare"));
    assert!(say(&mut core, 5, enlist(None)).is_empty());
    assert_eq!(core.status().spare_workers, 1);
    lose(&mut core, 1);
    let effects = say(&mut core, 0, enlist_after(1, Some(state(1))));
    let world = world_of(&effects, 5).unwrap();
    assert_eq!((world.generation, world.members[1].slot), (Generation(2), Slot(2)));
}

#[test]
fn a_place_that_fails_again_and_again_is_kept_out_and_the_sentence_says_so() {
    let mut core = running(2);
    for again in 1..=2 {
        say(&mut core, 0, reports(again, vec![report(again - 1)]));
        lose(&mut core, again);
        connect(&mut core, again + 1, hello_at("w", 1));
        say(&mut core, again + 1, enlist(None));
        say(&mut core, 0, enlist_after(again, Some(state(again))));
    }
    let sentence = core.explain();
    let words = "slot 1 failed 2 times in a row and is kept out for 5 s";
    assert!(sentence.contains(words), "{sentence}");
    assert_eq!(core.workers(secs(1))[1].cooldown, secs(4));
    heard(&mut core, secs(4));
    let effects = core.step(secs(5), Event::Tick);
    assert_eq!(world_of(&effects, 3).unwrap().generation, Generation(3));
}

#[test]
fn the_rank_with_the_lowest_sequence_is_put_out_when_nobody_moves() {
    let mut core = running(3);
    for second in 0..=20 {
        assert!(beat(&mut core, second, [Activity::Stepping; 3]).is_empty());
    }
    let effects = beat(&mut core, 21, [Activity::Stepping; 3]);
    let [CoordinatorMessage::Abort(abort)] = to(&effects, 0)[..] else { panic!("{effects:?}") };
    assert_eq!(abort.culprits, [Rank(1)]);
    assert!(refusal(&effects, 1).unwrap().contains("rank 1, which lives but is stuck"));
    assert_eq!(refusal(&effects, 0), None);
}

#[test]
fn a_long_checkpoint_or_evaluation_is_no_standstill() {
    for activity in [Activity::Saving, Activity::Evaluating] {
        let mut core = running(3);
        for second in 0..100 {
            let effects =
                beat(&mut core, second, [activity, Activity::Stepping, Activity::AwaitingPlan]);
            assert!(effects.is_empty(), "{effects:?}");
        }
    }
}

#[test]
fn the_last_to_arrive_is_shown() {
    let mut core = running(2);
    for (session, wait) in [(0, 30), (1, 2)] {
        let arrival_wait = Some(Duration::from_millis(wait));
        say(&mut core, session, reports(1, vec![StepReport { arrival_wait, ..report(0) }]));
    }
    let straggler = core.status().straggler.unwrap();
    assert_eq!((straggler.slot, straggler.late), (Slot(1), Duration::from_millis(28)));
    assert_eq!(core.workers(secs(0))[0].late, Some(Duration::ZERO));
}

#[test]
fn a_coordinator_that_is_started_again_goes_on_with_the_world_without_an_abort() {
    let mut core = restarted(3);
    assert_eq!(core.status().world_size, 3);
    assert!(
        to(&come_back(&mut core, 0, 4), 0).iter().any(|m| is_plan(m)),
        "what it may have missed"
    );
    assert_eq!(
        core.explain(),
        "waiting for the members of generation 1 to come back: 1 of 3 are here; absent: rank 1, 2; \
         forms another world in 30 s"
    );
    come_back(&mut core, 1, 5);
    assert!(core.explain().ends_with("rank 2 has 30 s to come back"), "{}", core.explain());
    assert_eq!(planned(&come_back(&mut core, 2, 5), 2), [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert!(core.explain().starts_with("training: step"), "{}", core.explain());
    let effects = say(&mut core, 0, reports(1, vec![report(5)]));
    assert!(matches!(effects[..], [Effect::Applied(_)]), "{effects:?}");
}

#[test]
fn members_that_stay_away_count_as_lost_when_their_time_is_up() {
    let mut core = restarted(3);
    come_back(&mut core, 0, 5);
    come_back(&mut core, 2, 5);
    for second in 1..30 {
        heard(&mut core, secs(second));
        assert!(core.step(secs(second), Event::Tick).is_empty());
    }
    let effects = core.step(secs(30), Event::Tick);
    let [CoordinatorMessage::Abort(abort)] = to(&effects, 0)[..] else { panic!("{effects:?}") };
    assert_eq!((abort.generation, &abort.culprits[..]), (Generation(1), &[Rank(1)][..]));
    say(&mut core, 0, enlist_after(1, Some(state(6))));
    connect(&mut core, 9, hello("new"));
    say(&mut core, 9, enlist(None));
    let effects = say(&mut core, 2, enlist_after(1, Some(state(6))));
    assert_eq!(world_of(&effects, 0).unwrap().generation, Generation(2));
}

#[test]
fn an_end_at_a_step_edge_that_outlives_the_coordinator_reaches_the_members_that_come_back() {
    let drain = OperatorCommand::Drain(WorkerUid("w1".into()));
    for command in [OperatorCommand::Stop, OperatorCommand::Pause, drain] {
        let mut core = restarted_after(&command);
        let effects = come_back(&mut core, 0, 3);
        let stops =
            to(&effects, 0).into_iter().filter(|m| matches!(m, CoordinatorMessage::Stop(_)));
        assert_eq!(stops.count(), 1, "{command}");
        assert_eq!(core.status().phase, Phase::Forming, "one of two is back");
    }
}

#[test]
fn a_coordinator_that_was_killed_while_the_run_stopped_ends_it() {
    let mut core = restarted_after(&OperatorCommand::Stop);
    come_back(&mut core, 0, 3);
    come_back(&mut core, 1, 3);
    say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let effects = say(&mut core, 1, ended(1, WorldEnd::Stopped));
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
    assert!(core.explain().starts_with("stopped at step 3: the operator"), "{}", core.explain());
}

#[test]
fn workers_that_stopped_while_the_coordinator_was_away_end_the_run_with_it() {
    let mut core = restarted_after(&OperatorCommand::Stop);
    let effects = connect(&mut core, 0, hello("w0"));
    assert!(effects.contains(&Effect::Finished(Exit::Done)), "{effects:?}");
    let [CoordinatorMessage::Welcome(_), CoordinatorMessage::Dismiss(dismiss)] =
        to(&effects, 0)[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(dismiss.exit, Exit::Done);
}

#[test]
fn the_end_of_a_run_is_journaled_once_the_last_worker_has_gone() {
    let mut core = running(2);
    core.step(secs(1), Event::StopRequested);
    say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let effects = say(&mut core, 1, ended(1, WorldEnd::Stopped));
    assert_eq!(journaled(&effects).count(), 0, "they may not have heard of it yet");
    assert_eq!(journaled(&lose(&mut core, 0)).count(), 0);
    assert_eq!(journaled(&lose(&mut core, 1)).collect::<Vec<_>>(), [Record::Ended(Generation(1))]);
}

#[test]
fn a_worker_that_was_drained_stays_away_from_the_next_coordinator_too() {
    let mut core = running(2);
    let drain = OperatorCommand::Drain(WorkerUid("w1".into()));
    let memory = journaled(&core.operate(secs(0), drain).0).collect();
    let mut core = core_with(config(2), memory, false);
    let sentence = refusal(&connect(&mut core, 7, hello("w1")), 7).unwrap();
    assert!(sentence.contains("has drained worker w1"), "{sentence}");
}

#[test]
fn two_members_that_die_at_once_cost_one_world() {
    let mut core = elastic(1, 3, 3);
    (0..3).for_each(|session| drop(connect(&mut core, session, hello(&format!("w{session}")))));
    (0..3).for_each(|session| drop(say(&mut core, session, enlist(None))));
    lose(&mut core, 1);
    assert!(say(&mut core, 0, enlist_after(1, Some(state(4)))).is_empty(), "slot 2 may come yet");
    let effects = lose(&mut core, 2);
    assert_eq!(noted(&effects).len(), 1, "it left; there is no world to abort: {effects:?}");
    let last_call = Duration::from_millis(config(3).control.last_call_ms.into());
    heard(&mut core, last_call);
    let effects = core.step(last_call, Event::Tick);
    let world = world_of(&effects, 0).unwrap();
    assert_eq!((world.generation, world.members.len()), (Generation(2), 1));
}

#[test]
fn a_stream_that_is_replaced_in_time_costs_nothing() {
    let mut core = running(2);
    let effects = connect(&mut core, 5, member("w1", 1, 3));
    assert!(
        effects
            .iter()
            .all(|e| !matches!(e, Effect::Send { message: CoordinatorMessage::Abort(_), .. }))
    );
    assert!(lose(&mut core, 1).is_empty(), "the old stream's end says nothing new");
    assert_eq!(core.workers(secs(0))[1].rank, Some(Rank(1)));
}

fn elastic(min: u32, world: u32, max: u32) -> Core {
    let mut config = config(world);
    (config.run.min_world, config.run.max_world) = (min, max);
    core_with(config, Memory::default(), false)
}

/// A coordinator that finds generation 1 of so many workers in its journal, planned up to step 15.
fn restarted(world: u32) -> Core {
    let (_, effects) = before(world);
    core_with(config(world), journaled(&effects).collect(), false)
}

/// A coordinator of two workers that was killed when it had told them to do this.
fn restarted_after(command: &OperatorCommand) -> Core {
    let (mut core, mut effects) = before(2);
    effects.extend(core.operate(secs(0), command.clone()).0);
    let paused = *command == OperatorCommand::Pause;
    core_with(config(2), journaled(&effects).collect(), paused)
}

/// A coordinator with a world that has applied four steps, and what it did so far.
fn before(world: u32) -> (Core, Vec<Effect>) {
    let mut core = core(world);
    let mut effects = Vec::new();
    for session in 0..u64::from(world) {
        connect(&mut core, session, hello(&format!("w{session}")));
    }
    for session in 0..u64::from(world) {
        effects.extend(say(&mut core, session, enlist(None)));
    }
    effects.extend(say(&mut core, 0, reports(1, (0..4).map(report).collect())));
    (core, effects)
}

fn journaled(effects: &[Effect]) -> impl Iterator<Item = Record> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Journal(record) => Some(record.clone()),
        Effect::Send { .. }
        | Effect::Close { .. }
        | Effect::Applied(_)
        | Effect::Noted(_)
        | Effect::Finished(_) => None,
    })
}

fn member(uid: &str, rank: u32, step: u64) -> Hello {
    let (generation, rank, step) = (Generation(1), Rank(rank), Step(step));
    Hello { member: Some(Membership { generation, rank, step, proven: None }), ..hello(uid) }
}

fn come_back(core: &mut Core, session: u64, step: u64) -> Vec<Effect> {
    let rank = u32::try_from(session).expect("a small world");
    let effects = connect(core, session, member(&format!("w{session}"), rank, step));
    let Some(CoordinatorMessage::Welcome(welcome)) = to(&effects, session).first().copied() else {
        panic!("{effects:?}")
    };
    assert_eq!(welcome.member_of, Some(Generation(1)));
    effects
}

fn is_plan(message: &CoordinatorMessage) -> bool {
    matches!(message, CoordinatorMessage::Plan(_))
}

/// All sessions that may be there are heard at that time.
fn heard(core: &mut Core, now: Duration) {
    for session in 0..10 {
        let message = Box::new(heartbeat(0, 0));
        core.step(now, Event::Message { session: SessionId(session), message });
    }
}

/// Heartbeats of three ranks that do not move, rank 1 being one operation behind, and a tick.
fn beat(core: &mut Core, second: u64, activities: [Activity; 3]) -> Vec<Effect> {
    for (session, activity) in (0..).zip(activities) {
        let message = Box::new(WorkerMessage::Heartbeat(Heartbeat {
            generation: Generation(1),
            step: Step(0),
            collective_sequence: if session == 1 { 6 } else { 7 },
            activity: Some(activity),
        }));
        core.step(secs(second), Event::Message { session: SessionId(session), message });
    }
    core.step(secs(second), Event::Tick)
}
