//! Bad input gets a sentence that says what, where and what to do, and an exit code to act on.

use std::fs;
use std::os::unix::fs::FileExt;

use lockstep_tests::{Ended, Scene, write_images};

#[track_caller]
fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.said);
    for word in words {
        assert!(ended.said.contains(word), "`{word}` is not in: {}", ended.said);
    }
}

#[test]
fn an_unknown_key_and_a_world_of_none_are_reported_together() {
    let scene = Scene::empty();
    fs::write(scene.path("run.toml"), "[run]\nwolrd = 2\n").unwrap();
    let ended = scene.coordinator("c", &["--world", "0", "--config", "run.toml"]).wait();
    assert_ended(&ended, 42, &["run.wolrd", "did you mean", "run.world", "from 1 to 4096"]);
}

#[test]
fn a_missing_data_folder_says_how_to_make_one() {
    let scene = Scene::empty();
    let ended = scene.join("w", "http://127.0.0.1:9", "ck", &[]).wait();
    assert_ended(&ended, 42, &["data", "worker pack"]);
}

#[test]
fn an_empty_class_folder_is_named() {
    let scene = Scene::empty();
    write_images(&scene.path("images"), 2);
    fs::create_dir(scene.path("images/nothing")).unwrap();
    let ended = scene.worker("pack", &["pack", "--input", "images", "--output", "data"]).wait();
    assert_ended(&ended, 42, &["nothing"]);
}

#[test]
fn damaged_images_are_skipped_counted_and_named() {
    let scene = Scene::empty();
    write_images(&scene.path("images"), 4);
    let whole = fs::read(scene.path("images/bars/001.jpg")).unwrap();
    fs::write(scene.path("images/bars/cut.jpg"), &whole[..whole.len() / 2]).unwrap();
    fs::write(scene.path("images/dots/note.jpg"), "this is a text").unwrap();
    let ended = scene.worker("pack", &["pack", "--input", "images", "--output", "data"]).wait();
    assert_ended(&ended, 0, &["packed 16 images", "cut.jpg", "note.jpg"]);
}

#[test]
fn a_flipped_byte_names_its_shard() {
    let scene = Scene::new();
    let shard = scene.path("data/shard-000000.tar");
    let file = fs::File::options().read(true).write(true).open(shard).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 700).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 700).unwrap();
    let ended = scene.worker("verify", &["verify-shards", "data"]).wait();
    assert_ended(&ended, 1, &["shard-000000.tar"]);
}

/// Damages the first image of the data set.
fn damage_an_image(scene: &Scene) {
    let shard = scene.path("data/shard-000000.tar");
    let file = fs::File::options().write(true).open(shard).expect("the first shard");
    // Behind the tar header of the first image come the bytes that make it a JPEG or a PNG.
    file.write_all_at(&[0, 0], 512).expect("room for two bytes");
}

#[test]
fn a_run_counts_a_damaged_image_in_its_status() {
    let scene = Scene::new();
    damage_an_image(&scene);
    let (_coordinator, address) = scene.serve("c", 1, &["--set", "schedule.steps=1000000"]);
    let mut worker = scene.join("w", &address, "ck", &[]);
    worker.wait_until(|| {
        let asked = scene.coordinator("status", &["status", "--json", "--addr", &address]).wait();
        let status: serde_json::Value = serde_json::from_str(&asked.said).unwrap();
        status["run"]["replaced_samples"].as_u64().unwrap() > 0
    });
}

#[test]
fn a_run_replaces_a_damaged_image_and_says_so() {
    let scene = Scene::new();
    damage_an_image(&scene);
    let (coordinator, address) = scene.serve("c", 1, &[]);
    let ended = scene.join("w", &address, "ck", &[]).wait();
    assert_ended(&ended, 0, &["sample replaced", "shard-000000.tar"]);
    assert_ended(&coordinator.wait(), 0, &[]);
}

#[test]
fn a_port_in_use_is_named_with_the_flag_for_another() {
    let scene = Scene::empty();
    let (_holder, address) = scene.serve("first", 1, &[]);
    let address = address.trim_start_matches("http://").to_owned();
    let ended = scene.coordinator("second", &["--preset", "tiny", "--listen", &address]).wait();
    assert_ended(&ended, 75, &["already in use", &address, "--listen"]);
}

#[test]
fn a_worker_without_a_coordinator_tries_again_says_so_and_gives_up() {
    let scene = Scene::new();
    let ended = scene.join("w", "http://127.0.0.1:9", "ck", &["--connect-timeout", "1"]).wait();
    assert_ended(&ended, 75, &["no coordinator yet", "no coordinator at http://127.0.0.1:9"]);
}

#[test]
fn a_worker_of_another_run_is_refused() {
    let scene = Scene::new();
    let (_coordinator, address) = scene.serve("c", 1, &[]);
    let ended = scene.join("w", &address, "ck", &["--run-id", "other"]).wait();
    assert_ended(&ended, 42, &["other", "tiny"]);
}

#[test]
fn a_checkpoint_of_another_architecture_is_refused_and_left_alone() {
    let scene = Scene::new();
    scene.run("first", 1, &[]);
    let (_coordinator, address) = scene.serve("second", 1, &["--set", "model.arch=resnet34"]);
    let ended = scene.join("w", &address, "first-ck", &[]).wait();
    assert_ended(&ended, 42, &["model.arch", "resnet18", "resnet34", "--checkpoints"]);
    assert!(!scene.state("first-ck", 20).is_empty());
}

/// With this weight decay and η, weights grow until they are no numbers.
#[test]
fn a_run_that_is_finite_no_more_ends_with_the_steps_and_the_samples() {
    let scene = Scene::new();
    let settings = [
        "optimizer.weight_decay=1.0",
        "schedule.base_learning_rate=1000.0",
        "schedule.steps=1000",
        "control.max_skipped_steps=3",
    ];
    let settings: Vec<&str> = settings.into_iter().flat_map(|set| ["--set", set]).collect();
    let (coordinator, address) = scene.serve("c", 2, &settings);
    let workers = ["w0", "w1"].map(|name| scene.join(name, &address, "ck", &[]));
    for worker in workers {
        assert_ended(&worker.wait(), 93, &["step skipped: not finite", "samples=["]);
    }
    let words = ["3 steps in a row were not finite: step", "tried with global batches"];
    assert_ended(&coordinator.wait(), 93, &words);
}
