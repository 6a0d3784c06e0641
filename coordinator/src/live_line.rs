//! Progress on stderr: one live line on a terminal, else a plain line now and then.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use lockstep_proto::ids::Step;
use lockstep_proto::{Phase, RunStatus};
use lockstep_service::telemetry::CLEAR_LINE;

/// Shortest time between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two states of the live line.
const LIVE_INTERVAL: Duration = Duration::from_millis(200);

/// Where progress is shown, and what was shown last.
#[derive(Debug)]
pub(crate) struct LiveLine {
    terminal: bool,
    shown: Option<(Duration, Step)>,
}

impl LiveLine {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    /// Shows the run, if it has moved and the last time is long enough ago.
    pub(crate) fn show(&mut self, now: Duration, run: &RunStatus) {
        let training = matches!(run.phase, Phase::Running | Phase::Stopping) && run.loss.is_some();
        let interval = if self.terminal { LIVE_INTERVAL } else { PLAIN_INTERVAL };
        let due = self.shown.is_none_or(|(at, step)| {
            run.step != step && (now >= at + interval || run.step.0 == run.total_steps)
        });
        if !training || !due {
            return;
        }
        self.shown = Some((now, run.step));
        let (before, after) = if self.terminal { (CLEAR_LINE, "") } else { ("", "\n") };
        // Nobody can be told that stderr is gone.
        drop(write!(std::io::stderr(), "{before}{}{after}", describe(run)));
    }

    /// Leaves the live line as it stands.
    pub(crate) fn finish(&self) {
        if self.terminal && self.shown.is_some() {
            drop(writeln!(std::io::stderr()));
        }
    }
}

/// One line with everything that tells whether a run is well.
pub(crate) fn describe(run: &RunStatus) -> String {
    let mut parts = vec![
        format!("step {}/{}", run.step.0, run.total_steps),
        format!("data epoch {:.2}", run.data_epoch),
    ];
    parts.extend(run.loss.map(|loss| format!("loss {loss:.4}")));
    parts.extend(run.z_std.map(|z_std| format!("z-std {z_std:.4}")));
    parts.push(format!("η {:.4}", run.learning_rate));
    parts.push(format!("τ {:.5}", run.decay));
    parts.push(format!("{:.0} images/s", run.images_per_second));
    parts.push(format!("data wait {:.0} %", 100.0 * run.data_wait_ratio));
    parts.extend(run.probe_accuracy.map(|share| format!("probe {:.1} %", 100.0 * share)));
    parts.extend(run.knn_accuracy.map(|share| format!("kNN {:.1} %", 100.0 * share)));
    if run.skipped_steps > 0 {
        parts.push(format!("skipped {}", run.skipped_steps));
    }
    parts.extend(run.eta_seconds.map(|seconds| format!("ETA {}", clock(seconds))));
    parts.join("  ")
}

/// "1:02:03", or "2:03" below an hour.
fn clock(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).map_or(0, |time| time.as_secs());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 {
        format!("{minutes}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_a_clock() {
        assert_eq!(clock(3.9), "0:03");
        assert_eq!(clock(125.0), "2:05");
        assert_eq!(clock(3723.0), "1:02:03");
        assert_eq!(clock(f64::INFINITY), "0:00");
    }
}
