//! Colour operations on float planes, with torchvision's semantics.
//!
//! Source: `torchvision/transforms/_functional_tensor.py`, the float branch.
//! Values are in 0..=1 and clipped after each operation. Planes (R, G, B one
//! after the other) let every loop here run over plain slices without branches,
//! so that the compiler turns them into vector code.

/// Weights of R, G, B in luma (ITU-R 601, rounded as torchvision rounds them).
const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// A float image: three planes in one allocation.
#[derive(Debug, Default)]
pub(crate) struct Planes {
    values: Vec<f32>,
    width: usize,
}

/// From left to right, or mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Forward,
    Mirrored,
}

impl Planes {
    /// Takes over interleaved 8-bit pixels, `width` per row, as fractions of 255.
    pub(crate) fn load(&mut self, pixels: &[u8], width: usize, reading: Reading) {
        self.width = width;
        self.values.resize(pixels.len(), 0.0);
        let pixels = pixels.as_chunks::<3>().0;
        let [r, g, b] = self.channels();
        let rows = r.chunks_exact_mut(width).zip(g.chunks_exact_mut(width));
        let rows = rows.zip(b.chunks_exact_mut(width)).zip(pixels.chunks_exact(width));
        for (((r, g), b), row) in rows {
            let targets = r.iter_mut().zip(g).zip(b);
            match reading {
                Reading::Forward => targets.zip(row.iter()).for_each(store),
                Reading::Mirrored => targets.zip(row.iter().rev()).for_each(store),
            }
        }
    }

    /// Pixels per row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The red, green and blue plane.
    pub(crate) fn channels(&mut self) -> [&mut [f32]; 3] {
        let len = self.values.len() / 3;
        let (r, rest) = self.values.split_at_mut(len);
        let (g, b) = rest.split_at_mut(len);
        [r, g, b]
    }

    /// x ← clip(factor·x).
    pub(crate) fn brightness(&mut self, factor: f32) {
        for value in &mut self.values {
            *value = (*value * factor).clamp(0.0, 1.0);
        }
    }

    /// x ← clip(factor·x + (1 − factor)·m), where m is the mean luma of the image.
    pub(crate) fn contrast(&mut self, factor: f32) {
        let shift = (1.0 - factor) * self.mean_luma();
        for value in &mut self.values {
            *value = (*value * factor + shift).clamp(0.0, 1.0);
        }
    }

    /// x ← clip(factor·x + (1 − factor)·luma(pixel)).
    pub(crate) fn saturation(&mut self, factor: f32) {
        self.each_pixel(|pixel| {
            let shift = (1.0 - factor) * luma(pixel);
            pixel.map(|value| (value * factor + shift).clamp(0.0, 1.0))
        });
    }

    /// Turns the hue by `shift` of a full circle, −0.5..=0.5, through HSV.
    pub(crate) fn hue(&mut self, shift: f32) {
        self.each_pixel(|pixel| turn_hue(pixel, 6.0 * shift));
    }

    /// Every channel ← luma(pixel).
    pub(crate) fn grayscale(&mut self) {
        self.each_pixel(|pixel| [luma(pixel); 3]);
    }

    /// Writes interleaved pixels as (f(x) − mean)/std, where f is the identity or
    /// solarizing: x < ½ ? x : 1 − x.
    pub(crate) fn finish(
        &mut self,
        solarize: bool,
        mean: [f32; 3],
        std: [f32; 3],
        out: &mut [f32],
    ) {
        if solarize {
            for value in &mut self.values {
                *value = if *value < 0.5 { *value } else { 1.0 - *value };
            }
        }
        let [r, g, b] = self.channels();
        for (((r, g), b), out) in r.iter().zip(g).zip(b).zip(out.as_chunks_mut::<3>().0) {
            *out = normalized([*r, *g, *b], mean, std);
        }
    }

    /// Mean luma; summed in a fixed order, 8 partial sums at a time.
    #[expect(clippy::cast_precision_loss, reason = "the number of pixels is far below 2^52")]
    #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values fits one")]
    fn mean_luma(&mut self) -> f32 {
        let [r, g, b] = self.channels();
        let pixels = r.len();
        let mut total = 0.0_f64;
        for ((r, g), b) in r.chunks(256).zip(g.chunks(256)).zip(b.chunks(256)) {
            let mut partial = [0.0_f32; 8];
            for ((r, g), b) in r.chunks(8).zip(g.chunks(8)).zip(b.chunks(8)) {
                for (((sum, r), g), b) in partial.iter_mut().zip(r).zip(g).zip(b) {
                    *sum += luma([*r, *g, *b]);
                }
            }
            total += f64::from(partial.iter().sum::<f32>());
        }
        (total / pixels as f64) as f32
    }

    fn each_pixel(&mut self, change: impl Fn([f32; 3]) -> [f32; 3]) {
        let [r, g, b] = self.channels();
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            [*r, *g, *b] = change([*r, *g, *b]);
        }
    }
}

/// (x − mean)/std for one pixel.
pub(crate) fn normalized(pixel: [f32; 3], mean: [f32; 3], std: [f32; 3]) -> [f32; 3] {
    std::array::from_fn(|c| (pixel[c] - mean[c]) / std[c])
}

/// 8-bit channels as fractions of 255.
pub(crate) fn fractions(pixel: [u8; 3]) -> [f32; 3] {
    pixel.map(|value| f32::from(value) / 255.0)
}

fn store((((r, g), b), pixel): (((&mut f32, &mut f32), &mut f32), &[u8; 3])) {
    [*r, *g, *b] = fractions(*pixel);
}

fn luma([r, g, b]: [f32; 3]) -> f32 {
    LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
}

/// Hue, in sixths of a circle, moves by `sixths`; value and chroma stay.
///
/// The way back is v − c·clip(min(k, 4 − k)) with k = (n + hue) mod 6 and n = 5, 3, 1,
/// which equals torchvision's table of six cases and has no branch.
#[expect(clippy::float_cmp, reason = "the maximum is one of the three, bit for bit")]
fn turn_hue([r, g, b]: [f32; 3], sixths: f32) -> [f32; 3] {
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    let inverse = if chroma > 0.0 { 1.0 / chroma } else { 0.0 };
    let hue = if value == r {
        (g - b) * inverse
    } else if value == g {
        2.0 + (b - r) * inverse
    } else {
        4.0 + (r - g) * inverse
    };
    let hue = wrap(hue + sixths);
    [5.0, 3.0, 1.0].map(|offset| {
        let k = wrap(offset + hue);
        value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// Into 0..6, from at most one turn away.
fn wrap(sixths: f32) -> f32 {
    let raised = if sixths < 0.0 { sixths + 6.0 } else { sixths };
    if raised >= 6.0 { raised - 6.0 } else { raised }
}
