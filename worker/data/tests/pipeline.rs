//! From images on disk to batches, and what happens to damaged ones on the way.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_data::{
    Colour, DataError, Dataset, EvalConfig, Folder, Label, LoadedBatch, Loader, LoaderConfig,
    Manifest, OddFile, Order, OrderConfig, PackConfig, PackReport, RgbImage, SampleId,
    SourceOptions, Split, ViewRecipe, eval_batches, pack, to_rgb, verify_shards,
};
use tempfile::TempDir;

const SIDE: u16 = 16;

/// A folder with `input` to pack and `output` to pack into.
struct Scene(TempDir);

impl Scene {
    /// Two classes, 20 JPEG and 11 PNG.
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        for index in 0..20 {
            scene.add(&format!("cat/{index:02}.JPG"), &jpeg(index));
        }
        for index in 20..31 {
            scene.add(&format!("dog/more/{index:02}.png"), &png_of(index));
        }
        scene
    }

    fn input(&self) -> PathBuf {
        self.0.path().join("input")
    }

    fn output(&self) -> PathBuf {
        self.0.path().join("output")
    }

    fn add(&self, name: &str, content: &[u8]) {
        let path = self.input().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn config(&self) -> PackConfig {
        PackConfig { shard_samples: 10, seed: 5, ..PackConfig::new(self.input(), self.output()) }
    }

    fn pack(&self) -> Result<PackReport, DataError> {
        pack(&self.config(), &mut |_| {})
    }

    /// Everything in the output, by name.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.output())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    /// Overwrites bytes of the stored image of a sample.
    fn damage(&self, id: SampleId, content: &[u8]) {
        let dataset = Dataset::open(&self.output()).unwrap();
        let address = dataset.manifest().locate(id).unwrap();
        let path = self.output().join(&dataset.manifest().shards()[address.shard].file);
        let mut image = Vec::new();
        dataset.read(id, &mut image).unwrap();
        let mut shard = fs::read(&path).unwrap();
        let start = shard.windows(image.len()).position(|window| window == image).unwrap();
        shard[start..start + content.len()].copy_from_slice(content);
        fs::write(path, shard).unwrap();
    }
}

fn test_split() -> SourceOptions {
    SourceOptions { split: Some(Split::Test), ..SourceOptions::default() }
}

fn pixels(seed: u32) -> Vec<u8> {
    let values = 3 * u32::from(SIDE) * u32::from(SIDE);
    (0..values).map(|i| u8::try_from((i * (seed + 3) + i / 48 * 5) % 256).unwrap()).collect()
}

fn jpeg(seed: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&pixels(seed), SIDE, SIDE, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

fn png_of(seed: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE.into(), SIDE.into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels(seed)).unwrap();
    bytes
}

fn stored(dataset: &Dataset) -> Vec<(Vec<u8>, Label)> {
    (0..dataset.manifest().samples())
        .map(|id| {
            let mut bytes = Vec::new();
            let label = dataset.read(SampleId(id), &mut bytes).unwrap();
            (bytes, label)
        })
        .collect()
}

#[test]
fn packed_images_are_the_originals_shuffled_with_their_labels() {
    let scene = Scene::new();
    let report = scene.pack().unwrap();
    assert_eq!((report.samples, report.shards, report.classes), (31, 4, 2));
    let dataset = Dataset::open(&scene.output()).unwrap();
    assert_eq!(dataset.manifest().classes(), ["cat", "dog"]);
    assert_eq!(dataset.manifest().shard_sizes(), [10, 10, 10, 1]);
    assert_eq!(dataset.manifest().fingerprint(), report.fingerprint);
    let mut expected: Vec<_> = (0..20).map(|index| (jpeg(index), Label(0))).collect();
    expected.extend((20..31).map(|index| (png_of(index), Label(1))));
    let mut found = stored(&dataset);
    assert_ne!(found, expected, "not shuffled");
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(verify_shards(&Folder::new(&scene.output()), &mut |_| {}).unwrap().is_sound());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (one, two) = (Scene::new(), Scene::new());
    one.pack().unwrap();
    two.pack().unwrap();
    assert_eq!(one.files(), two.files());
    let names: Vec<_> = one.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["manifest.json", "odd-images.jsonl", "pack-report.json"]);
    let shard = |n: u32| ["offsets", "tar"].map(|ending| format!("shard-{n:06}.{ending}"));
    assert_eq!(names[3..], (0..4).flat_map(shard).collect::<Vec<_>>());
}

#[test]
fn unusable_files_are_skipped_counted_and_named() {
    let scene = Scene::new();
    let whole = jpeg(1);
    scene.add("cat/cut.jpg", &whole[..whole.len() - 2]);
    scene.add("cat/text.jpg", b"not an image");
    scene.add("dog/empty.png", b"");
    scene.add("dog/notes.txt", b"bones");
    scene.add("stray.jpg", &whole);
    scene.add("cat/.hidden", b"");
    let report = scene.pack().unwrap();
    assert_eq!(report.samples, 31);
    let cut = whole.len() - 2;
    let cut = format!("is a damaged JPEG: it ends in the middle of its pixels at byte {cut}");
    let expected = [
        ("cat/cut.jpg", cut.as_str()),
        ("cat/text.jpg", "is neither JPEG nor PNG"),
        ("dog/empty.png", "is empty"),
        ("dog/notes.txt", "is not named .jpg, .jpeg or .png"),
        ("stray.jpg", "is not in a class folder"),
    ];
    let found: Vec<_> = report
        .odd
        .iter()
        .map(|odd| {
            let name = Path::new(&odd.name).strip_prefix(scene.input()).unwrap();
            (name.to_str().unwrap(), odd.detail.as_str())
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!((report.skipped, report.converted), (5, 0));
    let lines = fs::read_to_string(scene.output().join("odd-images.jsonl")).unwrap();
    let listed: Vec<OddFile> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed, report.odd);
    assert!(lines.contains(r#""rule":"foreign","done":"skipped""#), "{lines}");
}

#[test]
fn a_class_without_a_usable_image_is_an_error_unless_allowed() {
    let scene = Scene::new();
    scene.add("bird/broken.jpg", b"no");
    let error = scene.pack().unwrap_err().to_string();
    assert!(error.contains("input/bird; remove the folder or add images"), "{error}");
    fs::remove_file(scene.input().join("bird/broken.jpg")).unwrap();
    assert!(matches!(scene.pack(), Err(DataError::EmptyClasses { .. })));
    assert!(Manifest::load(&scene.output()).is_err());

    // The input is another one now.
    fs::remove_dir_all(scene.output().join(".packing")).unwrap();
    let config = PackConfig { allow_empty_classes: true, ..scene.config() };
    let report = pack(&config, &mut |_| {}).unwrap();
    assert_eq!(report.empty_classes, ["bird"]);
    assert_eq!(Manifest::load(&scene.output()).unwrap().classes(), ["bird", "cat", "dog"]);
}

#[test]
fn an_existing_data_set_is_replaced_only_when_told() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let before = scene.files();
    let error = scene.pack().unwrap_err().to_string();
    assert!(error.contains("already holds a data set (manifest.json)"), "{error}");
    assert!(error.contains("--overwrite"), "{error}");
    assert_eq!(scene.files(), before);

    let config = PackConfig { overwrite: true, shard_samples: 100, ..scene.config() };
    assert_eq!(pack(&config, &mut |_| {}).unwrap().shards, 1);
    assert_eq!(scene.files().len(), 5, "old shards are gone");
    assert_eq!(Dataset::open(&scene.output()).unwrap().manifest().samples(), 31);
}

#[test]
fn an_input_without_images_says_what_is_expected() {
    let scene = Scene(tempfile::tempdir().unwrap());
    let missing = scene.pack().unwrap_err().to_string();
    assert!(missing.starts_with("input "), "{missing}");
    fs::create_dir(scene.input()).unwrap();
    let config = PackConfig { output: scene.input().join("packed"), ..scene.config() };
    let inside = pack(&config, &mut |_| {}).unwrap_err().to_string();
    assert!(inside.starts_with("`output` lies in the input"), "{inside}");
    let empty = scene.pack().unwrap_err().to_string();
    assert!(empty.contains("expected INPUT/CLASS/image.jpg"), "{empty}");
    scene.add("cat/one.jpg", &jpeg(1));
    let config = PackConfig { source: test_split(), ..scene.config() };
    let split = pack(&config, &mut |_| {}).unwrap_err().to_string();
    assert!(
        split.starts_with("`split` was given, which is for IDX or CIFAR files, but"),
        "{split}"
    );
}

#[test]
fn idx_files_are_packed_by_split() {
    let scene = Scene(tempfile::tempdir().unwrap());
    let pixels: Vec<u8> = (0..5 * 28 * 28).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let header = [0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 28, 0, 0, 0, 28];
    scene.add("t10k-images-idx3-ubyte", &[&header[..], &pixels].concat());
    scene.add("t10k-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 5, 3, 0, 2, 1, 0]);
    let config = PackConfig { source: test_split(), ..scene.config() };
    let report = pack(&config, &mut |_| {}).unwrap();
    assert_eq!((report.samples, report.classes), (5, 4));
    let dataset = Dataset::open(&scene.output()).unwrap();
    let mut labels: Vec<_> = (0..5).map(|id| dataset.image(SampleId(id)).unwrap().1.0).collect();
    labels.sort_unstable();
    assert_eq!(labels, [0, 0, 1, 2, 3]);
    let (image, _) = dataset.image(SampleId(0)).unwrap();
    assert_eq!((image.width, image.height, image.colour), (28, 28, Colour::Gray));
}

#[test]
fn verification_names_the_shard_with_a_flipped_byte_and_the_damaged_sample() {
    let scene = Scene::new();
    scene.pack().unwrap();
    scene.damage(SampleId(12), b"broken");
    let report = verify_shards(&Folder::new(&scene.output()), &mut |_| {}).unwrap();
    assert_eq!(report.faults.len(), 1);
    let fault = &report.faults[0];
    assert_eq!(fault.file, "shard-000001.tar");
    assert!(fault.problems[0].starts_with("checksum is"), "{:?}", fault.problems);
    assert_eq!(fault.problems[1..], ["sample 12 is neither JPEG nor PNG"]);

    // One bit in a tar header: the checksum tells, and the structure too.
    let path = scene.output().join("shard-000002.tar");
    let mut shard = fs::read(&path).unwrap();
    shard[3] ^= 1;
    fs::write(path, shard).unwrap();
    let report = verify_shards(&Folder::new(&scene.output()), &mut |_| {}).unwrap();
    assert_eq!(report.faults[1].file, "shard-000002.tar");
}

#[test]
fn verification_compares_offsets_with_the_shard_beside_them() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let problems = || {
        let mut report = verify_shards(&Folder::new(&scene.output()), &mut |_| {}).unwrap();
        report.faults.remove(0).problems
    };
    // A shard that was replaced, with its checksum in the manifest.
    let [shard, manifest, offsets] = ["shard-000001.tar", "manifest.json", "shard-000001.offsets"]
        .map(|name| scene.output().join(name));
    let mut bytes = fs::read(&shard).unwrap();
    let before = blake3::hash(&bytes).to_hex().to_string();
    bytes[530] ^= 1;
    fs::write(&shard, &bytes).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(&before, blake3::hash(&bytes).to_hex().as_str())).unwrap();
    assert_eq!(problems()[0], "has offsets of another shard: 1 samples differ");
    fs::write(&offsets, b"lockstep offsets").unwrap();
    let damaged = "shard-000001.offsets has other bytes than the manifest says";
    assert!(problems()[0].contains(damaged), "{:?}", problems());
    let error = Dataset::open(&scene.output()).unwrap_err().to_string();
    assert!(error.contains(damaged), "{error}");
}

#[test]
fn a_shard_of_the_wrong_length_is_refused_at_open() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let path = scene.output().join("shard-000001.tar");
    let shard = fs::read(&path).unwrap();
    fs::write(&path, &shard[..shard.len() - 512]).unwrap();
    let error = Dataset::open(&scene.output()).unwrap_err().to_string();
    assert!(error.contains("shard-000001.tar has"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = Dataset::open(&scene.output()).unwrap_err().to_string();
    assert!(error.contains("cannot open") && error.contains("shard-000001.tar"), "{error}");
}

fn start(scene: &Scene, threads: usize, first_cursor: u64) -> Loader {
    let dataset = Arc::new(Dataset::open(&scene.output()).unwrap());
    let config = OrderConfig { seed: 3, global_batch: 8, lanes: 4, shuffle_block: 4 };
    let order = Order::new(&dataset.manifest().shard_sizes(), config).unwrap();
    let config = LoaderConfig { seed: 9, lanes: 1..4, first_cursor, threads, batches_ahead: 2 };
    Loader::start(dataset, order, ViewRecipe::imagenet(12), config).unwrap()
}

fn content(batch: &LoadedBatch) -> (u64, Vec<SampleId>, Vec<Label>, Vec<u32>) {
    let views = batch.view_one.iter().chain(&batch.view_two).map(|value| value.to_bits());
    (batch.cursor, batch.sample_ids.clone(), batch.labels.clone(), views.collect())
}

#[test]
fn batches_do_not_depend_on_threads_recycling_or_restarts() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let mut one = start(&scene, 1, 0);
    let mut three = start(&scene, 3, 0);
    let mut seen = Vec::new();
    for cursor in 0..10 {
        let (a, b) = (one.next_batch().unwrap(), three.next_batch().unwrap());
        assert_eq!(a.cursor, cursor);
        assert_eq!(a.sample_ids.len(), 6);
        assert_eq!(content(&a), content(&b));
        seen.push(content(&a));
        one.recycle(a);
    }
    let mut resumed = start(&scene, 2, 7);
    assert_eq!(content(&resumed.next_batch().unwrap()), seen[7]);
    assert_ne!(seen[0].3, seen[3].3);
}

#[test]
fn a_corrupt_sample_is_replaced_alike_by_every_run_and_named() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let sound = start(&scene, 1, 0).next_batch().unwrap();
    let bad = sound.sample_ids[2];
    scene.damage(bad, b"broken");
    let batch = start(&scene, 1, 0).next_batch().unwrap();
    assert_eq!(batch.sample_ids, sound.sample_ids);
    assert_eq!(batch.replaced.len(), 1);
    assert_eq!(batch.replaced[0].wanted, bad);
    assert_ne!(batch.replaced[0].used, bad);
    assert!(batch.replaced[0].reason.contains("shard-00000"), "{}", batch.replaced[0].reason);
    assert_eq!(content(&batch), content(&start(&scene, 3, 0).next_batch().unwrap()));
    let view = 3 * 12 * 12;
    assert_eq!(batch.view_one[..2 * view], sound.view_one[..2 * view], "others are untouched");
    assert_ne!(batch.view_one[2 * view..3 * view], sound.view_one[2 * view..3 * view]);
}

#[test]
fn a_shard_without_a_good_sample_stops_the_loader_with_a_sentence() {
    let scene = Scene::new();
    pack(&PackConfig { shard_samples: 31, ..scene.config() }, &mut |_| {}).unwrap();
    for id in 0..31 {
        scene.damage(SampleId(id), b"broken");
    }
    let mut loader = start(&scene, 2, 0);
    let error = loader.next_batch().unwrap_err().to_string();
    assert!(error.contains("neither can the 30 after it"), "{error}");
    assert!(matches!(loader.next_batch(), Err(DataError::LoaderStopped)));
}

#[test]
fn a_loader_can_be_dropped_at_any_time() {
    let scene = Scene::new();
    scene.pack().unwrap();
    drop(start(&scene, 2, 0));
    let mut loader = start(&scene, 2, 0);
    drop(loader.next_batch());
}

#[test]
fn settings_that_cannot_work_are_named() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let dataset = Arc::new(Dataset::open(&scene.output()).unwrap());
    let config = OrderConfig { seed: 3, global_batch: 8, lanes: 4, shuffle_block: 4 };
    let order = Order::new(&dataset.manifest().shard_sizes(), config).unwrap();
    let good = LoaderConfig { seed: 9, lanes: 0..4, first_cursor: 0, threads: 1, batches_ahead: 2 };
    for (config, start) in [
        (LoaderConfig { lanes: 2..5, ..good.clone() }, "`lanes` are 2..5"),
        (LoaderConfig { lanes: 2..2, ..good.clone() }, "`lanes` are 2..2"),
        (LoaderConfig { threads: 0, ..good }, "`threads` is 0"),
    ] {
        let recipe = ViewRecipe::imagenet(12);
        let error = Loader::start(dataset.clone(), order.clone(), recipe, config).unwrap_err();
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

#[test]
fn evaluation_goes_through_the_set_in_order_whatever_the_threads() {
    let scene = Scene::new();
    scene.pack().unwrap();
    let dataset = Dataset::open(&scene.output()).unwrap();
    let config = |threads| EvalConfig {
        size: SIDE.into(),
        resize_short_side: SIDE.into(),
        mean: [0.0; 3],
        std: [1.0; 3],
        batch: 4,
        threads,
    };
    let batches: Vec<_> =
        eval_batches(&dataset, 2..31, config(2)).unwrap().map(|batch| batch.unwrap()).collect();
    assert_eq!(
        batches.iter().map(|b| b.labels.len()).collect::<Vec<_>>(),
        [4, 4, 4, 4, 4, 4, 4, 1]
    );
    for (single, batch) in eval_batches(&dataset, 2..31, config(1)).unwrap().zip(&batches) {
        assert_eq!(single.unwrap().views, batch.views);
    }
    assert_eq!(batches[0].first, SampleId(2));
    // No resizing and no normalizing: the view is the image.
    let ours = batches.iter().flat_map(|batch| batch.views.chunks(3 * usize::from(SIDE).pow(2)));
    let labels = batches.iter().flat_map(|batch| &batch.labels);
    for (id, (view, found)) in (2..).zip(ours.zip(labels)) {
        let (image, label) = dataset.image(SampleId(id)).unwrap();
        assert_eq!(*found, label);
        let mut rgb = RgbImage::default();
        to_rgb(&image, &mut rgb);
        // Planes of RGB are the pixels; luma and chroma are rounded twice on their way to 8 bits.
        let tolerance = if image.colour == Colour::YCbCr { 1.5 / 255.0 } else { 1e-7 };
        for (value, byte) in view.iter().zip(&rgb.pixels) {
            assert!((value - f32::from(*byte) / 255.0).abs() <= tolerance, "{value} {byte}");
        }
    }
    assert!(eval_batches(&dataset, 0..32, config(1)).is_err());
}

#[test]
fn a_corrupt_sample_stops_an_evaluation() {
    let scene = Scene::new();
    scene.pack().unwrap();
    scene.damage(SampleId(5), b"broken");
    let dataset = Dataset::open(&scene.output()).unwrap();
    let config = EvalConfig {
        size: 8,
        resize_short_side: 8,
        mean: [0.0; 3],
        std: [1.0; 3],
        batch: 4,
        threads: 2,
    };
    let results: Vec<_> = eval_batches(&dataset, 0..31, config).unwrap().collect();
    assert_eq!(results.len(), 2, "it ends after the error");
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(error.starts_with("sample 5 in shard"), "{error}");
}
