//! Starts the ranks of a world as processes, and carries the ids from the first to the others.

#![expect(clippy::unwrap_used, reason = "a test that can't go on must stop")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The fake library, where cargo builds it for the programs of its package.
pub(crate) fn fake() -> PathBuf {
    let library = Path::new(env!("CARGO_BIN_EXE_nccl-rank")).with_file_name("deps/libnccl.so");
    assert!(library.exists(), "{} is not built", library.display());
    library
}

/// The ranks of a world, and what they play.
pub(crate) struct Ranks {
    world: u32,
    scenario: String,
    script: String,
    deadline: Duration,
    library: Option<PathBuf>,
    preload: Option<PathBuf>,
}

/// How a rank ended.
#[derive(Debug)]
pub(crate) struct Played {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) log: String,
}

impl Played {
    /// Its failure in words.
    pub(crate) fn failure(&self) -> &str {
        self.output.lines().find_map(|line| line.strip_prefix("failed ")).unwrap_or_default()
    }

    pub(crate) fn results(&self) -> Vec<&str> {
        self.output.lines().filter_map(|line| line.strip_prefix("result ")).collect()
    }
}

impl Ranks {
    pub(crate) fn of(world: u32, scenario: &str) -> Self {
        Self {
            world,
            scenario: scenario.into(),
            script: String::new(),
            // Reached only by a test that fails.
            deadline: Duration::from_mins(1),
            library: Some(fake()),
            preload: None,
        }
    }

    pub(crate) fn script(self, script: &str) -> Self {
        Self { script: script.into(), ..self }
    }

    pub(crate) fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    pub(crate) fn library(self, library: PathBuf) -> Self {
        Self { library: Some(library), ..self }
    }

    pub(crate) fn library_unset(self) -> Self {
        Self { library: None, ..self }
    }

    pub(crate) fn preload(self, library: PathBuf) -> Self {
        Self { preload: Some(library), ..self }
    }

    /// Runs them all to their ends; by rank.
    pub(crate) fn play(&self) -> Vec<Played> {
        let mut ranks: Vec<_> = (0..self.world).map(|rank| self.start(rank)).collect();
        let mut others: Vec<_> =
            ranks.iter_mut().skip(1).map(|r| r.stdin.take().unwrap()).collect();
        let first = ranks[0].stdout.take().unwrap();
        let first = thread::spawn(move || relay(first, &mut others));
        let mut outputs = vec![first];
        outputs.extend(ranks.iter_mut().skip(1).map(|rank| read(rank.stdout.take().unwrap())));
        let logs: Vec<_> = ranks.iter_mut().map(|rank| read(rank.stderr.take().unwrap())).collect();
        ranks
            .into_iter()
            .zip(outputs.into_iter().zip(logs))
            .map(|(mut rank, (output, log))| Played {
                code: rank.wait().unwrap().code(),
                output: output.join().unwrap(),
                log: log.join().unwrap(),
            })
            .collect()
    }

    fn start(&self, rank: u32) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nccl-rank"));
        command
            .args([rank.to_string(), self.world.to_string(), self.scenario.clone()])
            .arg(self.deadline.as_millis().to_string())
            .env("LOCKSTEP_FAKE_NCCL", &self.script)
            .env_remove("LOCKSTEP_NCCL_LIBRARY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(library) = &self.library {
            command.env("LOCKSTEP_NCCL_LIBRARY", library);
        }
        if let Some(preload) = &self.preload {
            command.env("LD_PRELOAD", preload);
        }
        command.spawn().unwrap()
    }
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// Hands on the ids of rank 0; returns all that it printed.
fn relay(from: impl Read, others: &mut [ChildStdin]) -> String {
    let mut output = String::new();
    for line in BufReader::new(from).lines() {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix("id ") {
            for other in &mut *others {
                // It may have died.
                writeln!(other, "{id}").ok();
            }
        }
        output.push_str(&line);
        output.push('\n');
    }
    output
}
