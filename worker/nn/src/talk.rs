//! What the ranks of a world say to each other in a step: two communicators, and batch norm's sums.

use lockstep_collective::{Collective, CollectiveError, Pending, Reduction};
use tch::{Device, Kind, Tensor};

use crate::layout::Layout;
use crate::pass::{Grouping, VIEWS};
use crate::store::signed;
use crate::{kernels, tensor};

/// The two communicators of a world. Batch norm's small messages never wait behind a bucket.
pub struct Communicators {
    /// Batch-norm statistics.
    pub statistics: Box<dyn Collective>,
    /// Gradient buckets, state, digests.
    pub gradients: Box<dyn Collective>,
}

impl std::fmt::Debug for Communicators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rank, world) = (self.gradients.rank(), self.gradients.world());
        write!(f, "Communicators(rank {rank} of {world})")
    }
}

/// Sums statistics over the ranks.
pub(crate) struct Talk<'a> {
    /// Who is talked to.
    pub(crate) comm: &'a mut dyn Collective,
    /// What a GPU's collective is lent; see [`Talk::buffer`].
    message: Option<&'a mut Tensor>,
    /// The newest sums that the device has and the host has not waited for.
    pending: Option<Pending>,
}

impl<'a> Talk<'a> {
    /// A permanent buffer for the longest message of statistics, where the engine runs on a device: a collective's stream
    /// may look at it behind the time when an aborted step has given back the rest of its memory. The host needs none.
    pub(crate) fn buffer(layout: &Layout, networks: usize, device: Device) -> Option<Tensor> {
        let widest = layout.running().iter().map(|spec| spec.channels).max().unwrap_or(0);
        let len = networks * (2 * VIEWS * widest).max(layout.stats_len());
        let buffer = Tensor::zeros([signed(len)], (Kind::Double, device));
        (!kernels::on_host(&buffer)).then_some(buffer)
    }

    /// Nothing said yet.
    pub(crate) fn new(comm: &'a mut dyn Collective, message: Option<&'a mut Tensor>) -> Self {
        Self { comm, message, pending: None }
    }

    /// Sums a layer's statistics over the ranks that hold some of each group.
    pub(crate) fn reduce(
        &mut self,
        grouping: Grouping,
        sums: Tensor,
    ) -> Result<Tensor, CollectiveError> {
        if grouping.global { self.sum_over_ranks(sums) } else { Ok(sums) }
    }

    /// Waits for all sums, before the host looks at the device.
    pub(crate) fn settle(&mut self) -> Result<(), CollectiveError> {
        self.pending.take().map_or(Ok(()), |pending| self.comm.wait(pending))
    }

    /// Sums over all ranks. On the host they are there when it returns; on a device, whatever is queued next sees
    /// them.
    pub(crate) fn sum_over_ranks(&mut self, mut sums: Tensor) -> Result<Tensor, CollectiveError> {
        let _span = tracing::trace_span!("statistics").entered();
        let Some(message) = self.message.as_deref_mut() else {
            self.comm.all_reduce(tensor::host_mut::<f64>(&mut sums).into(), Reduction::Sum)?;
            return Ok(sums);
        };
        let len = sums.numel();
        let mut lent = message.narrow(0, 0, signed(len));
        lent.copy_(&sums.view([-1]));
        let region = tensor::region(message, 0, len);
        self.pending = Some(self.comm.all_reduce_in_order(region, Reduction::Sum)?);
        sums.copy_(&lent.view_as(&sums));
        Ok(sums)
    }
}
