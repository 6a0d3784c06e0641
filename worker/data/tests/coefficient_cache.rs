//! The coefficient cache: the same views with it as without, whatever happens to its files.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use lockstep_data::{
    CacheConfig, CacheEvent, DataError, Dataset, LoadedBatch, Loader, LoaderConfig, Order,
    OrderConfig, PackConfig, SampleId, ViewRecipe, pack,
};
use tempfile::TempDir;

const SAMPLES: u32 = 32;
/// Of which are baseline JPEGs.
const BASELINE: usize = 24;
/// Batches of a data epoch.
const EPOCH: usize = 4;
const PLENTY: u64 = 1 << 30;

/// A data set in the folder `set`, and a place for a cache.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        scene.pack("set", 5);
        scene
    }

    fn pack(&self, name: &str, seed: u64) {
        let input = self.path("input");
        fs::create_dir_all(input.join("cat")).unwrap();
        for index in 0..SAMPLES {
            let ending = if index % 8 == 7 { "png" } else { "jpg" };
            fs::write(input.join(format!("cat/{index:02}.{ending}")), image(index)).unwrap();
        }
        let config =
            PackConfig { shard_samples: 10, seed, ..PackConfig::new(input, self.path(name)) };
        assert_eq!(pack(&config, &mut |_| {}).unwrap().samples, u64::from(SAMPLES));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dataset(&self, name: &str, bound: u64) -> Result<Dataset, DataError> {
        let mut dataset = Dataset::open(&self.path(name)).unwrap();
        if bound > 0 {
            dataset.cache_coefficients(&CacheConfig { folder: self.path("cache"), bound })?;
        }
        Ok(dataset)
    }

    /// So many batches of all lanes; without a cache if its bound is 0.
    fn load(&self, bound: u64, threads: usize, cursors: std::ops::Range<u64>) -> Loaded {
        load(self.dataset("set", bound).unwrap(), 0..4, threads, cursors)
    }

    /// Runs the first data epoch, after which all is in the cache.
    fn fill(&self) -> PathBuf {
        self.load(PLENTY, 2, 0..EPOCH as u64);
        self.files().pop().unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let paths = fs::read_dir(self.path("cache")).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some()).collect()
    }
}

/// Large enough that no two look alike in any view, small enough to be quick.
fn image(index: u32) -> Vec<u8> {
    let (width, height) = (40 + u16::try_from(index).unwrap(), 30);
    let values = 3 * u32::from(width) * u32::from(height);
    let pixels: Vec<_> =
        (0..values).map(|i| u8::try_from((i * (index + 3) + i / 48 * 5) % 256).unwrap()).collect();
    let mut bytes = Vec::new();
    if index % 8 == 7 {
        let mut encoder = png::Encoder::new(&mut bytes, width.into(), height.into());
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        return bytes;
    }
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_progressive(index % 8 == 6);
    encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// What came of some batches.
#[derive(Debug)]
struct Loaded {
    /// Everything that training sees, in bits.
    content: Vec<(Vec<SampleId>, Vec<u32>)>,
    cached: usize,
    events: Vec<CacheEvent>,
}

fn load(
    dataset: Dataset,
    lanes: std::ops::Range<u32>,
    threads: usize,
    cursors: std::ops::Range<u64>,
) -> Loaded {
    let batches = cursors.clone().count();
    load_until(dataset, (lanes, threads), cursors.start, |loaded| loaded.content.len() == batches)
}

fn load_until(
    dataset: Dataset,
    (lanes, threads): (std::ops::Range<u32>, usize),
    first_cursor: u64,
    is_enough: impl Fn(&Loaded) -> bool,
) -> Loaded {
    let order = OrderConfig { seed: 3, global_batch: 8, lanes: 4, shuffle_block: 4 };
    let order = Order::new(&dataset.manifest().shard_sizes(), order).unwrap();
    let config = LoaderConfig { seed: 9, lanes, first_cursor, threads, batches_ahead: 0 };
    let recipe = ViewRecipe::imagenet(12);
    let mut loader = Loader::start(Arc::new(dataset), order, recipe, config).unwrap();
    let mut loaded = Loaded { content: Vec::new(), cached: 0, events: Vec::new() };
    while !is_enough(&loaded) {
        assert!(loaded.content.len() < 100_000, "endless");
        let batch = loader.next_batch().unwrap();
        let LoadedBatch { sample_ids, view_one, view_two, replaced, .. } = &batch;
        assert_eq!(*replaced, []);
        let bits = view_one.iter().chain(view_two).map(|value| value.to_bits()).collect();
        loaded.content.push((sample_ids.clone(), bits));
        loaded.cached += batch.cached;
        loaded.events.extend(batch.cache_events.iter().cloned());
        loader.recycle(batch);
    }
    loaded
}

#[test]
fn views_are_the_same_with_and_without_the_cache_whatever_the_threads_and_restarts() {
    let scene = Scene::new();
    let plain = scene.load(0, 1, 0..12);
    assert_eq!((plain.cached, &plain.events), (0, &vec![]));
    // A restart in the middle of the first data epoch, and one of the second.
    let parts = [0..2, 2..4, 4..7, 7..12].map(|cursors| scene.load(PLENTY, 3, cursors));
    let content: Vec<_> = parts.iter().flat_map(|part| part.content.clone()).collect();
    assert!(content == plain.content, "other views");
    let [first, second, third, fourth] = parts.map(|part| (part.cached, part.events.len()));
    // The loader that was dropped had begun with the batch that the next one began with.
    assert!(first == (0, 0) && second.0 <= 8 && second.1 == 0, "{first:?} {second:?}");
    assert_eq!((third.0 + fourth.0, third.1 + fourth.1), (2 * BASELINE, 0));
}

#[test]
fn another_data_set_never_hits() {
    let scene = Scene::new();
    scene.fill();
    scene.pack("other", 6);
    let loaded = |bound| load(scene.dataset("other", bound).unwrap(), 0..4, 2, 0..4);
    let (with, without) = (loaded(PLENTY), loaded(0));
    assert_eq!(with.cached, 0);
    assert!(with.content == without.content, "other views");
    assert_eq!(scene.files().len(), 2);
}

#[test]
fn a_damaged_image_is_named_and_decoded_from_its_jpeg_and_kept_anew() {
    let scene = Scene::new();
    let path = scene.fill();
    let end = fs::metadata(&path).unwrap().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"?", end - 500).unwrap();
    let plain = scene.load(0, 1, 4..8);
    let damaged = scene.load(PLENTY, 2, 4..8);
    assert!(damaged.content == plain.content, "other views");
    assert_eq!(damaged.cached, BASELINE - 1);
    let [CacheEvent::Damaged { .. }] = &damaged.events[..] else { panic!("{damaged:?}") };
    let sentence = damaged.events[0].to_string();
    assert!(sentence.contains("has another checksum than it was written with; decoded its JPEG"));
    let again = scene.load(PLENTY, 2, 4..8);
    assert_eq!((again.cached, again.events), (BASELINE, vec![]));
}

#[test]
fn no_damage_to_the_file_changes_a_view() {
    let scene = Scene::new();
    let path = scene.fill();
    let whole = fs::read(&path).unwrap();
    let plain = scene.load(0, 1, 4..8);
    let check = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let loaded = scene.load(PLENTY, 2, 4..8);
        assert!(loaded.content == plain.content, "other views: {what}");
        assert!(loaded.cached < BASELINE, "not seen: {what}");
    };
    // The magic, every field of a slot, and what lies behind the slots.
    let slots = 16 + 16 * SAMPLES as usize;
    let there = (0..SAMPLES as usize).find(|id| whole[16 + 16 * id..][..8] != [0; 8]).unwrap();
    let fields = [0, 3, 7, 8, 10, 11, 12, 15].map(|byte| 16 + 16 * there + byte);
    for at in [3, 15].into_iter().chain(fields).chain((slots..whole.len()).step_by(9_973)) {
        for damage in [1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= damage;
            check(&bytes, &format!("byte {at} ^ {damage}"));
        }
    }
    for end in [0, 10, 16, slots - 1, slots, slots + 700, whole.len() - 1] {
        check(&whole[..end], &format!("cut at {end}"));
    }
}

#[test]
fn a_full_cache_says_so_once_and_serves_what_it_has() {
    let scene = Scene::new();
    let bound = 30_000;
    let dataset = scene.dataset("set", bound).unwrap();
    let filled = load_until(dataset, (0..4, 2), 0, |loaded| !loaded.events.is_empty());
    let [CacheEvent::Full { bytes }] = filled.events[..] else { panic!("{:?}", filled.events) };
    let length = fs::metadata(scene.files().pop().unwrap()).unwrap().len();
    assert!(bytes == length && (bound / 2..bound).contains(&length), "{length} bytes");
    let later = scene.load(bound, 2, 8..12);
    assert!((1..BASELINE).contains(&later.cached), "{}", later.cached);
    assert!(later.content == scene.load(0, 1, 8..12).content, "other views");
    let enough = scene.load(PLENTY, 2, 12..16);
    assert_eq!((enough.cached, enough.events), (later.cached, vec![]));
    assert_eq!(scene.load(PLENTY, 2, 16..20).cached, BASELINE);
}

#[test]
fn two_that_share_a_folder_fill_it_together() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for lanes in [0..2, 2..4] {
            let dataset = scene.dataset("set", PLENTY).unwrap();
            scope.spawn(move || load(dataset, lanes, 2, 0..4));
        }
    });
    let loaded = scene.load(PLENTY, 1, 4..8);
    assert_eq!((loaded.cached, loaded.events), (BASELINE, vec![]));
    assert!(loaded.content == scene.load(0, 1, 4..8).content, "other views");
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_does_no_harm() {
    let scene = Scene::new();
    let dataset = scene.dataset("set", PLENTY).unwrap();
    fs::remove_dir_all(scene.path("cache")).unwrap();
    let loaded = load_until(dataset, (0..4, 2), 0, |loaded| !loaded.events.is_empty());
    let batches = loaded.content.len() as u64;
    assert!(loaded.content == scene.load(0, 1, 0..batches).content, "other views");
    let [CacheEvent::Failed { problem }] = &loaded.events[..] else { panic!("{loaded:?}") };
    assert!(problem.contains("cannot lock") && problem.contains("No such file"), "{problem}");
}

#[test]
fn a_cache_that_cannot_be_opened_is_an_error() {
    let scene = Scene::new();
    File::create(scene.path("cache")).unwrap();
    let error = scene.dataset("set", PLENTY).unwrap_err().to_string();
    assert!(error.contains("cannot create folder") && error.contains("cache"), "{error}");
    let config = CacheConfig { folder: scene.path("other"), bound: 0 };
    let error = scene.dataset("set", 0).unwrap().cache_coefficients(&config).unwrap_err();
    assert!(error.to_string().contains("give the cache some bytes"), "{error}");
}
