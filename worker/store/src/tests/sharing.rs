//! The cache: what it holds, and who may use it at the same time.

use std::process::{Command, Stdio};

use lockstep_data::keyed::Key;

use super::*;

/// Where the process that shares a cache finds the server.
const URL: &str = "LOCKSTEP_TEST_URL";
const FOLDER: &str = "LOCKSTEP_TEST_FOLDER";

#[test]
fn a_cache_outlives_its_process_and_half_a_shard_does_not_count() {
    let scene = scene();
    let server = Server::new(scene.path(), |_, _| Fate::Served);
    let config = config(&scene, Reads::Whole, ROOMY);
    let expected = stored(&Dataset::open(&scene.path().join("set")).unwrap());
    let fetched = || server.counts().iter().filter(|(p, _)| is_shard(p)).map(|(_, n)| n).sum();
    assert_eq!(stored(&open(&server.url("set"), &config)), expected);
    let shards: usize = fetched();
    assert_eq!(shards, 12);
    assert_eq!(stored(&open(&server.url("set"), &config)), expected);
    assert_eq!(fetched(), 12, "all of it was there");

    let manifest = Manifest::load(&scene.path().join("set")).unwrap();
    let whole = |n: usize| config.cache.join(format!("{}.tar", manifest.shards()[n].checksum));
    // What a process leaves that dies while it writes, and what a disk leaves that dies.
    std::fs::rename(whole(4), whole(4).with_extension("partial")).unwrap();
    std::fs::write(whole(7), b"half").unwrap();
    assert_eq!(stored(&open(&server.url("set"), &config)), expected);
    assert_eq!(fetched(), 14);
    let lower =
        StoreConfig { cache_bytes: 3 * shard_bytes(&scene.path().join("set")), ..config.clone() };
    let dataset = open(&server.url("set"), &lower);
    assert!(cached(&config.cache).iter().sum::<u64>() <= lower.cache_bytes);
    assert_eq!(stored(&dataset), expected);
    let names = std::fs::read_dir(&config.cache).unwrap().map(|entry| entry.unwrap().path());
    assert!(names.into_iter().all(|path| path.extension().is_none_or(|e| e != "partial")));
}

#[test]
fn the_bound_of_the_cache_holds_and_nothing_is_lost_by_it() {
    let scene = scene();
    let set = scene.path().join("set");
    let expected = stored(&Dataset::open(&set).unwrap());
    let largest = shard_bytes(&set);
    for seed in 0..6 {
        let key = Key::new(seed);
        let cache = scene.path().join(format!("cache-{seed}"));
        let cache_bytes = largest * (1 + seed % 4);
        let config = StoreConfig { cache, ..config(&scene, Reads::Whole, cache_bytes) };
        let server = Server::new(scene.path(), |_, _| Fate::Served);
        let files = files(&server.url("set"), &config).unwrap();
        let manifest = Manifest::of(&files).unwrap();
        let shards: Vec<_> =
            manifest.shards().iter().map(|entry| files.shard(entry).unwrap()).collect();
        for round in 0..60 {
            let pick = |draw: u64| usize::try_from(key.below(round * 10 + draw, 12)).unwrap();
            files.expect(&[&manifest.shards()[pick(0)], &manifest.shards()[pick(1)]]);
            let (number, index) = (pick(2), pick(3));
            let id = manifest.shards()[..number].iter().map(|s| s.samples).sum::<u64>();
            let sample = &expected[usize::try_from(id).unwrap() + index].0;
            // The offset of a sample is what the folder's own bytes say.
            let tar = std::fs::read(set.join(&manifest.shards()[number].file)).unwrap();
            let at = tar.windows(sample.len()).position(|part| part == sample.as_slice()).unwrap();
            let mut bytes = vec![0; sample.len()];
            shards[number].read_exact_at(&mut bytes, at as u64, None).unwrap();
            assert_eq!(&bytes, sample, "seed {seed}, round {round}");
            let held: u64 = cached(&config.cache).iter().sum();
            assert!(held <= config.cache_bytes, "seed {seed}, round {round}: {held} bytes");
        }
    }
}

#[test]
fn a_cache_that_can_never_hold_a_shard_says_so() {
    let scene = scene();
    let server = Server::new(scene.path(), |_, _| Fate::Served);
    let dataset = open(&server.url("set"), &config(&scene, Reads::Whole, 1_000));
    let error = dataset.read(SampleId(0), &mut Vec::new()).unwrap_err().to_string();
    assert!(
        error.contains("more than the cache may hold (1000); raise --data-cache-gib"),
        "{error}"
    );
}

/// Reads the set that the test's environment names, as another process.
fn read_as_another_process(url: &str, folder: &str) {
    let folder = PathBuf::from(folder);
    let largest = shard_bytes(&folder.join("set"));
    let config = StoreConfig {
        reads: Reads::Whole,
        cache: folder.join("cache"),
        cache_bytes: 5 * largest,
        read_ahead: 1,
    };
    let expected = batches(Dataset::open(&folder.join("set")).unwrap());
    assert!(batches(open(url, &config)) == expected);
}

#[test]
fn processes_share_a_cache_and_its_bound() {
    if let (Ok(url), Ok(folder)) = (std::env::var(URL), std::env::var(FOLDER)) {
        return read_as_another_process(&url, &folder);
    }
    let scene = scene();
    let server = Server::new(scene.path(), faulty(11));
    let name = "tests::sharing::processes_share_a_cache_and_its_bound";
    let mut others = [(); 2].map(|()| {
        Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(URL, server.url("set"))
            .env(FOLDER, scene.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    let (cache, bound) = (scene.path().join("cache"), 5 * shard_bytes(&scene.path().join("set")));
    let mut ended = [None; 2];
    while ended.iter().any(Option::is_none) {
        let held: u64 = cached(&cache).iter().sum();
        assert!(held <= bound, "{held} bytes of {bound}");
        for (other, ended) in others.iter_mut().zip(&mut ended) {
            *ended = other.try_wait().unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert!(ended.iter().all(|status| status.is_some_and(|s| s.success())), "{ended:?}");
}
