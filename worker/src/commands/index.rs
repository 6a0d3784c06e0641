//! `worker index`: WebDataset tars become a data set where they lie.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::{IndexConfig, Manifest, index_shards};
use serde_json::json;

use crate::commands::output::{Format, count};
use crate::commands::progress;

/// Writes the manifest of WebDataset tars beside them, and where their samples lie; copies and changes nothing.
///
/// A sample is an image (.jpg, .jpeg or .png) and a label (.cls) of one key; other members are left alone. Images are
/// not decoded here: `worker verify-shards` does that.
#[derive(Debug, clap::Args)]
pub struct IndexArgs {
    /// Folder of the tars.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Class names, one per line in label order [default: the labels].
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Threads that read; 0: as many as there are cores.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Replace a manifest that is already there.
    #[arg(long)]
    overwrite: bool,
    /// Print what was indexed as JSON.
    #[arg(long)]
    json: bool,
}

/// Indexes, and prints what there is.
pub fn run(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let config = IndexConfig {
        folder: args.folder.clone(),
        classes: args.classes.clone(),
        threads: args.threads,
        overwrite: args.overwrite,
    };
    let bar = progress::bar(0, "indexing", "tars");
    let indexed = index_shards(&config, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
    });
    bar.finish_and_clear();
    let manifest = indexed.with_context(|| format!("index {}", args.folder.display()))?;
    let value = json!({
        "shards": manifest.shards().len(),
        "samples": manifest.samples(),
        "classes": manifest.classes().len(),
        "fingerprint": manifest.fingerprint(),
    });
    Format::from_flag(args.json).print(&summary(&manifest, args), &value)?;
    Ok(ExitCode::SUCCESS)
}

fn summary(manifest: &Manifest, args: &IndexArgs) -> String {
    format!(
        "indexed {} with {} of {} in {}\n",
        count(manifest.shards().len() as u64, "shard"),
        count(manifest.samples(), "sample"),
        count(manifest.classes().len() as u64, "class"),
        args.folder.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure;
    use crate::testing;

    fn args(folder: PathBuf) -> IndexArgs {
        IndexArgs { folder, classes: None, threads: 1, overwrite: false, json: false }
    }

    #[test]
    fn shards_without_their_manifest_are_indexed_and_one_that_is_there_is_kept() {
        let packed = testing::packed(12, testing::Color::Red);
        let there = run(&args(packed.path().clone())).unwrap_err();
        assert!(format!("{there:#}").contains("already holds a data set"), "{there:#}");
        assert_eq!(failure(&there), ExitCode::from(42));
        std::fs::remove_file(packed.path().join("manifest.json")).unwrap();
        assert_eq!(run(&args(packed.path().clone())).unwrap(), ExitCode::SUCCESS);
        assert!(packed.path().join("manifest.json").exists());
    }
}
