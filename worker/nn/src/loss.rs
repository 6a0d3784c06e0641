//! BYOL's loss and the spread of the projections, on tensors that hold both views one after the other.

use tch::{Kind, Tensor};

/// Below this, a squared norm counts as this: rows of zeros give a loss of 2 instead of NaN.
const TINY: f64 = 1e-12;

/// Symmetric loss of one rank's samples: its share of the mean over the global batch, and the gradient
/// with respect to the predictions.
///
/// ```text
/// l(q, z′) = ‖q̄ − z̄′‖² = 2 − 2·cos(q, z′),   x̄ = x·rsqrt(max(Σx², 1e-12))
/// L = 1/N Σ l(q₁, z₂′) + l(q₂, z₁′)            in [0, 8]; summed over the directions, not averaged
/// ∂l/∂q = −2·(z̄′ − cos·q̄)/‖q‖                   (the target's side is stopped)
/// ```
///
/// * `pred_vbd`, `target_vbd`: `[2B, d]`, view 1 then view 2;
/// * `global_batch` = N, over all ranks.
///
/// Source: Grill et al. 2020, arXiv:2006.07733, equations 2 and 3; `regression_loss` in the authors' code.
///
/// The loss is a scalar in f64 on the device of its arguments: nobody waits for it.
pub fn symmetric(pred_vbd: &Tensor, target_vbd: &Tensor, global_batch: f64) -> (Tensor, Tensor) {
    let half = pred_vbd.size()[0] / 2;
    // Crossed: each view predicts the other one's target.
    let crossed_vbd = target_vbd.roll(half, 0);
    let (pred_hat, pred_rnorm) = unit(pred_vbd);
    let (target_hat, _) = unit(&crossed_vbd);
    let cos_v1 = row_sum(&(&pred_hat * &target_hat));
    let loss = (cos_v1.ones_like() - &cos_v1).sum(Kind::Double) * 2.0;
    let gradient = (target_hat - &pred_hat * cos_v1) * pred_rnorm * (-2.0 / global_batch);
    (loss / global_batch, gradient)
}

/// Rows divided by their length, and 1/length.
pub(crate) fn unit(x_bd: &Tensor) -> (Tensor, Tensor) {
    let rnorm_b1 = row_sum(&(x_bd * x_bd)).clamp_min(TINY).rsqrt();
    (x_bd * &rnorm_b1, rnorm_b1)
}

/// Sums over the last dimension, which stays with length 1.
fn row_sum(x_bd: &Tensor) -> Tensor {
    x_bd.sum_dim_intlist([-1_i64].as_slice(), true, x_bd.kind())
}

/// Σ and Σ² of each dimension of the L2-normalized projections, `[2·d]`, to be added over ranks.
pub(crate) fn spread_sums(z_vbd: &Tensor) -> Tensor {
    let (z_hat, _) = unit(z_vbd);
    let over_rows = |x: &Tensor| x.sum_dim_intlist([0_i64].as_slice(), false, x.kind());
    Tensor::cat(&[over_rows(&z_hat), over_rows(&(&z_hat * &z_hat))], 0)
}

/// Mean over dimensions of the standard deviation of the L2-normalized projections.
///
/// 1/√d when they are spread over the whole sphere, 0 when all images are projected to one point.
/// `sums`: [`spread_sums`] added over `rows` rows of all ranks.
pub(crate) fn spread(sums: &[f64], rows: f64) -> f64 {
    let (first, second) = sums.split_at(sums.len() / 2);
    let deviations = first.iter().zip(second).map(|(sum, square)| {
        let mean = sum / rows;
        (square / rows - mean * mean).max(0.0).sqrt()
    });
    #[expect(clippy::cast_precision_loss, reason = "few dimensions")]
    let dimensions = first.len() as f64;
    deviations.sum::<f64>() / dimensions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(seed: f64) -> Tensor {
        let values: Vec<f64> = (0..24).map(|i| (f64::from(i) * 1.7 + seed).sin()).collect();
        Tensor::from_slice(&values).view([6, 4])
    }

    #[test]
    fn the_gradient_matches_finite_differences() {
        let (pred, target) = (views(0.3), views(2.0));
        let (_, gradient) = symmetric(&pred, &target, 3.0);
        for index in 0..24 {
            let nudged = |by: f64| {
                let nudge = pred.zeros_like();
                nudge.view([24]).get(index).copy_(&Tensor::from(by));
                symmetric(&(&pred + nudge), &target, 3.0).0.double_value(&[])
            };
            let slope = (nudged(1e-6) - nudged(-1e-6)) / 2e-6;
            let ours = gradient.view([24]).double_value(&[index]);
            assert!((ours - slope).abs() < 1e-8, "element {index}: {ours} against {slope}");
        }
    }

    #[test]
    fn a_view_that_predicts_the_other_ones_target_exactly_has_no_loss() {
        let pred = views(0.3);
        let loss = symmetric(&pred, &pred.roll(3, 0), 3.0).0.double_value(&[]);
        assert!(loss.abs() < 1e-12, "{loss}");
    }

    #[test]
    fn opposite_directions_cost_eight_in_all() {
        let pred = views(0.3);
        let loss = symmetric(&pred, &-pred.roll(3, 0), 3.0).0.double_value(&[]);
        assert!((loss - 8.0).abs() < 1e-12, "{loss}");
    }

    #[test]
    fn one_point_has_no_spread_and_the_axes_have_the_healthy_one() {
        let collapsed = spread_sums(&Tensor::ones([10, 4], (Kind::Double, tch::Device::Cpu)));
        let to_vec = |t: &Tensor| Vec::<f64>::try_from(t).unwrap();
        assert!(spread(&to_vec(&collapsed), 10.0) < 1e-7);
        let axes = Tensor::eye(4, (Kind::Double, tch::Device::Cpu));
        let both_signs = Tensor::cat(&[&axes, &-&axes], 0);
        let healthy = spread(&to_vec(&spread_sums(&both_signs)), 8.0);
        assert!((healthy - 0.5).abs() < 1e-12, "{healthy}");
    }
}
