//! Writing one shard: tar members in WebDataset naming, with the same bytes every time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::manifest::ShardEntry;
use crate::sample::{Label, SampleId};

/// A shard that is being written.
pub(crate) struct ShardWriter {
    path: PathBuf,
    tar: tar::Builder<Counted>,
    samples: u64,
}

impl ShardWriter {
    pub(crate) fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = File::create(&path).map_err(DataError::io("create", &path))?;
        let output =
            Counted { file: BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0 };
        Ok(Self { path, tar: tar::Builder::new(output), samples: 0 })
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Appends an image, as it is, and its label. The key is the sample's number.
    pub(crate) fn append(
        &mut self,
        id: SampleId,
        image: &[u8],
        label: Label,
    ) -> Result<(), DataError> {
        let key = format!("{:09}", id.0);
        let ending = if image.starts_with(b"\x89PNG") { "png" } else { "jpg" };
        self.append_member(&format!("{key}.{ending}"), image)?;
        self.append_member(&format!("{key}.cls"), label.0.to_string().as_bytes())?;
        self.samples += 1;
        Ok(())
    }

    /// Ends the tar, brings it to the disk, moves it to its place and describes it.
    pub(crate) fn finish(self, place: &Path) -> Result<ShardEntry, DataError> {
        let Self { path, tar, samples } = self;
        let end = || {
            let Counted { file, hasher, bytes } = tar.into_inner()?;
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok((hasher, bytes))
        };
        let (hasher, bytes) = end().map_err(DataError::io("write", &path))?;
        std::fs::rename(&path, place).map_err(DataError::io("create", place))?;
        Ok(ShardEntry {
            file: file_name(place),
            samples,
            bytes,
            checksum: hasher.finalize().to_hex().to_string(),
        })
    }

    fn append_member(&mut self, name: &str, content: &[u8]) -> Result<(), DataError> {
        // No times, no owners: the same images give the same bytes.
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        self.tar.append_data(&mut header, name, content).map_err(DataError::io("write", &self.path))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file that hashes and counts what passes.
struct Counted {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_with_the_name_of_the_shard() {
        let mut shard = ShardWriter::create(PathBuf::from("/dev/full")).unwrap();
        let result = shard.append(SampleId(0), &vec![0xFF; 100_000], Label(0));
        let error = result.and_then(|()| shard.finish(Path::new("none")).map(drop)).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /dev/full");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space left on device"), "{source}");
    }
}
