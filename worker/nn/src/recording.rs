//! What one step saw, kept for a program that recomputes it: outputs, loss and gradients of a single step,
//! on request.
//!
//! Gradients are copied when they are final: the next step's backward writes over them.

use tch::Tensor;

use crate::byol::{Byol, Seen};
use crate::store::Store;

/// A recorded step of one rank.
#[derive(Debug)]
pub struct Recording {
    /// q of this rank's samples, for each micro-batch: view 1, then view 2.
    pub predictions_vbd: Vec<Tensor>,
    /// z′ in the same order.
    pub target_projections_vbd: Vec<Tensor>,
    /// This rank's share of the loss: the sum over its samples, divided by N.
    pub loss: f64,
    /// Gradients in the order of the flat buffers, summed over all ranks: the mean over N samples.
    pub gradients: Tensor,
}

impl Recording {
    fn begun() -> Self {
        let (predictions_vbd, target_projections_vbd) = (Vec::new(), Vec::new());
        Self { predictions_vbd, target_projections_vbd, loss: 0.0, gradients: Tensor::new() }
    }

    /// Adds a micro-batch. The gradients are whole behind the last one.
    pub(crate) fn add(&mut self, seen: &Seen, loss: f64, gradients: &Store) {
        self.predictions_vbd.push(seen.predictions.copy());
        self.target_projections_vbd.push(seen.target_projections.copy());
        self.loss += loss;
        self.gradients = gradients.flat().copy();
    }
}

impl Byol {
    /// Makes the next step leave a [`Recording`].
    pub fn record_next_step(&mut self) {
        self.recording = Some(Recording::begun());
    }

    /// The recorded step; `None` if none was asked for.
    pub fn take_recording(&mut self) -> Option<Recording> {
        self.recording.take()
    }
}
