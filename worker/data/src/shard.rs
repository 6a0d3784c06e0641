//! One shard: a tar file in WebDataset naming, and where its samples lie in it.
//!
//! Members `KEY.jpg` (or `.png`) and `KEY.cls` next to each other are a sample;
//! KEY ends at the first dot after the last slash, as WebDataset cuts it.
//! Members with other endings are left alone, so that shards may carry more.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::DataError;
use crate::files::{ByteCheck, DataFiles, ShardBytes};
use crate::manifest::ShardEntry;
use crate::offsets;
use crate::sample::Label;
use crate::tar_files;

/// Longest text a `.cls` member may hold; a label has ten digits at most.
const MAX_LABEL_BYTES: u64 = 16;
/// Bytes that are read at once for a checksum.
const CHUNK: u64 = 1 << 20;

/// A shard. Reads are positional, so threads share it.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    bytes: Box<dyn ShardBytes>,
    members: OnceLock<Vec<Member>>,
}

/// Where one sample lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) label: Label,
    /// Known where it was computed when the shard was described.
    pub(crate) check: Option<ByteCheck>,
}

impl Shard {
    /// A shard that is indexed when its first sample is read.
    pub(crate) fn open(files: &dyn DataFiles, entry: &ShardEntry) -> Result<Self, DataError> {
        let bytes = files.shard(entry)?;
        Ok(Self { path: files.place(&entry.file), bytes, members: OnceLock::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its samples lie: as its offsets say, or as found in the tar. The length of the list is the manifest's.
    pub(crate) fn members(
        &self,
        files: &dyn DataFiles,
        entry: &ShardEntry,
        classes: usize,
    ) -> Result<&[Member], DataError> {
        if let Some(members) = self.members.get() {
            return Ok(members);
        }
        let (path, members) = match &entry.offsets {
            Some(checksum) => {
                let name = offsets::name(&entry.file);
                let text = files.read(&name, checksum)?;
                (files.place(&name), offsets::parse(&text, entry, checksum, classes))
            }
            None => (self.path.clone(), self.walk(entry, classes)?),
        };
        let members = members.and_then(|members| match members.len() as u64 {
            found if found == entry.samples => Ok(members),
            found => Err(format!("holds {found} samples, the manifest says {}", entry.samples)),
        });
        let members = members.map_err(|problem| DataError::BadShard { path, problem })?;
        // Threads that meet here have found the same.
        Ok(self.members.get_or_init(|| members))
    }

    /// The samples as found in the tar itself; what is wrong with it, as the rest of a sentence.
    pub(crate) fn walk(
        &self,
        entry: &ShardEntry,
        classes: usize,
    ) -> Result<Result<Vec<Member>, String>, DataError> {
        let mut reader = Reader { bytes: &*self.bytes, at: 0, end: entry.bytes, failed: None };
        let members = index(&mut reader, entry.bytes, classes);
        reader.failed.map_or(Ok(members), Err)
    }

    /// Replaces `buffer` with the stored bytes of a sample.
    pub(crate) fn read(&self, member: Member, buffer: &mut Vec<u8>) -> Result<Label, DataError> {
        let Member { offset, bytes, label, check } = member;
        buffer.resize(bytes as usize, 0);
        self.bytes.read_exact_at(buffer, offset, check)?;
        Ok(label)
    }

    /// As [`ShardBytes::wait`].
    pub(crate) fn wait(&self, at_most: Duration) -> Result<bool, DataError> {
        self.bytes.wait(at_most)
    }

    /// BLAKE3 of the whole shard, as the manifest writes it.
    pub(crate) fn checksum(&self, entry: &ShardEntry) -> Result<String, DataError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::new();
        for start in (0..entry.bytes).step_by(usize::try_from(CHUNK).expect("a MiB")) {
            let bytes = CHUNK.min(entry.bytes - start);
            buffer.resize(usize::try_from(bytes).expect("at most a MiB"), 0);
            self.bytes.read_exact_at(&mut buffer, start, None)?;
            hasher.update(&buffer);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// A shard as a stream, for the walk through its headers.
struct Reader<'a> {
    bytes: &'a dyn ShardBytes,
    at: u64,
    end: u64,
    /// Why reading failed: of more kinds than the walk's errors have.
    failed: Option<DataError>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let (buffer, _) = buffer.split_at_mut(left.min(buffer.len()));
        self.bytes.read_exact_at(buffer, self.at, None).map_err(|error| {
            let text = error.to_string();
            self.failed = Some(error);
            std::io::Error::other(text)
        })?;
        self.at += buffer.len() as u64;
        Ok(buffer.len())
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Describes a tar that is there, as a manifest lists it, and writes its offsets beside it; also gives how many
/// classes its labels need.
///
/// # Errors
///
/// If it is not a shard of `classes` at most.
pub(crate) fn describe(path: &Path, classes: usize) -> Result<(ShardEntry, u32), DataError> {
    let bad = |problem| DataError::BadSource { path: path.to_owned(), problem };
    let read = || DataError::io("read", path);
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    let bytes = file.metadata().map_err(DataError::io("inspect", path))?.len();
    let mut members = index(&mut file, bytes, classes).map_err(bad)?;
    let Some(last) = members.iter().map(|member| member.label.0).max() else {
        return Err(bad("holds no samples, that is .jpg, .jpeg or .png with .cls".to_owned()));
    };
    let mut image = Vec::new();
    for member in &mut members {
        image.resize(member.bytes as usize, 0);
        file.read_exact_at(&mut image, member.offset).map_err(read())?;
        member.check = Some(ByteCheck::of(&image));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let offsets = offsets::store(folder.unwrap_or(Path::new(".")), &name, &members)?;
    let mut hasher = blake3::Hasher::new();
    file.rewind().and_then(|()| hasher.update_reader(&file).map(drop)).map_err(read())?;
    let entry = ShardEntry {
        file: name,
        samples: members.len() as u64,
        bytes,
        checksum: hasher.finalize().to_hex().to_string(),
        offsets: Some(offsets),
    };
    Ok((entry, last + 1))
}

/// Finds the samples of a tar file of `total` bytes, in their order.
pub(crate) fn index<R: Read + Seek>(
    mut tar: R,
    total: u64,
    classes: usize,
) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    let mut open = Group::default();
    tar_files::for_each_file(&mut tar, 0..total, |tar, name, place| {
        let (key, ending) = split_name(name);
        if key != open.key {
            members.extend(std::mem::take(&mut open).close(classes)?);
            key.clone_into(&mut open.key);
        }
        match ending.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "png" => {
                let bytes = u32::try_from(place.end - place.start)
                    .map_err(|_| format!("is too large at {name}"))?;
                open.image = Some((place.start, bytes));
            }
            "cls" => open.label = Some(label(tar, name, place)?),
            _ => {}
        }
        Ok(())
    })?;
    members.extend(open.close(classes)?);
    Ok(members)
}

fn label<R: Read + Seek>(tar: &mut R, name: &str, place: Range<u64>) -> Result<u32, String> {
    let mut text = String::new();
    tar.seek(SeekFrom::Start(place.start))
        .and_then(|_| {
            tar.take(MAX_LABEL_BYTES.min(place.end - place.start)).read_to_string(&mut text)
        })
        .map_err(|error| format!("holds an unreadable {name}: {error}"))?;
    text.trim().parse().map_err(|_| format!("holds {text:?} in {name}, not a label"))
}

/// The members of one key met so far.
#[derive(Default)]
struct Group {
    key: String,
    image: Option<(u64, u32)>,
    label: Option<u32>,
}

impl Group {
    fn close(self, classes: usize) -> Result<Option<Member>, String> {
        let Self { key, image, label } = self;
        match (image, label) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("has no label (.cls) for {key}")),
            (None, Some(_)) => Err(format!("has no image (.jpg, .png) for {key}")),
            (Some(_), Some(label)) if label as usize >= classes => {
                Err(format!("gives {key} the label {label}, but there are {classes} classes"))
            }
            (Some((offset, bytes)), Some(label)) => {
                Ok(Some(Member { offset, bytes, label: Label(label), check: None }))
            }
        }
    }
}

/// Cuts a member name into key and ending, as WebDataset does.
fn split_name(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let (_, base) = name.split_at(file);
    match base.find('.') {
        Some(dot) => {
            let (key, rest) = name.split_at(file + dot);
            (key, rest.trim_start_matches('.'))
        }
        None => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::tar_files::tests::tar_of;

    fn index_of(tar: &[u8]) -> Result<Vec<Member>, String> {
        index(Cursor::new(tar), tar.len() as u64, 10)
    }

    #[test]
    fn samples_are_found_with_their_labels_in_order() {
        let tar = tar_of(&[
            ("a/x.y/000.jpg", "first image"),
            ("a/x.y/000.cls", "3"),
            ("a/x.y/000.json", "{}"),
            ("a/x.y/001.cls", "7\n"),
            ("a/x.y/001.PNG", "second"),
        ]);
        let members = index_of(&tar).unwrap();
        let read = |m: Member| &tar[usize::try_from(m.offset).unwrap()..][..m.bytes as usize];
        assert_eq!(members.iter().map(|m| m.label.0).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(read(members[0]), b"first image");
        assert_eq!(read(members[1]), b"second");
    }

    #[test]
    fn a_sample_without_its_half_is_named() {
        let no_label = index_of(&tar_of(&[("000.jpg", "x"), ("001.jpg", "y"), ("001.cls", "1")]));
        assert_eq!(no_label.unwrap_err(), "has no label (.cls) for 000");
        let no_image = index_of(&tar_of(&[("000.jpg", "x"), ("000.cls", "1"), ("001.cls", "1")]));
        assert_eq!(no_image.unwrap_err(), "has no image (.jpg, .png) for 001");
    }

    #[test]
    fn a_label_that_is_no_class_is_named() {
        let beyond = index_of(&tar_of(&[("000.jpg", "x"), ("000.cls", "10")])).unwrap_err();
        assert_eq!(beyond, "gives 000 the label 10, but there are 10 classes");
        let word = index_of(&tar_of(&[("000.jpg", "x"), ("000.cls", "cat")])).unwrap_err();
        assert_eq!(word, "holds \"cat\" in 000.cls, not a label");
    }

    #[test]
    fn a_shard_that_ends_early_is_refused() {
        let long = "x".repeat(2_000);
        let tar = tar_of(&[("000.cls", "1"), ("000.jpg", long.as_str())]);
        for end in 1..tar.len() - 1_024 {
            let found = index_of(&tar[..end]);
            let lost = found.as_ref().is_err() || found.as_ref().is_ok_and(|m| m.len() < 2);
            assert!(lost, "cut at {end}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _members = index_of(&bytes);
        }

        #[test]
        fn no_damage_makes_the_reader_panic_or_point_outside(
            at: prop::sample::Index,
            damage in prop::collection::vec(any::<u8>(), 1..30),
        ) {
            let mut tar = tar_of(&[("000.jpg", "image"), ("000.cls", "1"), ("001.cls", "2")]);
            let at = at.index(tar.len() - damage.len());
            tar[at..at + damage.len()].copy_from_slice(&damage);
            for member in index_of(&tar).unwrap_or_default() {
                prop_assert!(member.offset + u64::from(member.bytes) <= tar.len() as u64);
            }
        }
    }
}
