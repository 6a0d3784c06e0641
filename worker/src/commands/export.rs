//! `worker export`: an encoder for other programs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lockstep_nn::{Byol, Side};
use lockstep_proto::config::{self, RunConfig};
use serde_json::json;
use tch::Tensor;

use crate::commands::Misuse;
use crate::commands::output::Format as Output;
use crate::commands::source::CheckpointArgs;
use crate::eval;
use crate::tensor_file::{self, Named, owned};

/// Writes the encoder of a checkpoint for another program.
///
/// The file is a state dict without the classifier `fc`, as safetensors:
/// `model.fc = torch.nn.Identity(); model.load_state_dict(safetensors.torch.load_file(FILE), strict=True)`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// Names and shapes of which program.
    #[arg(long, value_enum, default_value = "torchvision")]
    format: Format,
    /// Which network's encoder; the online one is what BYOL keeps.
    #[arg(long, value_enum, default_value = "online")]
    network: Network,
    /// The file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Whose names and shapes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// `torchvision.models.ResNet`.
    Torchvision,
}

/// Which of the two networks.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Network {
    Online,
    Target,
}

/// Exports, and says how to load the file.
pub fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let Format::Torchvision = args.format;
    let checkpoint = args.checkpoint.open()?;
    let (config, step) = (&checkpoint.meta().config, checkpoint.meta().step);
    let constructor = torchvision_model(config)?;
    let side = match args.network {
        Network::Online => Side::Online,
        Network::Target => Side::Target,
    };
    let tensors = state_dict(&eval::trained(&checkpoint)?, side, step);
    tensor_file::write(&args.out, &tensors)
        .with_context(|| format!("write {}", args.out.display()))?;
    let text =
        format!("encoder at step {step} written to {}; for {constructor}\n", args.out.display());
    let value = json!({ "step": step, "tensors": tensors.len(), "model": constructor });
    Output::from_flag(args.json).print(&text, &value)?;
    Ok(ExitCode::SUCCESS)
}

/// The encoder as torchvision's state dict has it.
fn state_dict(model: &Byol, side: Side, step: u64) -> Named {
    let kind = model.spec().kind;
    // PyTorch counts the updates of the running averages: one per view and step.
    let updates = Tensor::from(2 * step.cast_signed());
    let mut tensors = Named::new();
    for (name, tensor) in model.network(side) {
        let Some(name) = name.strip_prefix("encoder.") else { continue };
        if let Some(norm) = name.strip_suffix(".running_mean") {
            tensors.push((format!("{norm}.num_batches_tracked"), updates.shallow_clone()));
        }
        tensors.push((name.to_owned(), owned(&tensor.to_kind(kind))));
    }
    tensors
}

/// How the model is made that takes the weights, or why there is none.
pub(crate) fn torchvision_model(config: &RunConfig) -> Result<String, Misuse> {
    let model = &config.model;
    if (model.width - 1.0).abs() > 0.0 {
        return Err(Misuse(format!(
            "torchvision's ResNet has no place for model.width = {}: its stem and its stages have fixed channels; \
             only runs with model.width = 1 can be exchanged with it",
            model.width
        )));
    }
    if model.padding == config::Padding::Same {
        let problem = "model.padding = same puts pixels elsewhere than torchvision's ResNet does: its features \
                       would be others; only runs with model.padding = torchvision can be exchanged with it";
        return Err(Misuse(problem.to_owned()));
    }
    let constructor = match model.arch {
        config::Arch::Resnet18 => "torchvision.models.resnet18()",
        config::Arch::Resnet34 => "torchvision.models.resnet34()",
        config::Arch::Resnet50 => "torchvision.models.resnet50()",
        config::Arch::Resnet101 => "torchvision.models.resnet101()",
        config::Arch::Resnet152 => "torchvision.models.resnet152()",
        config::Arch::Resnet200 => {
            "torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 24, 36, 3])"
        }
    };
    Ok(match model.stem {
        config::Stem::Imagenet => constructor.to_owned(),
        config::Stem::Small => format!(
            "{constructor} with conv1 = Conv2d(3, 64, 3, padding=1, bias=False) and maxpool = Identity()"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::{Device, Kind};

    use super::*;
    use crate::engine::model_spec;
    use crate::testing;

    #[test]
    fn an_exported_resnet18_has_torchvisions_tensors_without_the_classifier() {
        let mut config = testing::tiny_config();
        (config.model.width, config.model.stem) = (1.0, config::Stem::Imagenet);
        let model = Byol::new(model_spec(&config, 2, Device::Cpu), 1);
        let tensors: BTreeMap<String, Tensor> =
            state_dict(&model, Side::Target, 7).into_iter().collect();
        // 20 convolutions, and 20 batch norms with 5 tensors each.
        assert_eq!(tensors.len(), 120);
        assert_eq!(tensors["conv1.weight"].size(), [64, 3, 7, 7]);
        assert!(tensors["conv1.weight"].is_contiguous());
        let running = &tensors["layer4.0.downsample.1.running_var"];
        assert_eq!((running.size(), running.kind()), (vec![512], Kind::Float));
        assert_eq!(tensors["bn1.num_batches_tracked"].int64_value(&[]), 14);
    }

    #[test]
    fn what_torchvision_has_no_place_for_is_refused() {
        let mut config = testing::tiny_config();
        let problem = |config: &RunConfig| torchvision_model(config).unwrap_err().to_string();
        assert!(problem(&config).contains("model.width = 0.0625"), "{}", problem(&config));
        (config.model.width, config.model.padding) = (1.0, config::Padding::Same);
        assert!(problem(&config).contains("model.padding = same"), "{}", problem(&config));
    }
}
