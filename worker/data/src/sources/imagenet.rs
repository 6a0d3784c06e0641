//! The two tars of ILSVRC2012 as they are distributed, read in place.
//!
//! ```text
//! ILSVRC2012_img_train.tar   n01440764.tar, n01443537.tar, …    each a tar of n01440764_10026.JPEG, …
//! ILSVRC2012_img_val.tar     ILSVRC2012_val_00000001.JPEG, …    classes in a file of their own
//! ```

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ground_truth::GroundTruth;
use super::{
    Images, NO_IMAGE_NAME, Source, SourceKind, bad, check_image_bytes, is_image_name, open,
};
use crate::error::DataError;
use crate::sample::Label;
use crate::tar_files::for_each_file;

/// Images at known places of one tar.
#[derive(Debug)]
struct TarImages {
    path: PathBuf,
    file: File,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: Box<str>,
    place: Range<u64>,
}

impl Images for TarImages {
    fn name(&self, index: usize) -> String {
        self.members[index].name.to_string()
    }

    fn load(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
        let place = &self.members[index].place;
        let length = place.end - place.start;
        check_image_bytes(length)?;
        bytes.resize(usize::try_from(length).expect("checked"), 0);
        self.file
            .read_exact_at(bytes, place.start)
            .map_err(|error| format!("cannot be read: {error}"))
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

/// Which of the two `input` is, by its first member.
pub(super) fn detect(input: &Path) -> Result<SourceKind, DataError> {
    let (mut file, range) = open_whole(input)?;
    let mut first = None;
    let walked = for_each_file(&mut file, range, |_, name, _| {
        first = Some(name.to_owned());
        Err(String::new())
    });
    let expected = "expected ImageNet's training tar (a tar per class) or validation tar (images)";
    match first {
        Some(name) if is_tar(&name) => Ok(SourceKind::ImagenetTrain),
        Some(name) if is_image_name(Path::new(&name)) => Ok(SourceKind::ImagenetVal),
        Some(name) => Err(bad(input, format!("begins with {name}; {expected}"))),
        None => {
            let found = walked.err().unwrap_or_else(|| "holds no files".to_owned());
            Err(bad(input, format!("{found}; {expected}")))
        }
    }
}

/// Lists a tar of tars: a class per inner tar, by name.
pub(super) fn list_train(input: &Path) -> Result<Source, DataError> {
    let (mut file, range) = open_whole(input)?;
    let mut listing = Listing::default();
    let mut inner = Vec::new();
    for_each_file(&mut file, range, |_, name, place| {
        match name.strip_suffix(".tar").map(base) {
            Some(class) => inner.push((class.to_owned(), place)),
            None => listing.ignored.push((name.to_owned(), "is not the tar of a class")),
        }
        Ok(())
    })
    .map_err(|problem| bad(input, problem))?;
    inner.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut classes: Vec<String> = Vec::with_capacity(inner.len());
    for (class, place) in inner {
        if classes.last() == Some(&class) {
            return Err(bad(input, format!("holds {class}.tar twice")));
        }
        let label = Label(u32::try_from(classes.len()).expect("far fewer classes"));
        for_each_file(&mut file, place, |_, name, place| {
            listing.add(format!("{class}/{}", base(name)), place, label);
            Ok(())
        })
        .map_err(|problem| bad(input, format!("holds {class}.tar, which {problem}")))?;
        classes.push(class);
    }
    if classes.is_empty() {
        return Err(bad(input, "holds no tar of a class; expected n01440764.tar and the like"));
    }
    Ok(listing.into_source(input, file, classes))
}

/// Lists a tar of images; the n-th by name has the n-th class of the ground truth.
pub(super) fn list_val(input: &Path, truth: &GroundTruth) -> Result<Source, DataError> {
    let (mut file, range) = open_whole(input)?;
    let mut listing = Listing::default();
    for_each_file(&mut file, range, |_, name, place| {
        listing.add(base(name).to_owned(), place, Label(0));
        Ok(())
    })
    .map_err(|problem| bad(input, problem))?;
    listing.members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let (images, classes) = (listing.members.len(), truth.labels.len());
    if images != classes {
        let problem = format!("holds {images} images, the ground truth {classes} classes");
        return Err(bad(input, problem));
    }
    listing.labels.clone_from(&truth.labels);
    Ok(listing.into_source(input, file, truth.classes.clone()))
}

#[derive(Default)]
struct Listing {
    members: Vec<Member>,
    labels: Vec<Label>,
    ignored: Vec<(String, &'static str)>,
}

impl Listing {
    fn add(&mut self, name: String, place: Range<u64>, label: Label) {
        if is_image_name(Path::new(&name)) {
            self.members.push(Member { name: name.into(), place });
            self.labels.push(label);
        } else {
            self.ignored.push((name, NO_IMAGE_NAME));
        }
    }

    fn into_source(self, input: &Path, file: File, classes: Vec<String>) -> Source {
        let Self { members, labels, ignored } = self;
        let images = Box::new(TarImages { path: input.to_owned(), file, members });
        Source { classes, labels, images, ignored }
    }
}

fn open_whole(path: &Path) -> Result<(File, Range<u64>), DataError> {
    let file = open(path)?;
    let bytes = file.metadata().map_err(DataError::io("inspect", path))?.len();
    Ok((file, 0..bytes))
}

fn is_tar(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "tar")
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::SourceOptions;
    use super::*;
    use crate::tar_files::tests::tar_of;

    fn write(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn a_tar_of_tars_is_listed_by_class_wherever_the_class_lies_in_it() {
        let second = tar_of(&[("n02_1.JPEG", "c"), ("n02_0.JPEG", "d"), ("readme.txt", "")]);
        let tar = tar_of(&[("n02.tar", second), ("n01.tar", tar_of(&[("n01_0.JPEG", "a")]))]);
        let (_dir, path) = write("train.tar", &tar);
        assert_eq!(detect(&path).unwrap(), SourceKind::ImagenetTrain);
        let source = Source::find(&path, &SourceOptions::default()).unwrap();
        assert_eq!(source.classes, ["n01", "n02"]);
        assert_eq!(source.labels, [Label(0), Label(1), Label(1)]);
        let mut bytes = vec![9; 100];
        source.images.load(1, &mut bytes).unwrap();
        assert_eq!((source.images.name(1).as_str(), &bytes[..]), ("n02/n02_1.JPEG", &b"c"[..]));
        assert_eq!(source.ignored, [("n02/readme.txt".to_owned(), NO_IMAGE_NAME)]);
    }

    #[test]
    fn a_damaged_inner_tar_is_named_with_its_class() {
        let tar = tar_of(&[("n01.tar", "no tar at all, but long enough".repeat(20))]);
        let (_dir, path) = write("train.tar", &tar);
        let error = list_train(&path).unwrap_err().to_string();
        assert!(error.contains("holds n01.tar, which is not a readable tar file"), "{error}");
    }

    #[test]
    fn a_file_that_is_neither_tar_says_what_was_found_and_what_is_expected() {
        let (_dir, path) = write("x.zip", b"PK");
        let error = detect(&path).unwrap_err().to_string();
        assert!(error.contains("not a readable tar") && error.contains("expected"), "{error}");
        let (_dir, path) = write("x.tar", &tar_of(&[("readme.txt", "")]));
        let error = detect(&path).unwrap_err().to_string();
        assert!(error.contains("begins with readme.txt; expected ImageNet's"), "{error}");
    }

    #[test]
    fn validation_images_get_their_classes_by_name() {
        let tar = tar_of(&[("val_2.JPEG", "b"), ("val_1.JPEG", "a")]);
        let (_dir, path) = write("val.tar", &tar);
        assert_eq!(detect(&path).unwrap(), SourceKind::ImagenetVal);
        let classes = vec!["n01".to_owned(), "n02".to_owned()];
        let truth = GroundTruth { classes, labels: vec![Label(1), Label(0)] };
        let source = list_val(&path, &truth).unwrap();
        assert_eq!((source.images.name(0).as_str(), source.labels[0]), ("val_1.JPEG", Label(1)));
        let short = GroundTruth { labels: vec![Label(1)], ..truth };
        let error = list_val(&path, &short).unwrap_err().to_string();
        assert!(error.contains("holds 2 images, the ground truth 1 classes"), "{error}");
    }
}
