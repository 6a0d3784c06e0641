//! `worker eval knn`: how good are representations, by their nearest neighbours?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_proto::config::RunConfig;
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::commands::features::{self, FeaturesArgs};
use crate::commands::output::{Format, count, percent};
use crate::commands::source::ConfigArgs;
use crate::commands::{Misuse, source};
use crate::data_set::StoreArgs;
use crate::eval::knn;
use crate::eval::{self, Features, Views};

/// Evaluates representations.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, clap::Subcommand)]
enum Protocol {
    /// Top-1 accuracy of a weighted vote of nearest neighbours.
    Knn(KnnArgs),
    /// The representations themselves, in a file.
    Features(FeaturesArgs),
}

#[derive(Debug, clap::Args)]
struct KnnArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Evaluate the initial weights instead of trained ones.
    #[arg(long)]
    untrained: bool,
    /// Evaluate the pixels themselves, without an encoder.
    #[arg(long, conflicts_with = "untrained")]
    raw_pixels: bool,
    /// Data set whose labels are known, a folder or a URL: the training set.
    #[arg(long, value_name = "DIR")]
    bank: PathBuf,
    /// Data set whose labels are guessed: the test set.
    #[arg(long, value_name = "DIR")]
    queries: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    vote: VoteArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Where weights and configuration come from.
#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// Folder of a run's checkpoints; the newest sound one is taken.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "preset", "config", "set"])]
    checkpoints: Option<PathBuf>,
    /// One checkpoint.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["preset", "config", "set"])]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// How neighbours vote.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct VoteArgs {
    /// Neighbours that vote.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k: u32,
    /// T in the weights exp(cos/T).
    #[arg(long, value_name = "T", default_value_t = 0.07, value_parser = temperature)]
    pub(crate) temperature: f64,
}

fn temperature(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    parsed.ok_or_else(|| "must be a number above 0".to_owned())
}

/// What is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Subject {
    Trained,
    Untrained,
    RawPixels,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Found {
    subject: Subject,
    /// Step of the checkpoint, where trained weights were evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    /// Top-1, 0 to 1.
    accuracy: f64,
    k: u32,
    temperature: f64,
    bank: usize,
    queries: usize,
    dims: usize,
}

/// Evaluates, and prints the accuracy.
pub fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    match &args.protocol {
        Protocol::Knn(args) => {
            let found = evaluate(args)?;
            Format::from_flag(args.json).print(&summary(&found), &found)?;
        }
        Protocol::Features(args) => features::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn evaluate(args: &KnnArgs) -> anyhow::Result<Found> {
    let source = Source::find(&args.source)?;
    let bank = args.store.open(&args.bank).context("open the bank")?;
    let queries = args.store.open(&args.queries).context("open the queries")?;
    let subject = match (args.untrained, args.raw_pixels) {
        (true, _) => Subject::Untrained,
        (_, true) => Subject::RawPixels,
        (false, false) => Subject::Trained,
    };
    let views = [
        Views::new(&bank, source.config()).named("bank"),
        Views::new(&queries, source.config()).named("queries"),
    ];
    let [bank, queries] = source.features(subject, views)?;
    let VoteArgs { k, temperature } = args.vote;
    Ok(Found {
        subject,
        step: source.step().filter(|_| subject == Subject::Trained),
        accuracy: knn::accuracy(&bank, &queries, k, temperature),
        k,
        temperature,
        bank: bank.len(),
        queries: queries.len(),
        dims: bank.dims,
    })
}

/// A checkpoint, or a configuration alone.
enum Source {
    Checkpoint(Box<Checkpoint>),
    Config(Box<RunConfig>),
}

impl Source {
    fn find(args: &SourceArgs) -> anyhow::Result<Self> {
        let (one, of_a_run) = (args.checkpoint.as_deref(), args.checkpoints.as_deref());
        if let Some(checkpoint) = source::checkpoint(one, of_a_run)? {
            return Ok(Self::Checkpoint(Box::new(checkpoint)));
        }
        let nothing = "nothing to evaluate: give `--checkpoints DIR` or `--checkpoint DIR`, or \
                       `--preset NAME` or `--config FILE` with `--untrained` or `--raw-pixels`";
        let config = args.config.resolve()?.ok_or_else(|| Misuse(nothing.to_owned()))?;
        Ok(Self::Config(Box::new(config)))
    }

    fn config(&self) -> &RunConfig {
        match self {
            Self::Checkpoint(checkpoint) => &checkpoint.meta().config,
            Self::Config(config) => config,
        }
    }

    fn step(&self) -> Option<u64> {
        match self {
            Self::Checkpoint(checkpoint) => Some(checkpoint.meta().step),
            Self::Config(_) => None,
        }
    }

    /// Features of bank and queries.
    fn features(&self, subject: Subject, views: [Views<'_>; 2]) -> anyhow::Result<[Features; 2]> {
        let model = match (subject, self) {
            (Subject::RawPixels, _) => return Ok(eval::pixels(views)?),
            (Subject::Untrained, _) => eval::untrained(self.config(), 0),
            (Subject::Trained, Self::Checkpoint(checkpoint)) => eval::trained(checkpoint)?,
            (Subject::Trained, Self::Config(_)) => {
                let problem = "a configuration has no trained weights: give `--checkpoints DIR` or \
                               `--checkpoint DIR`, or ask for `--untrained` or `--raw-pixels`";
                return Err(Misuse(problem.to_owned()).into());
            }
        };
        let [bank, queries] = views;
        Ok([eval::encode(&model, bank)?, eval::encode(&model, queries)?])
    }
}

fn summary(found: &Found) -> String {
    let subject = match (found.subject, found.step) {
        (Subject::Trained, Some(step)) => format!("encoder at step {step}"),
        (Subject::Trained, None) => "trained encoder".to_owned(),
        (Subject::Untrained, _) => "untrained encoder".to_owned(),
        (Subject::RawPixels, _) => "raw pixels".to_owned(),
    };
    format!(
        "kNN top-1 accuracy of the {subject}: {} (k = {}, T = {}, {} in {} dimensions, {})\n",
        percent(found.accuracy),
        found.k,
        found.temperature,
        count(found.bank as u64, "image"),
        found.dims,
        match found.queries {
            1 => "1 query".to_owned(),
            more => format!("{} queries", crate::commands::output::grouped(more as u64)),
        }
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::failure;
    use crate::testing;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: EvalArgs,
    }

    fn evaluated(flags: &[&str]) -> anyhow::Result<Found> {
        let packed = testing::packed(24, testing::Color::Red);
        let path = packed.path();
        let folder = path.to_str().unwrap();
        let fixed = ["eval", "knn", "--bank", folder, "--queries", folder, "--k", "3"];
        let args = Cli::try_parse_from(fixed.iter().chain(flags))?.args;
        let Protocol::Knn(args) = args.protocol else { panic!("kNN was asked for") };
        evaluate(&args)
    }

    #[test]
    fn raw_pixels_and_an_untrained_encoder_tell_two_plain_classes_apart() {
        for subject in ["--raw-pixels", "--untrained"] {
            let found = evaluated(&["--preset", "tiny", subject]).unwrap();
            assert!(found.accuracy > 0.9, "{found:?}");
            assert_eq!((found.bank, found.queries, found.k, found.step), (24, 24, 3, None));
        }
    }

    #[test]
    fn a_configuration_alone_has_nothing_trained() {
        for (flags, problem) in [
            (&["--preset", "tiny"][..], "has no trained weights"),
            (&[], "nothing to evaluate"),
            (&["--preset", "no-such-preset", "--untrained"], "no-such-preset"),
            (&["--checkpoints", "/no/such/folder"], "no/such/folder"),
        ] {
            let error = evaluated(flags).unwrap_err();
            assert!(format!("{error:#}").contains(problem), "{error:#}");
            assert_eq!(failure(&error), ExitCode::from(42), "{error:#}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_or_make_no_sense_are_refused() {
        for flags in [
            &["--untrained", "--raw-pixels"][..],
            &["--preset", "tiny", "--checkpoint", "x"],
            &["--temperature", "0"],
            &["--k", "0"],
        ] {
            assert!(evaluated(flags).unwrap_err().is::<clap::Error>(), "{flags:?}");
        }
    }

    #[test]
    fn the_summary_says_what_was_measured_and_how() {
        let found = Found {
            subject: Subject::Trained,
            step: Some(312),
            accuracy: 0.81637,
            k: 20,
            temperature: 0.07,
            bank: 60_000,
            queries: 10_000,
            dims: 128,
        };
        let expected = "kNN top-1 accuracy of the encoder at step 312: 81.64 % \
                        (k = 20, T = 0.07, 60,000 images in 128 dimensions, 10,000 queries)\n";
        assert_eq!(summary(&found), expected);
    }
}
