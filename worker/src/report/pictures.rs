//! Images for the page: originals with their two views, queries with their neighbours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lockstep_data::{
    CropBox, DataError, Dataset, Order, OrderConfig, SampleId, ViewParams, ViewRecipe, eval_view,
};
use lockstep_proto::config::RunConfig;

use crate::bitmap::Bitmap;
use crate::engine::{eval_config, view_recipe};
use crate::eval::{Features, knn};
use crate::view_pair::{Draws, ViewPair};

/// Images of each kind on the page.
const SHOWN: usize = 8;
/// Originals are shrunk to at most this many pixels on the long side.
const LONGEST_SIDE: usize = 320;

/// An image that stands in the page itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// A PNG as `data:` address.
    pub uri: String,
}

/// An image and the two views that training made of it.
#[derive(Debug)]
pub struct Pair {
    /// The stored image.
    pub original: Picture,
    /// Sides of the stored image, in which crops are measured.
    pub sides: (u32, u32),
    /// What was done for each view, and the result.
    pub views: [(ViewParams, Picture); 2],
}

/// An image with its class.
#[derive(Debug)]
pub struct Tile {
    /// The evaluation view.
    pub picture: Picture,
    /// Its class.
    pub label: u32,
}

/// A query and the samples of the bank nearest to it.
#[derive(Debug)]
pub struct Neighbours {
    /// What was looked for.
    pub query: Tile,
    /// What was found, nearest first, with its cosine.
    pub found: Vec<(Tile, f32)>,
}

/// Some images of the run's first step and the views that it made of them.
pub fn pairs(dataset: &Dataset, config: &RunConfig) -> Result<Vec<Pair>, DataError> {
    let order = OrderConfig {
        seed: config.run.seed,
        global_batch: config.schedule.global_batch,
        lanes: config.data.lanes,
        shuffle_block: config.data.shuffle_block.into(),
    };
    let order = Order::new(&dataset.manifest().shard_sizes(), order)?;
    let batch = order.batch(0, 0..order.lanes());
    let recipe = view_recipe(config);
    let ids = batch.iter().step_by(batch.len().div_ceil(SHOWN)).copied();
    let draws = Draws { seed: config.run.seed, data_epoch: 0 };
    ids.map(|id| pair(dataset, id, &recipe, draws)).collect()
}

fn pair(
    dataset: &Dataset,
    id: SampleId,
    recipe: &ViewRecipe,
    draws: Draws,
) -> Result<Pair, DataError> {
    let ViewPair { image, views, .. } = ViewPair::new(dataset, id, recipe, draws)?;
    let shown = |pixels: &[f32]| shown(pixels, recipe.size, recipe.mean, recipe.std);
    Ok(Pair {
        views: views.map(|(params, pixels)| (params, shown(&pixels))),
        sides: (image.width, image.height),
        original: picture(&Bitmap::of_image(&image).shrunk_to(LONGEST_SIDE)),
    })
}

/// Some of the queries, evenly over their data set, and what `features` puts next to them.
///
/// `sets` and `features` are bank and queries.
pub fn neighbours(
    sets: [&Dataset; 2],
    features: [&Features; 2],
    config: &RunConfig,
) -> Result<Vec<Neighbours>, DataError> {
    let [bank, queries] = features;
    let spacing = queries.len().div_ceil(SHOWN).max(1);
    let rows: Vec<usize> = (0..queries.len()).step_by(spacing).collect();
    let found = knn::neighbours(bank, &queries.select(&rows), SHOWN);
    let tile = |set: &Dataset, row| tile(set, row, config);
    let shown = rows.into_iter().zip(found).map(|(row, found)| {
        let found = found.into_iter().map(|near| Ok((tile(sets[0], near.index)?, near.cosine)));
        Ok(Neighbours {
            query: tile(sets[1], row)?,
            found: found.collect::<Result<_, DataError>>()?,
        })
    });
    shown.collect()
}

fn tile(dataset: &Dataset, row: usize, config: &RunConfig) -> Result<Tile, DataError> {
    let id = SampleId(row as u64);
    let mut bytes = Vec::new();
    let label = dataset.read(id, &mut bytes)?.0;
    let eval = eval_config(config);
    // All samples were decoded a moment ago, when their features were taken.
    let view = eval_view(&bytes, &eval).map_err(|problem| DataError::Setting {
        name: "data",
        problem: format!("{problem}: sample {row}"),
    })?;
    Ok(Tile { picture: shown(&view, eval.size, eval.mean, eval.std), label })
}

/// A normalized view as a picture.
fn shown(view: &[f32], size: u32, mean: [f32; 3], std: [f32; 3]) -> Picture {
    picture(&Bitmap::of_view(view, size, mean, std))
}

fn picture(bitmap: &Bitmap) -> Picture {
    Picture {
        width: bitmap.width,
        height: bitmap.height,
        uri: format!("data:image/png;base64,{}", STANDARD.encode(bitmap.png())),
    }
}

/// What was done to make a view, in words.
pub(super) fn described(params: &ViewParams, sides: (u32, u32)) -> String {
    let CropBox { width, height, .. } = params.crop;
    let area = f64::from(width) * f64::from(height) / (f64::from(sides.0) * f64::from(sides.1));
    let mut words = vec![format!("{:.0} % crop", 100.0 * area)];
    let done = [
        (params.flip, "flip"),
        (params.jitter.is_some(), "jitter"),
        (params.grayscale, "gray"),
        (params.solarize, "solarize"),
    ];
    words.extend(done.iter().filter(|(done, _)| *done).map(|(_, name)| (*name).to_owned()));
    words.extend(params.blur.map(|sigma| format!("blur σ {sigma:.1}")));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn pairs_show_the_views_of_the_runs_first_step() {
        let packed = testing::packed(80, testing::Color::Red);
        let config = testing::tiny_config();
        let shown = pairs(&packed.open(), &config).unwrap();
        assert_eq!(shown.len(), SHOWN);
        for pair in &shown {
            assert_eq!((pair.sides, pair.original.width, pair.views[0].1.width), ((8, 8), 8, 8));
            assert!(pair.original.uri.starts_with("data:image/png;base64,iVBOR"));
        }
        assert_ne!(shown[0].views[0].1, shown[0].views[1].1);
    }

    #[test]
    fn neighbours_of_a_sample_by_its_pixels_begin_with_itself() {
        let packed = testing::packed(40, testing::Color::Red);
        let (set, config) = (packed.open(), testing::tiny_config());
        let views = crate::eval::Views::new(&set, &config);
        let [features] = crate::eval::pixels([views]).unwrap();
        let shown = neighbours([&set, &set], [&features, &features], &config).unwrap();
        assert_eq!(shown.len(), SHOWN);
        for Neighbours { query, found } in &shown {
            assert_eq!(found.len(), SHOWN);
            assert!(found[0].1 > 0.999 && found[0].0.label == query.label);
        }
    }

    #[test]
    fn a_view_is_described_in_the_order_of_its_steps() {
        let crop = CropBox { left: 0, top: 0, width: 14, height: 28 };
        let params = ViewParams {
            crop,
            flip: true,
            jitter: None,
            grayscale: false,
            blur: Some(0.72),
            solarize: false,
        };
        assert_eq!(described(&params, (28, 28)), "50 % crop, flip, blur σ 0.7");
    }
}
