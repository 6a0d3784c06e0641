//! A permanent buffer, as the engine has them.

#![expect(unsafe_code, reason = "lends memory to operations; every block states its invariant")]

use std::ptr::NonNull;

use half::bf16;
use lockstep_collective::{Element, Region};

/// Numbers that are lent to operations. Never freed, so that no operation outlives them.
#[derive(Debug)]
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len: usize,
    element: Element,
}

impl Buffer {
    pub(crate) fn new(element: Element, numbers: impl Iterator<Item = f64>) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the narrow type is what is tested")]
        let bytes: Vec<u8> = match element {
            Element::Bf16 => numbers.flat_map(|x| bf16::from_f64(x).to_le_bytes()).collect(),
            Element::F32 => numbers.flat_map(|x| (x as f32).to_le_bytes()).collect(),
            Element::F64 => numbers.flat_map(f64::to_le_bytes).collect(),
        };
        let len = bytes.len() / element.size();
        // Words, so that it is aligned.
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            })
            .collect();
        Self { start: NonNull::from(words.leak()).cast(), len, element }
    }

    /// Lends it. Look at it again after `wait` only.
    pub(crate) fn region(&mut self) -> Region {
        // SAFETY: aligned, initialised, never freed; tests leave it alone until `wait`.
        unsafe { Region::from_raw(self.start, self.len, self.element) }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let len = self.len * self.element.size();
        // SAFETY: as above, and no operation is under way.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) }
    }
}
