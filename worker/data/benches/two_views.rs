//! Question: how many images per second does one core turn into two views?
//! Expect 3,000 or more at 28 pixels (grayscale PNG, as `make demo` reads them)
//! and near a thousand at 224 (JPEG of 500×375), decoding included.
//!
//! With `PHOTOS=folder` also: what each stage takes of one image there, both views.
#![expect(missing_docs, reason = "criterion_group! makes an undocumented function")]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_data::{
    Augmenter, CropBox, Decoder, PlanarImage, SampleId, View, ViewKey, ViewParams, ViewRecipe,
};

fn two_views(c: &mut Criterion) {
    bench(c, "28 from PNG 28x28", &small_png(), 28);
    bench(c, "224 from JPEG 500x375", &photo_like_jpeg(), 224);
}

/// Everything that making views takes, kept between images.
#[derive(Default)]
struct Maker {
    decoder: Decoder,
    image: PlanarImage,
    augmenter: Augmenter,
    out: Vec<f32>,
}

impl Maker {
    fn decode(&mut self, bytes: &[u8], recipe: &ViewRecipe, sample: u64) -> [ViewParams; 2] {
        let open = self.decoder.open(bytes).expect("a good image");
        let params = [View::One, View::Two].map(|view| {
            let key = ViewKey::new(1, 0, SampleId(sample), view);
            ViewParams::draw(recipe, open.width(), open.height(), key)
        });
        open.decode(&crops(&params), &mut self.image).expect("a good image");
        params
    }

    fn views(&mut self, recipe: &ViewRecipe, params: &[ViewParams]) {
        self.out.resize(recipe.view_len(), 0.0);
        for params in params {
            self.augmenter.apply(&self.image, params, recipe, &mut self.out);
        }
    }
}

fn crops(params: &[ViewParams; 2]) -> [CropBox; 2] {
    [params[0].crop, params[1].crop]
}

fn bench(c: &mut Criterion, name: &str, bytes: &[u8], size: u32) {
    let recipe = ViewRecipe::imagenet(size);
    let mut maker = Maker::default();
    let mut group = c.benchmark_group("two_views");
    group.throughput(Throughput::Elements(1));
    let mut sample = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            sample += 1;
            let params = maker.decode(bytes, &recipe, sample);
            maker.views(&recipe, &params);
        });
    });
    group.bench_function(format!("decode {name}"), |b| {
        b.iter(|| {
            sample += 1;
            maker.decode(bytes, &recipe, sample)
        });
    });
    group.finish();
}

/// What each stage takes for all images of a folder.
fn stages(c: &mut Criterion) {
    let Some(folder) = std::env::var_os("PHOTOS") else { return };
    let files = std::fs::read_dir(folder).expect("PHOTOS is a folder");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file of PHOTOS").path()).collect();
    paths.sort();
    let bytes: Vec<_> =
        paths.iter().map(|path| std::fs::read(path).expect("a file of PHOTOS")).collect();
    let recipe = ViewRecipe::imagenet(224);
    let mut group = c.benchmark_group("photos");
    group.throughput(Throughput::Elements(bytes.len() as u64));
    let mut maker = Maker::default();
    group.bench_function("decode", |b| {
        b.iter(|| {
            for (sample, bytes) in (0..).zip(&bytes) {
                maker.decode(bytes, &recipe, sample);
            }
        });
    });
    let decoded: Vec<_> = (0..)
        .zip(&bytes)
        .map(|(sample, bytes)| {
            let params = maker.decode(bytes, &recipe, sample);
            (std::mem::take(&mut maker.image), params)
        })
        .collect();
    let mut out = vec![0.0; recipe.view_len()];
    stage(&mut group, "resize", &decoded, |augmenter, image, params| {
        augmenter.resize(image, params, &recipe);
    });
    // Colour alone would find what it left the last time, and end in denormal numbers.
    stage(&mut group, "resize, colour", &decoded, |augmenter, image, params| {
        augmenter.resize(image, params, &recipe);
        augmenter.colour(params, &recipe, &mut out);
    });
    let mut out = vec![0.0; recipe.view_len()];
    stage(&mut group, "blur", &decoded, |augmenter, _, params| {
        augmenter.blur(params, &recipe, &mut out);
    });
    group.finish();
}

fn stage(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    decoded: &[(PlanarImage, [ViewParams; 2])],
    mut work: impl FnMut(&mut Augmenter, &PlanarImage, &ViewParams),
) {
    let mut augmenter = Augmenter::default();
    // Later stages find the planes that this one leaves.
    let (image, params) = &decoded[0];
    augmenter.resize(image, &params[0], &ViewRecipe::imagenet(224));
    group.bench_function(name, |b| {
        b.iter(|| {
            for (image, params) in decoded {
                for params in params {
                    work(&mut augmenter, image, params);
                }
            }
        });
    });
}

fn small_png() -> Vec<u8> {
    let pixels: Vec<u8> = (0..28 * 28_u32).map(|i| texture(i % 28, i / 28, 0)).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 28, 28);
    encoder.set_color(png::ColorType::Grayscale);
    let header = encoder.write_header();
    header.and_then(|mut writer| writer.write_image_data(&pixels)).expect("memory takes it");
    bytes
}

fn photo_like_jpeg() -> Vec<u8> {
    let pixels: Vec<u8> =
        (0..500 * 375 * 3_u32).map(|i| texture(i / 3 % 500, i / 1_500, i % 3)).collect();
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&pixels, 500, 375, jpeg_encoder::ColorType::Rgb).expect("memory takes it");
    bytes
}

/// Smooth shades with some noise, so that the entropy decoder has work to do.
fn texture(x: u32, y: u32, channel: u32) -> u8 {
    let noise = (x * 7_919 + y * 104_729 + channel * 31).wrapping_mul(2_654_435_761) >> 28;
    u8::try_from((x / 3 + y / 2 * (channel + 1) / 2) % 200 + 2 * noise).expect("below 200 + 32")
}

criterion_group!(benches, two_views, stages);
criterion_main!(benches);
