//! A rank's part of a global batch, cut into the micro-batches that a step walks one after the other.

use tch::Tensor;

use crate::spec::ModelSpec;
use crate::store::signed;
use crate::tensor::on_device;

/// A rank's part of one global batch: two views of every image.
#[derive(Debug)]
pub struct Views {
    micro_batches: Vec<MicroBatch>,
}

/// What goes through the networks at once: two views of some images of every lane, stacked.
#[derive(Debug)]
pub(crate) struct MicroBatch {
    pub(crate) images_vbchw: Tensor,
    pub(crate) labels_b: Option<Tensor>,
    pub(crate) turn: Turn,
}

/// Place of a micro-batch in its step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) first: bool,
    pub(crate) last: bool,
}

impl Views {
    /// `one`, `two`: normalized pixels of `labels.len()` images each, in the order N, H, W, C; lane by lane,
    /// N / lanes of each. Micro-batch m takes the m-th part of every lane, whoever holds the lane. They are on the device
    /// when this returns, beside what it is computing: another thread may make the views of the next step.
    ///
    /// # Panics
    ///
    /// If the images fill no whole number of lanes.
    pub fn new([one, two]: [&[f32]; 2], labels: &[u32], side: u32, spec: &ModelSpec) -> Self {
        let (slots, side) = (i64::from(spec.global_batch / spec.lanes), i64::from(side));
        let lanes = signed(labels.len()) / slots;
        let view =
            |pixels: &[f32]| Tensor::from_slice(pixels).view([1, lanes, slots, side, side, 3]);
        let images = Tensor::cat(&[view(one), view(two)], 0);
        let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        let labels = Tensor::from_slice(&labels).view([lanes, slots]);
        let (count, length) = (i64::from(spec.accumulate), slots / i64::from(spec.accumulate));
        let part = |index: i64| {
            let images = images.narrow(2, index * length, length).reshape([-1, side, side, 3]);
            let labels = labels.narrow(1, index * length, length).reshape([-1]);
            MicroBatch {
                images_vbchw: on_device(&images.to_kind(spec.compute), spec.device)
                    .permute([0, 3, 1, 2]),
                labels_b: spec.classes.map(|_| on_device(&labels, spec.device)),
                turn: Turn { first: index == 0, last: index + 1 == count },
            }
        };
        Self { micro_batches: (0..count).map(part).collect() }
    }

    /// In the order of a step.
    pub(crate) fn micro_batches(&self) -> &[MicroBatch] {
        &self.micro_batches
    }
}
