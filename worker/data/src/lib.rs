//! Images on disk to two augmented views in memory, in an order that is a formula.
//!
//! ```text
//!  sources, pack   folder, IDX, CIFAR, tar of tars ──▶ shard-*.tar + shard-*.offsets + manifest.json
//!  index           tars that are there already ──▶ *.offsets + manifest.json
//!  verify          the shards, byte for byte and image for image
//!
//!  order           (cursor, lane, slot) ──▶ sample id             pure
//!  files           where shards lie: a folder here, object stores in lockstep-store
//!  shard, dataset  sample id ──▶ stored bytes + label             positional reads
//!  cache           sample id ──▶ coefficients of a JPEG that was decoded before
//!  decode          bytes ──▶ 8-bit planes, at least where a view needs them
//!  view            (sides, key) ──▶ parameters                    pure
//!  augment         (planes, parameters) ──▶ f32 view              pure, by resize, color, blur, finish
//!  loader, eval    all of that, by threads, in batches
//! ```
//!
//! Everything random is drawn from [`keyed`], by address and never from a
//! state, so that a batch does not depend on threads, ranks or restarts.
//! The crate sees no tensor library, no network and no async runtime.

mod aligned;
mod augment;
mod blur;
mod cache;
mod color;
mod dataset;
mod decode;
mod encode;
mod error;
mod eval;
mod files;
mod finish;
mod index;
pub mod keyed;
mod loader;
mod manifest;
mod offsets;
mod order;
mod pack;
mod parallel;
mod planes;
mod resize;
mod rgb;
mod sample;
mod shard;
mod shard_writer;
mod sources;
mod tar_files;
mod verify;
mod view;
mod weights;

pub use augment::Augmenter;
pub use cache::{CacheConfig, CacheEvent};
pub use dataset::Dataset;
pub use decode::{Decoder, OpenImage};
pub use error::{DataError, Verdict};
pub use eval::{EvalBatch, EvalBatches, EvalConfig, eval_batches, eval_view};
pub use files::{ByteCheck, DataFiles, Folder, ShardBytes};
pub use index::{IndexConfig, IndexProgress, index_shards};
pub use loader::{LoadedBatch, Loader, LoaderConfig, Replacement, StageTimes, Stopper};
pub use lockstep_jpeg::{Colour, PlanarImage, Plane};
pub use manifest::{Manifest, ShardEntry};
pub use order::{EpochOrder, Order, OrderConfig};
pub use pack::{OddAction, OddFile, OddRule, PackConfig, PackProgress, PackReport, pack};
pub use rgb::{RgbImage, to_rgb};
pub use sample::{Label, SampleAddress, SampleId};
pub use sources::{SourceKind, SourceOptions, Split};
pub use verify::{ShardFault, VerifyProgress, VerifyReport, verify_shards};
pub use view::{CropBox, JitterForm, JitterStep, View, ViewKey, ViewParams, ViewRecipe};
