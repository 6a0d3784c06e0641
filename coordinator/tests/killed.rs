//! A coordinator that is killed at any instant comes back with the same run.
//!
//! Real processes, `kill -9`, workers that speak the protocol without training. Replay one failure:
//! `KILL_SEED=7 cargo test -p coordinator --test killed`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep_proto::ids::{Generation, Step};
use lockstep_proto::{
    CoordinatorMessage, Destination, Hello, Membership, Occurrence, RunEvent, Secret, StatusClient,
    World, WorldEnd,
};
use support::process::{Process, log_of};
use support::*;
use tokio::task::JoinSet;

const LIVES: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_generation_is_announced_twice_however_often_the_coordinator_is_killed_while_worlds_form()
 {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice::new();
    let seen = Seen::default();
    let process = start(folder.path(), 0).await;
    let mut workers = JoinSet::new();
    for uid in ["w0", "w1"] {
        workers.spawn(restless(process.destination.clone(), uid, seen.clone()));
    }
    let process = relive(process, folder.path(), &mut dice, 150).await;
    let newest = seen.newest();
    assert!(newest.0 >= u64::from(LIVES) / 2, "{newest:?} in {LIVES} lives, seed {}", dice.seed);
    seen.at_least(Generation(newest.0 + 1)).await;
    workers.shutdown().await;

    let mut client = StatusClient::connect(&process.destination).await.unwrap();
    assert_eq!(client.get_run().await.unwrap().run_id, "tiny");
    let events = client.list_events(0).await.unwrap();
    check(&events, dice.seed);
    assert!(!log_of(folder.path()).contains("panicked"), "{}", log_of(folder.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_world_outlives_its_coordinator_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice::new();
    let seen = Seen::default();
    let process = start(folder.path(), 0).await;
    let mut workers = JoinSet::new();
    for uid in ["w0", "w1"] {
        workers.spawn(steady(process.destination.clone(), uid, seen.clone()));
    }
    seen.at_least(Generation(1)).await;
    let process = relive(process, folder.path(), &mut dice, 300).await;
    let mut client = StatusClient::connect(&process.destination).await.unwrap();
    let before = client.get_run().await.unwrap().step;
    let mut changes = client.watch_run(Duration::from_millis(50)).await.unwrap();
    let goes_on = async { while changes.next().await.unwrap().unwrap().step.0 < before.0 + 20 {} };
    tokio::time::timeout(PATIENCE, goes_on).await.expect("training goes on");
    // Before the workers go, which would break the world.
    let events = client.list_events(0).await.unwrap();
    workers.shutdown().await;

    assert_eq!(seen.newest(), Generation(1), "seed {}: {}", dice.seed, log_of(folder.path()));
    check(&events, dice.seed);
    let count =
        |wanted: fn(&Occurrence) -> bool| events.iter().filter(|event| wanted(&event.what)).count();
    let adopted = count(|what| matches!(what, Occurrence::WorldAdopted { .. }));
    assert!(adopted >= LIVES as usize / 2, "{adopted} of {LIVES}, seed {}", dice.seed);
    assert_eq!(count(|what| matches!(what, Occurrence::WorldAborted { .. })), 0);
    // One that is killed as soon as it listens may not have stored that it started.
    let started = count(|what| matches!(what, Occurrence::CoordinatorStarted { .. }));
    assert!((adopted..=LIVES as usize + 1).contains(&started), "{started}");
}

/// Numbers grow, and no world forms under a number that is not larger than those before.
fn check(events: &[RunEvent], seed: u64) {
    assert!(events.is_sorted_by(|a, b| a.sequence < b.sequence), "seed {seed}: {events:?}");
    let formed = events.iter().filter_map(|event| {
        let Occurrence::WorldFormed { generation, .. } = event.what else { return None };
        Some(generation)
    });
    let formed: Vec<_> = formed.collect();
    assert!(formed.is_sorted_by(|a, b| a < b), "seed {seed}: {formed:?}");
}

/// Kills the coordinator and starts it again on its port [`LIVES`] times, after less than `most` milliseconds each.
async fn relive(mut process: Process, folder: &Path, dice: &mut Dice, most: u64) -> Process {
    let port = process.port();
    for _ in 0..LIVES {
        tokio::time::sleep(Duration::from_millis(dice.below(most))).await;
        process.kill();
        process = start(folder, port).await;
    }
    process
}

async fn start(folder: &Path, port: u16) -> Process {
    Process::start(folder, port, &["--set", "run.world=2", "--set", "schedule.steps=1000000"]).await
}

/// Every world that a worker heard of.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<Generation, Secret>>>);

impl Seen {
    /// Two announcements of one generation are the same, or it was announced twice.
    fn add(&self, world: &World) {
        let mut seen = self.0.lock().unwrap();
        let before = seen.entry(world.generation).or_insert_with(|| world.secret.clone());
        assert_eq!(before.0, world.secret.0, "{:?} was announced twice", world.generation);
    }

    fn newest(&self) -> Generation {
        self.0.lock().unwrap().keys().next_back().copied().unwrap_or_default()
    }

    async fn at_least(&self, generation: Generation) {
        let reached = async {
            while self.newest() < generation {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("worlds go on forming");
    }
}

/// A worker that leaves every world after its first step, and comes back whenever its stream breaks.
async fn restless(destination: Destination, uid: &'static str, seen: Seen) {
    loop {
        if let Ok(worker) = Worker::join_at(&destination, uid).await {
            train_a_step_at_a_time(worker, &seen).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn train_a_step_at_a_time(mut worker: Worker, seen: &Seen) {
    let mut words = vec![enlist(Generation(0))];
    loop {
        for word in words.drain(..) {
            // Where the stream is broken, so are the messages.
            drop(worker.sender.send(word).await);
        }
        match worker.messages.next().await {
            Some(Ok(CoordinatorMessage::World(world))) => {
                seen.add(&world);
                let generation = world.generation;
                let stopped = ended(generation, WorldEnd::Stopped);
                words = vec![report(generation, world.start.step.0), stopped, enlist(generation)];
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// A worker that takes a step now and then, and comes back to its world whenever its stream breaks.
async fn steady(destination: Destination, uid: &'static str, seen: Seen) {
    let mut member = None;
    loop {
        let hello = Hello { member, ..hello(uid) };
        if let Ok((worker, welcome)) = Worker::connect(&destination, hello).await {
            assert_eq!(welcome.member_of, member.map(|member| member.generation), "{uid}");
            train(worker, &mut member, &seen).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn train(mut worker: Worker, member: &mut Option<Membership>, seen: &Seen) {
    if member.is_none() {
        drop(worker.sender.send(enlist(Generation(0))).await);
    }
    let mut planned = Step(0);
    let mut steps = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            message = worker.messages.next() => match message {
                Some(Ok(CoordinatorMessage::World(world))) => {
                    seen.add(&world);
                    let (generation, rank, step) = (world.generation, world.rank, world.start.step);
                    *member = Some(Membership { generation, rank, step, proven: None });
                }
                Some(Ok(CoordinatorMessage::Plan(plan))) => {
                    planned = planned.max(plan.steps.last().unwrap().step);
                }
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(_)) | None => return,
            },
            _ = steps.tick() => {
                let Some(member) = member.as_mut().filter(|member| member.step <= planned) else { continue };
                if worker.sender.send(report(member.generation, member.step.0)).await.is_err() {
                    return;
                }
                member.step.0 += 1;
            }
        }
    }
}

/// Chooses the instants.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("KILL_SEED").map_or(1, |seed| seed.parse().unwrap());
        Self { seed, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }
}
