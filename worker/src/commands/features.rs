//! `worker eval features`: representations of a data set in a file.

use std::path::PathBuf;

use anyhow::Context;
use lockstep_data::{Dataset, eval_batches};
use lockstep_nn::Byol;
use lockstep_proto::config::RunConfig;
use serde_json::json;
use tch::Tensor;

use crate::commands::output::{Format, count};
use crate::commands::source::CheckpointArgs;
use crate::data_set::StoreArgs;
use crate::engine::eval_config;
use crate::eval;
use crate::tensor_file::{self, Named, owned};

/// Writes `features` and `labels` of all samples, in the data set's order, as safetensors.
#[derive(Debug, clap::Args)]
pub(crate) struct FeaturesArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// Data set: a folder, or a URL.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// The file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Write the normalized images that the encoder saw, too, as `inputs`.
    #[arg(long)]
    inputs: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Encodes and writes.
pub(crate) fn run(args: &FeaturesArgs) -> anyhow::Result<()> {
    let checkpoint = args.checkpoint.open()?;
    let dataset = args.store.open(&args.data)?;
    let model = eval::trained(&checkpoint)?;
    let tensors = encode(&model, &dataset, &checkpoint.meta().config, args.inputs)?;
    tensor_file::write(&args.out, &tensors)
        .with_context(|| format!("write {}", args.out.display()))?;
    let [samples, dims] = <[i64; 2]>::try_from(tensors[0].1.size()).expect("a matrix");
    let images = count(samples.unsigned_abs(), "image");
    let text = format!("{dims} features of {images} written to {}\n", args.out.display());
    let value = json!({ "samples": samples, "dims": dims, "step": checkpoint.meta().step });
    Format::from_flag(args.json).print(&text, &value)
}

fn encode(
    model: &Byol,
    dataset: &Dataset,
    config: &RunConfig,
    with_inputs: bool,
) -> anyhow::Result<Named> {
    let (mut features, mut labels, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
    let side = config.data.image_size;
    for batch in eval_batches(dataset, 0..dataset.manifest().samples(), eval_config(config))? {
        let batch = batch?;
        features.extend(model.represent(&batch.views, batch.labels.len(), side));
        labels.extend(batch.labels.iter().map(|label| i64::from(label.0)));
        if with_inputs {
            inputs.extend(batch.views);
        }
    }
    let dims = model.spec().encoder.features();
    let mut tensors = vec![
        ("features".to_owned(), Tensor::from_slice(&features).view([-1, dims])),
        ("labels".to_owned(), Tensor::from_slice(&labels)),
    ];
    if with_inputs {
        let side = i64::from(side);
        let images = Tensor::from_slice(&inputs).view([-1, side, side, 3]);
        tensors.push(("inputs".to_owned(), owned(&images.permute([0, 3, 1, 2]))));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::engine::model_spec;
    use crate::testing;

    #[test]
    fn rows_belong_to_the_images_beside_them() {
        let config = testing::tiny_config();
        let packed = testing::packed(12, testing::Color::Red);
        let model = Byol::new(model_spec(&config, 2, Device::Cpu), 1);
        let tensors = encode(&model, &packed.open(), &config, true).unwrap();
        let sizes: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t.size())).collect();
        assert_eq!(
            sizes,
            [("features", vec![12, 32]), ("labels", vec![12]), ("inputs", vec![12, 3, 8, 8])]
        );
        let last = tensors[2].1.get(11).permute([1, 2, 0]).contiguous();
        let alone = model.represent(&Vec::<f32>::try_from(last.view([-1])).unwrap(), 1, 8);
        let row = Vec::<f32>::try_from(tensors[0].1.get(11)).unwrap();
        for (row, alone) in row.iter().zip(&alone) {
            assert!((row - alone).abs() < 1e-6, "{row} against {alone}");
        }
    }
}
