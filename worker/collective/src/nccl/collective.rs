//! One rank's end of a communicator between GPUs.

use std::time::Duration;

use super::communicator::Communicator;
use super::sys::{DataType, Target};
use super::{Nccl, UniqueId};
use crate::operation::{Kind, Operation};
use crate::{
    AbortHandle, Collective, CollectiveError, Element, MAX_GATHERED, Pending, Rank, Reduction,
    Region, Values,
};

/// What a rank must know to take its place in a communicator.
#[derive(Debug, Clone)]
pub struct NcclSpec {
    /// Our place.
    pub rank: Rank,
    /// Number of ranks.
    pub world: u32,
    /// Number of this world; every attempt to form one has a new number.
    pub generation: u64,
    /// The same on all ranks, fresh for every attempt and every communicator.
    pub id: UniqueId,
    /// The GPU by its index. `None` is host memory, which only the library made for tests accepts.
    pub device: Option<u32>,
    /// Longest wait for all ranks to arrive, and for an operation to end.
    pub deadline: Duration,
}

/// One rank's end of a communicator between GPUs.
///
/// Dropping it parts from the other ranks in peace, unless operations are pending or the world was
/// aborted: then it aborts what is under way.
#[derive(Debug)]
pub struct NcclCollective {
    spec: NcclSpec,
    issued: u64,
    abort: AbortHandle,
    comm: Communicator,
}

impl NcclCollective {
    /// Forms the communicator with the other ranks. `abort` ends the forming too.
    pub fn form(nccl: &Nccl, spec: NcclSpec, abort: AbortHandle) -> Result<Self, CollectiveError> {
        let (rank, world) = (spec.rank, spec.world);
        if rank.0 >= world {
            let fault = format!("rank {rank} in a world of {world}; ranks count from 0");
            return Err(CollectiveError::BadWorld(fault));
        }
        // Whatever the reason: a communicator of the same world must not wait for peers.
        let comm = Communicator::form(nccl, &spec, abort.clone()).inspect_err(|_| abort.abort())?;
        Ok(Self { spec, issued: 0, abort, comm })
    }

    /// Numbers the next operation, unless the world is over.
    fn issue(
        &mut self,
        kind: Kind,
        len: usize,
        bytes: usize,
    ) -> Result<Operation, CollectiveError> {
        self.comm.check()?;
        self.issued += 1;
        let (generation, sequence) = (self.spec.generation, self.issued);
        let operation = Operation { kind, generation, sequence, len: len as u64 };
        self.comm.issued(operation, bytes);
        Ok(operation)
    }

    /// Reduces host memory in place, in pieces that fit the staging memory.
    fn reduce(
        &mut self,
        operation: Operation,
        (reduction, element): (Reduction, Element),
        bytes: &mut [u8],
    ) -> Result<(), CollectiveError> {
        for piece in bytes.chunks_mut(Communicator::CAPACITY) {
            let (size, kind) = (piece.len(), DataType::Numbers(element));
            self.comm.staged()[..size].copy_from_slice(piece);
            self.comm.exchange(operation, size, |api, lane| {
                let start = lane.staging.start();
                let target = Target { start, len: size / element.size(), kind };
                api.all_reduce(&lane.comm, &lane.stream, target, reduction)
            })?;
            piece.copy_from_slice(&self.comm.staged()[..size]);
        }
        Ok(())
    }

    /// Everybody's `mine`, one after the other, in staging memory. All are of the same length.
    fn gather(&mut self, operation: Operation, mine: &[u8]) -> Result<&[u8], CollectiveError> {
        let (rank, part) = (self.spec.rank, mine.len());
        let all = part * self.spec.world as usize;
        self.comm.staged()[rank.index() * part..][..part].copy_from_slice(mine);
        self.comm.exchange(operation, all, |api, lane| {
            let start = lane.staging.start();
            let target = Target { start, len: all, kind: DataType::Bytes };
            api.all_gather(&lane.comm, &lane.stream, target, (rank, part))
        })?;
        Ok(&self.comm.staged()[..all])
    }

    /// Everybody's lengths by rank, none above the limit.
    fn lengths(
        &mut self,
        operation: Operation,
        mine: usize,
    ) -> Result<Vec<usize>, CollectiveError> {
        const WORD: usize = size_of::<u64>();
        let words = self.gather(operation, &(mine as u64).to_le_bytes())?;
        let lens: Vec<_> =
            words.as_chunks::<WORD>().0.iter().copied().map(u64::from_le_bytes).collect();
        let limit = MAX_GATHERED;
        let too_long = (0..).map(Rank).zip(&lens).find(|(_, len)| **len > limit as u64);
        if let Some((rank, &len)) = too_long {
            let error = CollectiveError::TooLarge { rank, len, limit };
            return Err(self.comm.give_up(&operation.to_string(), error));
        }
        Ok(lens.into_iter().map(|len| usize::try_from(len).expect("within the limit")).collect())
    }
}

impl Collective for NcclCollective {
    fn rank(&self) -> Rank {
        self.spec.rank
    }

    fn world(&self) -> u32 {
        self.spec.world
    }

    fn start_all_reduce(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError> {
        let target = Target::from(&region);
        let kind = Kind::AllReduce(reduction, region.element());
        let operation = self.issue(kind, region.len(), region.bytes())?;
        self.comm.enqueue(operation, |api, lane| {
            api.all_reduce(&lane.comm, &lane.stream, target, reduction)
        })?;
        Ok(Pending::new(operation.sequence))
    }

    fn all_reduce_in_order(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError> {
        let pending = self.start_all_reduce(region, reduction)?;
        self.comm.follow()?;
        Ok(pending)
    }

    fn wait(&mut self, pending: Pending) -> Result<(), CollectiveError> {
        self.comm.settle(pending.sequence())
    }

    fn all_reduce(
        &mut self,
        mut values: Values<'_>,
        reduction: Reduction,
    ) -> Result<(), CollectiveError> {
        let element = values.element();
        let bytes = values.bytes();
        let kind = Kind::AllReduce(reduction, element);
        let operation = self.issue(kind, bytes.len() / element.size(), bytes.len())?;
        self.reduce(operation, (reduction, element), bytes)
    }

    fn broadcast(&mut self, region: Region, root: Rank) -> Result<(), CollectiveError> {
        let world = self.spec.world;
        assert!(root.0 < world, "broadcast from rank {root} in a world of {world}");
        let target = Target::from(&region);
        let kind = Kind::Broadcast(root, region.element());
        let operation = self.issue(kind, region.len(), region.bytes())?;
        self.comm.enqueue(operation, |api, lane| {
            api.broadcast(&lane.comm, &lane.stream, target, root)
        })?;
        self.comm.settle(operation.sequence)
    }

    /// First the lengths; then the bytes, in rounds as large as staging memory allows.
    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let operation = self.issue(Kind::AllGather, mine.len(), mine.len())?;
        let lens = self.lengths(operation, mine.len())?;
        let longest = lens.iter().copied().max().unwrap_or(0);
        let mut gathered: Vec<Vec<u8>> = lens.iter().map(|&len| Vec::with_capacity(len)).collect();
        for start in (0..longest).step_by(Communicator::CAPACITY / lens.len()) {
            let part = (longest - start).min(Communicator::CAPACITY / lens.len());
            let mut padded = vec![0; part];
            let rest = mine.get(start..).unwrap_or_default();
            let len = rest.len().min(part);
            padded[..len].copy_from_slice(&rest[..len]);
            let parts = self.gather(operation, &padded)?.chunks(part);
            for ((whole, part), &len) in gathered.iter_mut().zip(parts).zip(&lens) {
                let missing = (len - whole.len()).min(part.len());
                whole.extend_from_slice(&part[..missing]);
            }
        }
        Ok(gathered)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        let mut nothing = [0_u8; size_of::<f32>()];
        let operation = self.issue(Kind::Barrier, 0, nothing.len())?;
        self.reduce(operation, (Reduction::Sum, Element::F32), &mut nothing)
    }

    fn sequence(&self) -> u64 {
        self.issued
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}
