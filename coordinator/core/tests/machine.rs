//! What the coordinator decides, event by event.

mod support;

use lockstep_core::{Effect, Event, Record, SessionId};
use lockstep_proto::ids::{Cursor, Digest, Generation, Rank, Step};
use lockstep_proto::{
    CoordinatorMessage, DataSet, Exit, Goodbye, Hello, LaneRange, Phase, StepReport, WorkerMessage,
    WorldEnd,
};
use support::*;

#[test]
fn a_world_forms_once_all_workers_have_enlisted() {
    let mut core = core(2);
    assert_eq!(core.explain(), "waiting for workers: 0 of 2 connected, 0 ready; absent: slot 0, 1");
    connect(&mut core, 10, hello("a"));
    connect(&mut core, 11, hello("b"));
    assert!(say(&mut core, 10, enlist(None)).is_empty());
    assert_eq!(core.explain(), "waiting for workers: 2 of 2 connected, 1 ready");

    let effects = say(&mut core, 11, enlist(None));
    let Effect::Journal(Record::World(record)) = &effects[0] else {
        panic!("stored before it is announced: {effects:?}")
    };
    assert_eq!((record.generation, record.members.len()), (Generation(1), 2));
    let world = world_of(&effects, 11).unwrap();
    assert_eq!((world.rank, world.state_source, world.total_steps), (Rank(1), Rank(0), 20));
    assert_eq!(world.members[0].lanes, LaneRange { first: 0, count: 32 });
    assert_eq!(world.members[1].lanes, LaneRange { first: 32, count: 32 });
    assert_eq!(world.secret, world_of(&effects, 10).unwrap().secret);
    assert_eq!(planned(&effects, 10), (0..8).collect::<Vec<_>>());
    assert_eq!(planned(&effects, 10), planned(&effects, 11));
    assert_eq!(core.explain(), "training: step 0 of 20, 2 workers, generation 1");
}

#[test]
fn ranks_follow_slots_and_not_arrival() {
    let mut core = core(2);
    connect(&mut core, 1, hello_at("late", 1));
    connect(&mut core, 2, hello_at("early", 0));
    say(&mut core, 1, enlist(None));
    let effects = say(&mut core, 2, enlist(None));
    assert_eq!(world_of(&effects, 2).unwrap().rank, Rank(0));
}

#[test]
fn everyone_starts_from_the_newest_state() {
    let mut core = core(3);
    for session in 0..3 {
        connect(&mut core, session, hello(&format!("w{session}")));
    }
    say(&mut core, 0, enlist(Some(state(3))));
    say(&mut core, 1, enlist(Some(state(9))));
    let effects = say(&mut core, 2, enlist(None));
    let world = world_of(&effects, 0).unwrap();
    assert_eq!((world.state_source, world.start), (Rank(1), state(9)));
    assert_eq!(planned(&effects, 0), (9..17).collect::<Vec<_>>());
    assert_eq!(core.status().step, Step(9));
}

#[test]
fn a_worker_of_another_run_is_refused_by_name() {
    let mut core = core(1);
    let effects = connect(&mut core, 1, Hello { run_id: Some("other".into()), ..hello("a") });
    assert_eq!(
        refusal(&effects, 1).unwrap(),
        "this worker belongs to run `other`, this coordinator runs `tiny`"
    );
}

#[test]
fn another_protocol_or_version_is_refused() {
    let mut core = core(1);
    let effects = connect(&mut core, 1, Hello { protocol: 99, ..hello("a") });
    assert!(refusal(&effects, 1).unwrap().starts_with("this worker speaks protocol 99, this"));
    let effects = connect(&mut core, 2, Hello { version: "0.0.9".into(), ..hello("a") });
    assert!(refusal(&effects, 2).unwrap().starts_with("this worker has version 0.0.9, this"));
}

#[test]
fn another_data_set_is_refused_with_both_fingerprints() {
    let mut core = core(2);
    connect(&mut core, 1, hello("a"));
    let data = DataSet { fingerprint: "bbbb".into(), samples: 1000, classes: 10 };
    let effects = connect(&mut core, 2, Hello { data, ..hello("b") });
    let sentence = refusal(&effects, 2).unwrap();
    assert!(sentence.contains("aaaa") && sentence.contains("bbbb"), "{sentence}");
}

#[test]
fn a_data_set_that_nobody_has_trained_on_is_forgotten_with_its_last_worker() {
    let mut core = core(1);
    let data = DataSet { fingerprint: "wrong".into(), samples: 900, classes: 10 };
    connect(&mut core, 1, Hello { data, ..hello("a") });
    lose(&mut core, 1);
    assert_eq!(refusal(&connect(&mut core, 2, hello("b")), 2), None);
}

#[test]
fn a_data_set_smaller_than_a_batch_is_refused() {
    let mut core = core(1);
    let data = DataSet { fingerprint: "tiny".into(), samples: 63, classes: 0 };
    let effects = connect(&mut core, 1, Hello { data, ..hello("a") });
    let sentence = refusal(&effects, 1).unwrap();
    assert!(sentence.contains("63 samples, fewer than the 64"), "{sentence}");
}

#[test]
fn a_slot_that_no_run_can_have_is_refused() {
    let effects = connect(&mut core(1), 3, hello_at("c", 4096));
    assert_eq!(refusal(&effects, 3).unwrap(), "slot 4096 is too high: slots are 0 to 4095");
}

#[test]
fn a_new_process_of_the_same_slot_replaces_the_old_one_which_counts_as_lost() {
    let mut core = running(2);
    let effects = connect(&mut core, 7, hello_at("w1-again", 1));
    assert!(refusal(&effects, 1).unwrap().contains("w1-again has taken over slot 1"));
    assert!(matches!(to(&effects, 0)[..], [CoordinatorMessage::Abort(_)]));
    assert!(matches!(to(&effects, 7)[..], [CoordinatorMessage::Welcome(_)]));
    assert!(lose(&mut core, 1).is_empty(), "the old stream's end says nothing new");
}

#[test]
fn a_worker_whose_stream_broke_comes_back_to_its_slot() {
    let mut core = core(2);
    connect(&mut core, 0, hello("a"));
    connect(&mut core, 1, hello("b"));
    connect(&mut core, 2, hello("b"));
    let slots: Vec<_> =
        core.workers(secs(0)).iter().map(|w| (w.worker.0.clone(), w.slot.0)).collect();
    assert_eq!(slots, [("a".into(), 0), ("b".into(), 1)]);
}

#[test]
fn a_broken_stream_aborts_the_world_and_names_the_culprit() {
    let mut core = running(3);
    let effects = lose(&mut core, 1);
    for survivor in [0, 2] {
        let [CoordinatorMessage::Abort(abort)] = to(&effects, survivor)[..] else {
            panic!("{effects:?}")
        };
        assert_eq!((abort.generation, &abort.culprits[..]), (Generation(1), &[Rank(1)][..]));
        assert_eq!(abort.reason, "rank 1 (slot 1 on node) is gone: connection reset");
    }
    assert_eq!(core.status().phase, Phase::Forming);
    assert!(
        core.explain()
            .ends_with("generation 1 failed: rank 1 (slot 1 on node) is gone: connection reset")
    );
}

#[test]
fn a_silent_worker_is_lost_when_its_lease_runs_out() {
    let mut core = running(2);
    let lease = secs(u64::from(config(2).control.lease_ms) / 1000);
    let at = |core: &mut lockstep_core::Core, now, session| {
        let message = heartbeat(1, 0);
        core.step(now, Event::Message { session: SessionId(session), message: Box::new(message) })
    };
    at(&mut core, lease, 0);
    assert!(core.step(lease, Event::Tick).is_empty(), "exactly the lease is not too long");
    let effects = core.step(lease + secs(1), Event::Tick);
    assert!(refusal(&effects, 1).unwrap().starts_with("no message for"));
    assert!(matches!(to(&effects, 0)[..], [CoordinatorMessage::Abort(_)]));
}

#[test]
fn a_failed_world_forms_again_with_the_next_generation_from_the_survivors_state() {
    let mut core = running(2);
    say(&mut core, 0, reports(1, vec![report(0), report(1)]));
    let effects = say(&mut core, 0, ended(1, WorldEnd::Failed));
    let [CoordinatorMessage::Abort(abort)] = to(&effects, 1)[..] else { panic!("{effects:?}") };
    assert_eq!(abort.culprits, [Rank(1)], "whom rank 0 holds responsible");
    assert!(to(&effects, 0).is_empty(), "rank 0 knows");

    assert!(say(&mut core, 1, ended(1, WorldEnd::Failed)).is_empty(), "crossed on the wire");
    say(&mut core, 0, enlist(Some(state(2))));
    let effects = say(&mut core, 1, enlist(Some(state(1))));
    let world = world_of(&effects, 1).unwrap();
    assert_eq!((world.generation, world.state_source), (Generation(2), Rank(0)));
    assert_eq!(world.start.step, Step(2));
}

#[test]
fn the_plan_is_sent_ahead_of_need_and_to_all() {
    let mut core = running(2);
    assert!(
        say(&mut core, 0, reports(1, vec![report(0), report(1), report(2)])).is_empty_but_applied()
    );
    let effects = say(&mut core, 0, reports(1, vec![report(3)]));
    assert_eq!(planned(&effects, 0), (8..16).collect::<Vec<_>>());
    assert_eq!(planned(&effects, 1), (8..16).collect::<Vec<_>>());
    assert_eq!(planned(&say(&mut core, 1, heartbeat(1, 12)), 0), (16..20).collect::<Vec<_>>());
    assert!(planned(&say(&mut core, 1, heartbeat(1, 19)), 0).is_empty(), "all is planned");
}

#[test]
fn progress_follows_rank_zero() {
    let mut core = running(2);
    let lead = StepReport { probe_accuracy: Some(0.5), knn_accuracy: Some(0.6), ..report(0) };
    let effects = say(&mut core, 0, reports(1, vec![lead]));
    let Some(Effect::Applied(line)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!((line.step, line.generation), (Step(0), Generation(1)));
    assert!((line.images_per_second - 128.0).abs() < 1e-9, "64 images in half a second");

    let other = StepReport { replaced_samples: vec![1, 2], ..report(0) };
    assert!(say(&mut core, 1, reports(1, vec![other])).is_empty());
    let skipped = StepReport { applied: false, loss: f64::NAN, ..report(1) };
    say(&mut core, 0, reports(1, vec![skipped]));
    let status = core.status();
    assert_eq!((status.step, status.skipped_steps, status.replaced_samples), (Step(1), 1, 2));
    assert_eq!((status.loss, status.probe_accuracy), (Some(3.0), Some(0.5)));
    assert_eq!(status.knn_accuracy, Some(0.6));
    assert!((status.data_wait_ratio - 0.1).abs() < 1e-9);
    assert!((status.eta_seconds.unwrap() - 9.5).abs() < 1e-9, "19 steps of half a second");
    assert!((status.data_epoch - 2.0 / 15.0).abs() < 1e-9);
}

#[test]
fn a_run_fails_after_so_many_skipped_steps_in_a_row_and_says_which() {
    let mut core = running(2);
    let skipped = |step, cursor| StepReport {
        cursor: Cursor(cursor),
        applied: false,
        loss: f64::NAN,
        ..report(step)
    };
    let before = (0..9).map(|cursor| skipped(0, cursor)).collect();
    say(&mut core, 0, reports(1, before));
    say(&mut core, 0, reports(1, vec![StepReport { cursor: Cursor(9), ..report(0) }]));
    let after = (10..19).map(|cursor| skipped(1, cursor)).collect();
    assert!(say(&mut core, 0, reports(1, after)).is_empty(), "an applied step begins a new row");
    assert!(say(&mut core, 1, reports(1, vec![skipped(1, 19)])).is_empty(), "rank 0 counts");

    let effects = say(&mut core, 0, reports(1, vec![skipped(1, 19)]));
    for session in [0, 1] {
        let [CoordinatorMessage::Abort(abort), CoordinatorMessage::Dismiss(dismiss)] =
            to(&effects, session)[..]
        else {
            panic!("{effects:?}")
        };
        assert!(abort.culprits.is_empty(), "it is nobody's fault");
        assert_eq!(dismiss.exit, Exit::DoNotRestart);
    }
    let status = core.status();
    assert_eq!((status.phase, status.skipped_steps), (Phase::Failed, 19));
    let words = "10 steps in a row were not finite: step 1, tried with global batches 10 to 19";
    assert!(status.summary.contains(words), "{}", status.summary);
}

#[test]
fn a_rank_with_another_digest_dumps_its_state_and_the_run_goes_on_from_the_majority() {
    let mut core = running(3);
    let with = |digest| StepReport { digest: Some(Digest(digest)), ..report(0) };
    say(&mut core, 0, reports(1, vec![with(5)]));
    say(&mut core, 1, reports(1, vec![with(6)]));
    let effects = say(&mut core, 2, reports(1, vec![with(5)]));
    let [CoordinatorMessage::Dump(dump), CoordinatorMessage::Abort(_)] = to(&effects, 1)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(dump.generation, Generation(1));
    assert!(dump.reason.contains("after step 0: rank 1 differs"), "{}", dump.reason);
    assert!(refusal(&effects, 1).is_some());
    let [CoordinatorMessage::Abort(abort)] = to(&effects, 0)[..] else { panic!("{effects:?}") };
    assert_eq!(abort.culprits, [Rank(1)]);

    let again = refusal(&connect(&mut core, 8, hello_at("w1", 1)), 8).unwrap();
    assert!(again.contains("worker w1 held another state than the other ranks"), "{again}");
    connect(&mut core, 9, hello_at("replacement", 1));
    say(&mut core, 9, enlist(None));
    say(&mut core, 0, enlist(Some(state(1))));
    let effects = say(&mut core, 2, enlist(Some(state(1))));
    assert_eq!(world_of(&effects, 9).unwrap().start.step, Step(1));
}

#[test]
fn a_run_whose_ranks_differ_without_a_majority_fails() {
    let mut core = running(2);
    let with = |digest| StepReport { digest: Some(Digest(digest)), ..report(0) };
    say(&mut core, 0, reports(1, vec![with(5)]));
    let effects = say(&mut core, 1, reports(1, vec![with(6)]));
    let [CoordinatorMessage::Abort(abort), CoordinatorMessage::Dismiss(dismiss)] =
        to(&effects, 0)[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(abort.culprits, [Rank(0), Rank(1)]);
    assert!(abort.reason.contains("none is that of a majority"), "{}", abort.reason);
    assert_eq!(dismiss.exit, Exit::DoNotRestart);
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::DoNotRestart)));
    assert_eq!(core.status().phase, Phase::Failed);
}

#[test]
fn equal_digests_change_nothing() {
    let mut core = running(2);
    let lead = StepReport { digest: Some(Digest(5)), ..report(0) };
    say(&mut core, 0, reports(1, vec![lead.clone()]));
    assert!(say(&mut core, 1, reports(1, vec![lead])).is_empty());
    assert_eq!(core.status().phase, Phase::Running);
}

#[test]
fn the_run_is_complete_when_all_ranks_say_so() {
    let mut core = running(2);
    assert!(say(&mut core, 0, ended(1, WorldEnd::Complete)).is_empty());
    assert_eq!(core.explain(), "generation 1 is ending; waiting for rank 1");
    let effects = say(&mut core, 1, ended(1, WorldEnd::Complete));
    for session in [0, 1] {
        let [CoordinatorMessage::Dismiss(dismiss)] = to(&effects, session)[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(dismiss.exit, Exit::Done);
    }
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
    assert_eq!(core.status().phase, Phase::Complete);
    lose(&mut core, 0);
    let effects = connect(&mut core, 9, hello("straggler"));
    let messages = to(&effects, 9);
    assert!(matches!(
        messages[..],
        [CoordinatorMessage::Welcome(_), CoordinatorMessage::Dismiss(_)]
    ));
}

#[test]
fn a_run_whose_last_state_is_saved_is_complete_at_once() {
    let memory = [Record::Checkpoint(Step(TOTAL_STEPS))].into_iter().collect();
    let mut core = core_with(config(1), memory, false);
    connect(&mut core, 1, hello("a"));
    let effects = say(&mut core, 1, enlist(Some(state(TOTAL_STEPS))));
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
}

#[test]
fn a_run_whose_last_state_is_not_saved_is_not_complete_until_another_rank_zero_has_done_so() {
    let mut core = running(2);
    say(&mut core, 1, ended(1, WorldEnd::Complete));
    say(&mut core, 1, enlist_after(1, Some(state(TOTAL_STEPS))));
    lose(&mut core, 0); // while it tried to write the checkpoint
    connect(&mut core, 2, hello("replacement"));
    let effects = say(&mut core, 2, enlist(None));
    let world = world_of(&effects, 2).unwrap();
    assert_eq!((world.generation, world.start), (Generation(2), state(TOTAL_STEPS)));
    assert!(planned(&effects, 2).is_empty(), "no step is left");
    say(&mut core, 1, ended(2, WorldEnd::Complete));
    let effects = say(&mut core, 2, ended(2, WorldEnd::Complete));
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
}

#[test]
fn an_operators_stop_ends_the_world_at_a_step_edge_and_then_the_run() {
    let mut core = running(2);
    let effects = core.step(secs(1), Event::StopRequested);
    assert!(matches!(to(&effects, 1)[..], [CoordinatorMessage::Stop(_)]));
    assert_eq!(core.status().phase, Phase::Stopping);
    assert!(core.explain().ends_with("waiting for rank 0, 1"), "{}", core.explain());
    say(&mut core, 0, ended(1, WorldEnd::Stopped));
    let effects = say(&mut core, 1, ended(1, WorldEnd::Stopped));
    assert!(matches!(to(&effects, 0)[..], [CoordinatorMessage::Dismiss(_)]));
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
}

#[test]
fn a_second_stop_does_not_wait() {
    let mut core = running(2);
    core.step(secs(1), Event::StopRequested);
    let effects = core.step(secs(1), Event::StopRequested);
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
}

#[test]
fn a_stop_without_a_world_ends_at_once() {
    let mut core = core(2);
    connect(&mut core, 1, hello("a"));
    let effects = core.step(secs(1), Event::StopRequested);
    assert!(matches!(to(&effects, 1)[..], [CoordinatorMessage::Dismiss(_)]));
    assert_eq!(effects.last(), Some(&Effect::Finished(Exit::Done)));
    assert!(core.step(secs(2), Event::StopRequested).is_empty());
}

#[test]
fn a_worker_that_leaves_at_a_step_edge_makes_room_for_another() {
    let mut core = running(2);
    say(&mut core, 1, ended(1, WorldEnd::Stopped));
    say(&mut core, 1, WorkerMessage::Goodbye(Goodbye { reason: "SIGTERM".into() }));
    assert_eq!(core.status().phase, Phase::Running, "it had left its world");
    say(&mut core, 0, ended(1, WorldEnd::Stopped));
    assert_eq!(core.status().phase, Phase::Forming);
    say(&mut core, 0, enlist(Some(state(5))));
    connect(&mut core, 2, hello("replacement"));
    let effects = say(&mut core, 2, enlist(None));
    assert_eq!(world_of(&effects, 2).unwrap().start.step, Step(5));
}

#[test]
fn three_worlds_in_a_row_without_a_step_end_the_run() {
    let mut core = running(2);
    for generation in 1..=3 {
        assert_eq!(core.status().phase, Phase::Running, "generation {generation}");
        say(&mut core, 0, ended(generation, WorldEnd::Failed));
        if generation < 3 {
            say(&mut core, 0, enlist(None));
            say(&mut core, 1, enlist(None));
        }
    }
    assert_eq!(core.status().phase, Phase::Failed);
    assert!(
        core.explain().contains("3 worlds in a row ended without a step"),
        "{}",
        core.explain()
    );
}

#[test]
fn worlds_that_only_save_the_last_state_may_fail_as_often_as_they_like() {
    let mut core = running(2);
    lose(&mut core, 0);
    say(&mut core, 1, enlist_after(1, Some(state(TOTAL_STEPS))));
    for session in 2..8 {
        let host = format!("node-{session}"); // so that none of them has to cool down
        connect(&mut core, session, Hello { host, ..hello(&format!("w{session}")) });
        let effects = say(&mut core, session, enlist(None));
        let generation = world_of(&effects, session).unwrap().generation.0;
        lose(&mut core, session);
        say(&mut core, 1, enlist_after(generation, Some(state(TOTAL_STEPS))));
    }
    assert_eq!(core.status().phase, Phase::Forming);
}

#[test]
fn a_step_between_failures_starts_the_count_anew() {
    let mut core = running(2);
    for generation in 1..=5 {
        if generation == 3 {
            say(&mut core, 0, reports(generation, vec![report(0)]));
        }
        say(&mut core, 0, ended(generation, WorldEnd::Failed));
        let held = (generation >= 3).then(|| state(1));
        say(&mut core, 0, enlist(held));
        say(&mut core, 1, enlist(held));
    }
    assert_eq!(core.status().phase, Phase::Running);
}

#[test]
fn reports_of_an_older_world_count_for_nothing() {
    let mut core = running(2);
    say(&mut core, 0, ended(1, WorldEnd::Failed));
    say(&mut core, 0, enlist(None));
    say(&mut core, 1, enlist(None));
    assert!(say(&mut core, 0, reports(1, vec![report(4)])).is_empty());
    assert_eq!(core.status().step, Step(0));
}

#[test]
fn a_worker_that_outlived_the_coordinator_is_told_once_that_its_world_is_over() {
    let mut core = core(1);
    connect(&mut core, 1, hello("a"));
    let effects = say(&mut core, 1, heartbeat(6, 40));
    let [CoordinatorMessage::Abort(abort)] = to(&effects, 1)[..] else { panic!("{effects:?}") };
    assert_eq!(abort.reason, "generation 6 is over; enlist again");
    assert!(say(&mut core, 1, heartbeat(6, 40)).is_empty());
}

#[test]
fn a_report_of_a_step_that_was_never_planned_ends_the_session() {
    let mut core = running(2);
    let effects = say(&mut core, 1, reports(1, vec![report(u64::MAX)]));
    assert!(refusal(&effects, 1).unwrap().contains("which was not planned"));
    assert!(matches!(to(&effects, 0)[..], [CoordinatorMessage::Abort(_)]));
}

#[test]
fn enlisting_inside_a_world_ends_the_session_unless_it_was_said_before_that_world_was_heard_of() {
    let mut core = running(2);
    assert!(say(&mut core, 1, enlist_after(0, None)).is_empty());
    let effects = say(&mut core, 1, enlist_after(1, None));
    assert_eq!(refusal(&effects, 1).unwrap(), "this worker enlisted before it ended its world");
}

/// Reports of rank 0 always yield history; what matters here is that nobody is told anything.
trait Quiet {
    fn is_empty_but_applied(&self) -> bool;
}

impl Quiet for Vec<Effect> {
    fn is_empty_but_applied(&self) -> bool {
        self.iter().all(|effect| matches!(effect, Effect::Applied(_)))
    }
}
