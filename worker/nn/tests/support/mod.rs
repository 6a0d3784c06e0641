//! Models small enough for whole steps in f64.

use lockstep_collective::Solo;
use lockstep_nn::{
    BlockKind, Communicators, Init, ModelSpec, Optimizer, Padding, ResNetSpec, Stem, TargetInit,
};
use tch::{Device, Kind};

/// Side of the images.
pub(crate) const SIDE: u32 = 8;
/// N.
pub(crate) const BATCH: u32 = 6;

pub(crate) fn spec(block: BlockKind, stem: Stem) -> ModelSpec {
    ModelSpec {
        encoder: ResNetSpec {
            block,
            stages: [1, 1, 1, 1],
            width: 0.0625,
            stem,
            padding: Padding::Torchvision,
            last_gamma: 0.5,
        },
        projector_hidden: 12,
        projection_dim: 5,
        predictor_hidden: 7,
        classes: Some(3),
        init: Init::FanIn,
        target_init: TargetInit::Copy,
        bn_eps: 1e-5,
        bn_decay: 0.9,
        bn_group: 0,
        optimizer: Optimizer { trust: None, momentum: 0.0, nesterov: false, weight_decay: 0.0 },
        global_batch: BATCH,
        lanes: BATCH,
        accumulate: 1,
        bucket_elements: 1000,
        kind: Kind::Double,
        compute: Kind::Double,
        bf16_gradients: false,
        recompute: false,
        device: Device::Cpu,
    }
}

/// A world of one.
pub(crate) fn alone() -> Communicators {
    Communicators { statistics: Box::new(Solo::default()), gradients: Box::new(Solo::default()) }
}
