//! How soon a world forms once its last worker is here, and what many workers cost the coordinator.
//!
//! The figures: `cargo test --release -p coordinator --test rendezvous -- --ignored --nocapture --test-threads 1`.
#![expect(clippy::print_stderr, clippy::disallowed_methods, reason = "these tests measure")]

mod support;

use std::time::{Duration, Instant};

use lockstep_proto::ids::{Generation, Step};
use lockstep_proto::{Activity, Heartbeat, StatusClient, WorkerMessage};
use support::process::{Process, usage_of};
use support::*;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How long workers heartbeat where their cost is measured.
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_world_of_32_forms_when_the_last_worker_arrives() {
    let meeting = Meeting::of(32).await;
    assert!(meeting.took < PATIENCE, "{:?}", meeting.took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: wants a release build and a quiet machine"]
async fn a_world_of_32_forms_within_100_ms() {
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(Meeting::of(32).await.took);
    }
    took.sort();
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: 1,000 sessions for a minute"]
async fn a_world_of_1000_forms_within_a_second_and_costs_little() {
    let Meeting { process, workers, took, .. } = Meeting::of(1000).await;
    let (before, _) = process.usage();
    let mut beating = JoinSet::new();
    for worker in workers {
        beating.spawn(beat(worker, MINUTE));
    }
    beating.join_all().await;
    let (after, memory) = process.usage();
    let share = 100.0 * (after - before) / MINUTE.as_secs_f64();
    eprintln!("1,000 workers, heartbeats for a minute: {share:.1} % of a core, {memory:.0} MiB");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(share < 50.0 && memory < 512.0, "{share} %, {memory} MiB");
}

/// Workers in their first world.
struct Meeting {
    process: Process,
    workers: Vec<Worker>,
    /// From the arrival of the last worker to the moment at which all know their world and its first plan.
    took: Duration,
    _folder: TempDir,
}

impl Meeting {
    async fn of(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let args = [
            format!("run.world={count}"),
            "data.lanes=1024".into(),
            "schedule.global_batch=1024".into(),
        ];
        let args: Vec<_> = args.iter().flat_map(|arg| ["--set", arg.as_str()]).collect();
        let process = Process::start(folder.path(), 0, &args).await;
        let mut workers = JoinSet::new();
        for number in 1..count {
            let destination = process.destination.clone();
            workers
                .spawn(async move { Worker::ready(&destination, number).await.in_world().await });
        }
        wait_for(&process, count - 1).await;
        let idle = [process.usage().0, usage_of("self").0];
        let arrival = Instant::now();
        let last = Worker::ready(&process.destination, 0).await.in_world().await;
        let mut workers = workers.join_all().await;
        workers.push(last);
        let took = workers.iter().map(|(_, at)| *at - arrival).max().expect("there are workers");
        let workers = workers.into_iter().map(|(worker, _)| worker).collect();
        let [coordinator, all_workers] =
            [process.usage().0 - idle[0], usage_of("self").0 - idle[1]];
        eprintln!(
            "{count} workers: {took:?} after the last arrived; processor time: coordinator {coordinator:.2} s, \
             all workers {all_workers:.2} s"
        );
        Self { process, workers, took, _folder: folder }
    }
}

impl Worker {
    async fn ready(destination: &lockstep_proto::Destination, number: usize) -> Self {
        let worker = Self::join_at(destination, &format!("w{number}")).await;
        let worker = worker.expect("it is reachable");
        worker.enlist().await;
        worker
    }

    /// With the time at which it knew its world.
    async fn in_world(mut self) -> (Self, Instant) {
        let world = tokio::time::timeout(Duration::from_mins(1), self.world()).await;
        assert_eq!(world.expect("a world").generation, Generation(1));
        (self, Instant::now())
    }
}

/// Waits until the coordinator has seen that many workers.
async fn wait_for(process: &Process, count: usize) {
    let mut client = StatusClient::connect(&process.destination).await.expect("it is reachable");
    let mut changes = client.watch_run(Duration::from_millis(50)).await.expect("it answers");
    while let Some(run) = changes.next().await {
        if run.expect("it goes on").connected_workers as usize == count {
            return;
        }
    }
    panic!("the coordinator ended before {count} workers were there");
}

/// What a worker sends while it trains.
async fn beat(worker: Worker, how_long: Duration) {
    let mut beats = tokio::time::interval(Duration::from_millis(500));
    let until = Instant::now() + how_long;
    let mut sequence = 0;
    while Instant::now() < until {
        beats.tick().await;
        sequence += 1;
        let beat = Heartbeat {
            generation: Generation(1),
            step: Step(0),
            collective_sequence: sequence,
            activity: Some(Activity::Stepping),
        };
        worker.say(WorkerMessage::Heartbeat(beat)).await;
    }
}
