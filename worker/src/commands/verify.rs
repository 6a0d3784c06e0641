//! `worker verify-shards`: is a data set what its manifest says?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::{VerifyReport, verify_shards};
use serde_json::{Value, json};

use crate::commands::output::{Format, count};
use crate::commands::{FAULTS_FOUND, progress};
use crate::data_set::StoreArgs;

/// Faults of one shard that are named; `--json` names all.
const NAMED: usize = 10;

/// Reads every byte and decodes every image of a data set.
///
/// Ends with 0 if all is as the manifest says, with 1 if something is not.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Folder of the data set, or its URL in an object store: then what workers would read there is verified.
    #[arg(value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

/// Verifies, and prints what is wrong.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let files = args.store.files(&args.data).context("verify shards")?;
    let bar = progress::bar(0, "verifying", "shards");
    let verified = verify_shards(&*files, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if progress.faulty > 0 {
            bar.set_message(format!("({} faulty)", progress.faulty));
        }
    });
    bar.finish_and_clear();
    let report = verified.context("verify shards")?;
    Format::from_flag(args.json).print(&summary(&report, args), &value(&report))?;
    let sound = report.is_sound();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(FAULTS_FOUND) })
}

fn summary(report: &VerifyReport, args: &VerifyArgs) -> String {
    let shards = count(report.shards as u64, "shard");
    let samples = count(report.samples, "sample");
    if report.is_sound() {
        return format!("{}: {shards} with {samples} are sound\n", args.data.display());
    }
    let mut lines = Vec::new();
    for fault in &report.faults {
        lines.push(format!("{}:", args.data.join(&fault.file).display()));
        lines.extend(fault.problems.iter().take(NAMED).map(|problem| format!("  {problem}")));
        if fault.problems.len() > NAMED {
            lines.push(format!("  and {} more", fault.problems.len() - NAMED));
        }
    }
    let faulty = report.faults.len();
    lines.push(format!("{faulty} of {shards} not as the manifest says; copy again or pack anew"));
    lines.join("\n") + "\n"
}

fn value(report: &VerifyReport) -> Value {
    let fault =
        |fault: &lockstep_data::ShardFault| json!({"file": fault.file, "problems": fault.problems});
    json!({
        "shards": report.shards,
        "samples": report.samples,
        "sound": report.is_sound(),
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure;
    use crate::testing;

    fn verify(data: PathBuf) -> anyhow::Result<ExitCode> {
        run(&VerifyArgs { data, store: StoreArgs::default(), json: false })
    }

    #[test]
    fn a_sound_set_ends_with_0_and_a_flipped_byte_with_1() {
        let packed = testing::packed(12, testing::Color::Red);
        assert_eq!(verify(packed.path()).unwrap(), ExitCode::SUCCESS);
        let shard = packed.path().join("shard-000000.tar");
        let mut bytes = std::fs::read(&shard).unwrap();
        bytes[700] ^= 1;
        std::fs::write(&shard, bytes).unwrap();
        assert_eq!(verify(packed.path()).unwrap(), ExitCode::from(1));
    }

    #[test]
    fn a_folder_that_is_no_data_set_ends_with_42() {
        let folder = tempfile::tempdir().unwrap();
        let error = verify(folder.path().to_owned()).unwrap_err();
        assert_eq!(failure(&error), ExitCode::from(42));
    }

    #[test]
    fn the_summary_names_shard_and_fault() {
        let fault = lockstep_data::ShardFault {
            file: "shard-000001.tar".to_owned(),
            problems: (0..12).map(|index| format!("sample {index} is cut short")).collect(),
        };
        let report = VerifyReport { shards: 4, samples: 400, faults: vec![fault] };
        let text = summary(
            &report,
            &VerifyArgs { data: "set".into(), store: StoreArgs::default(), json: false },
        );
        assert!(text.starts_with("set/shard-000001.tar:\n  sample 0 is cut short\n"), "{text}");
        assert!(text.contains("and 2 more\n1 of 4 shards not as the manifest says"), "{text}");
    }
}
