//! The state by name, in torchvision's words and logical shapes: for audits, export and import.
//!
//! All tensors here are views of the flat buffers: nothing is copied, and channels-last weights stay so
//! in memory.

use tch::Tensor;

use crate::byol::Byol;
use crate::layout::StatsSpec;
use crate::store::{signed, view};

/// One of the two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// θ: encoder, projector, predictor, and the probe where there is one.
    Online,
    /// ξ: encoder and projector.
    Target,
}

impl Byol {
    /// Weights and running statistics of one network, such as `encoder.bn1.running_mean`.
    pub fn network(&self, side: Side) -> Vec<(String, Tensor)> {
        let [(_, online), (_, target), _, (_, online_running), (_, target_running)] = self.state();
        let (params, running) = match side {
            Side::Online => (online, online_running),
            Side::Target => (target, target_running),
        };
        // The target keeps no predictor, but the layout of its running statistics has room for one.
        let kept = |spec: &&StatsSpec| side == Side::Online || !spec.name.starts_with("predictor.");
        let stats = self.layout().running().iter().filter(kept);
        let stats = stats.flat_map(|spec| statistics(running, spec));
        self.parameters(params).into_iter().chain(stats).collect()
    }

    /// As [`Byol::network`], to write.
    pub fn network_mut(&mut self, side: Side) -> Vec<(String, Tensor)> {
        self.network(side)
    }

    /// The parameters that lie in a buffer of this model's layout, such as its momentum.
    pub fn parameters(&self, flat: &Tensor) -> Vec<(String, Tensor)> {
        let inside = self.layout().params().iter();
        let inside = inside.take_while(|spec| spec.offset + spec.len() <= flat.numel());
        inside.map(|spec| (spec.name.clone(), view(flat, spec))).collect()
    }
}

fn statistics(running: &Tensor, spec: &StatsSpec) -> [(String, Tensor); 2] {
    let part = |index: usize| {
        let first = spec.offset + index * spec.channels;
        running.narrow(0, signed(first), signed(spec.channels))
    };
    [
        (format!("{}.running_mean", spec.name), part(0)),
        (format!("{}.running_var", spec.name), part(1)),
    ]
}
