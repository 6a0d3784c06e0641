//! `worker import`: a run that starts from weights of another program.
//!
//! It writes the checkpoint of step 0: online and target encoder with the given weights and running
//! statistics, heads drawn from the run's seed, no momentum. The workers of the run then resume from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::Dataset;
use lockstep_nn::{Byol, Side};
use lockstep_proto::config::RunConfig;
use lockstep_proto::schedule::total_steps;
use serde_json::json;
use tch::Tensor;

use crate::checkpoint::{Checkpoint, Meta, Snapshot};
use crate::commands::Misuse;
use crate::commands::export::torchvision_model;
use crate::commands::output::Format;
use crate::commands::source::ConfigArgs;
use crate::data_set::StoreArgs;
use crate::tensor_file;
use crate::{engine, eval};

/// Starts a run from an encoder of torchvision.
///
/// Give the run's configuration as the coordinator will have it. What a checkpoint must share with its run
/// (`model`, `data`, `schedule`, …) is compared when the workers start.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// State dict of a torchvision ResNet, saved by `safetensors.torch.save_file`; `fc` is left out.
    #[arg(long, value_name = "FILE.safetensors")]
    weights: PathBuf,
    /// Packed training data of the run: a folder, or a URL.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Checkpoint folder of the run, without checkpoints so far.
    #[arg(long, value_name = "DIR")]
    checkpoints: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Writes the checkpoint.
pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let nothing = "which run? give `--preset NAME` or `--config FILE`, as to the coordinator";
    let config = args.config.resolve()?.ok_or_else(|| Misuse(nothing.to_owned()))?;
    torchvision_model(&config)?;
    let dataset = args.store.open(&args.data)?;
    if Checkpoint::newest(&args.checkpoints).context("look for checkpoints")?.is_some() {
        let folder = args.checkpoints.display();
        let problem = format!("{folder} holds checkpoints; a run begins in a folder without any");
        return Err(Misuse(problem).into());
    }
    let classes = engine::classes(&dataset);
    let mut model = eval::untrained(&config, classes);
    let weights = read(args)?;
    let encoder = encoder(&weights);
    for side in [Side::Online, Side::Target] {
        fill(&mut model, side, &encoder)
            .map_err(|problem| Misuse(format!("{}: {problem}", args.weights.display())))?;
    }
    let path = Snapshot::take(&model, first_meta(&config, &dataset, classes, &model))
        .write(&args.checkpoints)?;
    let text = format!(
        "{} tensors of the encoder are in {}; start the run with --checkpoints {}\n",
        encoder.len(),
        path.display(),
        args.checkpoints.display()
    );
    let value = json!({ "tensors": encoder.len(), "checkpoint": path });
    Format::from_flag(args.json).print(&text, &value)?;
    Ok(ExitCode::SUCCESS)
}

fn read(args: &ImportArgs) -> anyhow::Result<Vec<(String, Tensor)>> {
    let path = args.weights.display();
    let bytes = std::fs::read(&args.weights)
        .map_err(|error| Misuse(format!("cannot read {path}: {error}")))?;
    tensor_file::parse(&bytes).map_err(|problem| Misuse(format!("{path}: {problem}")).into())
}

/// What belongs to the encoder. The classifier has no place in it, and the counters no meaning.
fn encoder(weights: &[(String, Tensor)]) -> BTreeMap<&str, &Tensor> {
    let named = weights.iter().map(|(name, tensor)| (name.as_str(), tensor));
    named
        .filter(|(name, _)| !name.starts_with("fc.") && !name.ends_with(".num_batches_tracked"))
        .collect()
}

/// Puts the weights into the encoder of one network; says all that does not fit.
fn fill(model: &mut Byol, side: Side, weights: &BTreeMap<&str, &Tensor>) -> Result<(), String> {
    let mut unknown: BTreeSet<&str> = weights.keys().copied().collect();
    let mut problems = Vec::new();
    for (name, mut place) in model.network_mut(side) {
        let Some(name) = name.strip_prefix("encoder.") else { continue };
        unknown.remove(name);
        match weights.get(name) {
            None => problems.push(format!("`{name}` is missing")),
            Some(weight) if weight.size() != place.size() => problems.push(format!(
                "`{name}` is {:?}, the run's encoder has {:?}",
                weight.size(),
                place.size()
            )),
            Some(weight) => place.copy_(weight),
        }
    }
    problems.extend(unknown.iter().map(|name| format!("the run's encoder has no `{name}`")));
    if problems.is_empty() { Ok(()) } else { Err(shortened(&problems)) }
}

/// The first few problems, and how many more there are.
fn shortened(problems: &[String]) -> String {
    const NAMED: usize = 5;
    let mut named: Vec<String> = problems.iter().take(NAMED).cloned().collect();
    if problems.len() > NAMED {
        named.push(format!("and {} more", problems.len() - NAMED));
    }
    format!("{}; choose model.arch and model.stem as the weights have them", named.join("; "))
}

fn first_meta(config: &RunConfig, dataset: &Dataset, classes: u32, model: &Byol) -> Meta {
    Meta {
        format: 0,
        run_id: config.run.id.clone(),
        step: 0,
        cursor: 0,
        total_steps: total_steps(&config.schedule, dataset.manifest().samples()),
        classes,
        dataset: dataset.manifest().fingerprint(),
        digest: model.digest(0, 0),
        checksum: 0,
        config: config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::engine::model_spec;
    use crate::testing;

    fn model(seed: u64) -> Byol {
        Byol::new(model_spec(&testing::tiny_config(), 2, Device::Cpu), seed)
    }

    /// The encoder of a model under the names of a state dict.
    fn weights(model: &Byol) -> Vec<(String, Tensor)> {
        let network = model.network(Side::Online).into_iter();
        network
            .filter_map(|(name, tensor)| Some((name.strip_prefix("encoder.")?.to_owned(), tensor)))
            .collect()
    }

    #[test]
    fn both_encoders_get_the_weights_and_the_heads_keep_theirs() {
        let (other, mut ours) = (model(5), model(1));
        let given = weights(&other);
        for side in [Side::Online, Side::Target] {
            fill(&mut ours, side, &encoder(&given)).unwrap();
            for ((name, ours), (_, theirs)) in ours.network(side).iter().zip(other.network(side)) {
                if name.starts_with("encoder.") {
                    assert!(ours.equal(&theirs), "{name}");
                }
            }
        }
        let heads = |model: &Byol| -> Tensor {
            let mut tensors = model.network(Side::Target).into_iter();
            tensors.find(|(name, _)| name == "projector.0.weight").unwrap().1
        };
        assert!(heads(&ours).equal(&heads(&model(1))));
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let mut given = weights(&model(5));
        given.retain(|(name, _)| name != "bn1.weight");
        given.push(("layer9.weight".into(), Tensor::from(1.0)));
        given.push(("fc.weight".into(), Tensor::from(1.0)));
        given.iter_mut().find(|(name, _)| name == "conv1.weight").unwrap().1 = Tensor::from(1.0);
        let problem = fill(&mut model(1), Side::Online, &encoder(&given)).unwrap_err();
        for word in ["`bn1.weight` is missing", "`conv1.weight` is []", "no `layer9.weight`"] {
            assert!(problem.contains(word), "{problem}");
        }
        assert!(!problem.contains("fc.weight"), "{problem}");
    }
}
