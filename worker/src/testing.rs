//! Small data sets for the tests of this crate.

use lockstep_data::{Dataset, PackConfig, pack};
use lockstep_proto::config::RunConfig;
use lockstep_proto::layers::Layers;

/// Colour of the images in a data set.
#[derive(Clone, Copy)]
pub(crate) enum Color {
    Gray,
    Red,
}

/// A data set that goes when this does.
pub(crate) struct Packed {
    folder: tempfile::TempDir,
}

impl Packed {
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("packed")
    }

    pub(crate) fn open(&self) -> Dataset {
        Dataset::open(&self.path()).unwrap()
    }
}

/// The smallest preset.
pub(crate) fn tiny_config() -> RunConfig {
    let layers = Layers { preset: Some("tiny".to_owned()), ..Layers::default() };
    layers.resolve().unwrap().config
}

/// `count` images in two classes: bright at the top, or at the bottom.
pub(crate) fn packed(count: usize, color: Color) -> Packed {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("images");
    for index in 0..count {
        let class = index % 2;
        let path = input.join(["down", "up"][class]).join(format!("{index}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bright = |row: usize| (row < 4) == (class == 1);
        let light = 200 + u8::try_from(index % 50).unwrap();
        let value = |row| if bright(row) { light } else { 10 };
        let mut pixels = Vec::new();
        for place in 0..64 {
            let value = value(place / 8);
            pixels.extend(match color {
                Color::Gray => [value; 3],
                Color::Red => [value, 0, 0],
            });
        }
        std::fs::write(path, png(8, 8, &pixels)).unwrap();
    }
    let output = folder.path().join("packed");
    let config = PackConfig { shard_samples: 16, ..PackConfig::new(input, output) };
    pack(&config, &mut |_| {}).unwrap();
    Packed { folder }
}

fn png(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(::png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(rgb).unwrap();
    writer.finish().unwrap();
    bytes
}
