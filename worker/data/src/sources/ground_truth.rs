//! The classes of ImageNet's validation images: a file with one line per image.
//!
//! A line is a synset, or a number that counts in a list of synsets. Numbers are treacherous: the file of the
//! development kit counts from 1 and in the kit's own order (`ILSVRC2012_ID`), which is not that of the sorted
//! names, so that labels would be wrong without any other sign. Hence:
//!
//! 1. a file with a 0 counts from 0, one with the length of the list counts from 1, another is refused;
//! 2. one that counts from 1 needs a list in its own order: the classes of a packed data set are refused.
//!
//! Labels are those of the training set in either case: its order, or that of the sorted names.

use std::path::Path;

use super::{SourceOptions, bad};
use crate::error::DataError;
use crate::manifest::Manifest;
use crate::sample::Label;

/// Classes, and the label of each validation image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroundTruth {
    pub(super) classes: Vec<String>,
    pub(super) labels: Vec<Label>,
}

/// Where a list of synsets comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A file, in the order that the ground truth counts in.
    List,
    /// A packed data set, in the order of its labels.
    Packed,
}

impl GroundTruth {
    pub(super) fn read(options: &SourceOptions) -> Result<Self, DataError> {
        let missing = |name, what: &str| {
            let problem = format!("is missing; the validation images need {what}");
            DataError::setting(name, problem)
        };
        let Some(truth) = &options.ground_truth else {
            return Err(missing("ground_truth", "a file with the class of each, one per line"));
        };
        let Some(synsets) = &options.synsets else {
            let what = "the list of classes that the ground truth counts in: a file with one per \
                        line, or the packed training set";
            return Err(missing("synsets", what));
        };
        let (list, origin) = if synsets.is_dir() {
            (Manifest::load(synsets)?.classes().to_vec(), Origin::Packed)
        } else {
            let first_word = |line: &str| line.split_whitespace().next().map(str::to_owned);
            (read(synsets)?.lines().filter_map(first_word).collect(), Origin::List)
        };
        Self::parse(&read(truth)?, &list, origin).map_err(|problem| bad(truth, problem))
    }

    fn parse(text: &str, list: &[String], origin: Origin) -> Result<Self, String> {
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let mut classes = list.to_vec();
        if origin == Origin::List {
            classes.sort_unstable();
        }
        if classes.is_empty() {
            return Err("counts in a list without synsets".to_owned());
        }
        if let Some([twice, _]) = classes.array_windows().find(|[one, other]| one == other) {
            return Err(format!("counts in a list that holds {twice} twice"));
        }
        let numbers: Option<Vec<usize>> = lines.iter().map(|line| line.parse().ok()).collect();
        let names = match numbers {
            Some(numbers) => by_number(&numbers, list, origin)?,
            None => lines,
        };
        let label = |(line, name): (usize, &str)| {
            let found = classes.iter().position(|class| class == name);
            let label = found.and_then(|class| u32::try_from(class).ok());
            label.map(Label).ok_or_else(|| {
                format!("holds {name:?} in line {}, which is not in the list of synsets", line + 1)
            })
        };
        let labels = names.into_iter().enumerate().map(label).collect::<Result<_, _>>()?;
        Ok(Self { classes, labels })
    }
}

/// The synsets that numbers stand for.
fn by_number<'a>(
    numbers: &[usize],
    list: &'a [String],
    origin: Origin,
) -> Result<Vec<&'a str>, String> {
    let length = list.len();
    let first = match (numbers.contains(&0), numbers.contains(&length)) {
        (true, _) => 0,
        (false, true) if origin == Origin::Packed => {
            return Err(format!(
                "counts from 1 to {length}, as the development kit does, whose order is not that of \
                 a packed data set; give the kit's synsets in the order of their ILSVRC2012_ID, one \
                 per line, with `--synsets FILE`"
            ));
        }
        (false, true) => 1,
        (false, false) => {
            return Err(format!(
                "holds neither 0 nor {length}, so it cannot be told whether it counts from 0 or 1; \
                 write synsets instead of numbers"
            ));
        }
    };
    let synset = |(line, number): (usize, &usize)| {
        number.checked_sub(first).and_then(|index| list.get(index)).map(String::as_str).ok_or_else(
            || {
                let last = length - 1 + first;
                format!("holds {number} in line {}, expected {first} to {last}", line + 1)
            },
        )
    };
    numbers.iter().enumerate().map(synset).collect()
}

fn read(path: &Path) -> Result<String, DataError> {
    std::fs::read_to_string(path).map_err(DataError::io("read", path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As in the development kit: not sorted.
    fn kit() -> Vec<String> {
        ["n03", "n01", "n02"].map(str::to_owned).to_vec()
    }

    fn labels(text: &str, origin: Origin) -> Result<Vec<u32>, String> {
        let truth = GroundTruth::parse(text, &kit(), origin)?;
        Ok(truth.labels.iter().map(|label| label.0).collect())
    }

    #[test]
    fn numbers_count_in_the_list_and_labels_in_the_sorted_classes() {
        assert_eq!(labels("1\n2\n3\n1\n", Origin::List).unwrap(), [2, 0, 1, 2]);
        assert_eq!(labels("0\n1\n2\n0\n", Origin::List).unwrap(), [2, 0, 1, 2]);
        assert_eq!(labels("0\n1\n2\n", Origin::Packed).unwrap(), [0, 1, 2]);
        assert_eq!(labels("n01\nn03\n", Origin::List).unwrap(), [0, 2]);
    }

    #[test]
    fn what_could_shift_labels_silently_is_refused() {
        let kit_order = labels("1\n2\n3\n", Origin::Packed).unwrap_err();
        assert!(kit_order.contains("ILSVRC2012_ID"), "{kit_order}");
        let unclear = labels("1\n2\n", Origin::List).unwrap_err();
        assert!(unclear.starts_with("holds neither 0 nor 3"), "{unclear}");
        let beyond = labels("0\n3\n", Origin::List).unwrap_err();
        assert_eq!(beyond, "holds 3 in line 2, expected 0 to 2");
        let unknown = labels("n01\nn09\n", Origin::List).unwrap_err();
        assert!(unknown.starts_with("holds \"n09\" in line 2"), "{unknown}");
        let twice = GroundTruth::parse("0\n", &["n01", "n01"].map(str::to_owned), Origin::List)
            .unwrap_err();
        assert_eq!(twice, "counts in a list that holds n01 twice");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9n\n ]{0,30}|.{0,30}", length in 0..4_usize) {
            drop(GroundTruth::parse(&text, &kit()[..length], Origin::List));
        }
    }
}
