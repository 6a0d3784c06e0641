//! Packing: that neither threads nor deaths show in what comes out, and sources in one file.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use lockstep_data::{
    DataError, Dataset, Folder, IndexConfig, Label, Manifest, PackConfig, PackReport, SampleId,
    SourceKind, SourceOptions, index_shards, pack, verify_shards,
};
use tempfile::TempDir;

/// A JPEG of 16×16 whose first bytes depend on the seed.
fn jpeg(seed: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..16 * 16 * 3)
        .map(|i: u32| u8::try_from((i * (seed + 3) + seed) % 256).unwrap())
        .collect();
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&pixels, 16, 16, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A folder with ImageNet's training tar in small: three classes with 13 images each, one of them odd.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let class = |class: u32| {
            let image = |number| (format!("n0{class}_{number}.JPEG"), jpeg(100 * class + number));
            let mut images: Vec<_> = (0..12).map(image).collect();
            images.push((format!("n0{class}_cut.JPEG"), jpeg(class)[..400].to_vec()));
            (format!("n0{class}.tar"), tar_of(&images))
        };
        let scene = Self(tempfile::tempdir().unwrap());
        scene.write("train.tar", &tar_of(&[3, 1, 2].map(class)));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn config(&self, output: &str) -> PackConfig {
        let (input, output) = (self.path("train.tar"), self.path(output));
        PackConfig { shard_samples: 5, ..PackConfig::new(input, output) }
    }

    fn pack(&self, output: &str) -> Result<PackReport, DataError> {
        pack(&self.config(output), &mut |_| {})
    }

    /// Everything in a folder, by name.
    fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let listed = fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        };
        let mut files: Vec<_> = listed.map(named).collect();
        files.sort();
        files
    }
}

/// Packs until `done` images are dealt with, then dies.
fn die_at(config: &PackConfig, done: usize) {
    let died = catch_unwind(AssertUnwindSafe(|| {
        pack(config, &mut |progress| assert!(progress.done < done, "killed"))
    }));
    assert!(died.is_err(), "it lived");
}

#[test]
fn imagenet_tars_are_packed_without_being_unpacked() {
    let scene = Scene::new();
    let report = scene.pack("train").unwrap();
    assert_eq!((report.samples, report.classes, report.skipped), (36, 3, 3));
    assert_eq!(report.odd[0].name, "n01/n01_cut.JPEG");
    let train = Dataset::open(&scene.path("train")).unwrap();
    assert_eq!(train.manifest().classes(), ["n01", "n02", "n03"]);
    let mut stored: Vec<_> = (0..36)
        .map(|id| {
            let mut bytes = Vec::new();
            (train.read(SampleId(id), &mut bytes).unwrap(), bytes)
        })
        .collect();
    let images = (1..4).flat_map(|class| (0..12).map(move |number| (class, number)));
    let mut expected: Vec<_> =
        images.map(|(class, number)| (Label(class - 1), jpeg(100 * class + number))).collect();
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);

    let members: Vec<_> =
        (0..4).map(|number| (format!("ILSVRC2012_val_{number}.JPEG"), jpeg(number))).collect();
    scene.write("val.tar", &tar_of(&members));
    scene.write("truth.txt", b"2\n0\n2\n1\n");
    let source = SourceOptions {
        ground_truth: Some(scene.path("truth.txt")),
        synsets: Some(scene.path("train")),
        ..SourceOptions::default()
    };
    let val = PackConfig { source, ..PackConfig::new(scene.path("val.tar"), scene.path("val")) };
    assert_eq!(pack(&val, &mut |_| {}).unwrap().samples, 4);
    let val = Dataset::open(&scene.path("val")).unwrap();
    assert_eq!(val.manifest().classes(), train.manifest().classes());
    for id in 0..4 {
        let mut bytes = Vec::new();
        let label = val.read(SampleId(id), &mut bytes).unwrap();
        let number = (0..4).find(|number| jpeg(*number) == bytes).unwrap();
        assert_eq!(label.0, [2, 0, 2, 1][number as usize]);
    }
}

#[test]
fn a_source_of_another_kind_or_with_options_of_another_is_refused_with_both() {
    let scene = Scene::new();
    let of = |source| pack(&PackConfig { source, ..scene.config("out") }, &mut |_| {});
    let none = SourceOptions::default();
    let error = of(SourceOptions { kind: Some(SourceKind::ImagenetVal), ..none.clone() });
    assert!(error.unwrap_err().to_string().contains("`ground_truth` is missing"));
    let error = of(SourceOptions { kind: Some(SourceKind::Folders), ..none.clone() });
    assert!(error.unwrap_err().to_string().starts_with("cannot list folder"));
    let error = of(SourceOptions { synsets: Some("x".into()), ..none });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is for ImageNet's validation tar, but"), "{error}");
    assert!(error.ends_with("holds ImageNet's training tar"), "{error}");
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let scene = Scene::new();
    for (short_side, kind) in [(None, "kept"), (Some(9), "short")] {
        let outputs = [1, 2, 5].map(|threads| {
            let output = format!("{kind}-{threads}");
            pack(&PackConfig { threads, short_side, ..scene.config(&output) }, &mut |_| {})
                .unwrap();
            scene.files(&output)
        });
        assert!(outputs.iter().all(|files| *files == outputs[0]));
    }
    let (image, _) = Dataset::open(&scene.path("short-1")).unwrap().image(SampleId(3)).unwrap();
    assert_eq!((image.width, image.height), (9, 9));
}

#[test]
fn a_packing_that_dies_goes_on_behind_the_last_whole_shard_with_the_same_result() {
    let scene = Scene::new();
    scene.pack("whole").unwrap();
    let config = scene.config("killed");
    for done in [1, 8, 20, 21, 38] {
        die_at(&config, done);
        let missing = Dataset::open(&config.output);
        assert!(matches!(missing, Err(DataError::MissingManifest { .. })));
    }
    let mut first = None;
    pack(&config, &mut |progress| first = first.or(Some(progress.done))).unwrap();
    assert!(first > Some(30), "it began at {first:?}");
    assert_eq!(scene.files("killed"), scene.files("whole"));
}

#[test]
fn a_death_while_the_old_data_set_is_replaced_loses_nothing() {
    let scene = Scene::new();
    scene.pack("whole").unwrap();
    let config = PackConfig { overwrite: true, shard_samples: 3, ..scene.config("out") };
    pack(&config, &mut |_| {}).unwrap();
    // A folder where the report is to be written stops publishing half-way.
    let config = PackConfig { overwrite: true, ..scene.config("out") };
    fs::create_dir(scene.path("out/.pack-report.json.partial")).unwrap();
    let stopped = pack(&config, &mut |_| {}).unwrap_err().to_string();
    assert!(stopped.contains(".pack-report.json.partial"), "{stopped}");
    assert!(Manifest::load(&config.output).is_err(), "shards of two sets");
    fs::remove_dir(scene.path("out/.pack-report.json.partial")).unwrap();
    // Without `overwrite`, since the old set is gone already.
    scene.pack("out").unwrap();
    assert_eq!(scene.files("out"), scene.files("whole"));
}

#[test]
fn other_settings_or_another_source_do_not_go_on_with_a_packing() {
    let scene = Scene::new();
    let config = scene.config("out");
    die_at(&config, 20);
    let others = [
        (PackConfig { seed: 7, ..config.clone() }, "the seed was 0, now 7"),
        (PackConfig { short_side: Some(8), ..config.clone() }, "the short side was none, now 8"),
        (PackConfig { shard_samples: 6, ..config.clone() }, "samples per shard was 5, now 6"),
    ];
    for (other, words) in others {
        let error = pack(&other, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(".packing to begin anew"), "{error}");
    }
    let tar = fs::read(scene.path("train.tar")).unwrap();
    scene.write("train.tar", &[&tar[..], &[0; 512]].concat());
    let error = pack(&config, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("the source is another, or has changed since"), "{error}");
}

#[test]
fn a_partial_packing_without_one_of_its_shards_is_not_gone_on_with() {
    let scene = Scene::new();
    let config = scene.config("out");
    die_at(&config, 20);
    fs::remove_file(scene.path("out/.packing/shard-000001.tar")).unwrap();
    let error = pack(&config, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("shard-000001.tar is gone or has changed"), "{error}");
    fs::write(scene.path("out/.packing/partial.json"), "{").unwrap();
    let error = pack(&config, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("its partial.json cannot be read"), "{error}");
    fs::remove_dir_all(scene.path("out/.packing")).unwrap();
    scene.pack("out").unwrap();
    assert!(verify_shards(&Folder::new(&config.output), &mut |_| {}).unwrap().is_sound());
}

#[test]
fn tars_of_another_program_become_a_data_set_where_they_lie() {
    let scene = Scene(tempfile::tempdir().unwrap());
    fs::create_dir(scene.path("tars")).unwrap();
    for shard in 0..3 {
        let member = |number: u32, ending: &str| format!("{shard}/im.age/{number:04}.{ending}");
        let sample = |number: u32| {
            let image = (member(number, ["jpg", "jpeg"][number as usize % 2]), jpeg(number));
            let label = (member(number, "cls"), (number % 4).to_string().into_bytes());
            [image, label, (member(number, "json"), b"{}".to_vec())]
        };
        let members: Vec<_> = (shard * 5..(shard + 1) * 5).flat_map(sample).collect();
        scene.write(&format!("tars/part-{shard}.tar"), &tar_of(&members));
    }
    let tars = scene.files("tars");
    let config =
        IndexConfig { folder: scene.path("tars"), classes: None, threads: 2, overwrite: false };
    let index = |config: &IndexConfig| index_shards(config, &mut |_| {});
    let manifest = index(&config).unwrap();
    assert_eq!(manifest.classes(), ["0", "1", "2", "3"]);
    let (added, old): (Vec<_>, _) = scene
        .files("tars")
        .into_iter()
        .partition(|(name, _)| !tars.iter().any(|(tar, _)| tar == name));
    assert_eq!(old, tars, "nothing is changed");
    let added: Vec<_> = added.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(added, ["manifest.json", "part-0.offsets", "part-1.offsets", "part-2.offsets"]);
    assert!(verify_shards(&Folder::new(&config.folder), &mut |_| {}).unwrap().is_sound());
    let dataset = Dataset::open(&config.folder).unwrap();
    for number in 0..15 {
        let mut bytes = Vec::new();
        let label = dataset.read(SampleId(number.into()), &mut bytes).unwrap();
        assert_eq!((label, bytes), (Label(number % 4), jpeg(number)));
    }

    let there = index(&config).unwrap_err().to_string();
    assert!(there.contains("already holds a data set (manifest.json)"), "{there}");
    scene.write("names.txt", b"ant\nbee\ncat\n");
    let named =
        IndexConfig { classes: Some(scene.path("names.txt")), overwrite: true, ..config.clone() };
    let few = index(&named).unwrap_err().to_string();
    assert!(few.contains("part-0.tar gives 0/im.age/0003 the label 3, but there are 3"), "{few}");
    scene.write("names.txt", b"ant\nbee\ncat\ndog\n");
    assert_eq!(index(&named).unwrap().classes()[3], "dog");
    let none = IndexConfig { folder: scene.0.path().to_owned(), ..config };
    let none = index(&none).unwrap_err().to_string();
    assert!(none.contains("holds no .tar files; expected WebDataset shards"), "{none}");
}
