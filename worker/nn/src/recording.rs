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
    /// q of this rank's samples, `[2B, d]`: view 1, then view 2.
    pub predictions_vbd: Tensor,
    /// z′ in the same order.
    pub target_projections_vbd: Tensor,
    /// This rank's share of the loss: the sum over its samples, divided by N.
    pub loss: f64,
    /// Gradients in the order of the flat buffers, summed over all ranks: the mean over N samples.
    pub gradients: Tensor,
}

/// Keeps what the next step sees, if asked to.
#[derive(Debug, Default)]
pub(crate) enum Recorder {
    #[default]
    Off,
    Asked,
    Done(Recording),
}

impl Recorder {
    pub(crate) fn record(&mut self, seen: &Seen, loss: f64, gradients: &Store) {
        if matches!(self, Self::Asked) {
            *self = Self::Done(Recording {
                predictions_vbd: seen.predictions.copy(),
                target_projections_vbd: seen.target_projections.copy(),
                loss,
                gradients: gradients.flat().copy(),
            });
        }
    }
}

impl Byol {
    /// Makes the next step leave a [`Recording`].
    pub fn record_next_step(&mut self) {
        self.recorder = Recorder::Asked;
    }

    /// The recorded step; `None` if it did not come so far, or none was asked for.
    pub fn take_recording(&mut self) -> Option<Recording> {
        match std::mem::take(&mut self.recorder) {
            Recorder::Done(recording) => Some(recording),
            Recorder::Off | Recorder::Asked => None,
        }
    }
}
