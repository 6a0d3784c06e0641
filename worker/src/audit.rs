//! The one-step audit: what another program needs to recompute a step and compare.
//!
//! ```text
//! DIR/step-K/rank-R.safetensors   every rank: views, sample ids, predictions, target projections, loss
//!            meta.json            rank 0: rates, sizes, constants
//!            before.safetensors   rank 0: weights, running statistics, momentum before the step
//!            after.safetensors            and after it
//!            grads.safetensors    rank 0: mean gradients over the global batch, before weight decay and LARS
//! ```
//!
//! Tensors have torchvision's names and shapes. `z1`, `z2` are the *target's* projections of view 1 and
//! view 2, so the loss pairs `q1` with `z2` and `q2` with `z1`. The online probe is left out: it is no part
//! of the algorithm.
//!
//! An audit that can't be written is logged, and training goes on.

use std::path::{Path, PathBuf};
use std::{fs, io};

use lockstep_data::LoadedBatch;
use lockstep_nn::{Byol, Recording, Side};
use lockstep_proto::config::{self, RunConfig};
use lockstep_proto::ids::{Rank, Step};
use lockstep_proto::{StepPlan, World};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::tensor_file::{self, Named, owned};

/// An audited step, from before it to after it.
#[derive(Debug)]
pub(crate) struct Audit {
    folder: PathBuf,
    /// The state before; on rank 0 only.
    before: Option<Named>,
}

/// What the trainer knows of the step.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) world: &'a World,
    pub(crate) plan: StepPlan,
    pub(crate) batch: &'a LoadedBatch,
    /// L over the global batch.
    pub(crate) loss: f64,
}

/// `meta.json`.
#[derive(Debug, Serialize)]
struct Meta<'a> {
    step: u64,
    world: usize,
    samples_per_rank: Vec<u32>,
    samples_per_lane: u32,
    accumulate: u32,
    global_batch: u32,
    tau: f64,
    eta: f64,
    loss: f64,
    optimizer: config::OptimizerKind,
    weight_decay: f64,
    momentum: f64,
    trust_coefficient: f64,
    nesterov: bool,
    architecture: config::Arch,
    width: f64,
    stem: config::Stem,
    padding: config::Padding,
    bn_eps: f64,
    bn_decay: f64,
    bn_group: u32,
    projector_hidden: u32,
    projection_dim: u32,
    predictor_hidden: u32,
    dtype: config::Dtype,
    tensors: &'a [(&'static str, &'static str)],
}

/// What the files hold, for whoever finds them.
const LEGEND: [(&str, &str); 5] = [
    (
        "view1, view2",
        "normalized network inputs, [n, 3, H, W]; ranks one after the other are the batch",
    ),
    ("q1, q2", "online predictions of view 1 and view 2, [n, d], not normalized"),
    (
        "z1, z2",
        "target projections of view 1 and view 2, [n, d], not normalized; q1 predicts z2, q2 predicts z1",
    ),
    ("loss_sum", "l(q1, z2) + l(q2, z1), summed over the rank's samples"),
    ("momentum.NAME, NAME in grads", "for the parameter NAME, such as online.encoder.conv1.weight"),
];

impl Audit {
    /// Begins, if this step is one to audit.
    pub(crate) fn begin(
        config: &config::Audit,
        (step, rank): (Step, Rank),
        model: &mut Byol,
    ) -> Option<Self> {
        if !config.steps.contains(&step.0) {
            return None;
        }
        model.record_next_step();
        let folder = Path::new(&config.dir).join(format!("step-{}", step.0));
        Some(Self { folder, before: (rank == Rank(0)).then(|| state(model)) })
    }

    /// Writes the files of this rank; the step has been applied.
    pub(crate) fn finish(self, model: &mut Byol, facts: &Facts<'_>) {
        let recording = model.take_recording().expect("the step was recorded");
        match self.write(model, &recording, facts) {
            Ok(()) => tracing::info!(path = %self.folder.display(), "audited step written"),
            Err(error) => {
                let path = self.folder.display();
                tracing::error!(%path, %error, "audited step not written; training goes on");
            }
        }
    }

    fn write(&self, model: &Byol, recording: &Recording, facts: &Facts<'_>) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let file = |name: &str| self.folder.join(name);
        let rank = facts.world.rank.0;
        tensor_file::write(&file(&format!("rank-{rank}.safetensors")), &seen(recording, facts))?;
        let Some(before) = &self.before else { return Ok(()) };
        tensor_file::write(&file("before.safetensors"), before)?;
        tensor_file::write(&file("after.safetensors"), &state(model))?;
        let gradients = named("online.", model.parameters(model.gradients()));
        tensor_file::write(&file("grads.safetensors"), &gradients.collect())?;
        let meta = serde_json::to_vec_pretty(&meta(facts))?;
        tensor_file::write_whole(&file("meta.json"), &meta) // last: when it is there, rank 0 is done
    }
}

/// Both networks and the momentum, copied.
fn state(model: &Byol) -> Named {
    let [_, _, (_, momentum), ..] = model.state();
    named("online.", model.network(Side::Online))
        .chain(named("target.", model.network(Side::Target)))
        .chain(named("momentum.online.", model.parameters(momentum)))
        .collect()
}

fn named(prefix: &str, tensors: Named) -> impl Iterator<Item = (String, Tensor)> {
    let kept = tensors.into_iter().filter(|(name, _)| !name.starts_with("probe."));
    kept.map(move |(name, tensor)| (format!("{prefix}{name}"), owned(&tensor)))
}

/// What this rank saw.
fn seen(recording: &Recording, facts: &Facts<'_>) -> Named {
    let batch = facts.batch;
    let ids: Vec<i64> = batch.sample_ids.iter().map(|id| id.0.cast_signed()).collect();
    let side = i64::from(facts.config.data.image_size);
    let view = |pixels: &[f32]| {
        let images = Tensor::from_slice(pixels).view([-1, side, side, 3]).permute([0, 3, 1, 2]);
        owned(&images.to_kind(recording.predictions_vbd[0].kind()))
    };
    // Micro-batch m took the m-th part of every lane; put together they are in the order of the samples.
    let lanes = i64::from(facts.world.members[facts.world.rank.0 as usize].lanes.count);
    let half = |micro_batches_vbd: &[Tensor], index: usize| {
        let of_lanes = micro_batches_vbd.iter().map(|both| {
            let rows = &both.chunk(2, 0)[index];
            rows.reshape([lanes, -1, rows.size()[1]])
        });
        owned(&Tensor::cat(&of_lanes.collect::<Vec<_>>(), 1).flatten(0, 1))
    };
    let loss_sum = recording.loss * f64::from(facts.config.schedule.global_batch);
    let tensors = [
        ("view1", view(&batch.view_one)),
        ("view2", view(&batch.view_two)),
        ("sample_ids", Tensor::from_slice(&ids)),
        ("q1", half(&recording.predictions_vbd, 0)),
        ("q2", half(&recording.predictions_vbd, 1)),
        ("z1", half(&recording.target_projections_vbd, 0)),
        ("z2", half(&recording.target_projections_vbd, 1)),
        ("loss_sum", Tensor::from(loss_sum).to_kind(Kind::Double)),
    ];
    tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

fn meta<'a>(facts: &Facts<'a>) -> Meta<'a> {
    let RunConfig { model, optimizer, data, schedule, .. } = facts.config;
    let samples_per_lane = schedule.global_batch / data.lanes;
    let members = &facts.world.members;
    Meta {
        step: facts.plan.step.0,
        world: members.len(),
        samples_per_rank: members
            .iter()
            .map(|member| member.lanes.count * samples_per_lane)
            .collect(),
        samples_per_lane,
        accumulate: schedule.accumulate,
        global_batch: schedule.global_batch,
        tau: facts.plan.decay,
        eta: facts.plan.learning_rate,
        loss: facts.loss,
        optimizer: optimizer.kind,
        weight_decay: optimizer.weight_decay,
        momentum: optimizer.momentum,
        trust_coefficient: optimizer.trust,
        nesterov: optimizer.nesterov,
        architecture: model.arch,
        width: model.width,
        stem: model.stem,
        padding: model.padding,
        bn_eps: model.bn_eps,
        bn_decay: model.bn_decay,
        bn_group: model.bn_group,
        projector_hidden: model.projector_hidden,
        projection_dim: model.projection_dim,
        predictor_hidden: model.predictor_hidden,
        dtype: model.dtype,
        tensors: &LEGEND,
    }
}
