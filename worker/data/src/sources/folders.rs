//! A folder with a folder of images per class.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Images, MAX_IMAGE_BYTES, NO_IMAGE_NAME, Source, check_image_bytes, is_image_name};
use crate::error::DataError;
use crate::sample::Label;

/// Files of their own.
#[derive(Debug, Default)]
struct Files(Vec<PathBuf>);

impl Images for Files {
    fn name(&self, index: usize) -> String {
        self.0[index].display().to_string()
    }

    fn load(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
        bytes.clear();
        let mut file = std::fs::File::open(&self.0[index])
            .map_err(|error| format!("cannot be opened: {error}"))?
            .take(MAX_IMAGE_BYTES + 1);
        let read = file.read_to_end(bytes).map_err(|error| format!("cannot be read: {error}"))?;
        check_image_bytes(read as u64)
    }

    fn files(&self) -> Vec<&Path> {
        self.0.iter().map(PathBuf::as_path).collect()
    }
}

/// Lists the classes of `input`, by name.
pub(super) fn list(input: &Path) -> Result<Source, DataError> {
    let mut listing = Listing::default();
    let mut classes = Vec::new();
    for path in sorted_entries(input)? {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let label = u32::try_from(classes.len()).expect("far fewer folders");
            classes.push(name);
            listing.add_folder(&path, Label(label))?;
        } else {
            listing.ignored.push((path.display().to_string(), "is not in a class folder"));
        }
    }
    if classes.is_empty() {
        return Err(DataError::NoImages { path: input.to_owned() });
    }
    let Listing { labels, files, ignored } = listing;
    Ok(Source { classes, labels, images: Box::new(files), ignored })
}

#[derive(Default)]
struct Listing {
    labels: Vec<Label>,
    files: Files,
    ignored: Vec<(String, &'static str)>,
}

impl Listing {
    /// Adds the images of a class, those in subfolders too, as torchvision's `ImageFolder` does.
    fn add_folder(&mut self, folder: &Path, label: Label) -> Result<(), DataError> {
        for path in sorted_entries(folder)? {
            if path.is_dir() && !path.is_symlink() {
                self.add_folder(&path, label)?;
            } else if is_image_name(&path) {
                self.labels.push(label);
                self.files.0.push(path);
            } else {
                self.ignored.push((path.display().to_string(), NO_IMAGE_NAME));
            }
        }
        Ok(())
    }
}

/// Entries of a folder by name; hidden ones are the system's, not the user's.
fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let listed = std::fs::read_dir(folder).map_err(DataError::io("list folder", folder))?;
    let mut paths = Vec::new();
    for entry in listed {
        let entry = entry.map_err(DataError::io("list folder", folder))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
