//! The encoder that is evaluated: with the weights of a checkpoint, or the initial ones.

use lockstep_nn::Byol;
use lockstep_proto::config::RunConfig;
use tch::Device;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::engine::model_spec;

/// The model of a run before its first step.
pub fn untrained(config: &RunConfig, classes: u32) -> Byol {
    Byol::new(model_spec(config, classes, Device::cuda_if_available()), config.run.seed)
}

/// The model that a checkpoint holds.
pub fn trained(checkpoint: &Checkpoint) -> Result<Byol, CheckpointError> {
    let meta = checkpoint.meta();
    let mut model = untrained(&meta.config, meta.classes);
    checkpoint.load_into(&mut model)?;
    Ok(model)
}
