//! Flat buffers: parameters, gradients or momentum of a network in one permanent tensor, with a view
//! per parameter.

use lockstep_collective::Region;
use tch::{Device, Kind, Tensor};

use crate::layout::{Layout, ParamId, ParamSpec, Role, StatsSpec};
use crate::tensor;

/// One flat buffer and its views.
#[derive(Debug)]
pub(crate) struct Store {
    flat: Tensor,
    views: Vec<Tensor>,
}

impl Store {
    /// Zeros for `params`, whose elements end before `len`.
    pub(crate) fn zeros(params: &[ParamSpec], len: usize, kind: Kind, device: Device) -> Self {
        let flat = Tensor::zeros([signed(len)], (kind, device));
        let views = params.iter().map(|spec| view(&flat, spec)).collect();
        Self { flat, views }
    }

    /// A buffer of another element type for the same parameters.
    pub(crate) fn in_kind(&self, params: &[ParamSpec], kind: Kind) -> Self {
        Self::zeros(&params[..self.views.len()], self.flat.numel(), kind, self.flat.device())
    }

    /// All elements, padding included.
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// As [`Store::flat`], to write.
    pub(crate) fn flat_mut(&mut self) -> &mut Tensor {
        &mut self.flat
    }

    /// One parameter, in its logical shape.
    pub(crate) fn get(&self, id: ParamId) -> &Tensor {
        &self.views[id.0]
    }

    /// As [`Store::get`], to write.
    pub(crate) fn get_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.views[id.0]
    }

    /// Elements `first..first + len` as a tensor that shares memory.
    pub(crate) fn stretch(&self, first: usize, len: usize) -> Tensor {
        self.flat.narrow(0, signed(first), signed(len))
    }

    /// Lends elements `first..first + len` to a collective.
    pub(crate) fn lend(&mut self, first: usize, len: usize) -> Region {
        tensor::region(&mut self.flat, first, len)
    }

    /// Copies host values in memory order into one parameter.
    pub(crate) fn fill(&mut self, spec: &ParamSpec, values: &[f64]) {
        self.stretch(spec.offset, spec.len()).copy_(&Tensor::from_slice(values));
    }
}

/// One parameter of a flat buffer, in its logical shape.
pub(crate) fn view(flat: &Tensor, spec: &ParamSpec) -> Tensor {
    let stretch = flat.narrow(0, signed(spec.offset), signed(spec.len()));
    match (spec.role, spec.shape.as_slice()) {
        (Role::Convolution, &[out, input, height, width]) => {
            stretch.view([out, height, width, input]).permute([0, 3, 1, 2])
        }
        _ => stretch.view(spec.shape.as_slice()),
    }
}

/// Lengths for the tensor library, which counts in `i64`.
pub(crate) fn signed(len: usize) -> i64 {
    i64::try_from(len).expect("no buffer has 2^63 elements")
}

/// Running means and variances of one network, f64 whatever the engine computes in: a few thousand numbers
/// that are averaged over a whole run.
#[derive(Debug)]
pub(crate) struct Running {
    flat: Tensor,
}

impl Running {
    /// Mean 0, variance 1, as PyTorch starts.
    pub(crate) fn new(layout: &Layout, device: Device) -> Self {
        let mut values = vec![0.0; layout.stats_len()];
        for spec in layout.running() {
            values[spec.offset + spec.channels..][..spec.channels].fill(1.0);
        }
        Self { flat: Tensor::from_slice(&values).to_device(device) }
    }

    /// Makes all of it 0.
    pub(crate) fn clear(&mut self) {
        let _cleared = self.flat.zero_();
    }

    /// All of it.
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// As [`Running::flat`], to write.
    pub(crate) fn flat_mut(&mut self) -> &mut Tensor {
        &mut self.flat
    }

    /// Means and variances of one batch norm.
    pub(crate) fn split(&self, spec: &StatsSpec) -> (Tensor, Tensor) {
        let part = |first: usize| self.flat.narrow(0, signed(first), signed(spec.channels));
        (part(spec.offset), part(spec.offset + spec.channels))
    }

    /// `old ← decay·old + new` for means and variances of one batch norm, one behind the other.
    pub(crate) fn move_by(&mut self, spec: &StatsSpec, decay: f64, new: &Tensor) {
        let mut old = self.flat.narrow(0, signed(spec.offset), signed(2 * spec.channels));
        old *= decay;
        old += new;
    }
}

impl Clone for Running {
    /// Copies the values; a tensor's own clone would share them.
    fn clone(&self) -> Self {
        Self { flat: self.flat.copy() }
    }
}
