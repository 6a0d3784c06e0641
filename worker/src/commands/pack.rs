//! `worker pack`: images into a data set.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::{PackConfig, PackReport, Split, pack};

use crate::commands::output::{Format, count};
use crate::commands::progress;

/// Left-out files that are named; all are in the report file.
const NAMED: usize = 20;

/// Packs images into shards and a manifest.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// Folder with a folder of JPEG and PNG files per class, or with IDX files of the MNIST family.
    #[arg(long, value_name = "DIR")]
    input: PathBuf,
    /// Folder of the data set to make.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Which half of IDX files [default: train].
    #[arg(long, value_enum)]
    split: Option<SplitName>,
    /// Samples in a shard.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    shard_samples: u64,
    /// Seed of the shuffling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Replace a data set that is already there.
    #[arg(long)]
    overwrite: bool,
    /// Accept classes without a usable image.
    #[arg(long)]
    allow_empty_classes: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Half of a data set.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SplitName {
    Train,
    Test,
}

/// Packs, and prints what was packed and what was left out.
pub fn run(args: &PackArgs) -> anyhow::Result<ExitCode> {
    let config = PackConfig {
        input: args.input.clone(),
        output: args.output.clone(),
        shard_samples: args.shard_samples,
        seed: args.seed,
        split: args.split.map(|name| match name {
            SplitName::Train => Split::Train,
            SplitName::Test => Split::Test,
        }),
        allow_empty_classes: args.allow_empty_classes,
        overwrite: args.overwrite,
    };
    let bar = progress::bar(0, "packing", "images");
    let packed = pack(&config, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if progress.skipped > 0 {
            bar.set_message(format!("({} left out)", progress.skipped));
        }
    });
    bar.finish_and_clear();
    let report = packed.with_context(|| format!("pack {}", args.input.display()))?;
    Format::from_flag(args.json).print(&summary(&report, args), &report)?;
    Ok(ExitCode::SUCCESS)
}

fn summary(report: &PackReport, args: &PackArgs) -> String {
    let mut lines = vec![format!(
        "packed {} of {} into {} ({:.1} MB) in {}",
        count(report.samples, "image"),
        count(report.classes as u64, "class"),
        count(report.shards as u64, "shard"),
        megabytes(report.bytes),
        args.output.display(),
    )];
    for class in &report.empty_classes {
        lines.push(format!("class {class} has no usable image"));
    }
    if !report.skipped.is_empty() {
        lines.push(format!("left out {}:", count(report.skipped.len() as u64, "file")));
    }
    for skipped in report.skipped.iter().take(NAMED) {
        lines.push(format!("  {} {}", skipped.path, skipped.reason));
    }
    if report.skipped.len() > NAMED {
        let file = args.output.join("pack-report.json");
        lines.push(format!("  and {} more: {}", report.skipped.len() - NAMED, file.display()));
    }
    lines.join("\n") + "\n"
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lockstep_data::Skipped;

    use super::*;
    use crate::commands::failure;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: PackArgs,
    }

    fn args(input: &str, output: &str) -> PackArgs {
        Cli::parse_from(["pack", "--input", input, "--output", output]).args
    }

    #[test]
    fn the_summary_names_the_first_files_left_out_and_counts_the_others() {
        let skipped = |index| Skipped {
            path: format!("in/cat/{index}.jpg"),
            reason: "is cut short".to_owned(),
        };
        let report = PackReport {
            samples: 1_234,
            classes: 3,
            shards: 1,
            bytes: 2_500_000,
            fingerprint: String::new(),
            empty_classes: vec!["dog".to_owned()],
            skipped: (0..22).map(skipped).collect(),
        };
        let text = summary(&report, &args("in", "out"));
        let expected = "packed 1,234 images of 3 classes into 1 shard (2.5 MB) in out\n\
                        class dog has no usable image\nleft out 22 files:\n  in/cat/0.jpg is cut short\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("and 2 more: out/pack-report.json\n"), "{text}");
    }

    #[test]
    fn a_missing_input_is_a_fault_of_the_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let error = run(&args("no/such/folder", output.to_str().unwrap())).unwrap_err();
        assert!(format!("{error:#}").contains("does not exist"), "{error:#}");
        assert_eq!(failure(&error), ExitCode::from(42));
    }
}
