//! What workers report about finished steps, and the checks of it.

use std::time::Duration;

use crate::border::{Border, Malformed};
use crate::ids::{Cursor, Digest, Generation, Step};
use crate::limits::{MAX_REPLACED_SAMPLES, MAX_REPORTS};
use crate::wire;

/// Highest loss that the wire accepts: 8, and room for rounding.
const MAX_LOSS: f64 = 8.001;

/// Reports of finished steps, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReports {
    /// World that made them.
    pub generation: Generation,
    /// At least one.
    pub reports: Vec<StepReport>,
}

/// One worker's account of one finished step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// k; for a skipped step, the step that was tried.
    pub step: Step,
    /// Global batch that was used.
    pub cursor: Cursor,
    /// False: skipped on all ranks because something was not finite.
    pub applied: bool,
    /// Loss over the global batch, 0 to 8. Anything, not-a-number included, where the step was skipped.
    pub loss: f64,
    /// Mean standard deviation of the L2-normalized projections. Anything where the step was skipped.
    pub z_std: f64,
    /// Images that this worker used.
    pub images: u32,
    /// Duration of the step on this worker.
    pub duration: Duration,
    /// Part of it spent waiting for input.
    pub data_wait: Duration,
    /// Cross-entropy of the online probe; `None` without labels.
    pub probe_loss: Option<f64>,
    /// Accuracy of the online probe, 0 to 1; `None` without labels.
    pub probe_accuracy: Option<f64>,
    /// Accuracy of the kNN evaluation made after this step, 0 to 1; `None` where none was made.
    pub knn_accuracy: Option<f64>,
    /// Time that it waited for its peers in the first collective of the step; `None`: not measured.
    pub arrival_wait: Option<Duration>,
    /// Digest of the state after the step; `None` where none was taken.
    pub digest: Option<Digest>,
    /// Ids of corrupt samples that this worker replaced.
    pub replaced_samples: Vec<u64>,
}

impl TryFrom<wire::StepReports> for StepReports {
    type Error = Malformed;

    fn try_from(reports: wire::StepReports) -> Result<Self, Malformed> {
        const B: Border = Border("StepReports");
        let wire::StepReports { generation, reports } = reports;
        B.some("reports", &reports, MAX_REPORTS)?;
        Ok(Self {
            generation: Generation(B.positive("generation", generation)?),
            reports: reports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<StepReports> for wire::StepReports {
    fn from(reports: StepReports) -> Self {
        let StepReports { generation, reports } = reports;
        Self { generation: generation.0, reports: reports.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::StepReport> for StepReport {
    type Error = Malformed;

    fn try_from(report: wire::StepReport) -> Result<Self, Malformed> {
        const B: Border = Border("StepReport");
        let wire::StepReport {
            step,
            cursor,
            applied,
            loss,
            z_std,
            images,
            step_us,
            data_wait_us,
            probe_loss,
            probe_accuracy,
            digest,
            replaced_samples,
            knn_accuracy,
            arrival_wait_us,
        } = report;
        if applied && !(0.0..=MAX_LOSS).contains(&loss) {
            let problem = format!("is {loss} at step {step}, expected 0 to 8");
            return Err(B.malformed("loss", problem));
        }
        if applied && !(z_std.is_finite() && z_std >= 0.0) {
            return Err(B.malformed("z_std", format!("is {z_std} at step {step}")));
        }
        B.at_most("replaced_samples", &replaced_samples, MAX_REPLACED_SAMPLES)?;
        let share = |field, value: Option<f64>| {
            value.map(|value| B.within(field, value, (0.0, 1.0))).transpose()
        };
        Ok(Self {
            step: Step(step),
            cursor: Cursor(cursor),
            applied,
            loss,
            z_std,
            images,
            duration: Duration::from_micros(step_us),
            data_wait: Duration::from_micros(data_wait_us),
            probe_loss,
            probe_accuracy: share("probe_accuracy", probe_accuracy)?,
            knn_accuracy: share("knn_accuracy", knn_accuracy)?,
            arrival_wait: arrival_wait_us.map(Duration::from_micros),
            digest: digest.map(Digest),
            replaced_samples,
        })
    }
}

impl From<StepReport> for wire::StepReport {
    fn from(report: StepReport) -> Self {
        let StepReport {
            step,
            cursor,
            applied,
            loss,
            z_std,
            images,
            duration,
            data_wait,
            probe_loss,
            probe_accuracy,
            knn_accuracy,
            arrival_wait,
            digest,
            replaced_samples,
        } = report;
        Self {
            step: step.0,
            cursor: cursor.0,
            applied,
            loss,
            z_std,
            images,
            step_us: micros(duration),
            data_wait_us: micros(data_wait),
            probe_loss,
            probe_accuracy,
            digest: digest.map(|digest| digest.0),
            replaced_samples,
            knn_accuracy,
            arrival_wait_us: arrival_wait.map(micros),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_report_with_a_nan_loss_is_refused_and_says_where_it_came_from() {
        let mut report = wire::StepReport::from(report());
        report.loss = f64::NAN;
        let error = StepReport::try_from(report).unwrap_err();
        assert_eq!(error.to_string(), "StepReport.loss is NaN at step 17, expected 0 to 8");
    }

    #[test]
    fn a_skipped_step_may_report_a_loss_that_is_not_finite() {
        let mut report = wire::StepReport::from(report());
        (report.loss, report.z_std, report.applied) = (f64::NAN, f64::INFINITY, false);
        assert!(StepReport::try_from(report).is_ok());
    }

    pub(crate) fn report() -> StepReport {
        StepReport {
            step: Step(17),
            cursor: Cursor(18),
            applied: true,
            loss: 3.5,
            z_std: 0.08,
            images: 64,
            duration: Duration::from_millis(250),
            data_wait: Duration::from_micros(300),
            probe_loss: Some(2.3),
            probe_accuracy: Some(0.25),
            knn_accuracy: Some(0.5),
            arrival_wait: Some(Duration::from_micros(40)),
            digest: Some(Digest(0xfeed)),
            replaced_samples: vec![3, 4],
        }
    }
}
