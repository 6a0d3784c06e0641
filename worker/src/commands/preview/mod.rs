//! `worker preview`: what the augmentations of a configuration make of images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use lockstep_data::{CropBox, Dataset, JitterStep, SampleId, ViewParams, eval_view};
use lockstep_proto::config::RunConfig;
use serde_json::{Value, json};
use tch::Tensor;

use crate::commands::output::{Format, count};
use crate::commands::source::ConfigArgs;
use crate::engine::{eval_config, view_recipe};
use crate::tensor_file::{self, Named, owned};
use crate::view_pair::{Draws, ViewPair};

mod sheet;

/// Draws images with their two views, and what was drawn by lot for each view.
#[derive(Debug, clap::Args)]
pub struct PreviewArgs {
    /// Data set.
    #[arg(long, value_name = "DIR")]
    shards: PathBuf,
    /// The sheet to write.
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Images on the sheet, spread evenly over the data set.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    samples: u64,
    /// The samples on the sheet, by number.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', conflicts_with = "samples")]
    ids: Vec<u64>,
    /// Seed of the draws; short for `--set run.seed=SEED`.
    #[arg(long)]
    seed: Option<u64>,
    /// Pass over the data whose views are drawn.
    #[arg(long, default_value_t = 0, value_name = "E")]
    data_epoch: u64,
    /// Side of the views; short for `--set data.image_size=S --set data.eval_resize=8/7·S`.
    #[arg(long, value_name = "S")]
    size: Option<u32>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the normalized views and evaluation views, too: `view_one`, `view_two`, `evaluation`.
    #[arg(long, value_name = "FILE.safetensors")]
    views: Option<PathBuf>,
    /// Print what was drawn by lot as JSON.
    #[arg(long)]
    json: bool,
}

/// Draws, and says where.
pub fn run(args: &PreviewArgs) -> anyhow::Result<ExitCode> {
    let config = configuration(args)?;
    let dataset = Dataset::open(&args.shards)?;
    let recipe = view_recipe(&config);
    let draws = Draws { seed: config.run.seed, data_epoch: args.data_epoch };
    let pairs = ids(args, dataset.manifest().samples())
        .map(|id| ViewPair::new(&dataset, id, &recipe, draws))
        .collect::<Result<Vec<_>, _>>()?;
    let sheet = sheet::sheet(&pairs, &recipe, dataset.manifest().classes());
    write(&args.out, &sheet.png())?;
    if let Some(path) = &args.views {
        let tensors = tensors(&dataset, &pairs, &config)?;
        tensor_file::write(path, &tensors).with_context(|| format!("write {}", path.display()))?;
    }
    let images = count(pairs.len() as u64, "image");
    let text = format!("{images} with two views each drawn on {}\n", args.out.display());
    Format::from_flag(args.json).print(&text, &value(&pairs, &config, &dataset))?;
    Ok(ExitCode::SUCCESS)
}

fn configuration(args: &PreviewArgs) -> anyhow::Result<RunConfig> {
    let short = [
        ("run.seed", args.seed.map(|seed| seed.to_string())),
        ("data.image_size", args.size.map(|side| side.to_string())),
        ("data.eval_resize", args.size.map(|side| (u64::from(side) * 8 / 7).to_string())),
    ];
    let short = short.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let mut layers = args.config.layers()?;
    layers.flags.splice(0..0, short);
    Ok(layers.resolve()?.config)
}

fn ids(args: &PreviewArgs, stored: u64) -> Box<dyn Iterator<Item = SampleId>> {
    if !args.ids.is_empty() {
        return Box::new(args.ids.clone().into_iter().map(SampleId));
    }
    let shown = args.samples.min(stored);
    Box::new((0..shown).map(move |index| SampleId(index * stored / shown)))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// The views as the encoder gets them (NCHW), and the evaluation views of the same samples.
fn tensors(dataset: &Dataset, pairs: &[ViewPair], config: &RunConfig) -> anyhow::Result<Named> {
    let side = i64::from(config.data.image_size);
    let tensor = |name: &str, values: &[f32]| {
        let nhwc = Tensor::from_slice(values).view([-1, side, side, 3]);
        (name.to_owned(), owned(&nhwc.permute([0, 3, 1, 2])))
    };
    let views = |view: usize| -> Vec<f32> {
        pairs.iter().flat_map(|pair| &pair.views[view].1).copied().collect()
    };
    let (mut bytes, mut evaluation) = (Vec::new(), Vec::new());
    for pair in pairs {
        dataset.read(pair.id, &mut bytes)?;
        let view = eval_view(&bytes, &eval_config(config));
        evaluation.extend(view.expect("the same bytes were decoded a moment ago"));
    }
    Ok(vec![
        tensor("view_one", &views(0)),
        tensor("view_two", &views(1)),
        tensor("evaluation", &evaluation),
    ])
}

/// Everything that another program needs to make the same views.
fn value(pairs: &[ViewPair], config: &RunConfig, dataset: &Dataset) -> Value {
    let recipe = view_recipe(config);
    let sample = |pair: &ViewPair| {
        json!({
            "id": pair.id.0,
            "class": dataset.manifest().classes().get(pair.label.0 as usize),
            "width": pair.image.width,
            "height": pair.image.height,
            "views": pair.views.iter().map(|(params, _)| drawn(params)).collect::<Vec<_>>(),
        })
    };
    json!({
        "size": recipe.size,
        "eval_resize": config.data.eval_resize,
        "blur_kernel": recipe.blur_kernel,
        "mean": config.data.mean,
        "std": config.data.std,
        "samples": pairs.iter().map(sample).collect::<Vec<_>>(),
    })
}

fn drawn(params: &ViewParams) -> Value {
    let CropBox { left, top, width, height } = params.crop;
    let step = |step: &JitterStep| match *step {
        JitterStep::Brightness(factor) => json!(["brightness", factor]),
        JitterStep::Contrast(factor) => json!(["contrast", factor]),
        JitterStep::Saturation(factor) => json!(["saturation", factor]),
        JitterStep::Hue(shift) => json!(["hue", shift]),
    };
    json!({
        "crop": { "left": left, "top": top, "width": width, "height": height },
        "flip": params.flip,
        "jitter": params.jitter.iter().flatten().map(step).collect::<Vec<_>>(),
        "grayscale": params.grayscale,
        "blur": params.blur,
        "solarize": params.solarize,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::failure;
    use crate::testing::{self, Packed};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: PreviewArgs,
    }

    fn args(packed: &Packed, flags: &[&str]) -> PreviewArgs {
        let (shards, out) = (packed.path(), packed.path().join("sheet.png"));
        let fixed =
            ["preview", "--shards", shards.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let preset = ["--preset", "tiny"];
        Cli::try_parse_from(fixed.iter().chain(&preset).chain(flags)).unwrap().args
    }

    #[test]
    fn the_sheet_and_the_views_are_of_the_samples_that_were_asked_for() {
        let packed = testing::packed(12, testing::Color::Red);
        let views = packed.path().join("views.safetensors");
        let flags = ["--ids", "3,7", "--size", "16", "--views", views.to_str().unwrap()];
        let args = args(&packed, &flags);
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS);
        let sheet = std::fs::read(&args.out).unwrap();
        let info = png::Decoder::new(std::io::Cursor::new(sheet)).read_info().unwrap();
        assert_eq!(info.info().width, 3 * (224 + 12) + 12);
        let tensors = tensor_file::parse(&std::fs::read(views).unwrap()).unwrap();
        for name in ["evaluation", "view_one", "view_two"] {
            let (_, tensor) = tensors.iter().find(|(found, _)| found == name).unwrap();
            assert_eq!(tensor.size(), [2, 3, 16, 16]);
        }
    }

    #[test]
    fn what_is_printed_follows_seed_and_data_epoch() {
        let packed = testing::packed(12, testing::Color::Red);
        let printed = |flags: &[&str]| {
            let args = args(&packed, flags);
            let config = configuration(&args).unwrap();
            let draws = Draws { seed: config.run.seed, data_epoch: args.data_epoch };
            let dataset = packed.open();
            let recipe = view_recipe(&config);
            let pairs: Vec<_> = ids(&args, 12)
                .map(|id| ViewPair::new(&dataset, id, &recipe, draws).unwrap())
                .collect();
            value(&pairs, &config, &dataset)["samples"].clone()
        };
        let first = printed(&["--samples", "3"]);
        let numbers: Vec<u64> =
            first.as_array().unwrap().iter().map(|sample| sample["id"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [0, 4, 8]);
        assert_eq!(first[0]["views"][0]["crop"].as_object().unwrap().len(), 4);
        assert_eq!(first, printed(&["--samples", "3", "--seed", "0"]));
        assert_ne!(first, printed(&["--samples", "3", "--seed", "1"]));
        assert_ne!(first, printed(&["--samples", "3", "--data-epoch", "1"]));
    }

    #[test]
    fn a_sample_that_does_not_exist_ends_with_42() {
        let packed = testing::packed(12, testing::Color::Red);
        let error = run(&args(&packed, &["--ids", "12"])).unwrap_err();
        assert_eq!(failure(&error), ExitCode::from(42), "{error:#}");
    }
}
