//! Workers with NCCL between them, on host memory: `tests/fake-nccl` in the place of the library. What comes of each of
//! its faults is tested there; here, what a whole worker does about it.

use std::ffi::OsStr;

use lockstep_tests::{Ended, Process, Scene};

const NCCL: [&str; 2] = ["--set", "collective.backend=nccl"];

/// A worker in a slot of the run at `address`, with more in its environment.
fn work(
    scene: &Scene,
    (name, slot): (&str, &str),
    address: &str,
    environment: &[(&str, &str)],
) -> Process {
    let arguments = [
        ["--coordinator", address],
        ["--data", "data"],
        ["--checkpoints", "checkpoints"],
        ["--threads", "1"],
        ["--slot", slot],
    ];
    let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, OsStr::new(v))).collect();
    scene.start_with(name, "worker", arguments.as_flattened(), &environment)
}

fn completes(processes: impl IntoIterator<Item = Process>) {
    for process in processes {
        let Ended { code, said } = process.wait();
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn a_worker_with_another_nccl_is_refused_by_name_and_the_run_completes_with_one_in_its_place() {
    let scene = Scene::new();
    let (coordinator, address) = scene.serve("coordinator", 2, &NCCL);
    let first = work(&scene, ("first", "0"), &address, &[]);
    let version = [("LOCKSTEP_FAKE_NCCL", "version=22905")];
    let odd = work(&scene, ("odd", "1"), &address, &version).wait();
    assert_eq!(odd.code, Some(42), "{}", odd.said);
    assert!(
        odd.said.contains("has NCCL 2.29.5, the others have NCCL 2.29.7 (slot 0"),
        "{}",
        odd.said
    );
    let second = work(&scene, ("second", "1"), &address, &[]);
    completes([first, second, coordinator]);
}

#[test]
fn a_worker_without_the_library_that_was_asked_for_says_so_and_must_not_be_started_again() {
    let scene = Scene::new();
    let (_coordinator, address) = scene.serve("coordinator", 2, &NCCL);
    let nowhere = [("LOCKSTEP_NCCL_LIBRARY", "/nowhere/libnccl.so"), ("LD_PRELOAD", "")];
    let ended = work(&scene, ("worker", "0"), &address, &nowhere).wait();
    assert_eq!(ended.code, Some(42), "{}", ended.said);
    // Where libtorch brings a library, it is another one that was asked for.
    assert!(ended.said.contains("cannot use NCCL"), "{}", ended.said);
    assert!(ended.said.contains("/nowhere/libnccl.so"), "{}", ended.said);
}

#[test]
fn a_worker_whose_gpu_fails_ends_with_75_and_the_run_completes_with_one_in_its_place() {
    let scene = Scene::new();
    let (coordinator, address) = scene.serve("coordinator", 2, &NCCL);
    let first = work(&scene, ("first", "0"), &address, &[]);
    let cuda_fails = [("LOCKSTEP_FAKE_NCCL", "rank=1,sequence=40,error=1")];
    let failing = work(&scene, ("failing", "1"), &address, &cuda_fails).wait();
    assert_eq!(failing.code, Some(75), "{}", failing.said);
    assert!(failing.said.contains("ncclUnhandledCudaError"), "{}", failing.said);
    let second = work(&scene, ("second", "1"), &address, &[]);
    completes([first, second, coordinator]);
    assert_eq!(scene.losses("coordinator").len(), 20, "no step was lost");
}
