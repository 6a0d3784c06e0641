//! Images on disk to two augmented views in memory, in an order that is a formula.
//!
//! ```text
//!  pack            folder or IDX files ──▶ shard-*.tar + manifest.json
//!  verify          the shards, byte for byte and image for image
//!
//!  order           (cursor, lane, slot) ──▶ sample id             pure
//!  shard, dataset  sample id ──▶ stored bytes + label             positional reads
//!  decode          bytes ──▶ 8-bit RGB
//!  view            (image, key) ──▶ parameters ──▶ f32 view       pure, by resize, color, blur
//!  loader, eval    all of that, by threads, in batches
//! ```
//!
//! Everything random is drawn from [`keyed`], by address and never from a
//! state, so that a batch does not depend on threads, ranks or restarts.
//! The crate sees no tensor library, no network and no async runtime.

mod blur;
mod color;
mod dataset;
mod decode;
mod error;
mod eval;
mod idx;
pub mod keyed;
mod loader;
mod manifest;
mod order;
mod pack;
mod parallel;
mod resize;
mod sample;
mod shard;
mod shard_writer;
mod sources;
mod verify;
mod view;

pub use dataset::Dataset;
pub use decode::{Decoder, RgbImage};
pub use error::{DataError, Verdict};
pub use eval::{EvalBatch, EvalBatches, EvalConfig, eval_batches, eval_view};
pub use loader::{LoadedBatch, Loader, LoaderConfig, Replacement, StageTimes};
pub use manifest::{Manifest, ShardEntry};
pub use order::{EpochOrder, Order, OrderConfig};
pub use pack::{PackConfig, PackProgress, PackReport, Skipped, pack};
pub use sample::{Label, SampleAddress, SampleId};
pub use sources::Split;
pub use verify::{ShardFault, VerifyProgress, VerifyReport, verify_shards};
pub use view::{Augmenter, CropBox, JitterStep, View, ViewKey, ViewParams, ViewRecipe};
