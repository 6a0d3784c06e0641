//! Bit for bit what libjpeg-turbo decodes.

use crate::support::{Coding, Spec, decode, reference};
use lockstep_jpeg::PlanarImage;

const SHRINKS: [Option<(u8, u8)>; 5] =
    [Some((1, 1)), Some((2, 1)), Some((2, 2)), Some((1, 2)), None];

#[track_caller]
fn assert_same(image: &PlanarImage, file: &[u8], what: &str) {
    let expected = reference(file);
    assert_eq!(image.planes.len(), expected.len(), "{what}");
    for (index, (plane, expected)) in image.planes.iter().zip(expected).enumerate() {
        for row in 0..expected.height {
            let ours = &plane.samples[row * plane.stride..][..expected.width];
            let theirs = &expected.samples[row * expected.width..][..expected.width];
            assert_eq!(ours, theirs, "{what}: row {row} of plane {index}");
        }
    }
}

#[test]
fn every_sampling_size_quality_and_table_decodes_to_the_same_planes() {
    let sizes = [(1, 1), (7, 9), (8, 8), (16, 16), (17, 33), (33, 17), (40, 23), (64, 48), (90, 5)];
    let codings = [
        Coding::Standard,
        Coding::Optimized,
        Coding::Restart(1),
        Coding::Restart(2),
        Coding::Restart(5),
    ];
    let qualities = [(1, 255), (15, 60), (50, 20), (75, 0), (90, 40), (97, 255), (100, 255)];
    let mut count = 0;
    for shrink in SHRINKS {
        for size in sizes {
            for (quality, noise) in qualities {
                for coding in codings {
                    count += 1;
                    let spec = Spec { size, shrink, quality, coding, noise, seed: count };
                    let file = spec.encode();
                    let image = decode(&file).unwrap();
                    assert_eq!((image.width, image.height), (size.0.into(), size.1.into()));
                    assert_same(&image, &file, &format!("{spec:?}"));
                }
            }
        }
    }
    assert_eq!(count, 1_575);
}

/// The reference is C code without vectors, which overflows in another way; so this is compared
/// with what libjpeg-turbo 3.2.0 decodes on x86-64, with AVX2 as with SSE2.
#[test]
fn coefficients_out_of_range_saturate_as_in_libjpeg_turbos_vector_code() {
    let mut file = Spec { shrink: None, noise: 255, quality: 97, ..Spec::PLAIN }.encode();
    let table = file.array_windows().position(|pair| pair == &[0xFF, 0xDB]).unwrap();
    for (index, step) in file[table + 5..][..64].iter_mut().enumerate() {
        *step = if index % 3 == 0 { 255 } else { 40 };
    }
    let image = decode(&file).unwrap();
    let rows = image.planes[0].samples.chunks(image.planes[0].stride);
    // FNV-1a over the rows of the blocks.
    let hash = rows.flatten().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &sample| {
        (hash ^ u64::from(sample)).wrapping_mul(0x0100_0000_01B3)
    });
    assert_eq!(hash, 0xE2B7_8C7B_1BA0_7215);
}
