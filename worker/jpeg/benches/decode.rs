//! Question: what does a photograph cost, whole and where two crops need only parts of it?
//! Expect half a millisecond for 500×375 pixels in 100 KB, less than half of zune-jpeg's time, and
//! entropy decoding as the larger part: two crops of a quarter each save a quarter. From packed
//! coefficients it should cost a quarter, and packing little more than decoding.
//!
//! `JPEG_PHOTOS=DIR` takes the `.jpg` files of a folder in place of a generated image.
#![expect(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lockstep_jpeg::{Decoder, PlanarImage, Region};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Two regions in eighths of the sides, by name.
const PARTS: [(&str, [[u32; 4]; 2]); 2] =
    [("whole", [[0, 0, 8, 8]; 2]), ("crops", [[0, 1, 4, 4], [3, 2, 4, 4]])];

fn decode(c: &mut Criterion) {
    let files = files();
    let (mut decoder, mut image) = (Decoder::default(), PlanarImage::default());
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(files.len() as u64));
    group.bench_function("headers only", |b| {
        b.iter(|| files.iter().for_each(|file| drop(black_box(decoder.open(file)))));
    });
    for (name, parts) in PARTS {
        group.bench_function(name, |b| {
            b.iter(|| {
                for file in &files {
                    let opened = decoder.open(file).expect("a baseline JPEG");
                    let regions = parts.map(|part| eighths(part, opened.width(), opened.height()));
                    opened.decode(&regions, &mut image).expect("a sound JPEG");
                }
            });
        });
    }
    let mut packed = Vec::new();
    group.bench_function("pack", |b| {
        b.iter(|| {
            for file in &files {
                decoder.pack(file, &mut packed).expect("a sound JPEG");
            }
        });
    });
    let all_packed: Vec<_> = files.iter().map(|file| pack(file)).collect();
    for (name, parts) in PARTS {
        group.bench_function(format!("{name}, packed"), |b| {
            b.iter(|| {
                for packed in &all_packed {
                    let opened = decoder.open_packed(packed).expect("packed coefficients");
                    let regions = parts.map(|part| eighths(part, opened.width(), opened.height()));
                    opened.decode(&regions, &mut image).expect("packed coefficients");
                }
            });
        });
    }
    group.bench_function("whole by zune-jpeg", |b| {
        let options = DecoderOptions::new_fast().jpeg_set_out_colorspace(ColorSpace::YCbCr);
        b.iter(|| {
            for file in &files {
                let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
                black_box(decoder.decode().expect("a sound JPEG"));
            }
        });
    });
    group.finish();
}

fn pack(file: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    Decoder::default().pack(file, &mut packed).expect("a sound JPEG");
    packed
}

fn eighths([left, top, width, height]: [u32; 4], columns: u32, rows: u32) -> Region {
    Region {
        left: left * columns / 8,
        top: top * rows / 8,
        width: width * columns / 8,
        height: height * rows / 8,
    }
}

fn files() -> Vec<Vec<u8>> {
    let Ok(folder) = std::env::var("JPEG_PHOTOS") else { return vec![photo_like()] };
    let entries = std::fs::read_dir(folder).expect("JPEG_PHOTOS is a folder");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let photos = paths.filter(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    photos.map(|path| std::fs::read(path).expect("the photo can be read")).collect()
}

/// Smooth shades and noise: 500×375 pixels in about 100 KB.
fn photo_like() -> Vec<u8> {
    let mut state = 1_u32;
    let mut pixels = Vec::new();
    for (y, x, channel) in
        (0..375).flat_map(|y| (0..500).flat_map(move |x| (0..3).map(move |c| (y, x, c))))
    {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let shade: u32 = (x / 3 + y / 2 * (channel + 1) / 2) % 200 + (state >> 27);
        pixels.push(u8::try_from(shade).expect("below 232"));
    }
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_2_0);
    encoder.encode(&pixels, 500, 375, jpeg_encoder::ColorType::Rgb).expect("memory takes it");
    bytes
}

criterion_group!(benches, decode);
criterion_main!(benches);
