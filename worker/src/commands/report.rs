//! `worker report`: measures what a run is worth and shows it on one page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::Dataset;
use lockstep_proto::config::RunConfig;
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::commands::Misuse;
use crate::commands::eval::VoteArgs;
use crate::commands::output::{Format, percent};
use crate::commands::source::newest;
use crate::data_set::StoreArgs;
use crate::eval::knn;
use crate::eval::{self, Features, Views};
use crate::report::{Accuracies, Report, StepLine, neighbours, pairs, read_steps};

/// Measures kNN accuracies of a run and writes an HTML report.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Steps, as the coordinator's `--reports` wrote them.
    #[arg(long, value_name = "FILE")]
    steps: PathBuf,
    /// Data set that the run was trained on, a folder or a URL; the bank of neighbours.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Data set of the queries.
    #[arg(long, value_name = "DIR")]
    queries: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Folder of the run's checkpoints; the newest sound one is taken.
    #[arg(long, value_name = "DIR")]
    checkpoints: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Heading of the page.
    #[arg(long, default_value = "What this run learned")]
    title: String,
    /// Where the images come from and under which licence.
    #[arg(long, value_name = "TEXT")]
    license: Option<String>,
    /// Names of the classes to show instead of the data set's, in the order of the labels.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    class_names: Vec<String>,
    #[command(flatten)]
    vote: VoteArgs,
    /// Print the accuracies as JSON.
    #[arg(long)]
    json: bool,
}

/// Measures, prints and writes.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let subject = Subject::open(args)?;
    let (accuracies, features) = subject.measure(args.vote)?;
    let html = subject.html(args, accuracies, &features)?;
    write(&args.out, &html)?;
    let Accuracies { untrained, raw_pixels, trained, .. } = accuracies;
    let value = json!({
        "untrained": untrained,
        "raw_pixels": raw_pixels,
        "trained": trained,
        "gain_points": accuracies.gain(),
        "k": accuracies.k,
        "temperature": accuracies.temperature,
        "bank": accuracies.bank,
        "queries": accuracies.queries,
        "step": subject.checkpoint.meta().step,
        "report": args.out,
    });
    Format::from_flag(args.json).print(&summary(&accuracies, &args.out), &value)?;
    Ok(ExitCode::SUCCESS)
}

fn summary(accuracies: &Accuracies, out: &Path) -> String {
    format!(
        "kNN accuracy (k = {}, T = {})\n  untrained encoder  {}\n  raw pixels         {}\n  \
         trained encoder    {}\n  gain               {:+.2} points over the untrained encoder\n\
         report             {}\n",
        accuracies.k,
        accuracies.temperature,
        percent(accuracies.untrained),
        percent(accuracies.raw_pixels),
        percent(accuracies.trained),
        accuracies.gain(),
        out.display(),
    )
}

fn write(path: &Path, html: &str) -> anyhow::Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, html)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// The run that is reported on.
struct Subject {
    steps: Vec<StepLine>,
    bank: Dataset,
    queries: Dataset,
    checkpoint: Checkpoint,
}

impl Subject {
    fn open(args: &ReportArgs) -> anyhow::Result<Self> {
        let steps = read_steps(&args.steps).map_err(|error| {
            let source = std::error::Error::source(&error);
            Misuse(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
        })?;
        let bank = args.store.open(&args.data).context("open the training data")?;
        let queries = args.store.open(&args.queries).context("open the queries")?;
        let checkpoint = newest(&args.checkpoints)?;
        if bank.manifest().fingerprint() != checkpoint.meta().dataset {
            let problem = format!(
                "{} is not the data set that the run in {} was trained on; name that one with `--data`",
                args.data.display(),
                args.checkpoints.display()
            );
            return Err(Misuse(problem).into());
        }
        Ok(Self { steps, bank, queries, checkpoint })
    }

    fn config(&self) -> &RunConfig {
        &self.checkpoint.meta().config
    }

    fn views(&self, name: [&'static str; 2]) -> [Views<'_>; 2] {
        [
            Views::new(&self.bank, self.config()).named(name[0]),
            Views::new(&self.queries, self.config()).named(name[1]),
        ]
    }

    /// All accuracies, and the trained encoder's features of bank and queries.
    fn measure(
        &self,
        VoteArgs { k, temperature }: VoteArgs,
    ) -> anyhow::Result<(Accuracies, [Features; 2])> {
        // First, since only this can fail on what a run left.
        let model = eval::trained(&self.checkpoint).context("load the checkpoint")?;
        let [bank, queries] = self.views(["trained, bank", "trained, queries"]);
        let features = [eval::encode(&model, bank)?, eval::encode(&model, queries)?];
        let trained = knn::accuracy(&features[0], &features[1], k, temperature);

        let [bank, queries] = eval::pixels(self.views(["pixels, bank", "pixels, queries"]))?;
        let raw_pixels = knn::accuracy(&bank, &queries, k, temperature);
        drop([bank, queries]);

        let model = eval::untrained(self.config(), self.checkpoint.meta().classes);
        let [bank, queries] = self.views(["untrained, bank", "untrained, queries"]);
        let (bank, queries) = (eval::encode(&model, bank)?, eval::encode(&model, queries)?);
        let untrained = knn::accuracy(&bank, &queries, k, temperature);

        let accuracies = Accuracies {
            untrained,
            raw_pixels,
            trained,
            k,
            temperature,
            bank: features[0].len() as u64,
            queries: features[1].len() as u64,
        };
        Ok((accuracies, features))
    }

    fn html(
        &self,
        args: &ReportArgs,
        accuracies: Accuracies,
        [bank, queries]: &[Features; 2],
    ) -> anyhow::Result<String> {
        let config = self.config();
        let named = !args.class_names.is_empty();
        let report = Report {
            title: &args.title,
            license: args.license.as_deref(),
            config,
            samples: self.bank.manifest().samples(),
            classes: if named { &args.class_names } else { self.bank.manifest().classes() },
            accuracies,
            trained_steps: self.checkpoint.meta().step,
            steps: &self.steps,
            pairs: &pairs(&self.bank, config)?,
            neighbours: &neighbours([&self.bank, &self.queries], [bank, queries], config)?,
        };
        Ok(report.html())
    }
}
