//! Faults over whole runs: nothing lost, nothing doubled, the same states as without them.

use lockstep_tests::chaos::{Fault, Ordeal, Restarts};

#[test]
fn every_kind_of_fault_costs_no_sample_and_changes_no_state() {
    let report = Ordeal::start(1).run(Fault::ALL.len(), |number, row| println!("{number} {row}"));
    println!("{report}");
    assert_eq!((report.history.lost, report.history.doubled), (0, 0));
    assert_eq!(report.differing_steps(), 0, "states that a run without faults does not have");
}

/// The states compared with are those of ranks that talk over TCP.
#[test]
fn every_kind_of_fault_costs_no_sample_and_changes_no_state_with_nccl_between_the_ranks() {
    let ordeal = Ordeal::start_with_nccl(1);
    let kinds = ordeal.kinds();
    let report = ordeal.run(kinds, |number, row| println!("{number} {row}"));
    println!("{report}");
    assert_eq!((report.history.lost, report.history.doubled), (0, 0));
    assert_eq!(report.differing_steps(), 0, "states that a run without faults does not have");
}

#[test]
fn a_coordinator_that_is_killed_again_and_again_costs_nothing() {
    let restarts = Restarts::endure(3);
    println!("{restarts}");
    assert_eq!(restarts.generation, 1, "the world went on");
    let history = restarts.history;
    assert_eq!((history.redone, history.lost, history.doubled), (0, 0, 0));
}
