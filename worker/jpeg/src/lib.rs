//! Baseline JPEG for cropping: only the part of an image that some crop needs, as planes.
//!
//! Colour conversion and chroma upsampling are linear, so whoever resizes can do
//! them once per output pixel; this crate leaves Y, Cb and Cr at their own
//! resolution. It sees no other crate of the workspace.
//!
//! ```text
//! file ─▶ headers.rs: frame, quantization and Huffman tables (huffman.rs), where the scan lies
//!           │
//!           ▼
//!         scan.rs: the scan without its stuffing, cut at restart markers
//!           │ bits.rs
//!           ▼
//!         blocks.rs: 64 coefficients ─▶ idct.rs: 64 samples ─▶ planes.rs
//! ```
//!
//! Coefficients can also be packed (packing.rs: a block; coefficients.rs: an image) and decoded later
//! from there, to the same samples. That takes twice the bytes and a fraction of the time, as Huffman's
//! codes are most of the work. processor.rs chooses the code for the processor at hand.
//!
//! `decoder.rs` is what callers see; `mcus.rs` runs the loop over the MCUs (minimum coded units:
//! the blocks of 8×8 samples that cover the same 8 or 16 pixels in each direction).
//!
//! Names and section numbers are those of ITU-T T.81. Anything that this crate
//! does not read is [`JpegError::Unsupported`] and belongs to a complete decoder.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for the processor at hand"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of wider numbers, and sides have 16 bits"
)]

mod bits;
mod blocks;
mod coefficients;
mod decoder;
mod error;
mod headers;
mod huffman;
mod idct;
mod mcus;
mod packing;
mod planes;
mod processor;
mod scan;

pub use decoder::{Decoder, Opened};
pub use error::{JpegError, Place};
pub use planes::{Colour, PlanarImage, Plane, Region};
