//! Writing one shard: tar members in WebDataset naming, with the same bytes every time.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::manifest::ShardEntry;
use crate::sample::{Label, SampleId};
use crate::shard;

/// A shard that is being written.
pub(crate) struct ShardWriter {
    path: PathBuf,
    tar: tar::Builder<BufWriter<File>>,
    samples: u64,
}

impl ShardWriter {
    pub(crate) fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = File::create(&path).map_err(DataError::io("create", &path))?;
        Ok(Self { path, tar: tar::Builder::new(BufWriter::new(file)), samples: 0 })
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

    /// Ends the tar, brings it to the disk, moves it to its place and describes it from there.
    pub(crate) fn finish(self, place: &Path) -> Result<ShardEntry, DataError> {
        let Self { path, tar, samples: _ } = self;
        let end = || {
            let file = tar.into_inner()?.into_inner();
            file.map_err(std::io::IntoInnerError::into_error)?.sync_all()
        };
        end().map_err(DataError::io("write", &path))?;
        std::fs::rename(&path, place).map_err(DataError::io("create", place))?;
        shard::describe(place, usize::MAX).map(|(entry, _)| entry)
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
