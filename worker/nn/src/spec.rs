//! What a model is made from.

use tch::{Device, Kind};

use crate::init::{Init, TargetInit};
use crate::optimizer::Optimizer;
use crate::resnet::ResNetSpec;

/// Everything that decides what a model computes.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Encoder.
    pub encoder: ResNetSpec,
    /// Hidden units of the projector.
    pub projector_hidden: i64,
    /// d: dimensions of projection and prediction.
    pub projection_dim: i64,
    /// Hidden units of the predictor.
    pub predictor_hidden: i64,
    /// Classes of the online probe; `None`: no probe.
    pub classes: Option<i64>,
    /// Initial weights.
    pub init: Init,
    /// Initial weights of the target.
    pub target_init: TargetInit,
    /// ε of batch norm.
    pub bn_eps: f64,
    /// Share of the old running average that a batch-norm update keeps.
    pub bn_decay: f64,
    /// Lanes that batch norm normalizes together, all on one rank; 0: all lanes of all ranks.
    pub bn_group: u32,
    /// Update rule.
    pub optimizer: Optimizer,
    /// N: images of one view over all ranks.
    pub global_batch: u32,
    /// Lanes that the global batch is made of, as many images of each.
    pub lanes: u32,
    /// Micro-batches of a step; divides the images of a lane.
    pub accumulate: u32,
    /// Elements of a gradient bucket.
    pub bucket_elements: usize,
    /// Element type of weights, gradients and momentum: `Float` or `Double`.
    pub kind: Kind,
    /// Element type of activations and of the weights they meet: `kind`, or `BFloat16` where that is `Float`.
    pub compute: Kind,
    /// Gradients travel to the other ranks as `BFloat16`, not as `kind`.
    pub bf16_gradients: bool,
    /// Compute normalized activations again in backward instead of keeping them: less memory, more time.
    pub recompute: bool,
    /// Where the engine runs.
    pub device: Device,
}
