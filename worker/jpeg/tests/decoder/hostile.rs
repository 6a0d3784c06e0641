//! Any bytes are either an image or an error: no panic, no endless loop, no memory out of proportion.

use crate::support::{Coding, Spec, decode};
use std::sync::LazyLock;

use lockstep_jpeg::{Decoder, JpegError, PlanarImage, Region};
use proptest::prelude::*;

/// Small files of every kind that is decoded.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let small = Spec { size: (37, 21), ..Spec::PLAIN };
    let mut files = Vec::new();
    for coding in [Coding::Standard, Coding::Restart(2), Coding::Optimized] {
        for shrink in [Some((1, 1)), Some((2, 2)), None] {
            files.push(Spec { shrink, coding, ..small }.encode());
        }
    }
    files
});

#[test]
fn a_file_that_is_cut_anywhere_is_damaged() {
    for file in FILES.iter() {
        decode(file).unwrap();
        for end in 0..file.len() {
            let error = decode(&file[..end]).unwrap_err();
            assert!(matches!(error, JpegError::Damaged { .. }), "cut at {end}: {error}");
        }
    }
}

#[test]
fn pixels_that_end_early_are_damaged_even_with_an_end_marker() {
    for file in FILES.iter() {
        let scan = file.array_windows().rposition(|pair| pair == &[0xFF, 0xDA]).unwrap();
        for end in scan + 20..file.len() - 3 {
            let cut = [&file[..end], &[0xFF, 0xD9]].concat();
            let error = decode(&cut).unwrap_err();
            assert!(matches!(error, JpegError::Damaged { .. }), "cut at {end}: {error}");
        }
    }
}

#[test]
fn what_a_complete_decoder_must_read_is_told_apart_from_damage() {
    let progressive = Spec { coding: Coding::Progressive, ..Spec::PLAIN }.encode();
    assert_eq!(
        decode(&progressive).unwrap_err().to_string(),
        "is a JPEG with progressive coding, which only the library decoder reads"
    );
    // Bytes of the frame header: marker, length, precision, height, width, components, …
    let unsupported = [
        (1, 0xC9, "arithmetic coding"),
        (1, 0xC3, "lossless or hierarchical coding"),
        (4, 12, "samples of more than 8 bits"),
        (6, 0, "a height that follows the pixels"),
        (9, 4, "neither one nor three components"),
        (11, 0x41, "unusual sampling"),
        (11, 0x00, "unusual sampling"),
        (14, 0x22, "unusual sampling"),
    ];
    for (at, value, expected) in unsupported {
        // Fewer than 256 rows, so that one byte makes the height 0.
        let mut file = Spec { shrink: Some((1, 1)), ..Spec::PLAIN }.encode();
        let frame = file.array_windows().position(|pair| pair == &[0xFF, 0xC0]).unwrap();
        file[frame + at] = value;
        if at == 14 {
            file[frame + 17] = value;
        }
        assert_eq!(decode(&file).unwrap_err(), JpegError::Unsupported(expected), "{at}");
    }
}

#[test]
fn a_small_file_that_claims_many_pixels_takes_no_memory() {
    let mut file = Spec::PLAIN.encode();
    let frame = file.array_windows().position(|pair| pair == &[0xFF, 0xC0]).unwrap();
    file[frame + 5..frame + 9].copy_from_slice(&[0x20, 0, 0x20, 0]);
    let error = decode(&file).unwrap_err();
    assert!(error.to_string().contains("too few bytes for its pixels"), "{error}");
    file[frame + 5..frame + 9].fill(0xFF);
    assert_eq!(decode(&file).unwrap_err(), JpegError::Unsupported("more than 100,000,000 pixels"));
}

proptest! {
    #[test]
    fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&[&[0xFF, 0xD8], &bytes[..]].concat()).is_err());
    }

    #[test]
    fn damage_is_an_error_or_other_pixels_and_leaves_the_decoder_usable(
        which in any::<prop::sample::Index>(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        left in 0..40_u32, top in 0..30_u32, width in any::<u32>(), height in 0..20_u32,
    ) {
        let good = which.get(&FILES);
        let mut bad = good.clone();
        for (at, value) in hits {
            *at.get_mut(&mut bad) = value;
        }
        let mut decoder = Decoder::default();
        let mut image = PlanarImage::default();
        if let Ok(opened) = decoder.open(&bad) {
            let _damaged = opened.decode(&[Region { left, top, width, height }], &mut image);
        }
        let opened = decoder.open(good).unwrap();
        let all = Region { left: 0, top: 0, width: opened.width(), height: opened.height() };
        opened.decode(&[all], &mut image).unwrap();
        let whole = decode(good).unwrap();
        prop_assert_eq!(image.planes.len(), whole.planes.len());
        for (plane, whole) in image.planes.iter().zip(&whole.planes) {
            prop_assert_eq!(&plane.samples, &whole.samples);
        }
    }
}
