//! Where images to pack come from: a folder per class, or IDX files of the MNIST family.
//!
//! Both become the same list: class names, and items that can be loaded one at
//! a time in any order. Listing is sorted, so the same input gives the same list.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::idx;
use crate::sample::Label;

const IMAGE_ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Which half of a data set of the MNIST family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// `train-images-…`
    Train,
    /// `t10k-images-…`
    Test,
}

/// What there is to pack.
#[derive(Debug)]
pub(crate) struct Source {
    /// Class names in label order.
    pub(crate) classes: Vec<String>,
    /// Images, sorted.
    pub(crate) items: Vec<Item>,
    /// Files that are no images by name or place, and why.
    pub(crate) ignored: Vec<(PathBuf, &'static str)>,
    input: PathBuf,
    idx: Option<idx::Images>,
}

/// One image that is not loaded yet.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) label: Label,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A file of its own.
    File(PathBuf),
    /// The n-th image of the IDX file.
    Idx(usize),
}

impl Source {
    /// Lists what is in `input`. The split is for IDX files; train if not given.
    pub(crate) fn find(input: &Path, split: Option<Split>) -> Result<Self, DataError> {
        if let Some(images) = idx::Images::find(input, split.unwrap_or(Split::Train))? {
            return Ok(Self::from_idx(input, images));
        }
        if split.is_some() {
            let problem = format!(
                "was given, but {} holds no IDX files; name the folder of one split instead",
                input.display()
            );
            return Err(DataError::setting("split", problem));
        }
        Self::from_class_folders(input)
    }

    /// Replaces `bytes` with the JPEG or PNG of an item.
    ///
    /// # Errors
    ///
    /// Why it cannot be had, as the rest of a sentence.
    pub(crate) fn load(&self, item: &Item, bytes: &mut Vec<u8>) -> Result<(), String> {
        bytes.clear();
        match (&item.place, &self.idx) {
            (Place::File(path), _) => {
                let mut file = std::fs::File::open(path)
                    .map_err(|error| format!("cannot be opened: {error}"))?;
                file.read_to_end(bytes).map_err(|error| format!("cannot be read: {error}"))?;
            }
            (Place::Idx(index), Some(images)) => images.encode_png(*index, bytes),
            (Place::Idx(_), None) => unreachable!("IDX items come with their images"),
        }
        Ok(())
    }

    /// Names an item for the report.
    pub(crate) fn origin(&self, item: &Item) -> String {
        match &item.place {
            Place::File(path) => path.display().to_string(),
            Place::Idx(index) => format!("{}#{index}", self.input.display()),
        }
    }

    /// Where a class comes from.
    pub(crate) fn class_folder(&self, class: usize) -> PathBuf {
        self.input.join(&self.classes[class])
    }

    fn from_idx(input: &Path, images: idx::Images) -> Self {
        let labels = images.labels();
        let classes = labels.iter().max().map_or(0, |last| u32::from(*last) + 1);
        let items = labels.iter().enumerate().map(|(index, label)| Item {
            label: Label(u32::from(*label)),
            place: Place::Idx(index),
        });
        Self {
            classes: (0..classes).map(|class| class.to_string()).collect(),
            items: items.collect(),
            ignored: Vec::new(),
            input: input.to_owned(),
            idx: Some(images),
        }
    }

    fn from_class_folders(input: &Path) -> Result<Self, DataError> {
        let mut source = Self {
            classes: Vec::new(),
            items: Vec::new(),
            ignored: Vec::new(),
            input: input.to_owned(),
            idx: None,
        };
        for path in sorted_entries(input)? {
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let label = u32::try_from(source.classes.len()).expect("far fewer folders");
                source.classes.push(name);
                source.add_folder(&path, Label(label))?;
            } else {
                source.ignored.push((path, "is not in a class folder"));
            }
        }
        if source.classes.is_empty() {
            return Err(DataError::NoImages { path: input.to_owned() });
        }
        Ok(source)
    }

    /// Adds the images of a class, those in subfolders too, as torchvision's `ImageFolder` does.
    fn add_folder(&mut self, folder: &Path, label: Label) -> Result<(), DataError> {
        for path in sorted_entries(folder)? {
            if path.is_dir() && !path.is_symlink() {
                self.add_folder(&path, label)?;
            } else if is_image_name(&path) {
                self.items.push(Item { label, place: Place::File(path) });
            } else {
                self.ignored.push((path, "is not named .jpg, .jpeg or .png"));
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

fn is_image_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| {
        IMAGE_ENDINGS.iter().any(|image_ending| ending.eq_ignore_ascii_case(image_ending))
    })
}
