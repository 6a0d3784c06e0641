//! What one step saw, kept for a program that recomputes it: outputs and loss of a single step, on request.

use tch::Tensor;

use crate::byol::{Byol, Seen};

/// A recorded step of one rank.
#[derive(Debug, Default)]
pub struct Recording {
    /// q of this rank's samples, for each micro-batch: view 1, then view 2.
    pub predictions_vbd: Vec<Tensor>,
    /// z′ in the same order.
    pub target_projections_vbd: Vec<Tensor>,
    /// This rank's share of the loss: the sum over its samples, divided by N.
    pub loss: f64,
}

impl Recording {
    /// Adds a micro-batch.
    pub(crate) fn add(&mut self, seen: &Seen, loss: f64) {
        self.predictions_vbd.push(seen.predictions.copy());
        self.target_projections_vbd.push(seen.target_projections.copy());
        self.loss += loss;
    }
}

impl Byol {
    /// Makes the next step leave a [`Recording`].
    pub fn record_next_step(&mut self) {
        self.recording = Some(Recording::default());
    }

    /// The recorded step; `None` if none was asked for.
    pub fn take_recording(&mut self) -> Option<Recording> {
        self.recording.take()
    }
}
