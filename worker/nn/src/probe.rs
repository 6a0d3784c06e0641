//! The online linear probe: a classifier on the stopped representation of view 1.
//!
//! It is trained along with the same optimizer and η, and its gradient never reaches the encoder; it only
//! shows how much a linear classifier could read from the representation now.

use lockstep_collective::CollectiveError;
use tch::{Kind, Tensor};

use crate::head::Linear;
use crate::layout::Layout;
use crate::pass::Backward;
use crate::store::Store;

/// The classifier.
#[derive(Debug)]
pub(crate) struct Probe {
    linear: Linear,
}

/// What it found in one batch, as this rank's share, scalars in f64: sums to the global figure over ranks.
#[derive(Debug)]
pub(crate) struct Found {
    /// Σ cross-entropy / N.
    pub(crate) loss: Tensor,
    /// Images classified correctly: a whole number, so that its sum over ranks is exact in f32 and the
    /// accuracy never above 1.
    pub(crate) correct: Tensor,
}

impl Probe {
    pub(crate) fn new(layout: &mut Layout, features: i64, classes: i64) -> Self {
        Self { linear: Linear::new(layout, "probe", [features, classes], true) }
    }

    /// Classifies, and gives the gradient of the mean cross-entropy with respect to the logits:
    /// (softmax − one-hot)/N.
    pub(crate) fn look(
        &self,
        params: &Store,
        representation_bf: &Tensor,
        labels_b: &Tensor,
        global_batch: f64,
    ) -> (Found, Tensor) {
        let logits_bc = self.linear.apply(params, representation_bf);
        let log_p_bc = logits_bc.log_softmax(-1, logits_bc.kind());
        let index_b1 = labels_b.unsqueeze(-1);
        let loss = -log_p_bc.gather(-1, &index_b1, false).sum(Kind::Double);
        let correct = logits_bc.argmax(-1, false).eq_tensor(labels_b).sum(Kind::Double);
        let one_hot = log_p_bc.zeros_like().scatter_value(-1, &index_b1, 1.0);
        let gradient = (log_p_bc.exp() - one_hot) / global_batch;
        (Found { loss: loss / global_batch, correct }, gradient)
    }

    /// `gradient`: what [`Probe::look`] gave.
    pub(crate) fn backward(
        &self,
        pass: &mut Backward<'_>,
        representation_bf: &Tensor,
        gradient: &Tensor,
    ) -> Result<(), CollectiveError> {
        self.linear.backward_weights(pass, representation_bf, gradient)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn images_are_counted_whole_so_that_shares_of_many_ranks_cannot_add_up_to_more_than_all() {
        let mut layout = Layout::new(1e-5);
        let probe = Probe::new(&mut layout, 2, 2);
        let mut params = Store::zeros(layout.params(), layout.len(), Kind::Float, Device::Cpu);
        params.fill(&layout.params()[0], &[1.0, 0.0, 0.0, 1.0]);
        let images = Tensor::from_slice(&[3.0_f32, 1.0, 0.0, 2.0, 5.0, 4.0]).view([3, 2]);
        let labels = Tensor::from_slice(&[0_i64, 1, 0]);
        let (found, _) = probe.look(&params, &images, &labels, 49.0);
        assert_eq!(found.correct, Tensor::from(3.0_f64));
    }
}
