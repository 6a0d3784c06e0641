//! `worker bench data`: the input pipeline alone, from stored images to batches of two views.
//!
//! It is the loader of training, with the paper's augmentations; a taker that does nothing takes its batches.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use lockstep_data::{
    CropBox, DataError, Dataset, Decoder, Loader, LoaderConfig, Order, OrderConfig, PackConfig,
    PlanarImage, SampleId, StageTimes, ViewRecipe, pack,
};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::photos;
use crate::commands::Misuse;
use crate::commands::output::{Format, count};
use crate::data_set::CacheArgs;
use crate::odd_samples;

/// Samples of a batch, where there are so many.
const BATCH: u32 = 50;
/// Batches that a round has at most.
const ROUND: u32 = 20;
/// Images that are made where none are given.
const MADE: u64 = 50;

/// Makes batches of two views and prints how many images that is per second, and where the time goes.
#[derive(Debug, clap::Args)]
pub(super) struct DataArgs {
    /// Data set; without it and `--images`, images like photographs are made.
    #[arg(long, value_name = "DIR", conflicts_with = "images")]
    shards: Option<PathBuf>,
    /// Folder of JPEGs and PNGs, which are packed first.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Write the images that are made where none are given, and measure nothing.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["shards", "images"])]
    make: Option<PathBuf>,
    /// Side of the views in pixels.
    #[arg(long, default_value_t = 224, value_name = "S")]
    size: u32,
    /// Threads of the loader.
    #[arg(long, default_value_t = 1, value_name = "T")]
    threads: usize,
    /// Rounds that are measured, after one that is not.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    size: u32,
    threads: usize,
    /// Stored images.
    samples: u64,
    /// Images of a round.
    images: u32,
    rounds: u32,
    /// By CPU time of the whole process, over all rounds: some systems count it in ticks of 4 ms.
    images_per_second_per_core: f64,
    /// By the clock on the wall; median over the rounds.
    images_per_second: f64,
    /// Mean time of an image in each stage of the loader.
    microseconds: Vec<(&'static str, f64)>,
    /// CPU time of an image of which only the last pixel is decoded.
    entropy_microseconds: f64,
    /// Where there is a cache of coefficients.
    cache: Option<CacheFigures>,
}

/// What the cache held, which one data epoch has filled before.
#[derive(Debug, Serialize)]
struct CacheFigures {
    /// Images that came from it, of 1.
    share: f64,
    /// Of a stored image.
    bytes_per_image: f64,
    /// Those bytes, to those of the shards.
    bytes_to_shards: f64,
}

/// Measures, and prints the figures.
pub(super) fn run(args: &DataArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.make {
        make(folder).with_context(|| format!("write into {}", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut dataset, _packed) = dataset(args)?;
    args.cache.apply(&mut dataset)?;
    let figures = measure(args, &Arc::new(dataset))?;
    Format::from_flag(args.json).print(&text(&figures), &figures)?;
    Ok(ExitCode::SUCCESS)
}

/// The data set, and the folder that must live as long as it where it was packed for this.
fn dataset(args: &DataArgs) -> anyhow::Result<(Dataset, Option<tempfile::TempDir>)> {
    if let Some(shards) = &args.shards {
        return Ok((Dataset::open(shards)?, None));
    }
    let folder = tempfile::tempdir().context("make a folder")?;
    // A source of images is a folder per class.
    let (input, output) = (folder.path().join("images"), folder.path().join("shards"));
    let class = input.join("all");
    match &args.images {
        Some(images) => {
            copy(images, &class).with_context(|| format!("copy {}", images.display()))?;
        }
        None => make(&class).context("write images")?,
    }
    let packed = pack(&PackConfig::new(input, &output), &mut |_| {}).context("pack the images")?;
    if packed.samples == 0 {
        return Err(Misuse("there are no images to measure".to_owned()).into());
    }
    Ok((Dataset::open(&output)?, Some(folder)))
}

fn make(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    (0..MADE).try_for_each(|index| {
        std::fs::write(folder.join(format!("{index:03}.jpg")), photos::jpeg(index))
    })
}

/// Copies the files of a folder; what is no image is left out by packing.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Wall and CPU time of some work, and what it returned.
struct Measured<T> {
    wall: Duration,
    cpu: Duration,
    result: T,
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn measured<T>(work: impl FnOnce() -> Result<T, DataError>) -> Result<Measured<T>, DataError> {
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let result = work()?;
    Ok(Measured { wall: started.elapsed(), cpu: cpu_time().saturating_sub(cpu_before), result })
}

/// CPU time of this process so far, all threads.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("not negative")
}

fn measure(args: &DataArgs, dataset: &Arc<Dataset>) -> Result<Figures, DataError> {
    let samples = dataset.manifest().samples();
    let batch = u32::try_from(samples).map_or(BATCH, |samples| samples.min(BATCH));
    let batches = u32::try_from(samples / u64::from(batch)).map_or(ROUND, |most| most.min(ROUND));
    let images = batches * batch;
    let mut loader = loader(args, dataset, batch)?;
    if dataset.cached_bytes().is_some() {
        take(&mut loader, u32::try_from(samples / u64::from(batch)).unwrap_or(u32::MAX))?;
    }
    let mut round = || measured(|| take(&mut loader, batches));
    round()?;
    let rounds: Vec<_> = (0..args.rounds).map(|_| round()).collect::<Result<_, _>>()?;
    drop(loader);
    let entropy =
        measured(|| (0..args.rounds).try_for_each(|_| decode_last_pixels(dataset, images)))?;
    let each = |time: Duration| time.as_secs_f64() / f64::from(images);
    let wall = median(rounds.iter().map(|round| each(round.wall)));
    let cpu = rounds.iter().map(|round| round.cpu).sum();
    let times: StageTimes = rounds.iter().map(|round| round.result.0).sum();
    let cached: usize = rounds.iter().map(|round| round.result.1).sum();
    let mean = |time: Duration| 1e6 * each(time) / f64::from(args.rounds);
    Ok(Figures {
        size: args.size,
        threads: args.threads,
        samples,
        images,
        rounds: args.rounds,
        images_per_second_per_core: 1e6 / mean(cpu),
        images_per_second: 1.0 / wall,
        microseconds: stages(&times).map(|(name, time)| (name, mean(time))).to_vec(),
        entropy_microseconds: mean(entropy.cpu),
        cache: dataset
            .cached_bytes()
            .map(|bytes| CacheFigures::new(dataset, bytes, share(cached, args.rounds * images))),
    })
}

fn stages(times: &StageTimes) -> [(&'static str, Duration); 5] {
    let StageTimes { read, decode, resize, colour, blur } = *times;
    [("read", read), ("decode", decode), ("resize", resize), ("colour", colour), ("blur", blur)]
}

/// A loader that makes a batch only when the one before is taken, so that rounds do not overlap.
fn loader(args: &DataArgs, dataset: &Arc<Dataset>, batch: u32) -> Result<Loader, DataError> {
    let order = OrderConfig { seed: 0, global_batch: batch, lanes: 1, shuffle_block: 4_096 };
    let order = Order::new(&dataset.manifest().shard_sizes(), order)?;
    let config = LoaderConfig {
        seed: 0,
        lanes: 0..1,
        first_cursor: 0,
        threads: args.threads,
        batches_ahead: 0,
    };
    Loader::start(Arc::clone(dataset), order, ViewRecipe::imagenet(args.size), config)
}

/// Takes batches; gives their times, and how many of their images came from the cache.
fn take(loader: &mut Loader, batches: u32) -> Result<(StageTimes, usize), DataError> {
    let (mut times, mut cached) = (Vec::new(), 0);
    for _ in 0..batches {
        let batch = loader.next_batch()?;
        odd_samples::warn_of_cache(&batch);
        times.push(batch.times);
        cached += batch.cached;
        loader.recycle(batch);
    }
    Ok((times.into_iter().sum(), cached))
}

fn share(cached: usize, images: u32) -> f64 {
    f64::from(u32::try_from(cached).expect("some of the images")) / f64::from(images)
}

impl CacheFigures {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 bytes")]
    fn new(dataset: &Dataset, bytes: u64, share: f64) -> Self {
        let manifest = dataset.manifest();
        let shards: u64 = manifest.shards().iter().map(|shard| shard.bytes).sum();
        let bytes = bytes as f64;
        let bytes_per_image = bytes / manifest.samples() as f64;
        Self { share, bytes_per_image, bytes_to_shards: bytes / shards as f64 }
    }
}

/// Decodes of `images` samples only what the last pixel needs: all codes of a baseline JPEG, and little else.
fn decode_last_pixels(dataset: &Dataset, images: u32) -> Result<(), DataError> {
    let (mut bytes, mut decoder) = (Vec::new(), Decoder::default());
    let mut image = PlanarImage::default();
    for id in 0..images {
        dataset.read(SampleId(id.into()), &mut bytes)?;
        let opened = decoder.open(&bytes).expect("packing has decoded it");
        let (left, top) = (opened.width() - 1, opened.height() - 1);
        let last = CropBox { left, top, width: 1, height: 1 };
        opened.decode(&[last], &mut image).expect("packing has decoded it");
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn text(figures: &Figures) -> String {
    let Figures { size, threads, samples, images, rounds, .. } = figures;
    let head = format!(
        "{}, {size} px, {}, {rounds} rounds of {}\n\
         {:.0} images/s per core (CPU time), {:.0} images/s\n",
        count(*samples, "stored image"),
        count(*threads as u64, "thread"),
        count((*images).into(), "image"),
        figures.images_per_second_per_core,
        figures.images_per_second,
    );
    let total: f64 = figures.microseconds.iter().map(|(_, time)| time).sum();
    let line = |(stage, time): &(&str, f64)| {
        format!("  {stage:<8} {time:>8.1} µs an image {:>5.1} %\n", 100.0 * time / total)
    };
    let entropy = format!(
        "entropy decoding alone: {:.1} µs an image, {:.0} images/s per core\n",
        figures.entropy_microseconds,
        1e6 / figures.entropy_microseconds,
    );
    let cache = figures.cache.as_ref().map(|cache| {
        format!(
            "coefficient cache: {:.0} % of the images, {:.1} KB each, {:.2} times the shards\n",
            100.0 * cache.share,
            cache.bytes_per_image / 1e3,
            cache.bytes_to_shards,
        )
    });
    head + &figures.microseconds.iter().map(line).collect::<String>()
        + &entropy
        + &cache.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use lockstep_data::CacheConfig;

    use super::*;
    use crate::commands::failure;
    use crate::testing;

    fn args() -> DataArgs {
        DataArgs {
            shards: None,
            images: None,
            make: None,
            size: 32,
            threads: 2,
            rounds: 2,
            json: false,
            cache: CacheArgs::default(),
        }
    }

    #[test]
    fn a_data_set_is_measured_by_stage() {
        let packed = testing::packed(12, testing::Color::Red);
        let figures = measure(&args(), &Arc::new(packed.open())).unwrap();
        assert_eq!((figures.samples, figures.images, figures.microseconds.len()), (12, 12, 5));
        assert!(figures.microseconds.iter().all(|(_, time)| *time > 0.0), "{figures:?}");
        assert!(figures.images_per_second_per_core > 0.0 && figures.entropy_microseconds > 0.0);
        let text = text(&figures);
        assert!(text.contains("2 threads") && text.contains("entropy decoding alone"), "{text}");
    }

    #[test]
    fn a_cache_is_filled_before_it_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        std::fs::create_dir(&images).unwrap();
        (0..4).for_each(|index| {
            std::fs::write(images.join(format!("{index}.jpg")), photos::jpeg(index)).unwrap();
        });
        let args = DataArgs { images: Some(images), rounds: 20, ..args() };
        let (mut dataset, _packed) = dataset(&args).unwrap();
        let config = CacheConfig { folder: folder.path().join("cache"), bound: 1 << 30 };
        dataset.cache_coefficients(&config).unwrap();
        let figures = measure(&args, &Arc::new(dataset)).unwrap();
        let cache = figures.cache.as_ref().unwrap();
        assert!(cache.share > 0.0 && (1.0..4.0).contains(&cache.bytes_to_shards), "{cache:?}");
        assert!(text(&figures).contains("coefficient cache: "), "{}", text(&figures));
    }

    #[test]
    fn images_of_a_folder_are_measured_and_one_without_any_ends_with_42() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), photos::jpeg(0)).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no image").unwrap();
        let args = DataArgs { images: Some(folder.path().to_owned()), ..args() };
        assert_eq!(dataset(&args).unwrap().0.manifest().samples(), 1);
        std::fs::remove_file(folder.path().join("a.jpg")).unwrap();
        let error = dataset(&args).unwrap_err();
        assert_eq!(failure(&error), ExitCode::from(42), "{error:#}");
    }
}
