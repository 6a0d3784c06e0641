//! The run as Prometheus metrics, read from the status when they are asked for.

use std::fmt::Error;

use lockstep_proto::RunStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// Every metric of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Step,
    WorldSize,
    Generation,
    Loss,
    ZStd,
    ImagesPerSecond,
    LearningRate,
    Decay,
    WorkersConnected,
    SpareWorkers,
    StragglerSlot,
    StragglerLate,
    SkippedSteps,
    ReplacedSamples,
    ProbeAccuracy,
    KnnAccuracy,
}

/// A measurement in the type that Prometheus keeps it in.
enum Value {
    Gauge(f64),
    Counter(u64),
}

impl Metric {
    const ALL: [Self; 16] = [
        Self::Step,
        Self::WorldSize,
        Self::Generation,
        Self::Loss,
        Self::ZStd,
        Self::ImagesPerSecond,
        Self::LearningRate,
        Self::Decay,
        Self::WorkersConnected,
        Self::SpareWorkers,
        Self::StragglerSlot,
        Self::StragglerLate,
        Self::SkippedSteps,
        Self::ReplacedSamples,
        Self::ProbeAccuracy,
        Self::KnnAccuracy,
    ];

    /// Name and help. The encoder appends `_total` to counters.
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Step => ("lockstep_step", "Optimizer steps applied"),
            Self::WorldSize => ("lockstep_world_size", "Ranks in the present world"),
            Self::Generation => ("lockstep_generation", "Number of the present world"),
            Self::Loss => ("lockstep_loss", "Loss of the newest step, 0 to 8"),
            Self::ZStd => (
                "lockstep_z_std",
                "Mean standard deviation of the L2-normalized projections; 0 is collapse",
            ),
            Self::ImagesPerSecond => {
                ("lockstep_images_per_second", "Images per second of the whole world")
            }
            Self::LearningRate => ("lockstep_learning_rate", "Learning rate of the newest step"),
            Self::Decay => ("lockstep_decay", "Decay of the target network in the newest step"),
            Self::WorkersConnected => ("lockstep_workers_connected", "Workers with a session"),
            Self::SpareWorkers => {
                ("lockstep_spare_workers", "Workers that wait for a place in the world")
            }
            Self::StragglerSlot => (
                "lockstep_straggler_slot",
                "Slot of the member that arrives last at the first collective of a step",
            ),
            Self::StragglerLate => (
                "lockstep_straggler_late_seconds",
                "How much later than the first that member arrives, on average",
            ),
            Self::SkippedSteps => {
                ("lockstep_skipped_steps", "Steps skipped because something was not finite")
            }
            Self::ReplacedSamples => {
                ("lockstep_replaced_samples", "Corrupt samples replaced since the start")
            }
            Self::ProbeAccuracy => {
                ("lockstep_probe_accuracy", "Accuracy of the online linear probe, 0 to 1")
            }
            Self::KnnAccuracy => {
                ("lockstep_knn_accuracy", "Accuracy of the newest kNN evaluation, 0 to 1")
            }
        }
    }

    /// Its value; `None` while there is none.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact below 2^53")]
    fn value(self, run: &RunStatus) -> Option<Value> {
        Some(match self {
            Self::Step => Value::Gauge(run.step.0 as f64),
            Self::WorldSize => Value::Gauge(run.world_size.into()),
            Self::Generation => Value::Gauge(run.generation.0 as f64),
            Self::Loss => Value::Gauge(run.loss?),
            Self::ZStd => Value::Gauge(run.z_std?),
            Self::ImagesPerSecond => Value::Gauge(run.images_per_second),
            Self::LearningRate => Value::Gauge(run.learning_rate),
            Self::Decay => Value::Gauge(run.decay),
            Self::WorkersConnected => Value::Gauge(run.connected_workers.into()),
            Self::SpareWorkers => Value::Gauge(run.spare_workers.into()),
            Self::StragglerSlot => Value::Gauge(run.straggler?.slot.0.into()),
            Self::StragglerLate => Value::Gauge(run.straggler?.late.as_secs_f64()),
            Self::SkippedSteps => Value::Counter(run.skipped_steps),
            Self::ReplacedSamples => Value::Counter(run.replaced_samples),
            Self::ProbeAccuracy => Value::Gauge(run.probe_accuracy?),
            Self::KnnAccuracy => Value::Gauge(run.knn_accuracy?),
        })
    }
}

#[derive(Debug)]
struct RunMetrics(watch::Receiver<RunStatus>);

impl Collector for RunMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let run = self.0.borrow().clone();
        for metric in Metric::ALL {
            let Some(value) = metric.value(&run) else { continue };
            match value {
                Value::Gauge(value) => write(&mut encoder, metric, &ConstGauge::new(value))?,
                Value::Counter(value) => write(&mut encoder, metric, &ConstCounter::new(value))?,
            }
        }
        Ok(())
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    metric: Metric,
    value: &impl EncodeMetric,
) -> Result<(), Error> {
    let (name, help) = metric.describe();
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

/// Who was not let in, since the start. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    /// Clients that failed at the TLS handshake.
    pub(crate) handshakes: Counter,
    /// Orders of callers who have not shown the operator token.
    pub(crate) orders: Counter,
}

/// The metrics of a run whose status is told by `status`.
pub(crate) fn registry(status: watch::Receiver<RunStatus>, refusals: &Refusals) -> Registry {
    let mut registry = Registry::default();
    registry.register(
        "lockstep_refused_handshakes",
        "Clients that failed at the TLS handshake",
        refusals.handshakes.clone(),
    );
    registry.register(
        "lockstep_refused_orders",
        "Orders of callers without the operator token",
        refusals.orders.clone(),
    );
    registry.register_collector(Box::new(RunMetrics(status)));
    registry
}
