//! A decoded region is the same part of the whole image, with what chroma upsampling needs around it.

use lockstep_jpeg::{Decoder, PlanarImage, Region};
use proptest::prelude::*;

use crate::support::{Coding, Spec, decode};

/// No sample of a decoded image: shows what was not written.
fn blank(whole: &PlanarImage) -> PlanarImage {
    let mut image = whole.clone();
    for (plane, whole) in image.planes.iter_mut().zip(&whole.planes) {
        plane.samples.iter_mut().zip(&whole.samples).for_each(|(sample, real)| *sample = !real);
    }
    image
}

/// The samples of an axis that a region of pixels needs.
fn needed(start: u32, length: u32, pixels: u32, shrink: u32) -> std::ops::Range<usize> {
    let margin = u32::from(shrink > 1);
    let end = (start + length).min(pixels);
    if start >= end {
        return 0..0;
    }
    let last = (end.div_ceil(shrink) + margin).min(pixels.div_ceil(shrink));
    (start / shrink).saturating_sub(margin) as usize..last as usize
}

fn assert_holds(image: &PlanarImage, whole: &PlanarImage, region: Region) {
    for (plane, whole_plane) in image.planes.iter().zip(&whole.planes) {
        let columns = needed(region.left, region.width, whole.width, plane.shrink[0]);
        for row in needed(region.top, region.height, whole.height, plane.shrink[1]) {
            let at = row * plane.stride;
            let ours = &plane.samples[at..][columns.clone()];
            assert_eq!(ours, &whole_plane.samples[at..][columns.clone()], "row {row}");
        }
    }
}

#[test]
fn what_no_region_needs_is_not_transformed() {
    let file = Spec { size: (400, 300), ..Spec::PLAIN }.encode();
    let whole = decode(&file).unwrap();
    let mut image = blank(&whole);
    let region = Region { left: 165, top: 97, width: 20, height: 10 };
    Decoder::default().open(&file).unwrap().decode(&[region], &mut image).unwrap();
    assert_holds(&image, &whole, region);
    let written = image.planes[0].samples.iter().zip(&whole.planes[0].samples);
    // Two by two MCUs: the region touches columns 10 and 11, rows 6 and (by the margin) 5.
    assert_eq!(written.filter(|(ours, real)| ours == real).count(), 4 * 16 * 16);
}

#[test]
fn no_region_and_a_region_outside_of_the_image_decode_nothing() {
    let file = Spec::PLAIN.encode();
    let whole = decode(&file).unwrap();
    let outside = Region { left: 83, top: u32::MAX, width: u32::MAX, height: 1 };
    for regions in [&[][..], &[outside]] {
        let mut image = blank(&whole);
        Decoder::default().open(&file).unwrap().decode(regions, &mut image).unwrap();
        assert_eq!(image.planes[0].samples, blank(&whole).planes[0].samples);
    }
}

#[test]
fn damage_below_the_last_region_goes_unseen_and_above_it_does_not() {
    let mut file = Spec { size: (64, 200), ..Spec::PLAIN }.encode();
    let middle = file.len() - file.len() / 4;
    // An impossible code: all ones, stuffed.
    file.splice(middle..middle, [0xFF, 0, 0xFF, 0, 0xFF, 0]);
    let mut decoder = Decoder::default();
    let mut decode = |top| {
        let region = Region { left: 0, top, width: 8, height: 8 };
        decoder.open(&file).unwrap().decode(&[region], &mut PlanarImage::default())
    };
    assert_eq!(decode(0), Ok(()));
    let error = decode(192).unwrap_err().to_string();
    assert!(error.starts_with("is a damaged JPEG: a code is impossible at pixel row "), "{error}");
}

#[test]
fn gray_and_colour_by_turns_keep_their_memory() {
    let (mut decoder, mut image) = (Decoder::default(), PlanarImage::default());
    for shrink in [Some((2, 2)), None, Some((1, 1)), None, Some((2, 1))] {
        let file = Spec { shrink, ..Spec::PLAIN }.encode();
        let all = Region { left: 0, top: 0, width: 83, height: 59 };
        decoder.open(&file).unwrap().decode(&[all], &mut image).unwrap();
        let whole = decode(&file).unwrap();
        for (plane, whole) in image.planes.iter().zip(&whole.planes) {
            assert_eq!((&plane.samples, plane.shrink), (&whole.samples, whole.shrink));
        }
    }
}

proptest! {
    #[test]
    fn any_two_regions_hold_what_the_whole_image_holds(
        shrink in prop::option::of((1..3_u8, 1..3_u8)),
        restart in prop::option::of(1..30_u16),
        a in (0..130_u32, 0..90_u32, 0..130_u32, 0..90_u32),
        b in (0..130_u32, 0..90_u32, 0..130_u32, 0..90_u32),
    ) {
        let coding = restart.map_or(Coding::Standard, Coding::Restart);
        let file = Spec { size: (117, 75), shrink, coding, ..Spec::PLAIN }.encode();
        let whole = decode(&file).unwrap();
        let regions =
            [a, b].map(|(left, top, width, height)| Region { left, top, width, height });
        let mut image = blank(&whole);
        Decoder::default().open(&file).unwrap().decode(&regions, &mut image).unwrap();
        for region in regions {
            assert_holds(&image, &whole, region);
        }
    }
}
