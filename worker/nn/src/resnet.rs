//! The encoder: a ResNet v1 with post-activation blocks, stride in the 3×3 convolution.
//!
//! ```text
//! stem ─▶ 4 stages of residual blocks ─▶ mean over H, W ─▶ representation [B, F]
//! ```
//!
//! Names are torchvision's, and so is the padding unless asked otherwise, so that weights move both ways.
//! Source: He et al. 2015, arXiv:1512.03385; torchvision `models/resnet.py`.

use lockstep_collective::CollectiveError;
use tch::Tensor;

use crate::batch_norm;
use crate::conv::{Activation, ConvBn, Shape};
use crate::kernels::{self, After};
use crate::layout::Layout;
use crate::pass::{Backward, Forward};
use crate::window::{Padding, Window};

/// Which ResNet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResNetSpec {
    /// Residual block.
    pub block: BlockKind,
    /// Blocks of each stage.
    pub stages: [usize; 4],
    /// Multiplies every channel count.
    pub width: f64,
    /// First layers.
    pub stem: Stem,
    /// What lies around an image, in convolutions and max-pool.
    pub padding: Padding,
    /// Initial γ of the last batch norm of every block.
    pub last_gamma: f64,
}

/// Residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1 with four times the channels.
    Bottleneck,
}

/// First layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// 7×7/2 convolution, 3×3/2 max-pool.
    Imagenet,
    /// 3×3/1 convolution.
    Small,
}

impl ResNetSpec {
    /// The spec of a published depth with width 1: 18, 34, 50, 101, 152 or 200.
    pub fn with_depth(depth: u32) -> Option<Self> {
        let (block, stages) = match depth {
            18 => (BlockKind::Basic, [2, 2, 2, 2]),
            34 => (BlockKind::Basic, [3, 4, 6, 3]),
            50 => (BlockKind::Bottleneck, [3, 4, 6, 3]),
            101 => (BlockKind::Bottleneck, [3, 4, 23, 3]),
            152 => (BlockKind::Bottleneck, [3, 8, 36, 3]),
            200 => (BlockKind::Bottleneck, [3, 24, 36, 3]),
            _ => return None,
        };
        let (stem, padding) = (Stem::Imagenet, Padding::Torchvision);
        Some(Self { block, stages, width: 1.0, stem, padding, last_gamma: 1.0 })
    }

    fn window(&self, kernel: i64, stride: i64) -> Window {
        Window { kernel, stride, padding: self.padding }
    }

    /// `base` channels times the width, at least one.
    #[expect(clippy::cast_possible_truncation, reason = "channel counts are small")]
    fn channels(&self, base: i64) -> i64 {
        #[expect(clippy::cast_precision_loss, reason = "channel counts are small")]
        let scaled = (base as f64 * self.width).round() as i64;
        scaled.max(1)
    }

    fn expansion(&self) -> i64 {
        match self.block {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
        }
    }

    /// F: dimensions of the representation.
    pub fn features(&self) -> i64 {
        self.channels(512) * self.expansion()
    }
}

/// The layers.
#[derive(Debug)]
pub(crate) struct ResNet {
    stem: ConvBn,
    pool: Option<Window>,
    blocks: Vec<Block>,
}

/// What backward needs.
#[derive(Debug)]
pub(crate) struct Saved {
    images: Tensor,
    stem: Unit,
    /// Where the maxima of the pool were.
    indices: Option<Tensor>,
    blocks: Vec<BlockSaved>,
    /// The last activations, `[B, F, H, W]`.
    last: Tensor,
}

impl ResNet {
    pub(crate) fn new(layout: &mut Layout, spec: &ResNetSpec) -> Self {
        let base = spec.channels(64);
        let (window, pool) = match spec.stem {
            Stem::Imagenet => (spec.window(7, 2), Some(spec.window(3, 2))),
            Stem::Small => (spec.window(3, 1), None),
        };
        let shape = Shape { input: 3, output: base, window };
        let stem = ConvBn::new(layout, ["encoder.conv1", "encoder.bn1"], shape, 1.0);
        let mut blocks = Vec::new();
        let mut input = base;
        for (stage, (&count, planes)) in spec.stages.iter().zip([64, 128, 256, 512]).enumerate() {
            let planes = spec.channels(planes);
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("encoder.layer{}.{index}", stage + 1);
                blocks.push(Block::new(layout, spec, &name, [input, planes, stride]));
                input = planes * spec.expansion();
            }
        }
        Self { stem, pool, blocks }
    }

    /// `[B, 3, H, W]` per stream to `[B, F]` per stream.
    pub(crate) fn forward(
        &self,
        pass: &mut Forward<'_>,
        xs: &[Tensor],
    ) -> Result<(Vec<Tensor>, Saved), CollectiveError> {
        let images = xs[0].shallow_clone();
        let (mut xs, bn) = self.stem.forward(pass, xs, Activation::Relu)?;
        let stem = Unit::new(pass, bn, &xs[0]);
        let mut indices = None;
        if let Some(window) = self.pool {
            let pooled: Vec<_> = xs.iter().map(|x| window.max_pool(x)).collect();
            indices = Some(pooled[0].1.shallow_clone());
            xs = pooled.into_iter().map(|(y, _)| kernels::rows(&y)).collect();
        }
        let mut saved = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let (ys, mut kept) = block.forward(pass, &xs)?;
            if !pass.recompute || index == 0 || block.shortcut.is_some() {
                kept.input = Some(xs[0].shallow_clone());
            }
            if pass.keeps() {
                saved.push(kept);
            }
            xs = ys;
        }
        let representations = xs.iter().map(|x| x.mean_dim([2_i64, 3].as_slice(), false, x.kind()));
        let representations = representations.collect();
        let last = xs[0].shallow_clone();
        Ok((representations, Saved { images, stem, indices, blocks: saved, last }))
    }

    /// `dy`: gradient of the representation of stream 0.
    pub(crate) fn backward(
        &self,
        pass: &mut Backward<'_>,
        saved: Saved,
        dy: &Tensor,
    ) -> Result<(), CollectiveError> {
        let Saved { images, stem, indices, mut blocks, last: mut y } = saved;
        let size = y.size();
        let spread = (dy / (size[2] * size[3])).unsqueeze(-1).unsqueeze(-1).expand(&size, false);
        let mut dy = kernels::rows(&spread);
        for (index, block) in self.blocks.iter().enumerate().rev() {
            let x = self.input_of(pass, &mut blocks, index);
            let saved = blocks.pop().expect("one for every block");
            dy = block.backward(pass, &saved, (&x, &y), dy)?;
            y = x;
        }
        if let Some((window, indices)) = self.pool.zip(indices) {
            // Only the shape of what was pooled counts.
            dy = kernels::rows(&window.max_pool_backward(&dy, stem.bn.input(), &indices));
        }
        let y = stem.output(pass, &self.stem);
        let _unused = self.stem.backward(pass, &stem.bn, (&images, Some(&y)), dy, false)?;
        Ok(())
    }

    /// Input of block `index`. If it was not kept, it is computed again from the last one that was, and so
    /// are those between.
    fn input_of(&self, pass: &Backward<'_>, saved: &mut [BlockSaved], index: usize) -> Tensor {
        let kept = |index: &usize| saved[*index].input.is_some();
        let from = (0..=index).rev().find(kept).expect("the first block's is kept");
        for below in from..index {
            let x = saved[below].input.as_ref().expect("kept, or made in the turn before");
            let y = self.blocks[below].output(pass, &saved[below], x);
            saved[below + 1].input = Some(y);
        }
        saved[index].input.take().expect("kept, or made in the last turn")
    }
}

/// Residual block: units one after the other, the last one adding the shortcut.
#[derive(Debug)]
struct Block {
    units: Vec<ConvBn>,
    shortcut: Option<ConvBn>,
}

/// What backward needs; the block's output is the next one's input.
#[derive(Debug)]
struct BlockSaved {
    /// `None`: computed again when it is needed.
    input: Option<Tensor>,
    first: Vec<Unit>,
    last: batch_norm::Saved,
    shortcut: Option<batch_norm::Saved>,
}

/// What backward needs of a convolution with batch norm and ReLU.
#[derive(Debug)]
struct Unit {
    bn: batch_norm::Saved,
    /// `None`: computed again when it is needed.
    output: Option<Tensor>,
}

impl Unit {
    fn new(pass: &Forward<'_>, bn: batch_norm::Saved, output: &Tensor) -> Self {
        Self { bn, output: (!pass.recompute).then(|| output.shallow_clone()) }
    }

    fn output(&self, pass: &Backward<'_>, layer: &ConvBn) -> Tensor {
        let again = || layer.output(pass, &self.bn, After::Relu);
        self.output.as_ref().map_or_else(again, Tensor::shallow_clone)
    }
}

impl Block {
    fn new(
        layout: &mut Layout,
        spec: &ResNetSpec,
        name: &str,
        [input, planes, stride]: [i64; 3],
    ) -> Self {
        let output = planes * spec.expansion();
        let shapes: Vec<Shape> = match spec.block {
            BlockKind::Basic => vec![
                Shape { input, output: planes, window: spec.window(3, stride) },
                Shape { input: planes, output, window: spec.window(3, 1) },
            ],
            BlockKind::Bottleneck => vec![
                Shape { input, output: planes, window: spec.window(1, 1) },
                Shape { input: planes, output: planes, window: spec.window(3, stride) },
                Shape { input: planes, output, window: spec.window(1, 1) },
            ],
        };
        let last = shapes.len();
        let units = (1..).zip(shapes).map(|(index, shape)| {
            let gamma = if index == last { spec.last_gamma } else { 1.0 };
            let names = [format!("{name}.conv{index}"), format!("{name}.bn{index}")];
            ConvBn::new(layout, [&names[0], &names[1]], shape, gamma)
        });
        let units = units.collect();
        let shortcut = (stride != 1 || input != output).then(|| {
            let names = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
            let shape = Shape { input, output, window: spec.window(1, stride) };
            ConvBn::new(layout, [&names[0], &names[1]], shape, 1.0)
        });
        Self { units, shortcut }
    }

    fn forward(
        &self,
        pass: &mut Forward<'_>,
        xs: &[Tensor],
    ) -> Result<(Vec<Tensor>, BlockSaved), CollectiveError> {
        let (last, layers) = self.units.split_last().expect("a block has units");
        let mut first = Vec::new();
        let mut hs: Vec<Tensor> = xs.iter().map(Tensor::shallow_clone).collect();
        for layer in layers {
            let (ys, bn) = layer.forward(pass, &hs, Activation::Relu)?;
            first.push(Unit::new(pass, bn, &ys[0]));
            hs = ys;
        }
        let (residuals, shortcut) = match &self.shortcut {
            Some(unit) => {
                let (ys, saved) = unit.forward(pass, xs, Activation::Nothing)?;
                (ys, Some(saved))
            }
            None => (xs.iter().map(Tensor::shallow_clone).collect(), None),
        };
        let (ys, last) = last.forward(pass, &hs, Activation::AddRelu(&residuals))?;
        Ok((ys, BlockSaved { input: None, first, last, shortcut }))
    }

    /// The output once more, bit for bit.
    fn output(&self, pass: &Backward<'_>, saved: &BlockSaved, x: &Tensor) -> Tensor {
        let last = self.units.last().expect("a block has units");
        let shortcut = self.shortcut.as_ref().zip(saved.shortcut.as_ref());
        let residual = shortcut.map(|(layer, bn)| layer.output(pass, bn, After::Nothing));
        last.output(pass, &saved.last, After::AddRelu(residual.as_ref().unwrap_or(x)))
    }

    fn backward(
        &self,
        pass: &mut Backward<'_>,
        saved: &BlockSaved,
        (input, y): (&Tensor, &Tensor),
        dy: Tensor,
    ) -> Result<Tensor, CollectiveError> {
        let (last, layers) = self.units.split_last().expect("a block has units");
        let input_of = |pass: &Backward<'_>, index: usize| match index.checked_sub(1) {
            Some(below) => saved.first[below].output(pass, &layers[below]),
            None => input.shallow_clone(),
        };
        let mut x = input_of(pass, layers.len());
        let (dx, mut d_shortcut) = last.backward(pass, &saved.last, (&x, Some(y)), dy, true)?;
        let mut dx = dx.expect("asked for");
        if let (Some(layer), Some(bn)) = (&self.shortcut, &saved.shortcut) {
            let gradients = layer.backward(pass, bn, (input, None), d_shortcut, true)?;
            d_shortcut = gradients.0.expect("asked for");
        }
        for (index, (layer, unit)) in layers.iter().zip(&saved.first).enumerate().rev() {
            let y = std::mem::replace(&mut x, input_of(pass, index));
            let gradients = layer.backward(pass, &unit.bn, (&x, Some(&y)), dx, true)?;
            dx = gradients.0.expect("asked for");
        }
        dx += d_shortcut;
        Ok(dx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(depth: u32, width: f64) -> usize {
        let spec = ResNetSpec { width, ..ResNetSpec::with_depth(depth).unwrap() };
        let mut layout = Layout::new(1e-5);
        ResNet::new(&mut layout, &spec);
        layout.params().iter().map(crate::layout::ParamSpec::len).sum()
    }

    /// torchvision's counts, less the classifier's (512 or 2048 inputs, 1000 classes).
    #[test]
    fn every_depth_has_the_parameters_of_torchvisions_model() {
        for (depth, published, classifier) in [
            (18, 11_689_512, 513_000),
            (34, 21_797_672, 513_000),
            (50, 25_557_032, 2_049_000),
            (101, 44_549_160, 2_049_000),
            (152, 60_192_808, 2_049_000),
        ] {
            assert_eq!(parameters(depth, 1.0), published - classifier, "ResNet-{depth}");
        }
    }

    /// Grill et al. 2020, arXiv:2006.07733, table 1b, and 63 M for the ResNet-200 of width 1.
    #[test]
    fn deep_and_wide_encoders_have_the_papers_millions_of_parameters() {
        for (depth, width, millions) in
            [(50, 1.0, 24), (50, 2.0, 94), (50, 4.0, 375), (200, 1.0, 63), (200, 2.0, 250)]
        {
            let found = (parameters(depth, width) + 500_000) / 1_000_000;
            assert_eq!(found, millions, "ResNet-{depth} ({width}x)");
        }
    }
}
