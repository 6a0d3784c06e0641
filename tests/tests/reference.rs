//! Audited steps of real runs, recomputed by PyTorch: `tests/reference/check_step.py` has the comparison.
//!
//! `make reference` runs these with a PyTorch of its own; `make test` with one that it finds. Each prints the
//! errors that it saw.

use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_tests::Scene;

/// Steps 0 and 1, and one behind the warm-up, which is 2 steps long.
const STEPS: [u32; 3] = [0, 1, 4];

/// 16 images in 4 lanes: a world of three deals them 8 + 4 + 4.
const SETTINGS: &[&str] = &[
    "data.lanes=4",
    "schedule.global_batch=16",
    "schedule.steps=5",
    "schedule.warmup_data_epochs=0.125",
    "schedule.base_learning_rate=16",
    "optimizer.kind=lars",
    "optimizer.weight_decay=0.0001",
];

const RESNET18: &[&str] =
    &["model.arch=resnet18", "model.stem=small", "data.image_size=32", "data.eval_resize=32"];
const RESNET50: &[&str] =
    &["model.arch=resnet50", "model.stem=imagenet", "data.image_size=64", "data.eval_resize=64"];

fn reference_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference")
}

/// Runs a script of `tests/reference` in the scene's folder; it must end with 0.
fn python(scene: &Scene, script: &str, arguments: &[&str]) {
    let python = std::env::var("LOCKSTEP_REFERENCE_PYTHON").unwrap_or_else(|_| "python3".into());
    let done = Command::new(&python)
        .arg(reference_folder().join(script))
        .args(arguments)
        .current_dir(scene.path(""))
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}", said.concat());
    assert!(done.status.success(), "{script} {arguments:?} ended with {}", done.status);
}

/// Trains in worlds of the given sizes, audits, and has every audited step recomputed.
fn steps_equal_pytorchs(worlds: &[u32], steps: &[u32], settings: &[&[&str]]) {
    let scene = Scene::new();
    for &world in worlds {
        let (name, folder) = (format!("world-{world}"), format!("audit-{world}"));
        let steps: Vec<String> = steps.iter().map(u32::to_string).collect();
        let mut flags = vec!["--audit-dir", &folder];
        flags.extend(steps.iter().flat_map(|step| ["--audit-step", step]));
        flags
            .extend(SETTINGS.iter().chain(settings.concat().iter()).flat_map(|set| ["--set", set]));
        scene.run(&name, world, &flags);
        let folders: Vec<String> =
            steps.iter().map(|step| format!("{folder}/step-{step}")).collect();
        python(&scene, "check_step.py", &folders.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
#[ignore = "needs a Python with PyTorch: make reference"]
fn steps_of_a_resnet18_in_f64_are_pytorchs_in_any_world() {
    steps_equal_pytorchs(&[1, 2, 3], &STEPS, &[RESNET18, &["model.width=0.25", "model.dtype=f64"]]);
}

#[test]
#[ignore = "needs a Python with PyTorch: make reference"]
fn steps_of_a_resnet18_in_f32_are_pytorchs_in_any_world() {
    steps_equal_pytorchs(
        &[1, 2, 3],
        &STEPS,
        &[RESNET18, &["model.width=0.125", "schedule.global_batch=8"]],
    );
}

#[test]
#[ignore = "needs a Python with PyTorch: make reference"]
fn steps_of_a_resnet50_in_f64_are_pytorchs_in_any_world() {
    steps_equal_pytorchs(&[1, 2, 3], &STEPS, &[RESNET50, &["model.width=0.25", "model.dtype=f64"]]);
}

#[test]
#[ignore = "needs a Python with PyTorch: make reference"]
fn steps_of_a_resnet50_in_f32_are_pytorchs_in_any_world() {
    steps_equal_pytorchs(&[1, 2, 3], &STEPS, &[RESNET50, &["model.width=0.25"]]);
}

/// A short run of a full-width encoder, which torchvision has too; returns nothing but files in the scene.
fn run_for_torchvision(scene: &Scene, arch: &str, stem: &str) {
    let set = [format!("model.arch={arch}"), format!("model.stem={stem}"), "model.width=1".into()];
    let set = set.iter().map(String::as_str).chain(FOR_TORCHVISION.iter().copied());
    let flags: Vec<&str> = set.flat_map(|set| ["--set", set]).collect();
    scene.run("run", 1, &[&["--audit-dir", "audit", "--audit-step", "1"], &flags[..]].concat());
}

const FOR_TORCHVISION: &[&str] = &[
    "data.lanes=4",
    "schedule.global_batch=16",
    "schedule.steps=2",
    "schedule.base_learning_rate=16",
    "optimizer.kind=lars",
    "data.image_size=64",
    "data.eval_resize=64",
];

fn worker(scene: &Scene, arguments: &[&str]) {
    let ended = scene.worker("command", arguments).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}

#[test]
#[ignore = "needs a Python with PyTorch: make reference"]
fn exported_encoders_load_into_torchvision_and_see_the_same() {
    for (arch, stem) in [("resnet18", "small"), ("resnet18", "imagenet"), ("resnet50", "imagenet")]
    {
        let scene = Scene::new();
        run_for_torchvision(&scene, arch, stem);
        let from = ["--checkpoints", "run-ck", "--out"];
        worker(&scene, &[&["export"][..], &from, &["weights"]].concat());
        worker(
            &scene,
            &[&["eval", "features", "--data", "data", "--inputs"][..], &from, &["features"]]
                .concat(),
        );
        let compare = ["compare", arch, stem, "weights", "--features", "features"];
        python(&scene, "check_export.py", &[&compare[..], &["--audit", "audit/step-1"]].concat());
    }
}

#[test]
#[ignore = "needs a Python with PyTorch: make reference"]
fn a_run_starts_from_imported_weights() {
    let scene = Scene::new();
    python(&scene, "check_export.py", &["make", "resnet18", "imagenet", "weights"]);
    let set = ["model.arch=resnet18", "model.stem=imagenet", "model.width=1"];
    let set = set.iter().chain(FOR_TORCHVISION).flat_map(|set| ["--set", set]);
    let import = ["import", "--weights", "weights", "--data", "data", "--checkpoints", "run-ck"];
    worker(&scene, &import.into_iter().chain(["--preset", "tiny"]).chain(set).collect::<Vec<_>>());
    let first = ["--checkpoint", "run-ck/step-000000000", "--out"];
    worker(
        &scene,
        &[&["eval", "features", "--data", "data", "--inputs"][..], &first, &["features"]].concat(),
    );
    python(
        &scene,
        "check_export.py",
        &["compare", "resnet18", "imagenet", "weights", "--features", "features"],
    );

    run_for_torchvision(&scene, "resnet18", "imagenet");
    let log = std::fs::read_to_string(scene.path("run-0.log")).unwrap();
    assert!(log.contains("resuming"), "{log}");
}
