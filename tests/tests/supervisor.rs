//! `worker --procs-per-node`: processes that are looked after.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use lockstep_tests::{Process, Scene};
use serde_json::{Value, json};

const AGAIN: &str = "worker ended; starting it again";

/// A supervisor of workers of the coordinator at `address`.
fn supervise(scene: &Scene, processes: u32, address: &str) -> Process {
    let processes = processes.to_string();
    let arguments = [
        ["--procs-per-node", &processes],
        ["--coordinator", address],
        ["--data", "data"],
        ["--checkpoints", "checkpoints"],
        ["--threads", "1"],
        ["--log-format", "json"],
    ];
    let environment = [("OMP_NUM_THREADS", OsStr::new("1"))];
    scene.start_with("supervisor", "worker", arguments.as_flattened(), &environment)
}

/// The lines of the supervisor's log, those of its workers included, that say `message`.
fn said(scene: &Scene, message: &str) -> Vec<Value> {
    let log = fs::read_to_string(scene.path("supervisor.log")).unwrap_or_default();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// The process that was started last in a slot.
fn process(scene: &Scene, slot: u64) -> u64 {
    let started = said(scene, "worker started");
    let newest = started.iter().rfind(|line| line["slot"] == slot);
    newest.and_then(|line| line["pid"].as_u64()).expect("it was started")
}

/// Of a process that the supervisor has started.
fn signal(process: u64, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "SIG{name} to {process}");
}

/// Whether a process is no more, or waits for nothing but its parent.
fn is_gone(process: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// What happened, as the coordinator lists it.
fn events(scene: &Scene, address: &str, what: &str) -> Vec<Value> {
    let listed = scene.coordinator("events", &["events", "--json", "--addr", address]).wait();
    assert_eq!(listed.code, Some(0), "{}", listed.said);
    let events = listed.said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["what"] == what).collect()
}

#[test]
fn a_killed_worker_comes_back_to_its_world_and_sigterm_has_all_leave_at_a_step_edge() {
    let scene = Scene::new();
    let settings = ["--set", "schedule.steps=1000000", "--set", "checkpoint.every_steps=0"];
    let (coordinator, address) = scene.serve("coordinator", 4, &settings);
    let worlds = || events(&scene, &address, "world_formed");
    let mut supervisor = supervise(&scene, 4, &address);
    supervisor.wait_until(|| said(&scene, "world formed").len() == 4);

    let victim = process(&scene, 2);
    signal(victim, "KILL");
    supervisor.wait_until(|| said(&scene, "world formed").len() == 8);
    let ends = said(&scene, AGAIN);
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!((&ends[0]["slot"], &ends[0]["end"]), (&json!(2), &json!("signal 9")));
    assert_ne!(process(&scene, 2), victim);
    let slots: Vec<_> = worlds().iter().map(|world| world["slots"].clone()).collect();
    assert_eq!(slots, vec![json!([0, 1, 2, 3]); 2]);

    supervisor.terminate();
    let ended = supervisor.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let ends = said(&scene, "worker ended");
    let mut slots: Vec<_> = ends.iter().filter_map(|end| end["slot"].as_u64()).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3]);
    assert!(ends.iter().all(|end| end["end"] == "exit code 0"), "{ends:?}");
    assert_eq!(said(&scene, AGAIN).len(), 1, "nothing is started again");
    assert_eq!(events(&scene, &address, "world_stopped").len(), 1, "at one step edge");
    assert_eq!(events(&scene, &address, "world_aborted").len(), 1, "that of the kill");
    let left = events(&scene, &address, "worker_left");
    let goodbye = |event: &&Value| event["reason"] == "it said goodbye: asked to leave";
    assert_eq!(left.iter().filter(goodbye).count(), 4, "{left:?}");
    assert_eq!((left.len(), worlds().len()), (5, 2));

    coordinator.terminate();
    assert_eq!(coordinator.wait().code, Some(0));
}

#[test]
fn workers_that_must_not_be_started_again_end_their_supervisor_with_their_code() {
    let scene = Scene::empty();
    let ended = supervise(&scene, 2, "http://127.0.0.1:9").wait(); // there is no data set
    assert_eq!(ended.code, Some(42), "{}", ended.said);
    for slot in [0, 1] {
        assert!(ended.said.contains(&format!("slot {slot}: error: ")), "{}", ended.said);
    }
    let ends = said(&scene, "worker ended, and is not started again");
    assert!(ends.iter().all(|end| end["end"] == "exit code 42"), "{ends:?}");
    assert_eq!((ends.len(), said(&scene, AGAIN).len()), (2, 0));
}

#[test]
fn a_worker_that_does_not_leave_is_killed_when_sigterm_comes_twice() {
    let scene = Scene::new();
    let mut supervisor = supervise(&scene, 2, "http://127.0.0.1:9"); // nobody listens there
    supervisor.wait_until(|| said(&scene, "no coordinator yet").len() >= 4);
    signal(process(&scene, 1), "STOP");
    supervisor.terminate();
    supervisor.wait_until(|| said(&scene, "worker ended").len() == 1);
    assert_eq!(said(&scene, "worker ended")[0]["slot"], 0);
    supervisor.terminate();
    let ended = supervisor.wait();
    assert_eq!(ended.code, Some(75), "{}", ended.said);
    let ends = said(&scene, "worker ended, and is not started again");
    assert_eq!((&ends[0]["slot"], &ends[0]["end"]), (&json!(1), &json!("signal 9")));
}

#[test]
fn workers_die_with_a_supervisor_that_is_killed() {
    let scene = Scene::new();
    let (mut coordinator, address) = scene.serve("coordinator", 4, &[]);
    let supervisor = supervise(&scene, 3, &address); // and a fourth is waited for
    let joined = || events(&scene, &address, "worker_joined").len();
    coordinator.wait_until(|| joined() == 3);
    let workers = [0, 1, 2].map(|slot| process(&scene, slot));
    assert!(!workers.map(is_gone).contains(&true));
    supervisor.signal("KILL");
    coordinator.wait_until(|| !workers.map(is_gone).contains(&false));
    assert_eq!(supervisor.wait().code, None);
}
