//! System tests: real processes on loopback, judged by their exit codes, words and files.
//!
//! Runs with `collective.backend=nccl` use the fake library of `tests/fake-nccl`, on host memory.
//!
//! The programs are those that `cargo build --bins` leaves beside the test executables; `make test` runs
//! it first. Every test has a folder of its own, and ends only processes that it started.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failure here is the test's failure"
)]
#![expect(clippy::missing_panics_doc, reason = "a test harness panics when the test has failed")]

pub mod chaos;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_mins(4);

/// One test's folder, with a small packed data set.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
}

/// A process and what it said. Ended when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output and error.
    pub said: String,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// 256 generated images in four classes, packed.
    pub fn new() -> Self {
        let scene = Self::empty();
        write_images(&scene.path("images"), 64);
        let packed =
            scene.worker("pack", &["pack", "--input", "images", "--output", "data"]).wait();
        assert_eq!(packed.code, Some(0), "{}", packed.said);
        scene
    }

    /// No data.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the worker program in the test's folder.
    pub fn worker(&self, name: &str, arguments: &[&str]) -> Process {
        self.start_anew(name, "worker", arguments)
    }

    /// Starts the coordinator program in the test's folder.
    pub fn coordinator(&self, name: &str, arguments: &[&str]) -> Process {
        self.start_anew(name, "coordinator", arguments)
    }

    /// Starts a program whose log holds nothing of an earlier one of this name.
    fn start_anew(&self, name: &str, program: &str, arguments: &[&str]) -> Process {
        fs::write(self.path(&format!("{name}.log")), "").expect("a log file");
        self.start_with(name, program, arguments, &[])
    }

    /// Starts a program in the test's folder, with more variables in its environment. Its log goes on where a process of
    /// this name has written before.
    pub fn start_with(
        &self,
        name: &str,
        program: &str,
        arguments: &[impl AsRef<OsStr>],
        environment: &[(&str, &OsStr)],
    ) -> Process {
        let log = self.path(&format!("{name}.log"));
        let out = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(program_path(program))
            .args(arguments)
            .env("LOCKSTEP_NCCL_LIBRARY", fake_nccl())
            .env("LD_PRELOAD", fake_nccl())
            .envs(environment.iter().copied())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .expect("the program starts");
        Process { name: name.to_owned(), child, log }
    }

    /// Starts a coordinator of the preset `tiny` and waits until it listens; returns it and its address.
    pub fn serve(&self, name: &str, world: u32, more: &[&str]) -> (Process, String) {
        let (port, reports) = (format!("{name}.port"), format!("{name}.jsonl"));
        let world = world.to_string();
        let mut arguments = vec!["--preset", "tiny", "--world", &world, "--port-file", &port];
        arguments.extend(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        arguments.extend(["--reports", &reports]);
        arguments.extend(more);
        let mut coordinator = self.coordinator(name, &arguments);
        let path = self.path(&port);
        coordinator.wait_until(|| fs::read_to_string(&path).is_ok_and(|text| !text.is_empty()));
        (coordinator, fs::read_to_string(path).expect("the port file").trim().to_owned())
    }

    /// Starts a worker of the run at `address`, with checkpoints in `checkpoints`.
    pub fn join(&self, name: &str, address: &str, checkpoints: &str, more: &[&str]) -> Process {
        let mut arguments = vec!["--coordinator", address, "--data", "data", "--threads", "1"];
        arguments.extend(["--checkpoints", checkpoints]);
        arguments.extend(more);
        self.worker(name, &arguments)
    }

    /// A whole run: a coordinator, `world` workers, everything ends with 0. Returns the loss per step.
    pub fn run(&self, name: &str, world: u32, settings: &[&str]) -> Vec<f64> {
        let (coordinator, address) = self.serve(name, world, settings);
        let workers: Vec<Process> = (0..world)
            .map(|rank| self.join(&format!("{name}-{rank}"), &address, &format!("{name}-ck"), &[]))
            .collect();
        for process in workers.into_iter().chain([coordinator]) {
            let ended = process.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.said);
        }
        self.losses(name)
    }

    /// The losses that the coordinator `name` was told, by step.
    pub fn losses(&self, name: &str) -> Vec<f64> {
        self.reported(name).iter().map(|step| step["loss"].as_f64().expect("a loss")).collect()
    }

    /// What the coordinator `name` wrote of each applied step.
    pub fn reported(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(&format!("{name}.jsonl"))).expect("the steps file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The bytes of the state in a checkpoint.
    pub fn state(&self, checkpoints: &str, step: u64) -> Vec<u8> {
        self.of_checkpoint(checkpoints, step, "state.safetensors")
    }

    /// The digest that a checkpoint says its state has.
    pub fn digest(&self, checkpoints: &str, step: u64) -> u64 {
        let meta = self.of_checkpoint(checkpoints, step, "checkpoint.json");
        let meta: Value = serde_json::from_slice(&meta).expect("JSON");
        meta["digest"].as_u64().expect("a digest")
    }

    fn of_checkpoint(&self, checkpoints: &str, step: u64, file: &str) -> Vec<u8> {
        let path = self.path(&format!("{checkpoints}/step-{step:09}/{file}"));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Process {
    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let mut status: Option<ExitStatus> = None;
        poll(&self.name, &self.log, || {
            status = self.child.try_wait().expect("own child");
            status.is_some()
        });
        Ended { code: status.and_then(|status| status.code()), said: self.said() }
    }

    /// Waits until `condition` holds; the process must live meanwhile.
    pub fn wait_until(&mut self, mut condition: impl FnMut() -> bool) {
        let child = &mut self.child;
        poll(&self.name, &self.log, || {
            if condition() {
                return true;
            }
            let ended = child.try_wait().expect("own child");
            assert!(ended.is_none(), "it ended meanwhile, with {ended:?}");
            false
        });
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal: `TERM`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let (option, pid) = (format!("-{name}"), self.child.id().to_string());
        let sent = Command::new("kill").args([option, pid]).status().expect("kill runs");
        assert!(sent.success(), "SIG{name} to {}", self.name);
    }

    /// How it has ended, if it has: its exit code, or none after a signal.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("own child").map(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until `condition` holds, with a look at it every hundredth of a second.
#[expect(clippy::disallowed_methods, reason = "processes can only be polled")]
fn poll(name: &str, log: &Path, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > PATIENCE {
            let said = fs::read_to_string(log).unwrap_or_default();
            panic!("{name} took longer than {PATIENCE:?}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn program_path(program: &str) -> PathBuf {
    let path = beside(program);
    assert!(path.exists(), "{} is missing: run `cargo build --bins` first", path.display());
    path
}

/// The fake library. The CUDA libtorch loads NCCL with it, and a second copy would be refused: so the fake is in memory
/// first, under the same name.
fn fake_nccl() -> PathBuf {
    beside("deps/libnccl.so")
}

/// A path in the folder of the programs.
fn beside(name: &str) -> PathBuf {
    let executable = std::env::current_exe().expect("a test executable");
    // target/PROFILE/deps/test, or a program in target/PROFILE.
    let folder = executable.parent().expect("it lies in a folder");
    let profile =
        if folder.ends_with("deps") { folder.parent().expect("a profile") } else { folder };
    profile.join(name)
}

/// `per_class` images of 12×12 in four class folders; what they show depends on class and number only.
pub fn write_images(folder: &Path, per_class: u32) {
    for (class, name) in ["bars", "checks", "dots", "waves"].into_iter().enumerate() {
        let class_folder = folder.join(name);
        fs::create_dir_all(&class_folder).expect("a class folder");
        for number in 0..per_class {
            let pixel = |x: u32, y: u32| {
                let mix = (x * 31 + y * 17 + number * 7) * (u32::try_from(class).unwrap() + 1);
                image::Rgb([0, 1, 2].map(|c| u8::try_from((mix + c * 50) % 256).unwrap()))
            };
            let picture = image::RgbImage::from_fn(12, 12, pixel);
            let ending = if number % 2 == 0 { "png" } else { "jpg" };
            picture.save(class_folder.join(format!("{number:03}.{ending}"))).expect("an image");
        }
    }
}
