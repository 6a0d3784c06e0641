//! A communicator: calls return at once, and are taken up when somebody asks about them.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::driver;
use crate::meeting::{self, Id, Task, sends};
use crate::memory::Span;
use crate::script::{self, Fault};
use crate::stream::Stream;

pub(crate) const SUCCESS: i32 = 0;
pub(crate) const SYSTEM_ERROR: i32 = 2;
pub(crate) const INVALID_ARGUMENT: i32 = 4;
pub(crate) const REMOTE_ERROR: i32 = 6;
pub(crate) const IN_PROGRESS: i32 = 7;

#[derive(Debug)]
pub(crate) struct Comm {
    rank: u32,
    world: u32,
    /// Its number in this process.
    number: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Locked by the operation under way.
    line: Mutex<Option<TcpStream>>,
}

#[derive(Debug, Default)]
struct State {
    /// Something goes on in the background: forming, or parting.
    busy: bool,
    /// The first failure.
    failure: i32,
    /// Destroyed or aborted.
    ended: bool,
    /// Its end never ends.
    stuck: bool,
    calls: u64,
    waiting: Waiting,
    /// To hang up from another thread.
    hook: Option<TcpStream>,
}

/// Calls that are not taken up yet.
#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<(Call, Stream)>,
    /// Whether somebody asked about them.
    asked: bool,
}

/// An operation, as a call asked for it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) task: Task,
    pub(crate) from: Span,
    pub(crate) to: Span,
}

impl Comm {
    /// Begins to meet the others.
    pub(crate) fn begin(id: Id, rank: u32, world: u32) -> Result<Arc<Self>, i32> {
        static FORMED: AtomicU64 = AtomicU64::new(0);
        let comm = Arc::new(Self {
            rank,
            world,
            number: FORMED.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State { busy: true, ..State::default() }),
            changed: Condvar::new(),
            line: Mutex::new(None),
        });
        let fault = comm.due(0);
        if let Some(Fault::InitError(code)) = fault {
            return Err(code);
        }
        let joining = Arc::clone(&comm);
        thread::spawn(move || match fault {
            Some(Fault::InitHang) => joining.until_ended(),
            Some(Fault::InitAsync(code)) => joining.fail(code),
            _ => joining.join(&id),
        });
        Ok(comm)
    }

    fn join(&self, id: &Id) {
        let joined =
            meeting::join(id, self.rank, self.world).and_then(|line| Ok((line.try_clone()?, line)));
        match joined {
            Ok((hook, line)) => {
                *self.line.lock().unwrap() = Some(line);
                let mut state = self.state();
                state.hook = Some(hook);
                state.busy = false;
            }
            Err(error) => {
                note(&format!("rank {} could not join: {error}", self.rank));
                self.fail(REMOTE_ERROR);
            }
        }
    }

    /// What is the matter. Asking twice gets waiting calls into their streams.
    pub(crate) fn async_error(self: &Arc<Self>) -> i32 {
        let mut state = self.state();
        if state.failure != SUCCESS {
            return state.failure;
        }
        if state.busy {
            return IN_PROGRESS;
        }
        if state.waiting.calls.is_empty() {
            return SUCCESS;
        }
        if !std::mem::replace(&mut state.waiting.asked, true) {
            return IN_PROGRESS;
        }
        let first = state.calls + 1 - state.waiting.calls.len() as u64;
        for ((call, stream), sequence) in state.waiting.calls.drain(..).zip(first..) {
            let comm = Arc::clone(self);
            stream.push(move || comm.run(&call, sequence));
        }
        SUCCESS
    }

    /// Takes a call.
    pub(crate) fn call(&self, call: Call, stream: Stream) -> i32 {
        let mut state = self.state();
        if state.ended || state.busy {
            return INVALID_ARGUMENT;
        }
        state.calls += 1;
        match self.due(state.calls) {
            Some(Fault::Error(code)) => {
                note(&format!("call {} failed as ordered", state.calls));
                return code;
            }
            Some(Fault::Busy) => state.busy = true,
            _ => {}
        }
        state.waiting.calls.push_back((call, stream));
        state.waiting.asked = false;
        IN_PROGRESS
    }

    /// Bytes of the buffer that a rank sends in a task with a result of `len`.
    pub(crate) fn sends(&self, task: Task, len: usize) -> usize {
        sends(task, self.rank as usize, self.world as usize, len)
    }

    pub(crate) fn world(&self) -> usize {
        self.world as usize
    }

    /// The operation, on its stream's thread.
    fn run(&self, call: &Call, sequence: u64) {
        let _busy = driver::Busy::new();
        match self.due(sequence) {
            Some(Fault::Slow(millis)) => thread::park_timeout(Duration::from_millis(millis)),
            Some(Fault::Hang) => return self.until_ended(),
            Some(Fault::Die) => std::process::abort(),
            Some(Fault::Async(code)) => {
                note(&format!("operation {sequence} failed as ordered"));
                self.fail(code);
                return self.until_ended();
            }
            Some(Fault::Stuck) => {
                self.state().stuck = true;
                for_ever();
            }
            _ => {}
        }
        match self.exchange(call.task, &call.from.read(), call.to.len()) {
            Ok(result) => call.to.write(&result),
            Err(error) => {
                note(&format!("rank {} lost the others: {error}", self.rank));
                self.fail(REMOTE_ERROR);
                self.until_ended();
            }
        }
    }

    fn exchange(&self, task: Task, mine: &[u8], len: usize) -> io::Result<Vec<u8>> {
        let mut line = self.line.lock().unwrap();
        meeting::take_part(line.as_mut().ok_or(io::ErrorKind::NotConnected)?, task, mine, len)
    }

    /// Begins to part from the others.
    pub(crate) fn finalize(self: &Arc<Self>) -> i32 {
        self.state().busy = true;
        let comm = Arc::clone(self);
        thread::spawn(move || {
            if comm.due(0) == Some(Fault::PartingHang) {
                return comm.until_ended();
            }
            match comm.exchange(Task::Parting, &[], 0) {
                Ok(_) => comm.state().busy = false,
                Err(_) => comm.fail(REMOTE_ERROR),
            }
        });
        IN_PROGRESS
    }

    /// Ends it; what is under way ends too.
    pub(crate) fn end(&self) -> i32 {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return INVALID_ARGUMENT;
        }
        state.waiting.calls.clear();
        if let Some(hook) = &state.hook {
            // It may be closed already.
            hook.shutdown(Shutdown::Both).ok();
        }
        let stuck = state.stuck;
        drop(state);
        self.changed.notify_all();
        if stuck || self.due(0) == Some(Fault::EndHang) {
            for_ever();
        }
        driver::free_memory();
        SUCCESS
    }

    fn fail(&self, code: i32) {
        let mut state = self.state();
        if state.failure == SUCCESS {
            state.failure = code;
        }
    }

    fn until_ended(&self) {
        drop(self.changed.wait_while(self.state(), |state| !state.ended).unwrap());
    }

    fn due(&self, sequence: u64) -> Option<Fault> {
        script::due(u64::from(self.rank), self.number, sequence)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The last thing that went wrong in this process.
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

pub(crate) fn note(words: &str) {
    *LAST_ERROR.lock().unwrap() = format!("fake: {words}");
}

pub(crate) fn last_error() -> String {
    LAST_ERROR.lock().unwrap().clone()
}

fn for_ever() -> ! {
    loop {
        thread::park();
    }
}
