//! One HTML file that shows a run: figures, curves, view pairs, nearest neighbours.
//!
//! ```text
//!  steps.jsonl ──▶ steps ──▶ charts (SVG) ──┐
//!  data sets ────▶ pictures (PNG) ──────────┼─▶ page ──▶ report.html
//!  accuracies, configuration ───────────────┘
//! ```
//!
//! The file refers to nothing outside itself and runs no script. Everything here is a pure function
//! of what it is given, but for reading images.
//!
//! Not here: computing features and accuracies (`eval`), arguments (`commands::report`).

mod chart;
mod curves;
mod page;
mod pictures;
mod steps;

pub use page::{Accuracies, Report};
pub use pictures::{Neighbours, Pair, Picture, Tile, neighbours, pairs};
pub use steps::{StepLine, StepsError, read_steps};
