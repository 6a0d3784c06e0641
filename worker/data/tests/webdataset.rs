//! Shards and the `webdataset` package of Python: it reads ours, and we read what it writes.

use std::fs;
use std::path::Path;
use std::process::Command;

use lockstep_data::{
    Dataset, Folder, IndexConfig, Label, PackConfig, SampleId, index_shards, pack, verify_shards,
};

/// The stored bytes and labels of a data set, in order.
fn stored(dataset: &Dataset) -> Vec<(Vec<u8>, Label)> {
    let sample = |id| {
        let mut bytes = Vec::new();
        let label = dataset.read(SampleId(id), &mut bytes).expect("a sample");
        (bytes, label)
    };
    (0..dataset.manifest().samples()).map(sample).collect()
}

/// `LOCKSTEP_WEBDATASET_PYTHON` names a Python with the package (`pip install webdataset`); else `python3` is it.
#[test]
#[ignore = "needs Python with the webdataset package"]
fn the_webdataset_package_reads_our_shards_and_we_read_what_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..30_u8 {
        let class =
            folder.path().join("images").join(["ant", "bee", "cat"][usize::from(number) % 3]);
        fs::create_dir_all(&class).unwrap();
        let pixels: Vec<u8> = (0..8 * 8 * 3_u8).map(|i| i.wrapping_mul(number + 1)).collect();
        let mut png =
            png::Encoder::new(fs::File::create(class.join(format!("{number}.png"))).unwrap(), 8, 8);
        png.set_color(png::ColorType::Rgb);
        png.write_header().unwrap().write_image_data(&pixels).unwrap();
        let mut jpeg = Vec::new();
        jpeg_encoder::Encoder::new(&mut jpeg, 90)
            .encode(&pixels, 8, 8, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        fs::write(class.join(format!("{number}.jpg")), jpeg).unwrap();
    }
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let config =
        PackConfig { shard_samples: 25, ..PackConfig::new(folder.path().join("images"), &ours) };
    pack(&config, &mut |_| {}).unwrap();

    let python = std::env::var("LOCKSTEP_WEBDATASET_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = "../../tests/reference/check_webdataset.py";
    let done = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .args([&ours, &theirs])
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(done.status.success(), "{}", said.concat());

    let config =
        IndexConfig { folder: theirs.clone(), classes: None, threads: 1, overwrite: false };
    let manifest = index_shards(&config, &mut |_| {}).unwrap();
    assert_eq!((manifest.samples(), manifest.shards().len()), (60, 9));
    assert!(verify_shards(&Folder::new(&theirs), &mut |_| {}).unwrap().is_sound());
    let [ours, theirs] = [ours, theirs].map(|folder| stored(&Dataset::open(&folder).unwrap()));
    assert_eq!(ours, theirs);
}
