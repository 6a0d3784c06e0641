//! Baseline JPEG for cropping: only the part of an image that some crop needs, as planes.
//!
//! Colour conversion and chroma upsampling are linear, so whoever resizes can do
//! them once per output pixel; this crate leaves Y, Cb and Cr at their own
//! resolution. It sees no other crate of the workspace.

mod planes;

pub use planes::{Colour, PlanarImage, Plane, Region};
