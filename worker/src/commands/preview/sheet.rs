//! The sheet: a row per image, with the image and both views above what was drawn by lot.

use lockstep_data::{CropBox, JitterStep, ViewParams, ViewRecipe};

use crate::bitmap::{Bitmap, Frame, Ink, LETTER};
use crate::view_pair::ViewPair;

const PAPER: Ink = [250, 250, 247];
const TEXT: Ink = [40, 40, 40];
/// Of the frames that show the crops in the image, and of the views' captions.
const INKS: [Ink; 2] = [[214, 90, 0], [0, 110, 190]];
/// Pictures are at least as wide, so that a caption has room.
const LEAST_WIDTH: usize = 224;
const GAP: usize = 12;
const LINE_HEIGHT: usize = LETTER + 3;

/// Draws the sheet; `classes` are the names by label.
pub(super) fn sheet(pairs: &[ViewPair], recipe: &ViewRecipe, classes: &[String]) -> Bitmap {
    let size = recipe.size as usize;
    // Small views grow by a whole factor: their pixels stay squares.
    let side = size * LEAST_WIDTH.div_ceil(size);
    let rows: Vec<[Tile; 3]> =
        pairs.iter().map(|pair| tiles(pair, recipe, classes, side)).collect();
    let heights: Vec<usize> = rows.iter().map(|row| row_height(row)).collect();
    let (width, height) = (3 * (side + GAP) + GAP, heights.iter().sum::<usize>() + GAP);
    let mut sheet = Bitmap::blank(width, height, PAPER);
    let mut top = GAP;
    for (row, height) in rows.iter().zip(heights) {
        let pictures = row.iter().map(|tile| tile.picture.height).max().expect("three tiles");
        for (column, Tile { picture, lines, ink }) in row.iter().enumerate() {
            let left = GAP + column * (side + GAP);
            sheet.paste(picture, left, top);
            for (number, line) in lines.iter().enumerate() {
                sheet.write(line, left, top + pictures + LETTER + number * LINE_HEIGHT, *ink);
            }
        }
        top += height;
    }
    sheet
}

/// A picture and its caption.
struct Tile {
    picture: Bitmap,
    lines: Vec<String>,
    ink: Ink,
}

fn row_height(row: &[Tile]) -> usize {
    let most = |height: fn(&Tile) -> usize| row.iter().map(height).max().expect("three tiles");
    most(|tile| tile.picture.height) + LETTER + most(|tile| tile.lines.len()) * LINE_HEIGHT + GAP
}

fn tiles(pair: &ViewPair, recipe: &ViewRecipe, classes: &[String], side: usize) -> [Tile; 3] {
    let view = |index: usize| {
        let (params, pixels) = &pair.views[index];
        let phrases = [vec![format!("view {}", index + 1)], described(params)].concat();
        Tile {
            picture: Bitmap::of_view(pixels, recipe.size, recipe.mean, recipe.std).fitted(side),
            lines: wrapped(&phrases, side / LETTER),
            ink: INKS[index],
        }
    };
    let image = &pair.image;
    let class = classes.get(pair.label.0 as usize).map_or("no class", String::as_str);
    let phrases = [
        format!("sample {}", pair.id.0),
        class.to_owned(),
        format!("{}x{}", image.width, image.height),
    ];
    let original =
        Tile { picture: framed(pair, side), lines: wrapped(&phrases, side / LETTER), ink: TEXT };
    [original, view(0), view(1)]
}

/// The image with both crops.
fn framed(pair: &ViewPair, side: usize) -> Bitmap {
    let whole = Bitmap::of_image(&pair.image);
    let longest = whole.width.max(whole.height);
    let mut picture = whole.fitted(side);
    let scaled = |length: u32| length as usize * side / longest;
    for ((params, _), ink) in pair.views.iter().zip(INKS) {
        let CropBox { left, top, width, height } = params.crop;
        let frame = Frame {
            left: scaled(left),
            top: scaled(top),
            width: scaled(width).max(1),
            height: scaled(height).max(1),
        };
        picture.outline(frame, ink);
    }
    picture
}

/// What was done to make a view, step by step.
fn described(params: &ViewParams) -> Vec<String> {
    let CropBox { left, top, width, height } = params.crop;
    let mut phrases = vec![format!("{width}x{height} at ({left}, {top})")];
    phrases.extend(params.flip.then(|| "flip".to_owned()));
    phrases.extend(params.jitter.iter().flatten().map(|step| match step {
        JitterStep::Brightness(factor) => format!("brightness {factor:.2}"),
        JitterStep::Contrast(factor) => format!("contrast {factor:.2}"),
        JitterStep::Saturation(factor) => format!("saturation {factor:.2}"),
        JitterStep::Hue(shift) => format!("hue {shift:+.3}"),
    }));
    phrases.extend(params.grayscale.then(|| "grayscale".to_owned()));
    phrases.extend(params.blur.map(|sigma| format!("blur {sigma:.2}")));
    phrases.extend(params.solarize.then(|| "solarize".to_owned()));
    phrases
}

/// Phrases with commas between them, in lines of at most `letters`; a longer phrase is cut.
fn wrapped(phrases: &[String], letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (index, phrase) in phrases.iter().enumerate() {
        let comma = if index + 1 < phrases.len() { "," } else { "" };
        let phrase = format!("{phrase}{comma}");
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + phrase.chars().count() <= letters => {
                line.push(' ');
                line.push_str(&phrase);
            }
            _ => lines.push(phrase.chars().take(letters).collect()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_wrapped_between_and_cut_where_one_is_too_long() {
        let phrases = ["view 1", "flip", "brightness 1.34", "n01440764_tench"].map(str::to_owned);
        assert_eq!(wrapped(&phrases, 14), ["view 1, flip,", "brightness 1.3", "n01440764_tenc"],);
        assert_eq!(wrapped(&phrases, 80), ["view 1, flip, brightness 1.34, n01440764_tench"]);
    }

    #[test]
    fn everything_that_was_drawn_is_in_the_caption_in_the_order_of_the_steps() {
        let params = ViewParams {
            crop: CropBox { left: 206, top: 43, width: 256, height: 323 },
            flip: true,
            jitter: Some([
                JitterStep::Contrast(0.994),
                JitterStep::Saturation(0.9),
                JitterStep::Brightness(1.34),
                JitterStep::Hue(0.0122),
            ]),
            grayscale: true,
            blur: Some(1.317),
            solarize: true,
        };
        let expected = "256x323 at (206, 43)|flip|contrast 0.99|saturation 0.90|brightness 1.34|\
                        hue +0.012|grayscale|blur 1.32|solarize";
        assert_eq!(described(&params).join("|"), expected);
    }
}
