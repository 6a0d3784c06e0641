//! Packed coefficients decode as their file does, and any other bytes to something or an error.

use std::sync::LazyLock;

use lockstep_jpeg::{Decoder, JpegError, PlanarImage, Region};
use proptest::prelude::*;

use crate::support::{Coding, Spec, decode};

fn pack(file: &[u8]) -> Result<Vec<u8>, JpegError> {
    let mut packed = vec![1, 2, 3];
    Decoder::default().pack(file, &mut packed).map(|()| packed)
}

fn unpack(packed: &[u8], regions: &[Region], image: &mut PlanarImage) -> Result<(), JpegError> {
    Decoder::default().open_packed(packed)?.decode(regions, image)
}

fn assert_same(ours: &PlanarImage, theirs: &PlanarImage) {
    let sides = |image: &PlanarImage| (image.width, image.height, image.colour);
    assert_eq!((sides(ours), ours.planes.len()), (sides(theirs), theirs.planes.len()));
    for (ours, theirs) in ours.planes.iter().zip(&theirs.planes) {
        assert_eq!((ours.stride, ours.shrink), (theirs.stride, theirs.shrink));
        assert!(ours.samples == theirs.samples, "other samples");
    }
}

fn specs() -> impl Strategy<Value = Spec> {
    let coding = prop_oneof![
        Just(Coding::Standard),
        Just(Coding::Optimized),
        (1..30_u16).prop_map(Coding::Restart)
    ];
    let size = (1..130_u16, 1..90_u16);
    let shrink = prop::option::of((1..3_u8, 1..3_u8));
    (size, shrink, 1..=100_u8, coding, any::<u8>(), any::<u32>()).prop_map(
        |(size, shrink, quality, coding, noise, seed)| Spec {
            size,
            shrink,
            quality,
            coding,
            noise,
            seed,
        },
    )
}

/// Small files of every kind, packed.
static PACKED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let spec = Spec { size: (37, 21), quality: 97, noise: 255, ..Spec::PLAIN };
    let shrinks = [Some((1, 1)), Some((2, 1)), Some((2, 2)), None];
    shrinks.map(|shrink| pack(&Spec { shrink, ..spec }.encode()).expect("a sound file")).to_vec()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_file_decodes_the_same_when_it_was_packed(
        spec in specs(),
        a in (0..130_u32, 0..90_u32, 0..130_u32, 0..90_u32),
        b in (0..130_u32, 0..90_u32, 0..130_u32, 0..90_u32),
    ) {
        let file = spec.encode();
        let packed = pack(&file).unwrap();
        let whole = Region { left: 0, top: 0, width: spec.size.0.into(), height: spec.size.1.into() };
        let parts = [a, b].map(|(left, top, width, height)| Region { left, top, width, height });
        for regions in [&[whole][..], &parts, &[]] {
            // What neither decodes keeps the samples that it had.
            let (mut ours, mut theirs) = (decode(&file).unwrap(), PlanarImage::default());
            for plane in &mut ours.planes {
                plane.samples.iter_mut().for_each(|sample| *sample = !*sample);
            }
            theirs.clone_from(&ours);
            unpack(&packed, regions, &mut ours).unwrap();
            Decoder::default().open(&file).unwrap().decode(regions, &mut theirs).unwrap();
            assert_same(&ours, &theirs);
        }
    }

    #[test]
    fn damage_is_an_error_or_other_samples_and_leaves_the_decoder_usable(
        which in any::<prop::sample::Index>(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        left in 0..40_u32, top in 0..30_u32, width in any::<u32>(), height in 0..20_u32,
    ) {
        let good = which.get(&PACKED);
        let mut bad = good.clone();
        for (at, value) in hits {
            *at.get_mut(&mut bad) = value;
        }
        let (mut decoder, mut image) = (Decoder::default(), PlanarImage::default());
        if let Ok(opened) = decoder.open_packed(&bad) {
            let _damaged = opened.decode(&[Region { left, top, width, height }], &mut image);
        }
        let all = Region { left: 0, top: 0, width: 37, height: 21 };
        decoder.open_packed(good).unwrap().decode(&[all], &mut image).unwrap();
        let mut fresh = PlanarImage::default();
        unpack(good, &[all], &mut fresh).unwrap();
        assert_same(&image, &fresh);
    }

    #[test]
    fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let all = Region { left: 0, top: 0, width: u32::MAX, height: u32::MAX };
        let packed = [b"LJC\x01", &bytes[..]].concat();
        prop_assert!(unpack(&packed, &[all], &mut PlanarImage::default()).is_err());
    }
}

#[test]
fn what_is_cut_is_an_error_but_for_the_zeros_at_the_end() {
    let all = Region { left: 0, top: 0, width: 37, height: 21 };
    for packed in PACKED.iter() {
        let zeros = packed.iter().rev().take_while(|&&byte| byte == 0).count();
        for end in 0..packed.len() - zeros {
            let done = unpack(&packed[..end], &[all], &mut PlanarImage::default());
            assert!(matches!(done, Err(JpegError::NoCoefficients(_))), "cut at {end}: {done:?}");
        }
    }
}

#[test]
fn coefficients_of_any_size_come_back() {
    // As large as 8 bits of samples can make them, and by steps that no encoder uses.
    let mut file = Spec { shrink: None, noise: 255, quality: 100, ..Spec::PLAIN }.encode();
    let table = file.array_windows().position(|pair| pair == &[0xFF, 0xDB]).unwrap();
    file[table + 5..][..64].fill(255);
    let mut ours = PlanarImage::default();
    let all = Region { left: 0, top: 0, width: 83, height: 59 };
    unpack(&pack(&file).unwrap(), &[all], &mut ours).unwrap();
    assert_same(&ours, &decode(&file).unwrap());
}

#[test]
fn a_file_that_is_damaged_anywhere_is_not_packed() {
    let mut file = Spec { size: (64, 200), ..Spec::PLAIN }.encode();
    let late = file.len() - 40;
    // An impossible code: all ones, stuffed.
    file.splice(late..late, [0xFF, 0, 0xFF, 0, 0xFF, 0]);
    assert!(matches!(pack(&file), Err(JpegError::Damaged { .. })));
    let progressive = Spec { coding: Coding::Progressive, ..Spec::PLAIN }.encode();
    assert_eq!(pack(&progressive), Err(JpegError::Unsupported("progressive coding")));
}

#[test]
fn few_bytes_that_claim_many_pixels_take_no_memory() {
    let mut packed = PACKED[0].clone();
    packed[6..10].copy_from_slice(&[0, 0x20, 0, 0x20]);
    let error = Decoder::default().open_packed(&packed).unwrap_err();
    assert_eq!(error, JpegError::NoCoefficients("there are too few bytes"));
    packed[6..10].fill(0xFF);
    let error = Decoder::default().open_packed(&packed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "holds no coefficients of an image: there are no pixels, or too many"
    );
}
