//! `worker --procs-per-node N`: one process per GPU of this machine, and one that looks after them.
//!
//! ```text
//!  SIGTERM, SIGINT ─┐                        ┌─▶ worker, slot 8  (RANK=8, LOCAL_RANK=0)
//!                   ▼                        ├─▶ worker, slot 9  (RANK=9, LOCAL_RANK=1)
//!  policy.rs ◀─ event ── Supervisor ─ action ┴─▶ …
//!                   ▲                             │
//!                   └──── exit codes, log lines ──┘
//! ```
//!
//! The processes run this program with the same arguments; `child.rs` is their side. It never runs the engine itself, so
//! whatever a GPU does to a process, this one stays. If it is killed, they are too: none is left behind with a GPU that the
//! next supervisor's processes need.
//!
//! Not here: when a process is started again (`policy.rs`), which slots a node has (`place.rs`).

pub(crate) mod child;
mod policy;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use lockstep_proto::Exit;
use lockstep_proto::ids::Slot;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use self::policy::{Action, End, Next, Policy};
use crate::signals::Signals;

/// Longest piece of a line that is passed on at once.
const MAX_LINE: u64 = 64 * 1024;

/// Time for the last lines of a process that has ended; another that it started may hold its pipes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Settings of NCCL that must be there before a process starts; those that are set already stay. Without the first, its
/// memory does not survive a world that is aborted; without the second, the two communicators of a world may block each other.
const NCCL: [(&str, &str); 2] = [("NCCL_NVLS_ENABLE", "0"), ("NCCL_LAUNCH_ORDER_IMPLICIT", "1")];

/// Signals on their way to one process.
const SIGNALS: usize = 4;

/// Looks after `processes` workers, the first of which has slot `first`, until all have ended for good.
///
/// # Errors
///
/// What kept it from starting any.
pub(crate) fn run(processes: u32, first: Slot) -> anyhow::Result<Exit> {
    // One thread: processes die with the thread that started them, see `child.rs`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the async runtime")?;
    let program = std::env::current_exe().context("find this program, to start it once more")?;
    runtime.block_on(async {
        let supervisor = Supervisor {
            launch: Launch { program, arguments: std::env::args_os().skip(1).collect(), first },
            policy: Policy::new(processes),
            started: Instant::now(),
            lives: JoinSet::new(),
            signals: (0..processes).map(|_| mpsc::channel(1).0).collect(),
        };
        Ok(supervisor.run().await)
    })
}

struct Supervisor {
    launch: Launch,
    policy: Policy,
    started: Instant,
    /// One task per process that lives; ends with it.
    lives: JoinSet<(usize, End)>,
    /// By index: to the process that lives, or to nobody.
    signals: Vec<mpsc::Sender<Signal>>,
}

/// How processes are started.
#[derive(Debug, Clone)]
struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Slot of the first process.
    first: Slot,
}

impl Supervisor {
    async fn run(mut self) -> Exit {
        let mut asked = Signals::new();
        loop {
            if let Some(exit) = self.policy.over() {
                tracing::info!(code = exit.code(), "all workers have ended");
                return exit;
            }
            let due = self.policy.next_tick().map(|due| self.started + due);
            let actions = tokio::select! {
                Some(life) = self.lives.join_next() => {
                    let (index, end) = life.expect("the task of a life does not panic");
                    self.ended(index, end);
                    Vec::new()
                }
                () = asked.next() => {
                    tracing::info!("asked to end; a second time: at once");
                    self.policy.asked_to_end(self.started.elapsed())
                }
                () = async { sleep_until(due.expect("see the guard")).await }, if due.is_some() => {
                    self.policy.tick(self.started.elapsed())
                }
            };
            for action in actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(index) => {
                let (sender, signals) = mpsc::channel(SIGNALS);
                self.signals[index] = sender;
                let launch = self.launch.clone();
                self.lives.spawn(async move { (index, launch.live(index, signals).await) });
            }
            Action::Terminate(index) => self.signal(index, Signal::TERM),
            Action::Kill(index) => {
                let slot = self.launch.slot(index).0;
                tracing::warn!(slot, "killing a worker that has not left");
                self.signal(index, Signal::KILL);
            }
        }
    }

    fn signal(&self, index: usize, signal: Signal) {
        if self.signals[index].try_send(signal).is_err() {
            tracing::debug!(slot = self.launch.slot(index).0, "it has just ended: no signal");
        }
    }

    fn ended(&mut self, index: usize, end: End) {
        let slot = self.launch.slot(index).0;
        let next = self.policy.ended(self.started.elapsed(), index, end);
        match next {
            Next::Again(pause) => {
                tracing::warn!(slot, %end, again_in = ?pause, "worker ended; starting it again");
            }
            Next::Over if end == End::Code(0) => tracing::info!(slot, %end, "worker ended"),
            Next::Over => tracing::error!(slot, %end, "worker ended, and is not started again"),
        }
    }
}

impl Launch {
    fn slot(&self, index: usize) -> Slot {
        let index = u32::try_from(index).expect("a few processes");
        Slot(self.first.0.saturating_add(index))
    }

    /// One process, from its start to its end.
    async fn live(&self, index: usize, mut signals: mpsc::Receiver<Signal>) -> End {
        let slot = self.slot(index);
        let mut child = match self.start(index) {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(slot = slot.0, %error, "cannot start a worker");
                return End::NotStarted;
            }
        };
        tracing::info!(slot = slot.0, pid = child.id(), "worker started");
        let mut words = JoinSet::new();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        words.spawn(pass_on(slot, stdout.expect("piped"), io::stdout()));
        words.spawn(pass_on(slot, stderr.expect("piped"), io::stderr()));
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.expect("it is our own child"),
                Some(signal) = signals.recv() => send(&child, signal),
            }
        };
        drop(timeout(LAST_WORDS, words.join_all()).await);
        End::of(status)
    }

    fn start(&self, index: usize) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env("RANK", self.slot(index).0.to_string())
            .env("LOCAL_RANK", index.to_string())
            .env(child::SUPERVISOR, std::process::id().to_string())
            .envs(NCCL.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on a terminal reaches the supervisor alone, which passes it on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match (status.code().map(u32::try_from), status.signal()) {
            (Some(Ok(code)), _) => Self::Code(code),
            (_, Some(signal)) => Self::Signal(signal),
            (_, None) => unreachable!("a process that was waited for has ended"),
        }
    }
}

/// Not to a process that was waited for: its number may be another's.
fn send(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = id.map(|pid| kill_process(pid, signal)) {
        tracing::warn!(?signal, %error, "cannot signal a worker");
    }
}

/// Passes on what a process says, until it has closed that stream. Lines that nobody takes are lost.
async fn pass_on(slot: Slot, stream: impl AsyncRead + Unpin, mut to: impl Write) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0)
    {
        drop(to.write_all(&labelled(slot, &line)));
        line.clear();
    }
    drop(to.flush());
}

/// A line with the slot that it comes from: as a field, where it is a JSON object.
fn labelled(slot: Slot, line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    match line.strip_prefix(br#"{""#) {
        Some(rest) => [format!(r#"{{"slot":{},""#, slot.0).as_bytes(), rest, b"\n"].concat(),
        None => [format!("slot {}: ", slot.0).as_bytes(), line, b"\n"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_the_slot_as_a_prefix_or_as_a_field() {
        assert_eq!(labelled(Slot(3), b"step 4\n"), b"slot 3: step 4\n");
        assert_eq!(labelled(Slot(3), b"no end"), b"slot 3: no end\n");
        assert_eq!(
            labelled(Slot(12), b"{\"level\":\"INFO\"}\n"),
            b"{\"slot\":12,\"level\":\"INFO\"}\n"
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_passed_on_in_pieces() {
        let endless = vec![b'x'; usize::try_from(MAX_LINE).unwrap() + 1];
        let mut said = Vec::new();
        pass_on(Slot(0), &endless[..], &mut said).await;
        assert!(said.ends_with(b"x\nslot 0: x\n"));
    }
}
