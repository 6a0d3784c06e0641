//! Gradients on their way to the other ranks.
//!
//! Place in the step: backward hands over each gradient once, last layer first, and it adds up over the
//! micro-batches of a step. In the last of them, a bucket whose gradients are all there is summed over the
//! ranks while the layers below are still being computed.
//!
//! Behind the gradients the flat buffer has a *tail*: the few numbers that a step reports (loss, spread of
//! the projections, probe) and that every rank must know alike. They travel in the first bucket.
//!
//! They may travel as bf16: then a bucket is cast into a second permanent buffer, summed over the ranks there, and cast
//! back at the end. The tail keeps its bits, and is a message of its own.

use std::ops::Range;

use lockstep_collective::bucket::{Plan, Tracker};
use lockstep_collective::{Collective, CollectiveError, Pending, Reduction, Region};
use tch::Tensor;

use crate::layout::ParamId;
use crate::store::{Store, signed};
use crate::tensor;
use crate::views::Turn;

/// Where one backward pass delivers.
pub(crate) struct Gradients<'a> {
    store: &'a mut Store,
    /// The gradients, without the tail, as they travel, where that is as bf16.
    wire: Option<&'a mut Tensor>,
    plan: &'a Plan,
    tracker: Tracker,
    comm: &'a mut dyn Collective,
    turn: Turn,
    pending: Vec<Pending>,
}

impl<'a> Gradients<'a> {
    /// Nothing delivered yet.
    pub(crate) fn new(
        (store, wire): (&'a mut Store, Option<&'a mut Tensor>),
        plan: &'a Plan,
        comm: &'a mut dyn Collective,
        turn: Turn,
    ) -> Self {
        let tracker = Tracker::new(plan);
        Self { store, wire, plan, tracker, comm, turn, pending: Vec::new() }
    }

    /// Delivers the gradient of `param`: a sum over this rank's samples, already divided by N.
    pub(crate) fn put(&mut self, param: ParamId, gradient: &Tensor) -> Result<(), CollectiveError> {
        add(self.store.get_mut(param), gradient, self.turn);
        self.launch(param.0)
    }

    /// Delivers the tail, the last entry of the plan.
    pub(crate) fn put_tail(&mut self, values: &Tensor) -> Result<(), CollectiveError> {
        let elements = usize::try_from(values.size()[0]).expect("sizes are positive");
        let first = self.store.flat().numel() - elements;
        add(&mut self.store.stretch(first, elements), values, self.turn);
        self.launch(self.plan_len() - 1)
    }

    /// Waits for the last bucket.
    pub(crate) fn finish(mut self) -> Result<(), CollectiveError> {
        let _span = tracing::info_span!("all_reduce").entered();
        assert!(self.tracker.is_complete(), "backward left a parameter without gradient");
        self.pending.drain(..).try_for_each(|pending| self.comm.wait(pending))?;
        if let Some(wire) = self.wire.filter(|_| self.turn.last) {
            self.store.stretch(0, wire.numel()).copy_(wire);
        }
        Ok(())
    }

    fn plan_len(&self) -> usize {
        self.plan.buckets().first().map_or(0, |bucket| bucket.params.end)
    }

    fn launch(&mut self, entry: usize) -> Result<(), CollectiveError> {
        let ready = self.tracker.ready(entry);
        if !self.turn.last {
            return Ok(());
        }
        ready.into_iter().try_for_each(|bucket| self.send(&self.plan.buckets()[bucket].elements))
    }

    fn send(&mut self, elements: &Range<usize>) -> Result<(), CollectiveError> {
        let cast = self.wire.as_ref().map_or(0, |wire| wire.numel());
        let gradients = elements.start..elements.end.min(cast);
        if let Some(wire) = self.wire.as_deref_mut().filter(|_| !gradients.is_empty()) {
            let (first, len) = (gradients.start, gradients.len());
            wire.narrow(0, signed(first), signed(len)).copy_(&self.store.stretch(first, len));
            let region = tensor::region(wire, first, len);
            self.start(region)?;
        }
        let as_they_are = elements.start.max(cast)..elements.end;
        if as_they_are.is_empty() {
            return Ok(());
        }
        let region = self.store.lend(as_they_are.start, as_they_are.len());
        self.start(region)
    }

    fn start(&mut self, region: Region) -> Result<(), CollectiveError> {
        self.pending.push(self.comm.start_all_reduce(region, Reduction::Sum)?);
        Ok(())
    }
}

/// `sum` becomes `gradient` in the first micro-batch of a step, and grows by it in the others.
fn add(sum: &mut Tensor, gradient: &Tensor, turn: Turn) {
    if turn.first {
        sum.copy_(gradient);
    } else {
        *sum += gradient;
    }
}
