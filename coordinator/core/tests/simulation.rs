//! Many random runs of the machine against what it promises, in simulated time.
//!
//! More of them: `SIM_SEEDS=100000 cargo test -p lockstep-core --test simulation`.
//! Replay one failure: the same with `SIM_SEED=1234`.

mod sim;
mod support;

use std::time::Duration;

use lockstep_proto::Phase;
use lockstep_proto::ids::{Generation, Step};

use sim::{STEPS, Sim, Trouble};
use support::secs;

/// How long a run may take once nothing goes wrong any more: longest waits, and all steps.
const PATIENCE: Duration = Duration::from_mins(5);

#[test]
fn a_run_keeps_its_promises_whatever_fails_and_ends_once_the_faults_stop() {
    for_all_seeds(2000, |seed| {
        let mut sim = Sim::new(seed);
        sim.run_until(sim.faults.end + PATIENCE);
        let fine = match sim.over {
            Some(Phase::Complete) => true,
            Some(Phase::Stopping) => sim.stop_asked,
            Some(Phase::Failed) => sim.reason.contains("without a step"),
            Some(Phase::Forming | Phase::Running | Phase::Paused) | None => false,
        };
        assert!(fine, "{:?}: {}", sim.over, sim.explain());
    });
}

#[test]
fn a_coordinator_that_dies_again_and_again_costs_no_step_and_no_world() {
    for_all_seeds(500, |seed| {
        let mut sim = Sim::new(seed);
        sim.trouble = Trouble::Coordinator;
        (sim.config.run.min_world, sim.config.run.max_world) = (0, 0); // nobody joins later
        sim.config.control.readopt_ms = 30_000;
        (sim.config.control.last_call_ms, sim.config.control.cold_call_ms) = (2000, 2000);
        sim.faults = secs(5)..secs(30); // the world has formed by then
        sim.run_until(sim.faults.end + PATIENCE);
        assert_eq!(sim.over, Some(Phase::Complete), "{}", sim.explain());
        let broken = sim
            .law
            .worlds()
            .find(|world| world.generation > Generation(1) && world.start.step < Step(STEPS));
        assert_eq!(broken, None, "a world was broken before its last step");
        assert!(sim.batches.values().all(|times| *times == 1), "{:?}", sim.batches);
    });
}

fn for_all_seeds(enough: u64, check: impl Fn(u64) + Sync) {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    if let Some(seed) = number("SIM_SEED") {
        return check(seed);
    }
    let seeds = number("SIM_SEEDS").unwrap_or(enough);
    (0..seeds).for_each(check);
}
