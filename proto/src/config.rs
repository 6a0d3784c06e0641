//! The validated configuration of a run: what all workers must agree on.
//!
//! What each value may be stands in the table of keys in `validate.rs`, and only there.
//!
//! Not here: layering of preset, file, environment and flags (`layers.rs`), and what is a matter of
//! one process only (addresses, folders, log format): those are flags of the binaries.

use serde::{Deserialize, Serialize};

/// Everything that decides what a run computes.
///
/// Made by [`crate::layers`] or [`RunConfig::from_json`], so it is valid unless altered by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Identity and size of the run.
    pub run: Run,
    /// Networks.
    pub model: Model,
    /// Data set as the engine sees it.
    pub data: Data,
    /// Random views.
    pub augment: Augment,
    /// Optimizer.
    pub optimizer: Optimizer,
    /// Batch size, length and schedules of τ and η.
    pub schedule: Schedule,
    /// Online linear probe.
    pub probe: Probe,
    /// kNN evaluation during training.
    pub knn: Knn,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
    /// Plan windows, heartbeats, leases.
    pub control: Control,
    /// Collectives.
    pub collective: Collective,
    /// Steps that workers write out, to be recomputed by another program.
    pub audit: Audit,
}

/// `[run]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Name of the run; a worker or checkpoint of another run is refused.
    pub id: String,
    /// Seed of initial weights, sample order and augmentations.
    pub seed: u64,
    /// Workers to wait for; also `--world`.
    pub world: u32,
    /// Fewest workers that go on when the others stay away; also `--min-world`; 0: `world`.
    pub min_world: u32,
    /// Most workers that train together; the rest are spares; also `--max-world`; 0: `world`.
    pub max_world: u32,
}

impl Run {
    /// Fewest workers that train together.
    pub fn least(&self) -> u32 {
        if self.min_world == 0 { self.world } else { self.min_world }
    }

    /// Most workers that train together.
    pub fn most(&self) -> u32 {
        if self.max_world == 0 { self.world } else { self.max_world }
    }
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Encoder.
    pub arch: Arch,
    /// Multiplies every channel count of the encoder, the stem's included.
    pub width: f64,
    /// First layers.
    pub stem: Stem,
    /// What lies around an image in convolutions and max-pool.
    pub padding: Padding,
    /// Hidden units of the projector.
    pub projector_hidden: u32,
    /// Dimensions of projection and prediction.
    pub projection_dim: u32,
    /// Hidden units of the predictor.
    pub predictor_hidden: u32,
    /// Initial weights of convolutions and linear layers.
    pub init: Init,
    /// Initial weights of the target network.
    pub target_init: TargetInit,
    /// Initial gamma of the last batch norm of every residual block; 1 in the paper's results, 0 in the authors' code.
    pub last_gamma: f64,
    /// Added to the variance in batch norm.
    pub bn_eps: f64,
    /// Share of the old running average kept by a batch-norm update.
    pub bn_decay: f64,
    /// Lanes that batch norm normalizes together, dealt to one worker; 0: all lanes of all workers.
    pub bn_group: u32,
    /// Numbers that the engine computes in.
    pub dtype: Dtype,
    /// Compute normalized activations again in backward instead of keeping them.
    pub recompute: bool,
}

/// Depth of the encoder, a post-activation ResNet (v1, stride in the 3×3 convolution).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say all")]
pub enum Arch {
    Resnet18,
    Resnet34,
    Resnet50,
    Resnet101,
    Resnet152,
    Resnet200,
}

/// First layers of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 7×7/2 convolution and 3×3/2 max-pool, for photographs.
    Imagenet,
    /// 3×3/1 convolution, no pool, for small images.
    Small,
}

/// What lies around an image in convolutions and max-pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Half of the kernel on all sides, as in torchvision: weights move both ways.
    Torchvision,
    /// TensorFlow's `SAME`, as in the authors' code: for their weights.
    Same,
}

/// The two published forms of colour jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JitterForm {
    /// That of the PyTorch ports.
    Torchvision,
    /// That of the authors' code.
    Reference,
}

/// Distribution of initial weights; all truncated at two standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Standard deviation `1/√fan_in`, the authors' code.
    FanIn,
    /// Convolutions `√(2/fan_out)`, torchvision's ResNet; linear layers `1/√fan_in`.
    He,
}

/// Initial weights of the target network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetInit {
    /// Those of the online network.
    Copy,
    /// Drawn like those of the online network, independently of them.
    Independent,
}

/// Element type of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 16-bit activations and working weights; weights, gradients, statistics and sums stay 32-bit.
    Bf16,
    /// 32-bit.
    F32,
    /// 64-bit, for tests of exactness.
    F64,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Side of the square views, in pixels.
    pub image_size: u32,
    /// Short side of the image before the centre crop of evaluation, in pixels; at least `image_size`.
    pub eval_resize: u32,
    /// V: virtual workers that the sample order is cut into; divides `schedule.global_batch`, one or more for each worker.
    pub lanes: u32,
    /// Samples of a lane that are shuffled together.
    pub shuffle_block: u32,
    /// Mean of each channel, on 0–1, subtracted from the views.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, on 0–1, dividing the views.
    pub std: [f32; 3],
}

/// `[augment]`: see the recipe's table; `[view 1, view 2]` where two values stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Share of the image's area in the random crop, `[from, to]`.
    pub crop_area: [f64; 2],
    /// Aspect ratio (width / height) of the random crop, `[from, to]`, drawn log-uniformly.
    pub crop_ratio: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Probability of colour jitter.
    pub jitter: f64,
    /// What its steps do.
    pub jitter_form: JitterForm,
    /// Strength of brightness jitter: factor in `[1 − b, 1 + b]`.
    pub brightness: f64,
    /// Strength of contrast jitter.
    pub contrast: f64,
    /// Strength of saturation jitter.
    pub saturation: f64,
    /// Strength of hue jitter, in turns.
    pub hue: f64,
    /// Probability of grayscale.
    pub grayscale: f64,
    /// Probability of Gaussian blur, per view.
    pub blur: [f64; 2],
    /// σ of the blur in pixels, `[from, to]`.
    pub blur_sigma: [f64; 2],
    /// Probability of solarization, per view.
    pub solarize: [f64; 2],
}

/// `[optimizer]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Update rule.
    pub kind: OptimizerKind,
    /// Momentum μ.
    pub momentum: f64,
    /// Look ahead: step along `g + μ·m` instead of `m`; SGD only.
    pub nesterov: bool,
    /// Weight decay; not applied to tensors of one dimension.
    pub weight_decay: f64,
    /// Trust coefficient of LARS.
    pub trust: f64,
}

/// Update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Layer-wise adaptive rates.
    Lars,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// `[schedule]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// N: images per optimizer step over all ranks.
    pub global_batch: u32,
    /// A: micro-batches that a step walks one after the other; batch norm sees one at a time.
    pub accumulate: u32,
    /// Length of the run in passes over the data; `K = ⌊data_epochs·S/N⌋`.
    pub data_epochs: f64,
    /// Length in optimizer steps instead; 0: `data_epochs` decides.
    pub steps: u64,
    /// η at N = 256; peak `η = base_learning_rate·N/256`.
    pub base_learning_rate: f64,
    /// Linear warm-up of η in passes over the data; `W = ⌊warmup_data_epochs·S/N⌋`.
    pub warmup_data_epochs: f64,
    /// τ at step 0; also of all others where `decay_mode` is constant.
    pub base_decay: f64,
    /// How τ changes during the run.
    pub decay_mode: DecayMode,
    /// Use `base_decay^κ`, κ = N / `reference_batch`, so that the target forgets as much per image.
    pub scale_tau: bool,
    /// Batch that `base_decay` refers to, where `scale_tau` is set.
    pub reference_batch: u32,
}

/// How τ changes during the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayMode {
    /// Rises from the base to 1 along a cosine.
    Cosine,
    /// Stays at the base: 1 is a target that never moves, 0 one that is the online network.
    Constant,
}

/// `[probe]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Train a linear classifier on the stopped representation of view 1, where the data has labels.
    pub enabled: bool,
}

/// `[knn]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knn {
    /// Evaluate after every so many steps; 0: never during training.
    pub every_steps: u64,
    /// Neighbours; fewer than `samples`.
    pub k: u32,
    /// T of the weights exp(cos/T).
    pub temperature: f64,
    /// Images in the bank and as queries during training, from the training set; `worker eval knn` takes all.
    pub samples: u32,
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Write one after every so many steps; 0: only at the end and when stopped.
    pub every_steps: u64,
    /// Newest checkpoints kept.
    pub keep_last: u32,
    /// Keep every checkpoint whose step is a multiple of this for ever; 0: none.
    pub keep_every: u64,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Steps in one plan window.
    pub plan_window: u32,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
    /// Milliseconds of silence after which a worker counts as lost; over two heartbeats.
    pub lease_ms: u32,
    /// Milliseconds for which a world waits for more workers after a failure, once it could form without them.
    pub last_call_ms: u32,
    /// As `last_call_ms` for the first world.
    pub cold_call_ms: u32,
    /// Milliseconds without progress after which the rank that holds up the others is put out; at least 5 median steps.
    pub progress_ms: u32,
    /// Milliseconds that a worker is kept out of worlds once it failed twice in a row; doubles with every further time; 0:
    /// never.
    pub cooldown_ms: u32,
    /// Milliseconds that a coordinator which was started again waits for the members of the world before it.
    pub readopt_ms: u32,
    /// Steps between comparisons of all ranks' digests; 0: only at checkpoints.
    pub digest_every: u64,
    /// Steps in a row that are skipped, since something was not finite, before the run fails.
    pub max_skipped_steps: u32,
}

/// `[collective]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collective {
    /// What carries the collectives.
    pub backend: BackendChoice,
    /// Size of a gradient bucket in MiB.
    pub bucket_mib: u32,
    /// Numbers in which gradients travel.
    pub gradients: Gradients,
    /// Seconds after which a silent peer ends a collective.
    pub timeout_s: u32,
}

/// What carries the collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// NCCL on GPUs, where the program is built with it; else the host's.
    Auto,
    /// Host memory and TCP.
    Host,
    /// NCCL.
    Nccl,
}

/// Numbers in which gradients travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gradients {
    /// Those that they are added up in.
    Full,
    /// 16-bit floats.
    Bf16,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Steps to write out, counted from 0.
    pub steps: Vec<u64>,
    /// Folder on the workers' machines that gets a `step-K` folder for each; empty: none.
    pub dir: String,
}
