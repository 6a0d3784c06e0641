//! Whole runs on a GPU, with NCCL between the ranks: `make test-gpu`.
//!
//! NCCL refuses two ranks on one GPU, since each would wait for the other's kernel, unless it takes them for ranks on two
//! hosts: `NCCL_HOSTID` says so. Their messages then go over sockets, as between hosts. The GPU gives each process its turn
//! (without MPS), so a kernel that waits for another process's only costs time.

use std::ffi::OsStr;
use std::path::Path;

use lockstep_tests::{Process, Scene};

/// Settings of every run here: f64, so that nothing but the order of additions may differ; and patience for the first step,
/// when cuDNN is read from the disk by one process and not yet by another.
const SET: [&str; 6] = [
    "--set",
    "model.dtype=f64",
    "--set",
    "control.digest_every=1",
    "--set",
    "collective.timeout_s=60",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SET.iter().copied().chain(more.iter().copied()).collect()
}

fn start(scene: &Scene, (run, rank): (&str, u32), address: &str, device: &str) -> Process {
    let (name, checkpoints) = (format!("{run}-{rank}"), format!("{run}-ck"));
    let mut arguments = vec!["--coordinator", address, "--data", "data", "--threads", "1"];
    arguments.extend(["--checkpoints", &checkpoints, "--device", device]);
    let host = name.clone();
    let environment: [(&str, &OsStr); 6] = [
        // Not the fake of the other tests, but the one that libtorch brings.
        ("LOCKSTEP_NCCL_LIBRARY", "".as_ref()),
        ("LD_PRELOAD", "".as_ref()),
        ("NCCL_HOSTID", host.as_ref()),
        ("NCCL_NET", "Socket".as_ref()),
        ("NCCL_NVLS_ENABLE", "0".as_ref()),
        ("NCCL_LAUNCH_ORDER_IMPLICIT", "1".as_ref()),
    ];
    scene.start_with(&name, "worker", &arguments, &environment)
}

/// A whole run; every process ends with 0. Returns the loss per step, and what the workers said.
fn run(scene: &Scene, run: &str, world: u32, device: &str, backend: &str) -> (Vec<f64>, String) {
    let backend = format!("collective.backend={backend}");
    let (coordinator, address) = scene.serve(run, world, &with(&["--set", &backend]));
    let workers: Vec<Process> =
        (0..world).map(|rank| start(scene, (run, rank), &address, device)).collect();
    let mut said = String::new();
    for process in workers.into_iter().chain([coordinator]) {
        let ended = process.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        said.push_str(&ended.said);
    }
    (scene.losses(run), said)
}

fn assert_same_losses(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    for (step, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < 1e-8 * b.abs(), "step {step}: {a} against {b}");
    }
}

#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn a_run_on_one_gpu_alone_and_on_three_ranks_with_nccl_has_the_losses_of_the_cpu() {
    let scene = Scene::new();
    let (cpu, _) = run(&scene, "cpu", 1, "cpu", "host");
    for world in [1, 2, 3] {
        let (gpu, said) = run(&scene, &format!("nccl-{world}"), world, "cuda:0", "nccl");
        assert!(said.contains("NCCL found"), "world {world} did not use NCCL: {said}");
        assert_same_losses(&gpu, &cpu);
    }
}

#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn a_rank_that_is_killed_costs_the_others_neither_their_process_nor_a_sample() {
    let scene = Scene::new();
    let (cpu, _) = run(&scene, "cpu", 1, "cpu", "host");
    let more = ["--set", "collective.backend=nccl", "--set", "checkpoint.every_steps=5"];
    let (mut coordinator, address) = scene.serve("killed", 2, &with(&more));
    let survivor = start(&scene, ("killed", 0), &address, "cuda:0");
    let victim = start(&scene, ("killed", 1), &address, "cuda:0");
    let steps = scene.path("killed.jsonl");
    coordinator.wait_until(|| lines(&steps) >= 8);
    victim.signal("KILL");
    assert_eq!(victim.wait().code, None, "it was killed");
    let successor = start(&scene, ("killed", 2), &address, "cuda:0");
    for process in [survivor, successor, coordinator] {
        let ended = process.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
    }
    assert_same_losses(&scene.losses("killed"), &cpu);
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
