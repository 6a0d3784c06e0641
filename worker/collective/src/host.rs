//! The host backend: ranks on CPUs, connected by TCP.
//!
//! ```text
//!  HostListener ── connect(WorldSpec) ──▶ one HostCollective per channel
//!
//!  HostCollective (the engine's thread)        its communication thread
//!     start_all_reduce ── job ──────────────▶  all-reduce over the mesh
//!     wait ◀── result ──────────────────────
//!     all_reduce, broadcast, … run right here: nothing else is under way then,
//!     and a small message would pay more for changing threads than for travelling
//! ```
//!
//! Not here: the arithmetic (`reduce.rs`), which bytes go where (`algorithm.rs`), who may
//! connect (`forming.rs`, `handshake.rs`).

mod algorithm;
mod dial;
mod flow;
mod forming;
mod guest;
mod handshake;
mod line;
mod mesh;
mod reduce;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use self::mesh::Mesh;

use crate::operation::{Kind, Operation};
use crate::{AbortHandle, Collective, CollectiveError, Pending, Rank, Reduction, Region, Values};

pub use self::algorithm::MAX_GATHERED;
pub use self::forming::HostListener;
pub use self::spec::{Secret, WorldSpec};

/// Operations that may be pending; the next one waits for the first. Far above the number of
/// gradient buckets in a step.
const MAX_PENDING: usize = 1024;

/// One rank's end of one channel of a world.
///
/// Dropping it closes the connections. If operations are still pending, nobody will wait for
/// them any more, so the world is aborted first.
#[derive(Debug)]
pub struct HostCollective {
    rank: Rank,
    world: u32,
    generation: u64,
    channel: u32,
    issued: u64,
    completed: u64,
    /// The first failure; final.
    failure: Option<CollectiveError>,
    /// Locked by whichever thread runs an operation. Never contended: the engine's thread takes
    /// it only when nothing is pending.
    mesh: Arc<Mutex<Mesh>>,
    /// Started with the first operation that is not waited for.
    thread: Option<CommThread>,
    abort: AbortHandle,
}

#[derive(Debug)]
struct CommThread {
    jobs: SyncSender<Job>,
    results: Receiver<Result<(), CollectiveError>>,
    handle: JoinHandle<()>,
}

/// An all-reduce on its way to the communication thread.
#[derive(Debug)]
struct Job {
    operation: Operation,
    reduction: Reduction,
    region: Region,
}

impl HostCollective {
    fn new(spec: &WorldSpec, channel: u32, mesh: Mesh, abort: AbortHandle) -> Self {
        Self {
            rank: spec.rank,
            world: spec.world(),
            generation: spec.generation,
            channel,
            issued: 0,
            completed: 0,
            failure: None,
            mesh: Arc::new(Mutex::new(mesh)),
            thread: None,
            abort,
        }
    }

    /// Numbers the next operation, unless the world is over.
    fn issue(&mut self, kind: Kind, len: usize) -> Result<Operation, CollectiveError> {
        self.check()?;
        self.issued += 1;
        Ok(Operation { kind, generation: self.generation, sequence: self.issued, len: len as u64 })
    }

    fn check(&self) -> Result<(), CollectiveError> {
        self.failure.clone().map_or_else(|| self.abort.check(), Err)
    }

    /// Waits until operation `sequence` is over, whatever its end. Then its region is free:
    /// after a failure the communication thread touches no other.
    fn settle(&mut self, sequence: u64) -> Result<(), CollectiveError> {
        while self.completed < sequence && self.failure.is_none() {
            let thread = self.thread.as_ref().expect("pending operations have their thread");
            let result = thread.results.recv().expect("the communication thread panicked");
            self.conclude(result)?;
        }
        self.check()
    }

    fn conclude<T>(&mut self, result: Result<T, CollectiveError>) -> Result<T, CollectiveError> {
        match &result {
            Ok(_) => self.completed += 1,
            Err(error) => self.failure = Some(error.clone()),
        }
        result
    }

    /// Runs an operation on this thread, after all pending ones.
    fn run<T>(
        &mut self,
        (kind, len): (Kind, usize),
        work: impl FnOnce(&mut Mesh, &Operation) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        self.settle(self.issued)?;
        let operation = self.issue(kind, len)?;
        let result = attempt(&mut lock(&self.mesh), |mesh| work(mesh, &operation));
        self.conclude(result)
    }

    fn thread(&mut self) -> Result<&CommThread, CollectiveError> {
        if self.thread.is_none() {
            self.thread = Some(CommThread::start(self.channel, Arc::clone(&self.mesh))?);
        }
        Ok(self.thread.as_ref().expect("started above"))
    }
}

impl Collective for HostCollective {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn start_all_reduce(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError> {
        self.check()?;
        self.thread()?;
        let kind = Kind::AllReduce(reduction, region.element());
        let operation = self.issue(kind, region.len())?;
        let job = Job { operation, reduction, region };
        self.thread()?.jobs.send(job).expect("the communication thread panicked");
        Ok(Pending::new(operation.sequence))
    }

    fn wait(&mut self, pending: Pending) -> Result<(), CollectiveError> {
        self.settle(pending.sequence())
    }

    fn all_reduce(
        &mut self,
        mut values: Values<'_>,
        reduction: Reduction,
    ) -> Result<(), CollectiveError> {
        let element = values.element();
        let bytes = values.bytes();
        let kind = Kind::AllReduce(reduction, element);
        self.run((kind, bytes.len() / element.size()), |mesh, operation| {
            mesh.all_reduce(operation, (reduction, element), bytes)
        })
    }

    fn broadcast(&mut self, mut region: Region, root: Rank) -> Result<(), CollectiveError> {
        assert!(root.0 < self.world, "broadcast from rank {root} in a world of {}", self.world);
        let kind = Kind::Broadcast(root, region.element());
        self.run((kind, region.len()), |mesh, operation| {
            mesh.broadcast(operation, root, region.values().bytes())
        })
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let (rank, len) = (self.rank, mine.len() as u64);
        self.run((Kind::AllGather, mine.len()), |mesh, operation| {
            if mine.len() > MAX_GATHERED {
                return Err(CollectiveError::TooLarge { rank, len, limit: MAX_GATHERED });
            }
            mesh.all_gather(operation, mine)
        })
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.run((Kind::Barrier, 0), Mesh::barrier)
    }

    fn sequence(&self) -> u64 {
        self.issued
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl Drop for HostCollective {
    fn drop(&mut self) {
        if self.completed < self.issued && self.failure.is_none() {
            self.abort.abort();
        }
        if let Some(CommThread { jobs, handle, .. }) = self.thread.take() {
            drop(jobs);
            // A panic there was printed there, and reached us as a closed channel.
            handle.join().ok();
        }
    }
}

impl CommThread {
    fn start(channel: u32, mesh: Arc<Mutex<Mesh>>) -> Result<Self, CollectiveError> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(MAX_PENDING);
        let (outbox, results) = mpsc::channel();
        let handle = std::thread::Builder::new()
            .name(format!("collective-{channel}"))
            .spawn(move || {
                let mut failure = None;
                for job in inbox {
                    let result = failure.clone().map_or_else(|| job.run(&mesh), Err);
                    failure = result.clone().err();
                    if outbox.send(result).is_err() {
                        return;
                    }
                }
            })
            .map_err(|e| CollectiveError::system("start the communication thread", e))?;
        Ok(Self { jobs, results, handle })
    }
}

impl Job {
    fn run(mut self, mesh: &Mutex<Mesh>) -> Result<(), CollectiveError> {
        attempt(&mut lock(mesh), |mesh| {
            let mut values = self.region.values();
            let numbers = (self.reduction, values.element());
            mesh.all_reduce(&self.operation, numbers, values.bytes())
        })
    }
}

/// Does `work`; its failure closes the connections, so that the peers don't wait for us.
fn attempt<T>(
    mesh: &mut Mesh,
    work: impl FnOnce(&mut Mesh) -> Result<T, CollectiveError>,
) -> Result<T, CollectiveError> {
    let result = work(mesh);
    if result.is_err() {
        mesh.close();
    }
    result
}

fn lock(mesh: &Mutex<Mesh>) -> MutexGuard<'_, Mesh> {
    mesh.lock().expect("an operation panicked")
}

#[expect(clippy::disallowed_methods, reason = "the clock of the waits for peers")]
fn now() -> Instant {
    Instant::now()
}
