//! What a representation is worth: features of a data set, and nearest neighbours among them.
//!
//! ```text
//!  data set ─▶ evaluation view ─▶ encoder ─▶ Features ─┐
//!                        └──────▶ pixels ──▶ Features ─┴─▶ knn::accuracy, knn::neighbours
//! ```
//!
//! Labels are used for the printed accuracy only. Not here: the online probe, which is trained along
//! (`lockstep-nn`).

mod encoder;
mod features;
pub mod knn;

pub use encoder::{trained, untrained};
pub use features::{Features, Views, encode, pixels};
