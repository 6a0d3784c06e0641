//! Data sets in object stores: S3, Google Cloud Storage, Azure, and any server that speaks HTTP.
//!
//! ```text
//!  place        URL + environment ──▶ object_store client + prefix; credentials stay in there
//!  fetch        bytes of one object: retries with keyed jitter, going on where a broken body ended
//!  cache        a bounded folder of whole shards, shared by the processes of a host
//!  downloads    which shards are fetched next, in the background
//!  files        lockstep-data's `DataFiles` over all of that: whole shards, or single samples
//! ```
//!
//! Readers block on threads of their own; futures live on a small private runtime and never leave this
//! crate. What is read never depends on timing: a shard is used only if its checksum is the manifest's, a
//! single sample only if its check is that of the offsets.

mod cache;
mod downloads;
mod fault;
mod fetch;
mod files;
mod place;
mod secrets;
#[cfg(test)]
mod tests;

pub use files::{Reads, StoreConfig, StoreFiles};
pub use place::is_url;
