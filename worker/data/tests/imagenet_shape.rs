//! A set shaped like ImageNet, from its tar to the lanes of a run, with a real death on the way.
//!
//! 1,000 classes in a tar of tars. `LOCKSTEP_TEST_IMAGES=100000` makes it larger than the 5,000 images that take
//! seconds; the figures that it prints (`--nocapture`) are those of the machine it runs on.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use lockstep_data::{
    Dataset, Folder, Loader, LoaderConfig, Order, OrderConfig, PackConfig, SampleId, ViewRecipe,
    pack, verify_shards,
};

const CLASSES: u32 = 1_000;
/// Where the process that is killed finds its tar.
const VICTIM: &str = "LOCKSTEP_TEST_VICTIM";
const HALF_WAY: &str = "half-way";

/// Images in all: a multiple of the classes.
fn images() -> u32 {
    let asked = env::var("LOCKSTEP_TEST_IMAGES").ok().map(|text| text.parse().unwrap());
    let images: u32 = asked.unwrap_or(5_000);
    assert!(images.is_multiple_of(CLASSES) && images > 0, "{images} images in {CLASSES} classes");
    images
}

/// The JPEG of image `number`: one of a few pictures, with its number in a comment.
fn jpeg(pictures: &[Vec<u8>], number: u32) -> Vec<u8> {
    let picture = &pictures[number as usize % pictures.len()];
    [&picture[..2], &[0xFF, 0xFE, 0, 6], &number.to_be_bytes(), &picture[2..]].concat()
}

fn pictures() -> Vec<Vec<u8>> {
    let picture = |seed: u32| {
        let values = 0..32 * 24 * 3;
        let pixels: Vec<u8> =
            values.map(|i: u32| u8::try_from((i * (seed + 1) / 5 + seed) % 256).unwrap()).collect();
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 80)
            .encode(&pixels, 32, 24, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        bytes
    };
    (0..17).map(picture).collect()
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

fn write_tar(path: &Path, images: u32) {
    let pictures = pictures();
    let mut outer = tar::Builder::new(BufWriter::new(File::create(path).unwrap()));
    for class in 0..CLASSES {
        let mut inner = tar::Builder::new(Vec::new());
        for number in 0..images / CLASSES {
            let name = format!("n{class:08}_{number}.JPEG");
            append(&mut inner, &name, &jpeg(&pictures, number * CLASSES + class));
        }
        append(&mut outer, &format!("n{class:08}.tar"), &inner.into_inner().unwrap());
    }
    outer.into_inner().unwrap().flush().unwrap();
}

fn config(folder: &Path, output: &str, images: u32) -> PackConfig {
    let (input, output) = (folder.join("ILSVRC2012_img_train.tar"), folder.join(output));
    PackConfig { shard_samples: u64::from(images) / 20, ..PackConfig::new(input, output) }
}

/// Packs until it is half-way, says so, and waits for its end.
fn be_killed_half_way(folder: &Path) {
    pack(&config(folder, "killed", images()), &mut |progress| {
        if progress.done == progress.total / 2 {
            let mut out = std::io::stdout();
            writeln!(out, "\n{HALF_WAY}").unwrap();
            loop {
                std::thread::park();
            }
        }
    })
    .unwrap();
}

/// Starts this test again as another process, and kills that (SIGKILL) when it is half-way.
fn kill_one_half_way(folder: &Path) {
    let name = "a_set_shaped_like_imagenet_survives_a_death_and_is_read_exactly_once";
    let mut victim = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(VICTIM, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let half_way = lines.any(|line| line.unwrap() == HALF_WAY);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(half_way, "it ended before it was half-way");
}

/// Every sample of a data epoch, as the ranks of a world read them that have so many of the four lanes each.
fn read_by(dataset: &Arc<Dataset>, lanes_per_rank: u32) -> Vec<SampleId> {
    let config = OrderConfig { seed: 3, global_batch: 100, lanes: 4, shuffle_block: 64 };
    let order = Order::new(&dataset.manifest().shard_sizes(), config).unwrap();
    let steps = order.steps_per_epoch();
    let mut seen = Vec::new();
    for first in (0..4).step_by(lanes_per_rank as usize) {
        let lanes = first..first + lanes_per_rank;
        let config = LoaderConfig { seed: 9, lanes, first_cursor: 0, threads: 2, batches_ahead: 2 };
        let recipe = ViewRecipe::imagenet(8);
        let mut loader = Loader::start(dataset.clone(), order.clone(), recipe, config).unwrap();
        for _ in 0..steps {
            let batch = loader.next_batch().unwrap();
            assert!(batch.replaced.is_empty());
            seen.extend(&batch.sample_ids);
            loader.recycle(batch);
        }
    }
    seen
}

/// Largest memory of this process so far.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap_or("unknown").trim().to_owned()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it prints how fast packing is, and decides nothing")]
fn a_set_shaped_like_imagenet_survives_a_death_and_is_read_exactly_once() {
    if let Some(folder) = env::var_os(VICTIM) {
        return be_killed_half_way(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let images = images();
    write_tar(&folder.path().join("ILSVRC2012_img_train.tar"), images);
    kill_one_half_way(folder.path());

    let killed = config(folder.path(), "killed", images);
    let (started, mut first) = (Instant::now(), None);
    let report = pack(&killed, &mut |progress| first = first.or(Some(progress.done))).unwrap();
    let (first, seconds) = (first.unwrap(), started.elapsed().as_secs_f64());
    let resumed = images - u32::try_from(first).unwrap();
    println!("{:.0} images/s, peak memory {}", f64::from(resumed) / seconds, peak_memory());
    assert!((images / 3..=images / 2).contains(&u32::try_from(first).unwrap()), "from {first}");
    assert_eq!((report.samples, report.classes), (images.into(), CLASSES as usize));
    let whole = pack(&config(folder.path(), "whole", images), &mut |_| {}).unwrap();
    assert_eq!(report, whole, "the fingerprint tells that all bytes are the same");
    assert!(verify_shards(&Folder::new(&killed.output), &mut |_| {}).unwrap().is_sound());

    let dataset = Arc::new(Dataset::open(&killed.output).unwrap());
    let pictures = pictures();
    let mut found = BTreeSet::new();
    for id in (0..images).map(|id| SampleId(id.into())) {
        let mut bytes = Vec::new();
        let label = dataset.read(id, &mut bytes).unwrap();
        let number = u32::from_be_bytes(bytes[6..10].try_into().unwrap());
        assert_eq!((label.0, bytes), (number % CLASSES, jpeg(&pictures, number)));
        assert!(found.insert(number), "image {number} twice");
    }
    for lanes_per_rank in [4, 2] {
        let mut seen = read_by(&dataset, lanes_per_rank);
        seen.sort_unstable();
        let all: Vec<_> = (0..images).map(|id| SampleId(id.into())).collect();
        assert_eq!(seen, all, "with {lanes_per_rank} lanes per rank");
    }
    println!("peak memory {} after reading", peak_memory());
}
