//! The files in a tar, found by their headers alone: nothing that lies between is read.
//!
//! Knows plain, GNU and pax names. A tar in a tar is a range of the outer file, so it is walked in
//! place. Whatever the bytes, a walk ends: it moves forward by a block at least, and memory is taken for
//! one long name at most.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

const BLOCK: u64 = 512;
/// Longest extended header, which holds a name and little else.
const MAX_EXTENSION: u64 = 1 << 16;

/// Calls `visit` with the name and the place of every regular file of the tar in `range` of `reader`.
///
/// # Errors
///
/// What is wrong with the tar, or what `visit` fails with, as the rest of a sentence.
pub(crate) fn for_each_file<R: Read + Seek>(
    reader: &mut R,
    range: Range<u64>,
    mut visit: impl FnMut(&mut R, &str, Range<u64>) -> Result<(), String>,
) -> Result<(), String> {
    let mut at = range.start;
    let mut extended = Extended::default();
    while let Some(header) = header_at(reader, at, range.end)? {
        let start = at + BLOCK;
        let kind = header.entry_type();
        let size = match extended.size {
            Some(size) if !is_extension(kind) => size,
            _ => header.entry_size().map_err(|_| broken(at, "a member of no size"))?,
        };
        let end = start.checked_add(size).filter(|end| *end <= range.end);
        let name = extended.name.as_deref().map_or_else(|| header.path_bytes(), Into::into);
        let name = String::from_utf8_lossy(&name).into_owned();
        let end = end.ok_or_else(|| format!("ends in the middle of {name}"))?;
        if is_extension(kind) {
            extended.read(reader, kind, start..end)?;
        } else {
            if kind.is_gnu_sparse() {
                return Err(format!("holds {name} as a sparse file, which is not supported"));
            }
            if kind.is_file() {
                visit(reader, &name, start..end)?;
            }
            extended = Extended::default();
        }
        at = start + size.next_multiple_of(BLOCK);
    }
    Ok(())
}

/// The header of the member at `at`; `None` behind the last one.
fn header_at<R: Read + Seek>(
    reader: &mut R,
    at: u64,
    end: u64,
) -> Result<Option<tar::Header>, String> {
    // The last member may lack its padding: some writers leave it out.
    if at >= end {
        return Ok(None);
    }
    if end - at < BLOCK {
        return Err(broken(at, "half a header"));
    }
    let mut header = tar::Header::new_old();
    read_at(reader, at, header.as_mut_bytes())?;
    let bytes = header.as_bytes();
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (before, after) = (&bytes[..148], &bytes[156..]);
    let sum: u32 = before.iter().chain(after).map(|byte| u32::from(*byte)).sum();
    // The field itself counts as eight spaces.
    if header.cksum().ok() != Some(sum + 8 * u32::from(b' ')) {
        return Err(broken(at, "no header of a member"));
    }
    Ok(Some(header))
}

/// What headers before that of a member say about it.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    fn read<R: Read + Seek>(
        &mut self,
        reader: &mut R,
        kind: tar::EntryType,
        place: Range<u64>,
    ) -> Result<(), String> {
        let bytes = place.end - place.start;
        if bytes > MAX_EXTENSION {
            return Err(broken(place.start, "an extended header of more than 65,536 bytes"));
        }
        let mut text = vec![0; usize::try_from(bytes).expect("at most 65,536")];
        read_at(reader, place.start, &mut text)?;
        if kind.is_gnu_longname() {
            text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
            self.name = Some(text);
        } else if kind.is_pax_local_extensions() {
            for record in tar::PaxExtensions::new(&text) {
                let record = record.map_err(|_| broken(place.start, "a bad extended header"))?;
                match record.key_bytes() {
                    b"path" => self.name = Some(record.value_bytes().to_owned()),
                    b"size" => self.size = record.value().ok().and_then(|size| size.parse().ok()),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn is_extension(kind: tar::EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

fn read_at<R: Read + Seek>(reader: &mut R, at: u64, bytes: &mut [u8]) -> Result<(), String> {
    reader
        .seek(SeekFrom::Start(at))
        .and_then(|_| reader.read_exact(bytes))
        .map_err(|error| format!("cannot be read at byte {at}: {error}"))
}

fn broken(at: u64, what: &str) -> String {
    format!("is not a readable tar file: there is {what} at byte {at}")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A tar of these files.
    pub(crate) fn tar_of<C: AsRef<[u8]>>(members: &[(&str, C)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let content = content.as_ref();
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn walk(bytes: &[u8], range: Range<u64>) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut found = Vec::new();
        for_each_file(&mut Cursor::new(bytes), range, |reader, name, place| {
            let mut content = vec![0; usize::try_from(place.end - place.start).unwrap()];
            read_at(reader, place.start, &mut content)?;
            found.push((name.to_owned(), content));
            Ok(())
        })?;
        Ok(found)
    }

    fn whole(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        walk(bytes, 0..bytes.len() as u64)
    }

    #[test]
    fn files_of_a_tar_in_a_tar_are_found_in_place() {
        let long = format!("{}/b.jpg", "folder/".repeat(40));
        let inner = tar_of(&[("a.jpg", "first"), (long.as_str(), "second"), ("c.jpg", "")]);
        let outer = tar_of(&[("n01.tar", &inner), ("n02.tar", &inner)]);
        let found = whole(&outer).unwrap();
        assert_eq!(found, [("n01.tar".to_owned(), inner.clone()), ("n02.tar".to_owned(), inner)]);
        let start = 512 + found[0].1.len() as u64 + 512;
        let expected = [("a.jpg", "first"), (long.as_str(), "second"), ("c.jpg", "")]
            .map(|(name, content)| (name.to_owned(), content.as_bytes().to_owned()));
        assert_eq!(walk(&outer, start..start + found[1].1.len() as u64).unwrap(), expected);
    }

    #[test]
    fn names_and_sizes_of_pax_headers_count() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", b"pax.jpg".as_slice())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        builder.append_data(&mut header, "short.jpg", &b"ab"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        assert_eq!(whole(&tar).unwrap(), [("pax.jpg".to_owned(), b"ab".to_vec())]);
    }

    #[test]
    fn what_is_no_tar_is_said_with_its_place() {
        let mut tar = tar_of(&[("a", "x"), ("b", "y")]);
        tar[1_030] ^= 1;
        let error = whole(&tar).unwrap_err();
        assert_eq!(
            error,
            "is not a readable tar file: there is no header of a member at byte 1024"
        );
        assert!(whole(b"hello").unwrap_err().contains("half a header at byte 0"));
        let long = "x".repeat(70_000);
        let tar = tar_of(&[(long.as_str(), "x")]);
        assert!(whole(&tar).unwrap_err().contains("more than 65,536 bytes"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            drop(whole(&bytes));
        }

        #[test]
        fn no_damage_makes_the_walk_panic_or_leave_its_range(
            at: prop::sample::Index,
            damage in prop::collection::vec(any::<u8>(), 1..30),
            mend: bool,
        ) {
            let long = "folder/".repeat(40);
            let mut tar = tar_of(&[("0.jpg", "image"), (long.as_str(), "1"), ("1.cls", "2")]);
            let at = at.index(tar.len() - damage.len());
            tar[at..at + damage.len()].copy_from_slice(&damage);
            if mend {
                // A wrong checksum would hide the rest from this test.
                let block = at / 512 * 512;
                let header = &mut tar[block..block + 512];
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            drop(whole(&tar));
        }

        #[test]
        fn a_member_that_claims_any_size_ends_the_walk(size: u64) {
            let mut header = tar::Header::new_gnu();
            header.set_path("a.jpg").unwrap();
            header.set_size(size);
            header.set_cksum();
            drop(whole(header.as_bytes()));
        }
    }
}
