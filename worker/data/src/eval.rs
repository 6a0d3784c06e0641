//! The evaluation transform, and a data set in order, in batches of it.
//!
//! ```text
//! resize the short side (bicubic) → centre crop → normalize
//! ```

use std::ops::Range;

use lockstep_jpeg::PlanarImage;

use crate::color;
use crate::dataset::Dataset;
use crate::decode::{Decoder, OpenImage};
use crate::error::DataError;
use crate::finish::{self, Finish};
use crate::parallel;
use crate::planes::Planes;
use crate::resize::{Part, Resizer};
use crate::sample::{Label, SampleId};
use crate::weights::{Reading, Span};

/// How images are prepared for evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalConfig {
    /// Side of the square view, in pixels.
    pub size: u32,
    /// Length of the image's short side before the crop; at least `size`.
    pub resize_short_side: u32,
    /// Mean that is taken off, per channel.
    pub mean: [f32; 3],
    /// Standard deviation that is divided by, per channel.
    pub std: [f32; 3],
    /// Samples in a batch.
    pub batch: usize,
    /// Threads that read and decode.
    pub threads: usize,
}

impl EvalConfig {
    fn check(&self) -> Result<(), DataError> {
        let Self { size, resize_short_side, batch, threads, .. } = self;
        let fields = [
            ("size", *size > 0, "is 0; choose 1 or more"),
            ("resize_short_side", resize_short_side >= size, "is smaller than the view's size"),
            ("batch", *batch > 0, "is 0; choose 1 or more"),
            ("threads", *threads > 0, "is 0; choose 1 or more"),
        ];
        match fields.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, problem)) => Err(DataError::setting(name, problem)),
            None => Ok(()),
        }
    }

    fn view_len(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }
}

/// Consecutive samples, ready for the encoder.
#[derive(Debug)]
pub struct EvalBatch {
    /// The first sample; the others follow it in manifest order.
    pub first: SampleId,
    /// A label per sample.
    pub labels: Vec<Label>,
    /// The views, NHWC, normalized.
    pub views: Vec<f32>,
}

/// Iterator over the batches of a range of samples.
#[derive(Debug)]
pub struct EvalBatches<'a> {
    dataset: &'a Dataset,
    config: EvalConfig,
    left: Range<u64>,
    workers: Vec<Worker>,
}

/// The samples of `range` in manifest order, in batches; the last may be smaller.
///
/// A damaged sample is an error here: a figure over other images would be wrong.
///
/// # Errors
///
/// If a setting cannot work or the range goes past the end.
pub fn eval_batches(
    dataset: &Dataset,
    range: Range<u64>,
    config: EvalConfig,
) -> Result<EvalBatches<'_>, DataError> {
    config.check()?;
    let samples = dataset.manifest().samples();
    if range.end > samples {
        return Err(DataError::NoSuchSample { id: range.end - 1, samples });
    }
    let workers = (0..config.threads).map(|_| Worker::default()).collect();
    Ok(EvalBatches { dataset, config, left: range, workers })
}

/// The evaluation view of one stored JPEG or PNG, NHWC, normalized.
///
/// # Errors
///
/// What is wrong with the bytes, as the rest of a sentence.
pub fn eval_view(bytes: &[u8], config: &EvalConfig) -> Result<Vec<f32>, String> {
    let mut out = vec![0.0; config.view_len()];
    Viewer::default().write(Decoder::default().open(bytes)?, config, &mut out)?;
    Ok(out)
}

impl Iterator for EvalBatches<'_> {
    type Item = Result<EvalBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let first = self.left.start;
        let end = self.left.end.min(first.saturating_add(self.config.batch as u64));
        self.left.start = end;
        let batch = self.load(first..end);
        if batch.is_err() {
            self.left = 0..0;
        }
        Some(batch)
    }
}

impl EvalBatches<'_> {
    fn load(&mut self, range: Range<u64>) -> Result<EvalBatch, DataError> {
        let view_len = self.config.view_len();
        let first = SampleId(range.start);
        let samples = usize::try_from(range.end - range.start).expect("at most the batch");
        let mut labels = vec![Label(0); samples];
        let mut views = vec![0.0; samples * view_len];
        self.dataset.expect_from(first);
        let slots = range.zip(&mut labels).zip(views.chunks_exact_mut(view_len));
        let (dataset, config) = (self.dataset, &self.config);
        parallel::for_each(&mut self.workers, slots, |worker, ((id, label), view)| {
            *label = worker.fill(dataset, SampleId(id), config, view)?;
            Ok::<_, DataError>(())
        })?;
        Ok(EvalBatch { first, labels, views })
    }
}

/// One thread's buffers.
#[derive(Debug, Default)]
struct Worker {
    bytes: Vec<u8>,
    decoder: Decoder,
    viewer: Viewer,
}

impl Worker {
    fn fill(
        &mut self,
        dataset: &Dataset,
        id: SampleId,
        config: &EvalConfig,
        out: &mut [f32],
    ) -> Result<Label, DataError> {
        let label = dataset.read(id, &mut self.bytes)?;
        let view = self.decoder.open(&self.bytes);
        let view = view.and_then(|image| self.viewer.write(image, config, out));
        view.map_err(|problem| dataset.bad_sample(id, problem))?;
        Ok(label)
    }
}

/// Makes evaluation views; keeps its buffers between images.
#[derive(Debug, Default)]
struct Viewer {
    image: PlanarImage,
    resizer: Resizer,
    planes: Planes,
}

impl Viewer {
    fn write(
        &mut self,
        image: OpenImage<'_>,
        config: &EvalConfig,
        out: &mut [f32],
    ) -> Result<(), String> {
        let (width, height) = (image.width(), image.height());
        let (new_width, new_height) = resized_sides(width, height, config.resize_short_side);
        let part = Part {
            columns: centred_part(width, new_width, config.size),
            rows: centred_part(height, new_height, config.size),
        };
        image.decode(&[part.region((config.size, config.size))], &mut self.image)?;
        let size = (config.size, config.size);
        self.resizer.resize(&self.image, &part, size, Reading::Forward, &mut self.planes);
        let normalize = Finish::new(false, config.mean, config.std);
        color::convert(&mut self.planes);
        finish::write(&self.planes, normalize, out.as_chunks_mut().0);
        Ok(())
    }
}

/// Sides after the short one became `short`; the long one is cut to whole pixels.
///
/// Source: `_compute_resized_output_size` in torchvision.
fn resized_sides(width: u32, height: u32, short: u32) -> (u32, u32) {
    let long = |long: u32, old_short: u32| {
        let side = u64::from(short) * u64::from(long) / u64::from(old_short);
        u32::try_from(side).unwrap_or(u32::MAX)
    };
    if width <= height { (short, long(height, width)) } else { (long(width, height), short) }
}

/// The part of `side` pixels that a centred crop of `crop` pixels covers once they are
/// resized to `new_side`. Resizing only this part gives the same pixels as cropping
/// afterwards, and bounds the memory for a very long image.
///
/// Half pixels round to even, as in torchvision's `center_crop`.
fn centred_part(side: u32, new_side: u32, crop: u32) -> Span {
    let start = (f64::from(new_side - crop) / 2.0).round_ties_even();
    let scale = f64::from(side) / f64::from(new_side);
    Span { start: start * scale, length: f64::from(crop) * scale, within: 0..side }
}
