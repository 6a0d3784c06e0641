//! From the run's configuration to what the engine and the input pipeline are made of.

use std::num::NonZero;

use lockstep_data::{Dataset, EvalConfig, JitterForm, OrderConfig, ViewRecipe};
use lockstep_nn::{Init, ModelSpec, Optimizer, Padding, ResNetSpec, Stem, TargetInit};
use lockstep_proto::config::{self, Arch, Dtype, OptimizerKind, RunConfig};
use tch::{Device, Kind};

/// Images that an encoder sees at once in evaluation; bounds memory and changes no figure.
const EVAL_BATCH: usize = 256;

/// The model of a run, for a data set of `classes` classes (0: no labels).
pub fn model_spec(config: &RunConfig, classes: u32, device: Device) -> ModelSpec {
    let model = &config.model;
    let (kind, compute) = match model.dtype {
        Dtype::Bf16 => (Kind::Float, Kind::BFloat16),
        Dtype::F32 => (Kind::Float, Kind::Float),
        Dtype::F64 => (Kind::Double, Kind::Double),
    };
    let element_bytes = kind.elt_size_in_bytes();
    ModelSpec {
        encoder: encoder(model),
        projector_hidden: model.projector_hidden.into(),
        projection_dim: model.projection_dim.into(),
        predictor_hidden: model.predictor_hidden.into(),
        classes: (config.probe.enabled && classes > 0).then_some(classes.into()),
        init: match model.init {
            config::Init::FanIn => Init::FanIn,
            config::Init::He => Init::He,
        },
        target_init: match model.target_init {
            config::TargetInit::Copy => TargetInit::Copy,
            config::TargetInit::Independent => TargetInit::Independent,
        },
        bn_eps: model.bn_eps,
        bn_decay: model.bn_decay,
        bn_group: model.bn_group,
        optimizer: optimizer(&config.optimizer),
        global_batch: config.schedule.global_batch,
        lanes: config.data.lanes,
        accumulate: config.schedule.accumulate,
        bucket_elements: config.collective.bucket_mib as usize * (1 << 20) / element_bytes,
        kind,
        compute,
        bf16_gradients: config.collective.gradients == config::Gradients::Bf16,
        recompute: model.recompute,
        device,
    }
}

fn encoder(model: &config::Model) -> ResNetSpec {
    let depth = match model.arch {
        Arch::Resnet18 => 18,
        Arch::Resnet34 => 34,
        Arch::Resnet50 => 50,
        Arch::Resnet101 => 101,
        Arch::Resnet152 => 152,
        Arch::Resnet200 => 200,
    };
    let published = ResNetSpec::with_depth(depth).expect("every `Arch` is a published depth");
    ResNetSpec {
        width: model.width,
        stem: match model.stem {
            config::Stem::Imagenet => Stem::Imagenet,
            config::Stem::Small => Stem::Small,
        },
        padding: match model.padding {
            config::Padding::Torchvision => Padding::Torchvision,
            config::Padding::Same => Padding::Same,
        },
        last_gamma: model.last_gamma,
        ..published
    }
}

fn optimizer(optimizer: &config::Optimizer) -> Optimizer {
    Optimizer {
        trust: match optimizer.kind {
            OptimizerKind::Lars => Some(optimizer.trust),
            OptimizerKind::Sgd => None,
        },
        momentum: optimizer.momentum,
        nesterov: optimizer.nesterov,
        weight_decay: optimizer.weight_decay,
    }
}

/// Classes of a data set; 0: it has no labels.
///
/// # Panics
///
/// Never: labels are 32 bits.
pub fn classes(dataset: &Dataset) -> u32 {
    u32::try_from(dataset.manifest().classes().len()).expect("labels are 32 bits")
}

/// The random views of a run.
pub fn view_recipe(config: &RunConfig) -> ViewRecipe {
    let (augment, data) = (&config.augment, &config.data);
    ViewRecipe {
        scale: augment.crop_area,
        ratio: augment.crop_ratio,
        flip_p: augment.flip,
        jitter_p: augment.jitter,
        jitter_form: match augment.jitter_form {
            config::JitterForm::Torchvision => JitterForm::Torchvision,
            config::JitterForm::Reference => JitterForm::Reference,
        },
        brightness: augment.brightness,
        contrast: augment.contrast,
        saturation: augment.saturation,
        hue: augment.hue,
        gray_p: augment.grayscale,
        blur_p: augment.blur,
        blur_sigma: augment.blur_sigma,
        solarize_p: augment.solarize,
        mean: data.mean,
        std: data.std,
        ..ViewRecipe::imagenet(data.image_size) // for the blur's kernel, a function of the size
    }
}

/// The sample order of a run.
pub fn order_config(config: &RunConfig) -> OrderConfig {
    OrderConfig {
        seed: config.run.seed,
        global_batch: config.schedule.global_batch,
        lanes: config.data.lanes,
        shuffle_block: config.data.shuffle_block.into(),
    }
}

/// The evaluation transform of a run, on all cores.
pub(crate) fn eval_config(config: &RunConfig) -> EvalConfig {
    EvalConfig {
        size: config.data.image_size,
        resize_short_side: config.data.eval_resize,
        mean: config.data.mean,
        std: config.data.std,
        batch: EVAL_BATCH,
        threads: std::thread::available_parallelism().map_or(1, NonZero::get),
    }
}
