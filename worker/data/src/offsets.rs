//! Where the samples of a shard lie, in a file beside it: they are found without walking the tar.
//!
//! ```text
//! shard-000000.offsets    b"lockstep offsets"
//!                         offset u64 · length u32 · label u32 · check u64   per sample, little-endian
//! ```
//!
//! The manifest has its checksum. Reading single samples of a shard that lies far away takes this file; a
//! shard without one is walked. The check of a sample is a [`ByteCheck`] of its image.

use std::path::Path;

use crate::error::DataError;
use crate::files::ByteCheck;
use crate::manifest::{ShardEntry, write_atomically};
use crate::sample::Label;
use crate::shard::Member;

const MAGIC: &[u8; 16] = b"lockstep offsets";
const RECORD: usize = 24;

/// Name of the offsets of the shard in `file`.
pub(crate) fn name(file: &str) -> String {
    format!("{}.offsets", file.strip_suffix(".tar").unwrap_or(file))
}

/// Writes the offsets beside a shard, whole or not at all; gives their checksum.
pub(crate) fn store(folder: &Path, file: &str, members: &[Member]) -> Result<String, DataError> {
    let mut text = MAGIC.to_vec();
    for Member { offset, bytes, label, check } in members {
        text.extend(offset.to_le_bytes());
        text.extend(bytes.to_le_bytes());
        text.extend(label.0.to_le_bytes());
        text.extend(check.map_or(0, |check| check.0).to_le_bytes());
    }
    write_atomically(folder, &name(file), &text)?;
    Ok(blake3::hash(&text).to_hex().to_string())
}

/// Reads the offsets of a shard with this entry, whose checksum of them is `checksum`.
///
/// # Errors
///
/// What is wrong with them, as the rest of a sentence.
pub(crate) fn parse(
    text: &[u8],
    entry: &ShardEntry,
    checksum: &str,
    classes: usize,
) -> Result<Vec<Member>, String> {
    if blake3::hash(text).to_hex().as_str() != checksum {
        return Err("has other bytes than the manifest says".to_owned());
    }
    let records = text.strip_prefix(MAGIC).ok_or("is no file of offsets")?;
    let (records, []) = records.as_chunks::<RECORD>() else {
        return Err("ends in the middle of a sample".to_owned());
    };
    records.iter().map(|record| member(record, entry.bytes, classes)).collect()
}

fn member(record: &[u8; RECORD], end: u64, classes: usize) -> Result<Member, String> {
    let ([offset, rest @ ..], []) = record.as_chunks::<8>() else {
        unreachable!("24 bytes are three times eight")
    };
    let (sizes, check) = (rest[0], rest[1]);
    let ([bytes, label], []) = sizes.as_chunks::<4>() else {
        unreachable!("eight bytes are twice four")
    };
    let (offset, bytes) = (u64::from_le_bytes(*offset), u32::from_le_bytes(*bytes));
    let label = u32::from_le_bytes(*label);
    if offset.checked_add(bytes.into()).is_none_or(|last| last > end) {
        return Err(format!("places a sample at byte {offset} of {end}"));
    }
    if label as usize >= classes {
        return Err(format!("gives a sample the label {label}, but there are {classes} classes"));
    }
    let check = Some(ByteCheck(u64::from_le_bytes(check)));
    Ok(Member { offset, bytes, label: Label(label), check })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> ShardEntry {
        ShardEntry {
            file: "shard-000000.tar".to_owned(),
            samples: 2,
            bytes: 10_000,
            checksum: String::new(),
            offsets: None,
        }
    }

    fn members() -> Vec<Member> {
        [(512, 700, 3), (2_048, 7_000, 0)]
            .map(|(offset, bytes, label)| Member {
                offset,
                bytes,
                label: Label(label),
                check: Some(ByteCheck(offset * 77)),
            })
            .to_vec()
    }

    #[test]
    fn stored_offsets_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let checksum = store(folder.path(), "shard-000000.tar", &members()).unwrap();
        let text = std::fs::read(folder.path().join("shard-000000.offsets")).unwrap();
        assert_eq!(parse(&text, &entry(), &checksum, 4).unwrap(), members());
        let beyond = parse(&text, &ShardEntry { bytes: 9_000, ..entry() }, &checksum, 4);
        assert_eq!(beyond.unwrap_err(), "places a sample at byte 2048 of 9000");
        let label = parse(&text, &entry(), &checksum, 3).unwrap_err();
        assert_eq!(label, "gives a sample the label 3, but there are 3 classes");
        let cut = parse(&text[1..], &entry(), &checksum, 4).unwrap_err();
        assert_eq!(cut, "has other bytes than the manifest says");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_point_outside(
            mut text in prop::collection::vec(any::<u8>(), 0..200),
            begin: bool,
        ) {
            if begin {
                text.splice(..text.len().min(16), *MAGIC);
            }
            let checksum = blake3::hash(&text).to_hex().to_string();
            for member in parse(&text, &entry(), &checksum, 10).unwrap_or_default() {
                prop_assert!(member.offset + u64::from(member.bytes) <= 10_000);
            }
        }
    }
}
