//! `worker pack`: images into a data set.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::{
    OddAction, OddFile, PackConfig, PackReport, SourceKind, SourceOptions, Split, pack,
};
use lockstep_store::is_url;

use crate::commands::output::{Format, count};
use crate::commands::{Misuse, progress};

/// Odd files that are named; all are in the report file.
const NAMED: usize = 20;

/// Packs images into shards and a manifest, shuffled.
///
/// Killed, the same command goes on behind the last whole shard; neither that nor the number of threads shows in
/// what it makes.
///
/// Images are stored as they are. Left out are those that are empty, damaged, or neither JPEG nor PNG (WebP, GIF, …,
/// whatever their names). Converted are CMYK and EXIF-rotated JPEGs (to upright RGB JPEGs of quality 95), and 16-bit and
/// animated PNGs (to 8 bits, the first picture). A PNG named .jpg is stored as a PNG. Each of them is a line of JSON in
/// odd-images.jsonl beside the manifest.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// Folder with a folder of JPEG and PNG files per class, with IDX files of the MNIST family, or with CIFAR's binary
    /// files; or one of ImageNet's two tars.
    #[arg(long, value_name = "PATH")]
    input: PathBuf,
    /// What the input is, if it is not what it looks like.
    #[arg(long, value_enum, value_name = "KIND")]
    source: Option<SourceName>,
    /// Folder of the data set to make.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Which half of IDX or CIFAR files [default: train].
    #[arg(long, value_enum)]
    split: Option<SplitName>,
    /// For ImageNet's validation tar: the class of each image, one per line.
    #[arg(long, value_name = "FILE")]
    ground_truth: Option<PathBuf>,
    /// What the ground truth counts in: a file with one class per line in its order, or the packed training set.
    #[arg(long, value_name = "PATH")]
    synsets: Option<PathBuf>,
    /// Shorten images whose short side is longer to N pixels (bicubic, antialiased), and store them as JPEG of quality
    /// 95.
    #[arg(long, value_name = "N")]
    short_side: Option<NonZeroU32>,
    /// Threads that check and convert images; 0: as many as there are cores.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
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

/// Form of a source.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SourceName {
    Folders,
    Idx,
    Cifar,
    ImagenetTrain,
    ImagenetVal,
}

impl PackArgs {
    fn config(&self) -> PackConfig {
        let kind = |name| match name {
            SourceName::Folders => SourceKind::Folders,
            SourceName::Idx => SourceKind::Idx,
            SourceName::Cifar => SourceKind::Cifar,
            SourceName::ImagenetTrain => SourceKind::ImagenetTrain,
            SourceName::ImagenetVal => SourceKind::ImagenetVal,
        };
        let split = |name| match name {
            SplitName::Train => Split::Train,
            SplitName::Test => Split::Test,
        };
        PackConfig {
            input: self.input.clone(),
            source: SourceOptions {
                kind: self.source.map(kind),
                split: self.split.map(split),
                ground_truth: self.ground_truth.clone(),
                synsets: self.synsets.clone(),
            },
            output: self.output.clone(),
            shard_samples: self.shard_samples,
            seed: self.seed,
            short_side: self.short_side.map(NonZeroU32::get),
            threads: self.threads,
            allow_empty_classes: self.allow_empty_classes,
            overwrite: self.overwrite,
        }
    }
}

/// Packs, and prints what was packed and what was odd.
pub fn run(args: &PackArgs) -> anyhow::Result<ExitCode> {
    if is_url(&args.output) {
        let problem = format!(
            "{} is a URL: pack into a folder, then copy it there as it is",
            args.output.display()
        );
        return Err(Misuse(problem).into());
    }
    let bar = progress::bar(0, "packing", "images");
    let packed = pack(&args.config(), &mut |progress| {
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
    if report.skipped > 0 {
        lines.push(format!("left out {}", count(report.skipped as u64, "file")));
    }
    if report.converted > 0 {
        lines.push(format!("converted {}", count(report.converted as u64, "odd image")));
    }
    // Those that are missing come first.
    let (skipped, others): (Vec<_>, Vec<_>) =
        report.odd.iter().partition(|odd| odd.done == OddAction::Skipped);
    for OddFile { name, detail, .. } in skipped.into_iter().chain(others).take(NAMED) {
        lines.push(format!("  {name} {detail}"));
    }
    if report.odd.len() > NAMED {
        let file = args.output.join("odd-images.jsonl");
        lines.push(format!("  and {} more: {}", report.odd.len() - NAMED, file.display()));
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
    use lockstep_data::OddRule;

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
        let odd = |index| OddFile {
            name: format!("in/cat/{index}.jpg"),
            rule: OddRule::Damaged,
            done: if index == 0 { OddAction::Converted } else { OddAction::Skipped },
            detail: "is cut short".to_owned(),
        };
        let report = PackReport {
            samples: 1_234,
            classes: 3,
            shards: 1,
            bytes: 2_500_000,
            fingerprint: String::new(),
            empty_classes: vec!["dog".to_owned()],
            skipped: 21,
            converted: 1,
            odd: (0..22).map(odd).collect(),
        };
        let text = summary(&report, &args("in", "out"));
        let expected = "packed 1,234 images of 3 classes into 1 shard (2.5 MB) in out\n\
                        class dog has no usable image\nleft out 21 files\nconverted 1 odd image\n  in/cat/1.jpg is cut short\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("and 2 more: out/odd-images.jsonl\n"), "{text}");
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
