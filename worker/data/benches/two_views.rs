//! Question: how many images per second does one core turn into two views?
//! Expect 3,000 or more at 28 pixels (grayscale PNG, as `make demo` reads them)
//! and a few hundred at 224 (JPEG of 500×375), decoding included.
#![expect(missing_docs, reason = "criterion_group! makes an undocumented function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lockstep_data::{
    Augmenter, Decoder, RgbImage, SampleId, View, ViewKey, ViewParams, ViewRecipe,
};

fn two_views(c: &mut Criterion) {
    bench(c, "28 from PNG 28x28", &small_png(), 28);
    bench(c, "224 from JPEG 500x375", &photo_like_jpeg(), 224);
}

fn bench(c: &mut Criterion, name: &str, bytes: &[u8], size: u32) {
    let recipe = ViewRecipe::imagenet(size);
    let (mut decoder, mut image) = (Decoder::default(), RgbImage::default());
    let mut augmenter = Augmenter::default();
    let mut out = vec![0.0; recipe.view_len()];
    let mut group = c.benchmark_group("two_views");
    group.throughput(Throughput::Elements(1));
    let mut sample = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            decoder.decode(bytes, &mut image).expect("the bench made a good image");
            sample += 1;
            for view in [View::One, View::Two] {
                let key = ViewKey::new(1, 0, SampleId(sample), view);
                let params = ViewParams::draw(&recipe, image.width, image.height, key);
                augmenter.apply(&image, &params, &recipe, &mut out);
            }
        });
    });
    group.bench_function(format!("decode {name}"), |b| {
        b.iter(|| decoder.decode(bytes, &mut image).expect("the bench made a good image"));
    });
    group.finish();
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

criterion_group!(benches, two_views);
criterion_main!(benches);
