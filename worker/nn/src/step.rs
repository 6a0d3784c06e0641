//! One optimizer step on one rank: Algorithm 1 of the paper, line by line.

use lockstep_collective::CollectiveError;

use crate::byol::{Byol, Report};
use crate::loss;
use crate::talk::Communicators;
use crate::views::Views;

/// What the schedules say about one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// η.
    pub learning_rate: f64,
    /// τ.
    pub decay: f64,
}

/// What became of a step; alike on all ranks.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The weights moved.
    Applied(Report),
    /// Something was not finite, and nothing moved.
    Skipped(Report),
}

/// Runs one step. `wants_stop` tells the other ranks that this one wants to stop behind it.
///
/// # Errors
///
/// On a failed collective nothing has moved: weights, target, momentum and running averages are those
/// of before.
pub fn step(
    model: &mut Byol,
    views: &Views,
    rates: Rates,
    wants_stop: bool,
    comm: &mut Communicators,
) -> Result<Outcome, CollectiveError> {
    for micro_batch in views.micro_batches() {
        // Online and target network, both views, walked together: qθ(zθ) and z′ξ.
        let (seen, tape) = model.forward(micro_batch, comm)?;
        let (loss, d_predictions) =
            loss::symmetric(&seen.predictions, &seen.target_projections, model.global_batch());
        model.backward(tape, &seen, (&loss, wants_stop), &d_predictions, comm)?; // gradients add up
    }
    let report = model.report();
    if !model.gradients_are_finite() {
        return Ok(Outcome::Skipped(report));
    }

    model.update_online(rates.learning_rate);
    model.update_target(rates.decay); // ξ ← τξ + (1 − τ)θ, with the new θ
    Ok(Outcome::Applied(report))
}
