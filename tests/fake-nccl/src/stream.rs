//! Streams and events, as CUDA orders them: work of one stream runs in order, on its own thread; an
//! event comes when its stream reaches it.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// A queue of work and the thread that does it.
#[derive(Debug, Clone)]
pub(crate) struct Stream(Sender<Work>);

static NULL: LazyLock<Stream> = LazyLock::new(Stream::new);

impl Stream {
    pub(crate) fn new() -> Self {
        let (sender, work) = mpsc::channel::<Work>();
        thread::spawn(move || work.into_iter().for_each(|work| work()));
        Self(sender)
    }

    /// The one that everybody in the process shares.
    pub(crate) fn null() -> Self {
        NULL.clone()
    }

    pub(crate) fn push(&self, work: impl FnOnce() + Send + 'static) {
        self.0.send(Box::new(work)).expect("the thread lives as long as its stream");
    }
}

/// A point in a stream. Recording it again moves it.
#[derive(Debug, Default)]
pub(crate) struct Event {
    times: Mutex<Times>,
    came: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    recorded: u64,
    came: u64,
}

impl Event {
    pub(crate) fn record(self: Arc<Self>, stream: &Stream) {
        let time = {
            let mut times = self.times.lock().unwrap();
            times.recorded += 1;
            times.recorded
        };
        stream.push(move || {
            self.times.lock().unwrap().came = time;
            self.came.notify_all();
        });
    }

    pub(crate) fn has_come(&self) -> bool {
        let times = *self.times.lock().unwrap();
        times.came >= times.recorded
    }

    /// Makes `stream` wait for the event as it is recorded now.
    pub(crate) fn hold_up(self: Arc<Self>, stream: &Stream) {
        let time = self.times.lock().unwrap().recorded;
        stream.push(move || {
            let times = self.times.lock().unwrap();
            drop(self.came.wait_while(times, |times| times.came < time).unwrap());
        });
    }
}
