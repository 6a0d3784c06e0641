//! Data sets in stores on loopback that fail in every way, against the same set in a folder.

mod faults;
mod hiding;
mod server;
mod sharing;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_data::{
    DataError, DataFiles, Dataset, Folder, Label, LoadedBatch, Loader, LoaderConfig, Manifest,
    Order, OrderConfig, PackConfig, SampleId, SourceOptions, Split, ViewRecipe, pack,
    verify_shards,
};
use tempfile::TempDir;

use crate::fetch::Patience;
use crate::tests::server::{Fate, Server, faulty};
use crate::{Reads, StoreConfig, StoreFiles};

const IMAGES: u32 = 240;
const SIDE: u32 = 16;
/// More than any cache of these tests needs.
const ROOMY: u64 = 1 << 30;

/// A folder with a packed set in `set`, 12 shards of 20 samples.
fn scene() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let pixels = (0..IMAGES * SIDE * SIDE).map(|i| u8::try_from(i * i / 7 % 251).unwrap());
    let header = [2_051, IMAGES, SIDE, SIDE].map(u32::to_be_bytes).concat();
    let labels = (0..IMAGES).map(|i| u8::try_from(i % 10).unwrap());
    let label_header = [2_049, IMAGES].map(u32::to_be_bytes).concat();
    let write = |name: &str, content: Vec<u8>| std::fs::write(images.join(name), content).unwrap();
    write("train-images-idx3-ubyte", header.into_iter().chain(pixels).collect());
    write("train-labels-idx1-ubyte", label_header.into_iter().chain(labels).collect());
    let config = PackConfig {
        shard_samples: 20,
        source: SourceOptions { split: Some(Split::Train), ..SourceOptions::default() },
        ..PackConfig::new(images, folder.path().join("set"))
    };
    pack(&config, &mut |_| {}).unwrap();
    folder
}

fn config(folder: &TempDir, reads: Reads, cache_bytes: u64) -> StoreConfig {
    StoreConfig { reads, cache: folder.path().join("cache"), cache_bytes, read_ahead: 1 }
}

/// Quick to try again, quick to give up.
fn impatient() -> Patience {
    Patience {
        tries: 8,
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(4),
        silence: Duration::from_millis(100),
    }
}

fn files(url: &str, config: &StoreConfig) -> Result<StoreFiles, DataError> {
    StoreFiles::with_patience(url, config, [], impatient())
}

fn open(url: &str, config: &StoreConfig) -> Dataset {
    Dataset::of(Box::new(files(url, config).unwrap())).unwrap()
}

fn is_shard(path: &str) -> bool {
    path.split('.').next_back() == Some("tar")
}

/// The bytes of all samples, in order.
fn stored(dataset: &Dataset) -> Vec<(Vec<u8>, Label)> {
    let sample = |id| {
        let mut bytes = Vec::new();
        let label = dataset.read(SampleId(id), &mut bytes).unwrap();
        (bytes, label)
    };
    (0..dataset.manifest().samples()).map(sample).collect()
}

fn loader(dataset: Dataset, threads: usize) -> Loader {
    let config = OrderConfig { seed: 3, global_batch: 24, lanes: 4, shuffle_block: 8 };
    let order = Order::new(&dataset.manifest().shard_sizes(), config).unwrap();
    let config = LoaderConfig { seed: 9, lanes: 0..4, first_cursor: 0, threads, batches_ahead: 2 };
    Loader::start(Arc::new(dataset), order, ViewRecipe::imagenet(8), config).unwrap()
}

type Content = (u64, Vec<SampleId>, Vec<Label>, Vec<u32>);

/// One and a half data epochs of batches, bit for bit.
fn batches(dataset: Dataset) -> Vec<Content> {
    let mut loader = loader(dataset, 3);
    let content = |batch: LoadedBatch| {
        assert!(batch.replaced.is_empty(), "{:?}", batch.replaced);
        let bits = batch.view_one.iter().chain(&batch.view_two).map(|value| value.to_bits());
        (batch.cursor, batch.sample_ids, batch.labels, bits.collect())
    };
    (0..15).map(|_| content(loader.next_batch().unwrap())).collect()
}

fn shard_bytes(set: &Path) -> u64 {
    let manifest = Manifest::load(set).unwrap();
    manifest.shards().iter().map(|shard| shard.bytes).max().unwrap()
}

/// Lengths of what the cache holds, lock file left out. Counted under the lock, as files get their names
/// under it: a listing beside that can show a shard twice, as the partial file it was and as the whole one.
fn cached(folder: &Path) -> Vec<u64> {
    let Ok(lock) = File::open(folder.join(".lock")) else { return Vec::new() };
    lock.lock().unwrap();
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .filter(|len| *len > 0)
        .collect()
}

#[test]
fn a_body_that_breaks_off_goes_on_where_it_ended() {
    let scene = scene();
    let server = Server::new(scene.path(), |path, number| {
        if is_shard(path) && number < 3 { Fate::Truncated } else { Fate::Served }
    });
    let dataset = open(&server.url("set"), &config(&scene, Reads::Whole, ROOMY));
    dataset.read(SampleId(0), &mut Vec::new()).unwrap();
    let shard = dataset.manifest().shards()[0].clone();
    let requests = server.requests();
    let of_shard: Vec<_> = requests.iter().filter(|r| r.path.ends_with(&shard.file)).collect();
    let begins: Vec<_> = of_shard.iter().map(|r| r.range.map(|(from, _)| from)).collect();
    let bytes = usize::try_from(shard.bytes).unwrap();
    assert_eq!(begins[..2], [None, Some(bytes / 2)]);
    assert_eq!(begins.len(), 4, "{begins:?}");
    assert!(begins.is_sorted(), "{begins:?}");
}

#[test]
fn a_failure_that_stays_is_a_sentence_with_url_status_tries_and_advice() {
    let scene = scene();
    let said = |fate: Fate, of: &'static str, reads: Reads| -> (String, DataError) {
        let server =
            Server::new(
                scene.path(),
                move |path, _| {
                    if path.ends_with(of) { fate } else { Fate::Served }
                },
            );
        let config = config(&scene, reads, ROOMY);
        drop(std::fs::remove_dir_all(&config.cache));
        let opened = Dataset::of(Box::new(files(&server.url("set"), &config).unwrap()));
        let read = opened.and_then(|dataset| dataset.read(SampleId(0), &mut Vec::new()).map(drop));
        (server.url("set"), read.unwrap_err())
    };
    let cases = [
        (Fate::Status(503), "manifest.json", "status code: 503", "after 8 tries"),
        (Fate::Status(503), "000.tar", "status code: 503", "see whether the store is up"),
        (Fate::Silent, "000.tar", "said nothing for 100ms", "after 8 tries"),
        (Fate::Reset, "000.tar", "failed:", "after 8 tries"),
        (Fate::Status(403), "000.tar", "is refused", "no credentials to plain web servers"),
        (Fate::Status(404), "manifest.json", "is not there (404)", "correct the URL"),
        (Fate::Status(416), "000.tar", "status code: 416", "correct the URL"),
        (Fate::WrongByte, "000.tar", "came 3 times with another checksum", "worker verify-shards"),
    ];
    for (fate, of, problem, advice) in cases {
        let (url, error) = said(fate, of, Reads::Whole);
        let text = error.to_string();
        assert!(text.contains(problem) && text.contains(advice), "{fate:?} {of}: {text}");
        assert!(text.contains(&format!("{url}/")) && text.contains(of), "{text}");
        let passes = matches!(error, DataError::Unavailable { .. });
        assert_eq!(passes, text.contains("given up after 8 tries"), "{text}");
    }
    let (_, error) = said(Fate::WrongByte, "000.tar", Reads::Ranged);
    assert!(error.to_string().contains("came 3 times with other bytes at 512"), "{error}");
}

#[test]
fn a_shard_of_another_length_is_not_the_manifests() {
    let scene = scene();
    let path = scene.path().join("set/shard-000000.tar");
    let shard = std::fs::read(&path).unwrap();
    std::fs::write(&path, &shard[..shard.len() - 512]).unwrap();
    let server = Server::new(scene.path(), |_, _| Fate::Served);
    for reads in [Reads::Whole, Reads::Ranged] {
        let dataset = open(&server.url("set"), &config(&scene, reads, ROOMY));
        let error = dataset.read(SampleId(0), &mut Vec::new()).unwrap_err();
        let problem = format!("has {} bytes, the manifest says {}", shard.len() - 512, shard.len());
        assert!(error.to_string().contains(&problem), "{error}");
        assert!(matches!(error, DataError::BadShard { .. }), "{error:?}");
    }
}

#[test]
fn verifying_in_a_store_finds_what_verifying_in_the_folder_does() {
    let scene = scene();
    let server = Server::new(scene.path(), |_, _| Fate::Served);
    let verify = |reads| {
        let files = files(&server.url("set"), &config(&scene, reads, ROOMY)).unwrap();
        verify_shards(&files, &mut |_| {}).unwrap()
    };
    let local = || verify_shards(&Folder::new(&scene.path().join("set")), &mut |_| {}).unwrap();
    assert_eq!(verify(Reads::Whole), local());
    assert!(local().is_sound());
    let path = scene.path().join("set/shard-000003.tar");
    let mut shard = std::fs::read(&path).unwrap();
    shard[700] ^= 1;
    std::fs::write(path, shard).unwrap();
    assert!(!local().is_sound());
    assert_eq!(verify(Reads::Ranged), local());
}

#[test]
fn single_samples_take_offsets() {
    let scene = scene();
    let set = scene.path().join("set");
    let path = set.join("manifest.json");
    let manifest = std::fs::read_to_string(&path).unwrap();
    let without = manifest.lines().filter(|line| !line.contains("\"offsets\""));
    let without = without.collect::<Vec<_>>().join("\n").replace("\",\n    }", "\"\n    }");
    std::fs::write(&path, without).unwrap();
    let server = Server::new(scene.path(), |_, _| Fate::Served);
    let ranged = files(&server.url("set"), &config(&scene, Reads::Ranged, ROOMY)).unwrap();
    let error = Dataset::of(Box::new(ranged)).unwrap_err().to_string();
    assert!(error.contains("shard-000000.tar has no offsets file"), "{error}");
    assert!(error.contains("worker index --overwrite"), "{error}");
    let whole = open(&server.url("set"), &config(&scene, Reads::Whole, ROOMY));
    assert_eq!(stored(&whole), stored(&Dataset::open(&set).unwrap()));
}

#[test]
fn what_lies_ahead_is_fetched_before_it_is_read() {
    let scene = scene();
    let server = Server::new(scene.path(), |_, _| Fate::Served);
    let files = files(&server.url("set"), &config(&scene, Reads::Whole, ROOMY)).unwrap();
    let manifest = Manifest::of(&files).unwrap();
    let ahead: Vec<_> = manifest.shards()[2..9].iter().collect();
    files.expect(&ahead);
    for entry in &ahead {
        // Waiting for it does not ask for it again.
        assert!(files.shard(entry).unwrap().wait(Duration::from_secs(20)).unwrap());
    }
    let counts = server.counts();
    assert_eq!(counts.len(), 1 + ahead.len(), "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is the question")]
fn a_loader_that_waits_for_a_shard_can_be_ended() {
    let scene = scene();
    let server =
        Server::new(
            scene.path(),
            |path, _| {
                if is_shard(path) { Fate::Silent } else { Fate::Served }
            },
        );
    let patience = Patience { silence: Duration::from_mins(10), ..impatient() };
    let config = config(&scene, Reads::Whole, ROOMY);
    let files = StoreFiles::with_patience(&server.url("set"), &config, [], patience).unwrap();
    let loader = loader(Dataset::of(Box::new(files)).unwrap(), 2);
    while !server.requests().iter().any(|request| is_shard(&request.path)) {
        std::thread::yield_now();
    }
    let started = std::time::Instant::now();
    drop(loader);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn what_is_no_place_of_a_data_set_is_refused_without_showing_what_may_be_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, Reads::Whole, ROOMY);
    let cases = [
        ("ftp://host/set", "expected s3://BUCKET/PREFIX"),
        ("file:///set", "expected s3://BUCKET/PREFIX"),
        ("https://user:hunter22@host/set", "https://host/set must end with the path"),
        ("s3://hunter22@bucket/set", "credentials are taken from the environment only"),
        ("https://host/set?X-Amz-Signature=hunter22", "https://host/set must end with the path"),
        ("http://[hunter22/set", "is not a URL"),
    ];
    for (url, problem) in cases {
        let error = files(url, &config).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(problem), "{text}");
        assert!(!text.contains("hunter22"), "{text}");
        assert!(matches!(error, DataError::Refused { .. }), "{error:?}");
    }
    assert!(crate::is_url(&PathBuf::from("s3://bucket/set")));
    assert!(!crate::is_url(&PathBuf::from("data/set")));
}
