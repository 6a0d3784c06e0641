//! A run that is killed and started again around a step that was skipped ends as one that was not killed.

use std::fs;

use lockstep_tests::{Process, Scene};
use serde_json::Value;

const STEPS: u64 = 240;
/// The global batch in which one rank has a pixel that is no number.
const POISONED: u64 = 100;

/// One start of a run: all its processes.
struct Start<'a> {
    scene: &'a Scene,
    coordinator: Process,
    address: String,
    workers: Vec<Process>,
}

impl<'a> Start<'a> {
    fn new(scene: &'a Scene, name: &str, checkpoints: &str, (world, dtype): (u32, &str)) -> Self {
        let set = [
            &format!("model.dtype={dtype}"),
            &format!("schedule.steps={STEPS}"),
            "data.lanes=16",
            "schedule.accumulate=2",
            "control.digest_every=1",
            "checkpoint.keep_last=1",
        ];
        let settings: Vec<&str> = set.into_iter().flat_map(|set| ["--set", set]).collect();
        let (coordinator, address) = scene.serve(name, world, &settings);
        let workers = (0..world).map(|number| {
            let failpoints = scene.path(&format!("failpoints-{number}"));
            let fixed = ["--data", "data", "--threads", "1"];
            let own = ["--coordinator", &address, "--checkpoints", checkpoints];
            let environment = [("LOCKSTEP_FAILPOINTS", failpoints.as_os_str())];
            let name = format!("{name}-{number}");
            scene.start_with(&name, "worker", &[fixed, own].concat(), &environment)
        });
        let workers = workers.collect();
        Self { scene, coordinator, address, workers }
    }

    /// Waits until the run's status is as wanted.
    fn wait_until(&mut self, wanted: impl Fn(&Value) -> bool) {
        let Self { scene, coordinator, address, .. } = self;
        coordinator.wait_until(|| {
            let ask = ["status", "--json", "--addr", address];
            let said = scene.coordinator("status", &ask).wait().said;
            let status: Value =
                serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
            wanted(&status["run"])
        });
    }

    /// All processes are gone at once (SIGKILL).
    fn kill(self) {
        let processes: Vec<Process> = self.workers.into_iter().chain([self.coordinator]).collect();
        for process in &processes {
            process.signal("KILL");
        }
        for process in processes {
            let ended = process.wait();
            assert_eq!(ended.code, None, "it ended before it was killed: {}", ended.said);
        }
    }

    /// Waits until all have ended well; returns what each worker said.
    fn end(self) -> Vec<String> {
        let well = |process: Process| {
            let ended = process.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.said);
            ended.said
        };
        let said = self.workers.into_iter().map(well).collect();
        well(self.coordinator);
        said
    }
}

/// The workers that skipped the step, all at the same place; and those who had been poisoned.
fn skipped_and_poisoned(said: &[String]) -> (usize, usize) {
    let skip = format!("step skipped: not finite step={POISONED} cursor={POISONED} samples=[");
    let with = |words: &str| said.iter().filter(|said| said.contains(words)).count();
    assert_eq!(with(&skip), with("step skipped"), "another step was skipped: {}", said.concat());
    (with(&skip), with("failpoint: a view is poisoned"))
}

/// The first start is killed before the batch that is no number, the second stopped behind it, the third completes.
fn resumes_exactly_around_a_skipped_step(world: u32, dtype: &str) {
    let scene = Scene::new();
    let of_last = scene.path(&format!("failpoints-{}", world - 1));
    fs::create_dir(&of_last).expect("a folder");
    fs::write(of_last.join("poison"), POISONED.to_string()).expect("a failpoint");
    let start = |name, checkpoints| Start::new(&scene, name, checkpoints, (world, dtype));
    let everybody = (world as usize, 1);

    let said = start("whole", "whole-ck").end();
    assert_eq!(skipped_and_poisoned(&said), everybody);
    let steps = scene.reported("whole");
    let applied = steps.iter().map(|step| step["cursor"].as_u64().expect("a number"));
    let wanted = (0..=STEPS).filter(|&cursor| cursor != POISONED);
    assert!(applied.eq(wanted), "only that batch is left out");

    let mut first = start("first", "ck");
    first.wait_until(|run| run["checkpoint_step"].is_u64());
    first.kill();
    let mut second = start("second", "ck");
    second.wait_until(|run| run["skipped_steps"] == 1);
    second.coordinator.terminate();
    let said = second.end();
    assert_eq!(skipped_and_poisoned(&said), everybody, "the first start was killed too late");
    assert!(said.iter().any(|said| said.contains("resuming")), "it began anew");
    let said = start("third", "ck").end();
    assert_eq!(skipped_and_poisoned(&said), (0, 0), "the second start was stopped too early");
    assert!(said.iter().any(|said| said.contains("resuming")), "it began anew");

    assert_eq!(scene.state("ck", STEPS), scene.state("whole-ck", STEPS));
    assert_eq!(scene.digest("ck", STEPS), scene.digest("whole-ck", STEPS));
}

#[test]
fn a_run_of_one_resumes_exactly_around_a_skipped_step() {
    resumes_exactly_around_a_skipped_step(1, "f32");
}

#[test]
fn a_run_of_one_in_sixteen_bits_resumes_exactly_around_a_skipped_step() {
    resumes_exactly_around_a_skipped_step(1, "bf16");
}

#[test]
fn a_run_of_two_resumes_exactly_around_a_step_that_one_rank_spoiled() {
    resumes_exactly_around_a_skipped_step(2, "f32");
}

#[test]
fn a_run_of_two_in_sixteen_bits_resumes_exactly_around_a_step_that_one_rank_spoiled() {
    resumes_exactly_around_a_skipped_step(2, "bf16");
}
