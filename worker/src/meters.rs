//! What a worker measures of itself: progress as gauges, and how long each phase of a step takes.
//!
//! Phases are `tracing` spans; [`PhaseLayer`] measures them, so the code that is measured only names them.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Spans that are phases of a step.
const PHASES: [&str; 6] = ["data", "forward", "backward", "all_reduce", "optimizer", "ema"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

type Phases = Family<PhaseLabel, Histogram, fn() -> Histogram>;
type Ratio = Gauge<f64, AtomicU64>;

/// The metrics of this process.
#[derive(Debug)]
pub struct Meters {
    step: Gauge,
    images_per_second: Ratio,
    data_wait_ratio: Ratio,
    phases: Phases,
}

impl Default for Meters {
    fn default() -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(1e-4, 2.0, 18));
        Self {
            step: Gauge::default(),
            images_per_second: Ratio::default(),
            data_wait_ratio: Ratio::default(),
            phases: Family::new_with_constructor(buckets),
        }
    }
}

impl Meters {
    /// A registry that reads these metrics.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let step = self.step.clone();
        registry.register("lockstep_worker_step", "Optimizer steps applied", step);
        registry.register(
            "lockstep_worker_images_per_second",
            "Images of this worker per second of its last step",
            self.images_per_second.clone(),
        );
        registry.register(
            "lockstep_worker_data_wait_ratio",
            "Share of the last step that was spent waiting for input",
            self.data_wait_ratio.clone(),
        );
        registry.register(
            "lockstep_worker_phase_seconds",
            "Duration of each phase of a step, in seconds",
            self.phases.clone(),
        );
        registry
    }

    /// A step of `images` images has ended.
    pub(crate) fn step(&self, step: u64, images: usize, (duration, wait): (Duration, Duration)) {
        self.step.set(i64::try_from(step).unwrap_or(i64::MAX));
        let seconds = duration.as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "batches are small")]
        self.images_per_second.set(images as f64 / seconds);
        self.data_wait_ratio.set(wait.as_secs_f64() / seconds);
    }

    /// The layer that measures phases.
    pub fn phase_layer(&self) -> PhaseLayer {
        PhaseLayer { phases: self.phases.clone() }
    }
}

/// Measures spans that are named like a phase.
#[derive(Debug)]
pub struct PhaseLayer {
    phases: Phases,
}

/// When a span was entered.
struct Entered(Instant);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PhaseLayer {
    #[expect(clippy::disallowed_methods, reason = "measuring is what this layer is for")]
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if PHASES.contains(&attributes.metadata().name())
            && let Some(span) = context.span(id)
        {
            span.extensions_mut().insert(Entered(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(Entered(at)) = span.extensions().get::<Entered>() {
            let label = PhaseLabel { phase: span.name() };
            self.phases.get_or_create(&label).observe(at.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_phase_is_counted_once_per_span_and_other_spans_are_not() {
        let meters = Meters::default();
        let subscriber = tracing_subscriber::registry().with(meters.phase_layer());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                tracing::info_span!("forward").in_scope(|| {});
            }
            tracing::info_span!("elsewhere").in_scope(|| {});
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &meters.registry()).unwrap();
        assert!(
            text.contains("lockstep_worker_phase_seconds_count{phase=\"forward\"} 3"),
            "{text}"
        );
        assert!(!text.contains("elsewhere"), "{text}");
    }
}
