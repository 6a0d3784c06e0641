//! The charts of a run.

use lockstep_proto::config::RunConfig;

use crate::report::chart::{Chart, Look, Point, Series, Unit, significant};
use crate::report::steps::StepLine;

/// All charts of a run, as HTML.
pub(super) fn figures(steps: &[StepLine], config: &RunConfig) -> String {
    let last_step = steps.last().map_or(1.0, at);
    let mut charts = [
        loss(steps),
        spread(steps, config),
        accuracy(steps),
        learning_rate(steps),
        decay(steps),
        throughput(steps),
        data_wait(steps),
    ];
    // The loss takes a row of its own where the others then fill theirs.
    charts[0].wide = charts.iter().filter(|chart| !chart.is_empty()).count() % 2 == 1;
    let breaks = breaks(steps);
    charts
        .into_iter()
        .map(|chart| Chart { breaks: breaks.clone(), ..chart }.figure(last_step))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "steps are far below 2^52")]
fn at(step: &StepLine) -> f64 {
    step.step as f64
}

fn points(steps: &[StepLine], value: impl Fn(&StepLine) -> Option<f64>) -> Vec<Point> {
    steps.iter().filter_map(|step| value(step).map(|value| (at(step), value))).collect()
}

fn line(name: &'static str, points: Vec<Point>) -> Vec<Series> {
    vec![Series { name, points, look: Look::Line }]
}

/// Steps that another world than the one before made.
fn breaks(steps: &[StepLine]) -> Vec<f64> {
    let changes = steps.windows(2).filter(|pair| pair[0].generation != pair[1].generation);
    changes.map(|pair| at(&pair[1])).collect()
}

fn loss(steps: &[StepLine]) -> Chart {
    Chart {
        title: "Loss",
        note: "From 8, opposite, to 0, alike: how well the online network predicts the target's \
               projection of the other view."
            .to_owned(),
        series: line("at the end", points(steps, |step| Some(step.loss))),
        covers: vec![0.0],
        ..Chart::default()
    }
}

fn spread(steps: &[StepLine], config: &RunConfig) -> Chart {
    let dims = f64::from(config.model.projection_dim);
    let healthy = dims.sqrt().recip();
    Chart {
        title: "Spread of the projections",
        note: format!(
            "Standard deviation over a batch. Spread evenly over the sphere it is 1/√{dims} = {}; \
             0 is collapse: all images look alike.",
            significant(healthy)
        ),
        series: line("at the end", points(steps, |step| Some(step.z_std))),
        covers: vec![0.0],
        reference: Some((healthy, "1/√d".to_owned())),
        ..Chart::default()
    }
}

fn accuracy(steps: &[StepLine]) -> Chart {
    let probe = points(steps, |step| step.probe_accuracy);
    let knn = points(steps, |step| step.knn_accuracy);
    Chart {
        title: "Accuracy while training",
        note: "Online linear probe on the batch, and kNN within a part of the training set. The \
               encoder never sees a label."
            .to_owned(),
        series: vec![
            Series { name: "probe", points: probe, look: Look::Line },
            Series { name: "kNN", points: knn, look: Look::Dotted },
        ],
        covers: vec![0.0, 1.0],
        unit: Unit::Percent,
        ..Chart::default()
    }
}

fn learning_rate(steps: &[StepLine]) -> Chart {
    Chart {
        title: "Learning rate η",
        note: "Linear warm-up, then half a cosine to 0.".to_owned(),
        series: line("at the end", points(steps, |step| step.learning_rate)),
        covers: vec![0.0],
        ..Chart::default()
    }
}

fn decay(steps: &[StepLine]) -> Chart {
    Chart {
        title: "Decay τ of the target",
        note: "Share of the target network that every step keeps; 1 is standstill.".to_owned(),
        series: line("at the end", points(steps, |step| step.decay)),
        ..Chart::default()
    }
}

fn throughput(steps: &[StepLine]) -> Chart {
    Chart {
        title: "Throughput",
        note: "Images per second of all workers, two views each.".to_owned(),
        series: line("at the end", points(steps, |step| step.images_per_second)),
        covers: vec![0.0],
        ..Chart::default()
    }
}

fn data_wait(steps: &[StepLine]) -> Chart {
    Chart {
        title: "Waiting for data",
        note: "Share of a step that the worker with the longest wait spent waiting for images."
            .to_owned(),
        series: line("at the end", points(steps, |step| step.data_wait)),
        covers: vec![0.0, 0.1],
        unit: Unit::Percent,
        ..Chart::default()
    }
}
