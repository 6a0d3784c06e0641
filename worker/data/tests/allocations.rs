//! Once warm, reading, decoding and two views take no memory from the system.
#![expect(unsafe_code, reason = "an allocator can be counted only from inside")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use lockstep_data::{
    Augmenter, Dataset, Decoder, PackConfig, PlanarImage, SampleId, View, ViewKey, ViewParams,
    ViewRecipe, pack,
};

/// The system's allocator; counts what each thread takes.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed on as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: all memory comes from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: all memory comes from the system's allocator, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a thread of the loader keeps.
#[derive(Default)]
struct Worker {
    bytes: Vec<u8>,
    decoder: Decoder,
    image: PlanarImage,
    augmenter: Augmenter,
    out: Vec<f32>,
}

impl Worker {
    fn fill(&mut self, dataset: &Dataset, recipe: &ViewRecipe, data_epoch: u64) {
        self.out.resize(recipe.view_len(), 0.0);
        for id in (0..dataset.manifest().samples()).map(SampleId) {
            dataset.read(id, &mut self.bytes).unwrap();
            let open = self.decoder.open(&self.bytes).unwrap();
            let (width, height) = (open.width(), open.height());
            let params = [View::One, View::Two].map(|view| {
                let key = ViewKey::new(1, data_epoch, id, view);
                ViewParams::draw(recipe, width, height, key)
            });
            open.decode(&[params[0].crop, params[1].crop], &mut self.image).unwrap();
            for params in &params {
                self.augmenter.apply(&self.image, params, recipe, &mut self.out);
            }
        }
    }
}

/// Sizes, samplings and gray, as a folder of photographs has them.
fn add_images(folder: &std::path::Path) {
    use SamplingFactor::{F_1_1, F_2_1, F_2_2};
    fs::create_dir_all(folder).unwrap();
    for (index, sampling) in [F_1_1, F_2_1, F_2_2].into_iter().cycle().take(12).enumerate() {
        let step = u16::try_from(index).unwrap();
        let (width, height) = (40 + 9 * step, 90 - 5 * step);
        let (color, channels) =
            if index % 5 == 4 { (ColorType::Luma, 1) } else { (ColorType::Rgb, 3) };
        let values = usize::from(width) * usize::from(height) * channels;
        let pixels: Vec<u8> = (0..=u8::MAX).cycle().take(values).collect();
        let mut encoder = Encoder::new_file(folder.join(format!("{index}.jpg")), 90).unwrap();
        encoder.set_sampling_factor(sampling);
        encoder.encode(&pixels, width, height, color).unwrap();
    }
}

#[test]
fn a_sample_takes_no_memory_once_the_buffers_are_warm() {
    let scene = tempfile::tempdir().unwrap();
    let (input, output) = (scene.path().join("input"), scene.path().join("output"));
    add_images(&input.join("class"));
    pack(&PackConfig::new(input, output.clone()), &mut |_| {}).unwrap();
    let dataset = Dataset::open(&output).unwrap();
    let (recipe, mut worker) = (ViewRecipe::imagenet(32), Worker::default());
    // Every size of every buffer has been seen after this.
    (0..4).for_each(|data_epoch| worker.fill(&dataset, &recipe, data_epoch));
    let before = TAKEN.get();
    (0..4).for_each(|data_epoch| worker.fill(&dataset, &recipe, data_epoch));
    assert_eq!(TAKEN.get() - before, 0, "allocations for 96 views");
    assert!(before > 0, "the allocator is not counted");
}
