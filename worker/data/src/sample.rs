//! Names of samples: by number in the whole set, or by place in a shard.

use serde::{Deserialize, Serialize};

/// Number of a sample in manifest order: the shards laid end to end, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SampleId(pub u64);

/// Index into the class names of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label(pub u32);

/// Where a sample lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleAddress {
    /// Index of the shard in the manifest.
    pub shard: usize,
    /// Index of the sample in that shard.
    pub index: u64,
}
