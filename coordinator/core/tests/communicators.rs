//! What carries the collectives of a world, and where its ranks meet.

mod support;

use lockstep_core::{Core, Effect};
use lockstep_proto::ids::{Generation, Rank, Step};
use lockstep_proto::limits::COMMUNICATOR_ID_BYTES;
use lockstep_proto::{
    Backend, CommunicatorId, CommunicatorIds, CoordinatorMessage, Hello, Membership, Occurrence,
    TrainingState, WorkerMessage, WorldEnd,
};

use support::{
    connect, core, ended, enlist_after, enlist_with, hello, hello_at, noted, refusal, running, say,
    state, to, world_of,
};

const NEW: Backend = Backend::Nccl { version: 22_907 };
const OLD: Backend = Backend::Nccl { version: 22_803 };

fn ids(generation: u64, seed: u8) -> CommunicatorIds {
    CommunicatorIds {
        generation: Generation(generation),
        statistics: CommunicatorId([seed; COMMUNICATOR_ID_BYTES]),
        gradients: CommunicatorId([seed + 1; COMMUNICATOR_ID_BYTES]),
    }
}

fn sent(ids: CommunicatorIds) -> WorkerMessage {
    WorkerMessage::CommunicatorIds(ids)
}

/// The ids that a session was handed.
fn handed(effects: &[Effect], session: u64) -> Vec<CommunicatorIds> {
    let mut handed = Vec::new();
    for message in to(effects, session) {
        if let CoordinatorMessage::CommunicatorIds(ids) = message {
            handed.push(ids.clone());
        }
    }
    handed
}

/// Workers that enlist one after the other, each in the slot of its session; what the last one brings about.
fn muster(core: &mut Core, workers: &[(Backend, Option<TrainingState>)]) -> Vec<Effect> {
    for slot in (0..).take(workers.len()) {
        connect(core, slot.into(), hello_at(&format!("w{slot}"), slot));
    }
    let enlisted = (0..).zip(workers);
    let effects = enlisted.map(|(id, (b, held))| say(core, id, enlist_with(*b, 0, *held)));
    effects.last().expect("some workers")
}

#[test]
fn the_ids_that_rank_0_makes_reach_every_rank() {
    let mut core = running(3);
    let effects = say(&mut core, 0, sent(ids(1, 7)));
    for session in 0..3 {
        assert_eq!(handed(&effects, session), [ids(1, 7)]);
    }
    assert_eq!(effects.len(), 3, "nothing of them is stored or noted: {effects:?}");
}

#[test]
fn the_same_ids_said_again_are_harmless_and_a_second_set_ends_the_session() {
    let mut core = running(2);
    say(&mut core, 0, sent(ids(1, 7)));
    assert_eq!(say(&mut core, 0, sent(ids(1, 7))), []);
    let effects = say(&mut core, 0, sent(ids(1, 9)));
    assert!(refusal(&effects, 0).unwrap().contains("second set of communicator ids"));
    assert!(handed(&effects, 1).is_empty());
}

#[test]
fn ids_of_another_rank_than_0_end_its_session() {
    let mut core = running(2);
    let effects = say(&mut core, 1, sent(ids(1, 7)));
    let refusal = refusal(&effects, 1).unwrap();
    assert!(refusal.contains("communicator ids as rank 1; rank 0 makes them"), "{refusal}");
    assert!(handed(&effects, 0).is_empty());
}

#[test]
fn ids_of_a_world_that_is_over_reach_nobody_and_the_next_world_has_its_own() {
    let mut core = running(2);
    say(&mut core, 0, sent(ids(1, 7)));
    for session in [0, 1] {
        say(&mut core, session, ended(1, WorldEnd::Failed));
    }
    assert_eq!(say(&mut core, 0, sent(ids(1, 7))), []);
    say(&mut core, 0, enlist_after(1, None));
    let effects = say(&mut core, 1, enlist_after(1, None));
    assert_eq!(world_of(&effects, 0).unwrap().generation, Generation(2));
    assert!(handed(&effects, 1).is_empty(), "those of the last world are gone");
    assert_eq!(say(&mut core, 0, sent(ids(1, 7))), [], "a stale set");
    let effects = say(&mut core, 0, sent(ids(2, 9)));
    assert_eq!(handed(&effects, 1), [ids(2, 9)]);
}

#[test]
fn a_rank_that_comes_back_on_a_new_stream_is_handed_the_ids_again() {
    let mut core = running(2);
    say(&mut core, 0, sent(ids(1, 7)));
    let member =
        Membership { generation: Generation(1), rank: Rank(1), step: Step(0), proven: None };
    let back = Hello { member: Some(member), ..hello("w1") };
    assert_eq!(handed(&connect(&mut core, 5, back), 5), [ids(1, 7)]);
}

#[test]
fn a_worker_with_another_nccl_is_refused_by_name_and_the_world_forms_without_it() {
    let mut core = core(3);
    let effects = muster(&mut core, &[(NEW, None), (OLD, None), (NEW, None)]);
    let why = refusal(&effects, 1).unwrap();
    let named = "slot 1 on node has NCCL 2.28.3, the others have NCCL 2.29.7 (slot 0 on node)";
    assert!(why.starts_with(named), "{why}");
    assert_eq!((refusal(&effects, 0), refusal(&effects, 2)), (None, None));
    assert!(world_of(&effects, 0).is_none(), "two of three wait for a third");
    let noted = noted(&effects);
    let left = noted.iter().find(|what| matches!(what, Occurrence::WorkerLeft { .. }));
    assert!(left.is_some_and(|what| what.to_string().contains(named)), "{noted:?}");

    connect(&mut core, 3, hello_at("w3", 1));
    let effects = say(&mut core, 3, enlist_with(NEW, 0, None));
    assert_eq!(world_of(&effects, 3).unwrap().members.len(), 3);
}

#[test]
fn of_two_that_do_not_match_the_one_with_the_newer_state_stays() {
    let effects = muster(&mut core(2), &[(OLD, None), (NEW, Some(state(4)))]);
    assert!(refusal(&effects, 0).is_some() && refusal(&effects, 1).is_none());
    let effects = muster(&mut core(2), &[(Backend::Host, None), (NEW, None)]);
    let why = refusal(&effects, 1).unwrap();
    assert!(why.contains("has NCCL 2.29.7, the others have host collectives"), "{why}");
}
