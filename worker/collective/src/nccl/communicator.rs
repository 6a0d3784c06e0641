//! A communicator's life: formed without blocking, fed in order, ended without exception.
//!
//! ```text
//!  form ── ncclCommInitRankConfig ── in progress? ask again ──▶ stands
//!                                                                 │ enqueue
//!   null stream ──● ready                                         ▼
//!   own stream    └─▶ operation ── taken up? ask again ──● over ──▶ settle: has it come? ask again
//! ```
//!
//! Every "ask again" heeds the abort switch, NCCL's asynchronous errors and the deadline. The first
//! failure throws the switch, so that the world's other communicator ends too, and begins
//! `ncclCommAbort`; then the GPU has [`DRAIN`] to let go of the memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::closing::{Closer, Ending, Lane};
use super::cuda::{CudaFailure, Device, Event, Staging, Stream};
use super::history::History;
use super::patience::{now, until};
use super::sys::{Api, Comm};
use super::{Nccl, NcclSpec};
use crate::operation::Operation;
use crate::{AbortHandle, CollectiveError, NcclFailure};

/// How long an aborted operation may hold on to its memory.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the ranks wait for each other at a peaceful end.
const PARTING: Duration = Duration::from_secs(2);
/// Operations that the null stream follows and the host has not looked back at.
const AHEAD: usize = 4;
/// Bytes staged at once for numbers that live on the host.
const STAGED: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Communicator {
    api: Arc<Api>,
    nccl: Nccl,
    closer: Closer,
    device: Arc<Device>,
    /// Taken when the end begins.
    lane: Option<Lane>,
    /// Comes when the null stream has done what it had to do before an operation.
    ready: Event,
    /// Comes last of all, at an abort.
    drained: Event,
    /// Of operations that are over.
    spare: Vec<Event>,
    flying: VecDeque<Flying>,
    history: History,
    formed: Instant,
    deadline: Duration,
    abort: AbortHandle,
    /// The first failure; final.
    failure: Option<CollectiveError>,
}

/// An operation under way.
#[derive(Debug)]
struct Flying {
    operation: Operation,
    over: Event,
}

/// Why an operation can't go on.
#[derive(Debug)]
pub(super) enum Trouble {
    Nccl(NcclFailure),
    Cuda(CudaFailure),
    Aborted,
    Overdue,
}

impl From<NcclFailure> for Trouble {
    fn from(failure: NcclFailure) -> Self {
        Self::Nccl(failure)
    }
}

impl From<CudaFailure> for Trouble {
    fn from(failure: CudaFailure) -> Self {
        Self::Cuda(failure)
    }
}

impl Trouble {
    fn during(self, op: String, deadline: Duration) -> CollectiveError {
        match self {
            Self::Nccl(failure) => CollectiveError::Nccl { op, failure },
            Self::Cuda(CudaFailure { call, reason }) => CollectiveError::Cuda { op, call, reason },
            Self::Aborted => CollectiveError::Aborted,
            Self::Overdue => CollectiveError::Overdue { op, waited: deadline },
        }
    }
}

impl Communicator {
    pub(super) fn form(
        nccl: &Nccl,
        spec: &NcclSpec,
        abort: AbortHandle,
    ) -> Result<Self, CollectiveError> {
        let op = || {
            let NcclSpec { rank, world, generation, .. } = spec;
            format!("forming generation {generation} (rank {rank} of {world})")
        };
        let earlier = nccl.closing();
        until(DRAIN, || abort.check().map(|()| earlier.are_over()))?.ok_or_else(|| {
            let op = "a communicator of an earlier world".into();
            CollectiveError::Undrained { op, waited: DRAIN }
        })?;
        let unusable = |CudaFailure { call, reason }| match call {
            "cuInit" | "cuDeviceGet" => {
                CollectiveError::Unusable(format!("CUDA's {call} failed: {reason}"))
            }
            // It is there: another process may find it in a better state.
            _ => CollectiveError::Cuda { op: op(), call, reason },
        };
        let (driver, ordinal) = nccl
            .driver(spec.device)
            .map_err(|error| CollectiveError::Unusable(error.to_string()))?;
        let device = Device::open(driver, ordinal).map_err(unusable)?;
        let closer = Closer::start(nccl.api(), Arc::clone(&device), nccl.closing())
            .map_err(|error| CollectiveError::system("start a thread for the end", error))?;
        let begun = Self::begin(nccl, (device, closer), spec, abort);
        let mut this = begun.map_err(|trouble| trouble.during(op(), spec.deadline))?;
        match this.stands() {
            Ok(()) => Ok(this),
            Err(trouble) => Err(this.give_up(&op(), trouble.during(op(), spec.deadline))),
        }
    }

    /// Asks NCCL for the communicator.
    fn begin(
        nccl: &Nccl,
        (device, closer): (Arc<Device>, Closer),
        spec: &NcclSpec,
        abort: AbortHandle,
    ) -> Result<Self, Trouble> {
        let api = nccl.api();
        let (ready, drained) = (Event::new(&device)?, Event::new(&device)?);
        let stream = Stream::new(&device)?;
        let staging = Staging::new(&device, STAGED)?;
        let comm = api.begin(spec.world, spec.rank, &spec.id)?;
        let lane = Lane { comm, stream, staging, device: Arc::clone(&device) };
        Ok(Self {
            api,
            nccl: nccl.clone(),
            closer,
            device,
            lane: Some(lane),
            ready,
            drained,
            spare: Vec::new(),
            flying: VecDeque::new(),
            history: History::default(),
            formed: now(),
            deadline: spec.deadline,
            abort,
            failure: None,
        })
    }

    /// Waits until all ranks have come.
    fn stands(&mut self) -> Result<(), Trouble> {
        let lane = self.lane.as_ref().expect("just begun");
        taken_up(&self.api, &lane.comm, &self.abort, self.deadline)
    }

    /// Refuses everything after the first failure; the switch is one.
    pub(super) fn check(&mut self) -> Result<(), CollectiveError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.abort.check().map_err(|error| self.give_up("the next operation", error))
    }

    /// Notes a new operation, of `bytes`.
    pub(super) fn issued(&mut self, operation: Operation, bytes: usize) {
        self.history.issued(operation, bytes, self.formed.elapsed());
    }

    /// Queues an operation on memory of the GPU, after what the null stream does with it.
    pub(super) fn enqueue(
        &mut self,
        operation: Operation,
        launch: impl FnOnce(&Api, &Lane) -> Result<(), NcclFailure>,
    ) -> Result<(), CollectiveError> {
        self.attempt(operation, |this, lane| {
            this.device.enter()?;
            this.ready.record(None)?;
            lane.stream.wait(&this.ready)?;
            launch(&this.api, lane)?;
            taken_up(&this.api, &lane.comm, &this.abort, this.deadline)
        })
    }

    /// Runs one operation on the first `len` bytes of the [`staged`](Self::staged) memory, and waits.
    pub(super) fn exchange(
        &mut self,
        operation: Operation,
        len: usize,
        launch: impl FnOnce(&Api, &Lane) -> Result<(), NcclFailure>,
    ) -> Result<(), CollectiveError> {
        self.attempt(operation, |this, lane| {
            this.device.enter()?;
            lane.staging.upload(len, &lane.stream)?;
            launch(&this.api, lane)?;
            taken_up(&this.api, &lane.comm, &this.abort, this.deadline)?;
            Ok(lane.staging.download(len, &lane.stream)?)
        })?;
        self.settle(operation.sequence)
    }

    /// Memory for the next [`exchange`](Self::exchange).
    pub(super) fn staged(&mut self) -> &mut [u8] {
        self.lane.as_mut().expect("the communicator was checked").staging.bytes()
    }

    /// Bytes of it.
    pub(super) const CAPACITY: usize = STAGED;

    /// Does `work`, and marks its end in the stream.
    fn attempt(
        &mut self,
        operation: Operation,
        work: impl FnOnce(&Self, &Lane) -> Result<(), Trouble>,
    ) -> Result<(), CollectiveError> {
        let spare = self.spare.pop();
        let lane = self.lane.as_ref().expect("the communicator was checked");
        let marked = work(self, lane).and_then(|()| {
            let over = spare.map_or_else(|| Event::new(&self.device), Ok)?;
            over.record(Some(&lane.stream))?;
            Ok(over)
        });
        match marked {
            Ok(over) => {
                self.flying.push_back(Flying { operation, over });
                self.nccl.closing().took_off();
                Ok(())
            }
            Err(trouble) => Err(self.fail(operation, trouble)),
        }
    }

    /// Lets the null stream go on behind the newest operation. The host stays near: it looks back at what lies more than
    /// [`AHEAD`] operations behind, lest it fill the GPU's queue, where a launch blocks without a deadline.
    pub(super) fn follow(&mut self) -> Result<(), CollectiveError> {
        let Flying { operation, over } = self.flying.back().expect("one was just queued");
        let operation = *operation;
        over.hold_null_stream().map_err(|failure| self.fail(operation, failure.into()))?;
        match self.flying.len().checked_sub(AHEAD + 1) {
            Some(oldest) => self.settle(self.flying[oldest].operation.sequence),
            None => Ok(()),
        }
    }

    /// Waits until operation `sequence`, and all before it, are over.
    pub(super) fn settle(&mut self, sequence: u64) -> Result<(), CollectiveError> {
        while let Some(flying) = self.flying.pop_front_if(|f| f.operation.sequence <= sequence) {
            let Flying { operation, over } = flying;
            self.nccl.closing().landed(1);
            let came = self.has_come(&over);
            self.spare.push(over);
            came.map_err(|trouble| self.fail(operation, trouble))?;
            self.history.over(operation.sequence, self.formed.elapsed());
        }
        self.check()
    }

    fn has_come(&self, over: &Event) -> Result<(), Trouble> {
        let lane = self.lane.as_ref().expect("flying operations have their communicator");
        let came = until(self.deadline, || {
            if over.has_come()? {
                return Ok(Some(()));
            }
            self.abort.check().map_err(|_| Trouble::Aborted)?;
            self.api.progress(&lane.comm)?;
            Ok::<_, Trouble>(None)
        });
        came?.ok_or(Trouble::Overdue)
    }

    fn fail(&mut self, operation: Operation, trouble: Trouble) -> CollectiveError {
        let op = operation.to_string();
        let error = trouble.during(op.clone(), self.deadline);
        self.give_up(&op, error)
    }

    /// Ends the communicator, and the world. `error` is what becomes of later calls, unless the GPU
    /// does not let go of the memory. That is not waited for while another communicator has operations
    /// under way, whose end the abort waits for: then the last one waits for all when it is dropped.
    pub(super) fn give_up(&mut self, op: &str, error: CollectiveError) -> CollectiveError {
        self.abort.abort();
        for line in self.history.lines() {
            tracing::warn!(operation = line, "in the history of an aborted communicator");
        }
        let lane = self.lane.take().expect("a communicator fails once");
        // NCCL may still be about to queue something: it will see that it is aborted and do nothing.
        let marked = self.device.enter().and_then(|()| self.drained.record(Some(&lane.stream)));
        let closing = self.nccl.closing();
        closing.landed(self.flying.len());
        self.closer.end(lane, Ending::Abort);
        let drained = marked.and_then(|()| match closing.nothing_flies() {
            Some(()) => until(DRAIN, || self.drained.has_come().map(|come| come.then_some(()))),
            None => Ok(Some(())),
        });
        self.flying.clear();
        let error = match drained {
            Ok(Some(())) => error,
            Ok(None) => CollectiveError::Undrained { op: op.to_owned(), waited: DRAIN },
            Err(failure) => Trouble::Cuda(failure).during(op.to_owned(), DRAIN),
        };
        self.failure = Some(error.clone());
        error
    }

    /// Says goodbye to the other ranks, so that none is cut off in its last operation.
    fn part(&self, lane: &Lane) -> Result<(), Trouble> {
        self.device.enter()?;
        self.api.finalize(&lane.comm)?;
        taken_up(&self.api, &lane.comm, &self.abort, PARTING.min(self.deadline))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        let closing = self.nccl.closing();
        if !self.flying.is_empty() || self.abort.is_aborted() {
            if self.lane.is_some() {
                self.give_up("the operations at its end", CollectiveError::Aborted);
            }
            if closing.nothing_flies().is_none() {
                return;
            }
        } else {
            let Some(lane) = self.lane.take() else { return };
            let ending = match self.part(&lane) {
                Ok(()) => Ending::Destroy,
                Err(trouble) => {
                    tracing::warn!(?trouble, "the ranks did not part in peace");
                    Ending::Abort
                }
            };
            self.closer.end(lane, ending);
        }
        // If it is not over then, the next world says so.
        until(DRAIN, || Ok::<_, Infallible>(closing.are_over())).ok();
    }
}

/// Waits until NCCL has taken up what it was asked.
fn taken_up(
    api: &Api,
    comm: &Comm,
    abort: &AbortHandle,
    deadline: Duration,
) -> Result<(), Trouble> {
    let answer = until(deadline, || {
        abort.check().map_err(|_| Trouble::Aborted)?;
        Ok::<_, Trouble>(api.progress(comm)?.then_some(()))
    });
    answer?.ok_or(Trouble::Overdue)
}
