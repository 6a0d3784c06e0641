//! `steps.jsonl`: one line per applied step, as the coordinator writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One applied step. Where a value is missing, the run did not measure it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StepLine {
    /// k.
    pub step: u64,
    /// Passes over the data so far.
    pub data_epoch: Option<f64>,
    /// Loss, 0 to 8.
    pub loss: f64,
    /// Mean standard deviation of the L2-normalized projections.
    pub z_std: f64,
    /// η.
    pub learning_rate: Option<f64>,
    /// τ.
    pub decay: Option<f64>,
    /// Images of all workers per second.
    pub images_per_second: Option<f64>,
    /// Share of the step that the slowest reader waited for input, 0 to 1.
    pub data_wait: Option<f64>,
    /// Accuracy of the online probe, 0 to 1.
    pub probe_accuracy: Option<f64>,
    /// kNN accuracy measured after this step, 0 to 1.
    pub knn_accuracy: Option<f64>,
    /// Number of the world that made the step.
    pub generation: Option<u64>,
    /// Seconds since the run began.
    pub seconds: Option<f64>,
}

/// Why a steps file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StepsError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is something else.
    #[error("line {line} of {} is not a step as the coordinator's `--reports` writes it", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// There is nothing to show.
    #[error("{} holds no step: the run ended before its first", path.display())]
    NoSteps {
        /// The file.
        path: PathBuf,
    },
}

/// The steps in `path` in their order. Of a step made twice, after a failure, the last counts.
pub fn read_steps(path: &Path) -> Result<Vec<StepLine>, StepsError> {
    let unreadable = |source| StepsError::Unreadable { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let steps = parse(&text).map_err(|(line, source)| StepsError::BadLine {
        path: path.to_owned(),
        line,
        source,
    })?;
    if steps.is_empty() {
        return Err(StepsError::NoSteps { path: path.to_owned() });
    }
    Ok(steps)
}

fn parse(text: &str) -> Result<Vec<StepLine>, (usize, serde_json::Error)> {
    let mut steps = BTreeMap::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str::<StepLine>(line) {
            Ok(step) => drop(steps.insert(step.step, step)),
            // A writer that was killed leaves half a line, without its end.
            Err(_) if !line.ends_with('\n') || line.trim().is_empty() => {}
            Err(error) => return Err((index + 1, error)),
        }
    }
    Ok(steps.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_repeated_step_the_last_counts_and_the_order_is_by_step() {
        let text = "{\"step\":2,\"loss\":4,\"z_std\":0.1}\n\
                    {\"step\":1,\"loss\":5,\"z_std\":0.1,\"generation\":1}\n\n\
                    {\"step\":2,\"loss\":3,\"z_std\":0.1,\"generation\":2,\"cursor\":9}\n";
        let steps = parse(text).unwrap();
        let found: Vec<_> =
            steps.iter().map(|step| (step.step, step.loss, step.generation)).collect();
        assert_eq!(found, [(1, 5.0, Some(1)), (2, 3.0, Some(2))]);
    }

    #[test]
    fn half_a_last_line_is_left_out_and_half_a_line_elsewhere_is_named() {
        let good = "{\"step\":1,\"loss\":5,\"z_std\":0.1}\n";
        assert_eq!(parse(&format!("{good}{{\"step\":2,\"lo")).unwrap().len(), 1);
        assert_eq!(parse(&format!("{good}{{\"step\":2,\"lo\n{good}")).unwrap_err().0, 2);
    }

    #[test]
    fn a_file_without_steps_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = read_steps(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("holds no step: the run ended before its first"), "{error}");
        assert!(matches!(read_steps(Path::new("none")), Err(StepsError::Unreadable { .. })));
    }
}
