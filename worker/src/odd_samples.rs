//! What the log says of samples that someone should look at, each by its number in the data set.

use lockstep_data::LoadedBatch;
use lockstep_proto::ids::Step;

/// Damaged samples, and what was used in their place.
pub(crate) fn warn_of_replaced(batch: &LoadedBatch) {
    for replaced in &batch.replaced {
        tracing::warn!(
            sample = replaced.wanted.0,
            by = replaced.used.0,
            reason = %replaced.reason,
            "sample replaced"
        );
    }
}

/// What happened to the coefficient cache.
pub(crate) fn warn_of_cache(batch: &LoadedBatch) {
    for event in &batch.cache_events {
        tracing::warn!(%event, "coefficient cache");
    }
}

/// This rank's samples of a step that was not finite.
pub(crate) fn warn_of_skipped(step: Step, batch: &LoadedBatch) {
    let samples: Vec<u64> = batch.sample_ids.iter().map(|id| id.0).collect();
    tracing::warn!(step = step.0, cursor = batch.cursor, ?samples, "step skipped: not finite");
}
