//! What is shown and counted is bit for bit what libjpeg-turbo shows.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use lockstep_data::{Decoder, RgbImage};

fn jpeg((width, height): (u16, u16), sampling: SamplingFactor) -> Vec<u8> {
    let values = 3 * u32::from(width) * u32::from(height);
    let pixels: Vec<u8> = (0..values).map(|i| u8::try_from(i * i / 7 % 256).unwrap()).collect();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(sampling);
    encoder.encode(&pixels, width, height, ColorType::Rgb).unwrap();
    bytes
}

#[test]
fn every_sampling_and_size_is_upsampled_and_converted_as_libjpeg_does_it() {
    use SamplingFactor::{F_1_1, F_1_2, F_2_1, F_2_2};
    let sides = (1..20).flat_map(|width| (1..20).map(move |height| (width, height)));
    let mut decoder = Decoder::default();
    for sides in sides.chain([(131, 97), (96, 33)]) {
        for sampling in [F_1_1, F_2_1, F_1_2, F_2_2] {
            let (file, mut ours) = (jpeg(sides, sampling), RgbImage::default());
            decoder.decode(&file, &mut ours).unwrap();
            let mut theirs = mozjpeg::Decompress::new_mem(&file).unwrap().rgb().unwrap();
            let pixels: Vec<[u8; 3]> = theirs.read_scanlines().unwrap();
            assert_eq!((ours.width, ours.height), (sides.0.into(), sides.1.into()));
            assert_eq!(ours.pixels, pixels.as_flattened(), "{sides:?} {sampling:?}");
        }
    }
}
