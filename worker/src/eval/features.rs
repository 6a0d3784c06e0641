//! Features of a data set: the encoder's representations, or the pixels themselves.

use std::ops::Range;

use indicatif::ProgressBar;
use lockstep_data::{DataError, Dataset, EvalBatch, EvalBatches, eval_batches};
use lockstep_nn::Byol;
use lockstep_proto::config::RunConfig;

use crate::commands::progress;
use crate::engine::eval_config;

/// One row of numbers per sample, with its label.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// Rows of `dims` numbers each, in manifest order.
    pub values: Vec<f32>,
    /// Numbers in a row.
    pub dims: usize,
    /// Class of each row.
    pub labels: Vec<u32>,
}

impl Features {
    /// Representations of a range of samples, without a progress bar: for use while training.
    pub fn of_range(
        model: &Byol,
        dataset: &Dataset,
        config: &RunConfig,
        range: Range<u64>,
    ) -> Result<Self, DataError> {
        encode(model, Views { range, ..Views::new(dataset, config) })
    }

    /// For another rank: dimensions, samples, labels, values.
    ///
    /// # Panics
    ///
    /// If there are 2³² samples or dimensions.
    pub fn to_bytes(&self) -> Vec<u8> {
        let small = |count: usize| u32::try_from(count).expect("fits into memory of a message");
        let head = [small(self.dims), small(self.len())];
        let head = head.iter().chain(&self.labels).flat_map(|word| word.to_le_bytes());
        head.chain(self.values.iter().flat_map(|value| value.to_le_bytes())).collect()
    }

    /// Adds the samples of another rank.
    ///
    /// # Panics
    ///
    /// If the bytes are not what [`Features::to_bytes`] makes, with dimensions like these: the ranks
    /// are then out of step.
    pub fn extend_from_bytes(&mut self, bytes: &[u8]) {
        let mut head = words(bytes).map(|word| u32::from_le_bytes(word) as usize);
        let (dims, samples) = head.next().zip(head.next()).expect("features begin with two counts");
        assert_eq!(bytes.len(), 4 * (2 + samples + samples * dims), "length of features");
        assert!(self.is_empty() || self.dims == dims, "dimensions {} and {dims}", self.dims);
        self.dims = dims;
        let (labels, values) = bytes[8..].split_at(4 * samples);
        self.labels.extend(words(labels).map(u32::from_le_bytes));
        self.values.extend(words(values).map(f32::from_le_bytes));
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Has it no sample?
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The features of some samples only.
    ///
    /// # Panics
    ///
    /// If there is no sample of such an index.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let row = |index: &usize| &self.values[index * self.dims..][..self.dims];
        Self {
            values: indices.iter().flat_map(row).copied().collect(),
            dims: self.dims,
            labels: indices.iter().map(|index| self.labels[*index]).collect(),
        }
    }
}

/// Numbers of four bytes, little-endian.
fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks::<4>().0.iter().copied()
}

/// Samples of a data set, as evaluation looks at them.
#[derive(Debug, Clone)]
pub struct Views<'a> {
    dataset: &'a Dataset,
    config: &'a RunConfig,
    range: Range<u64>,
    name: Option<&'static str>,
}

impl<'a> Views<'a> {
    /// All samples of `dataset`, prepared as `config` says.
    pub fn new(dataset: &'a Dataset, config: &'a RunConfig) -> Self {
        Self { dataset, config, range: 0..dataset.manifest().samples(), name: None }
    }

    /// Shows a progress bar of this name.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Calls `take` with every batch.
    fn each(self, mut take: impl FnMut(EvalBatch)) -> Result<(), DataError> {
        let samples = self.range.end.saturating_sub(self.range.start);
        let bar = match self.name {
            Some(name) => progress::bar(samples, name, "images"),
            None => ProgressBar::hidden(),
        };
        for batch in self.batches()? {
            let batch = batch?;
            bar.inc(batch.labels.len() as u64);
            take(batch);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn batches(self) -> Result<EvalBatches<'a>, DataError> {
        eval_batches(self.dataset, self.range, eval_config(self.config))
    }
}

/// Representations of `views` by the encoder of `model`, with the running batch-norm averages.
///
/// # Panics
///
/// Never: an encoder has a positive number of features.
pub fn encode(model: &Byol, views: Views<'_>) -> Result<Features, DataError> {
    let side = views.config.data.image_size;
    let dims = usize::try_from(model.spec().encoder.features()).expect("positive");
    let mut features = Features { values: Vec::new(), dims, labels: Vec::new() };
    views.each(|batch| {
        features.values.extend(model.represent(&batch.views, batch.labels.len(), side));
        features.labels.extend(batch.labels.iter().map(|label| label.0));
    })?;
    Ok(features)
}

/// The pixels of `views` as features: what an encoder has to be better than.
///
/// Where all views are gray, one channel stands for three, since the cosine is the same.
///
/// # Panics
///
/// Never: there are as many results as views.
pub fn pixels<const SETS: usize>(views: [Views<'_>; SETS]) -> Result<[Features; SETS], DataError> {
    let mut sets = Vec::with_capacity(SETS);
    for views in views {
        let side = views.config.data.image_size as usize;
        let mut set = Features { values: Vec::new(), dims: 3 * side * side, labels: Vec::new() };
        views.each(|batch| {
            set.values.extend(batch.views);
            set.labels.extend(batch.labels.iter().map(|label| label.0));
        })?;
        sets.push(set);
    }
    if sets.iter().all(is_gray) {
        sets.iter_mut().for_each(keep_one_channel);
    }
    Ok(sets.try_into().expect("as many as were asked for"))
}

#[expect(clippy::float_cmp, reason = "channels of a gray image are equal bit by bit")]
fn is_gray(set: &Features) -> bool {
    set.values.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b)
}

fn keep_one_channel(set: &mut Features) {
    let len = set.values.len() / 3;
    for index in 0..len {
        set.values[index] = set.values[3 * index];
    }
    set.values.truncate(len);
    set.values.shrink_to_fit();
    set.dims /= 3;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn features_survive_the_way_through_bytes_and_an_empty_part_adds_nothing() {
        let part = Features { values: vec![0.5, -1.0, 2.0, f32::MAX], dims: 2, labels: vec![3, 0] };
        let mut all = Features::default();
        for bytes in
            [&part, &Features { dims: 2, ..Features::default() }, &part].map(Features::to_bytes)
        {
            all.extend_from_bytes(&bytes);
        }
        assert_eq!(all.dims, 2);
        assert_eq!(all.labels, [3, 0, 3, 0]);
        assert_eq!(all.values, [&part.values[..], &part.values].concat());
    }

    #[test]
    fn pixels_of_gray_images_keep_one_channel_and_those_of_coloured_ones_all() {
        let mut config = testing::tiny_config();
        // Channels of gray stay alike only if they are normalized alike.
        (config.data.mean, config.data.std) = ([0.5; 3], [0.25; 3]);
        let gray = testing::packed(12, testing::Color::Gray);
        let colored = testing::packed(12, testing::Color::Red);
        let dims = |folders: [&testing::Packed; 2]| {
            let sets = folders.map(testing::Packed::open);
            let views = [&sets[0], &sets[1]].map(|set| Views::new(set, &config));
            pixels(views).unwrap().map(|features| (features.dims, features.values.len()))
        };
        assert_eq!(dims([&gray, &gray]), [(64, 12 * 64); 2]);
        assert_eq!(dims([&gray, &colored]), [(192, 12 * 192); 2]);
    }

    #[test]
    fn an_encoder_gives_one_row_per_sample_of_the_range() {
        let config = testing::tiny_config();
        let packed = testing::packed(12, testing::Color::Red);
        let dataset = packed.open();
        let spec = crate::engine::model_spec(&config, 2, tch::Device::Cpu);
        let model = Byol::new(spec, 1);
        let features = Features::of_range(&model, &dataset, &config, 3..8).unwrap();
        assert_eq!((features.len(), features.values.len()), (5, 5 * features.dims));
        assert!(features.values.iter().all(|value| value.is_finite()));
        let all = encode(&model, Views::new(&dataset, &config)).unwrap();
        assert_eq!(all.len(), 12);
        assert_eq!(features.labels, all.labels[3..8]);
    }

    #[test]
    fn selected_rows_keep_their_labels() {
        let features =
            Features { values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], dims: 2, labels: vec![7, 8, 9] };
        let selected = features.select(&[2, 0]);
        assert_eq!(selected.values, [4.0, 5.0, 0.0, 1.0]);
        assert_eq!(selected.labels, [9, 7]);
    }
}
