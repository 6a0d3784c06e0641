//! A stored image beside the two views that training makes of it, for people to look at.

use lockstep_data::{
    Augmenter, DataError, Dataset, Label, RgbImage, SampleId, View, ViewKey, ViewParams,
    ViewRecipe, to_rgb,
};

/// Which draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draws {
    /// Seed of the run.
    pub(crate) seed: u64,
    /// Pass over the data.
    pub(crate) data_epoch: u64,
}

/// An image and its views.
#[derive(Debug)]
pub(crate) struct ViewPair {
    pub(crate) id: SampleId,
    pub(crate) label: Label,
    pub(crate) image: RgbImage,
    /// What was done for each view, and the normalized result (NHWC).
    pub(crate) views: [(ViewParams, Vec<f32>); 2],
}

impl ViewPair {
    /// Reads a sample and makes its views.
    pub(crate) fn new(
        dataset: &Dataset,
        id: SampleId,
        recipe: &ViewRecipe,
        draws: Draws,
    ) -> Result<Self, DataError> {
        let (planes, label) = dataset.image(id)?;
        let view = |view| {
            let key = ViewKey::new(draws.seed, draws.data_epoch, id, view);
            let params = ViewParams::draw(recipe, planes.width, planes.height, key);
            let mut pixels = vec![0.0; recipe.view_len()];
            Augmenter::default().apply(&planes, &params, recipe, &mut pixels);
            (params, pixels)
        };
        let mut image = RgbImage::default();
        to_rgb(&planes, &mut image);
        Ok(Self { views: [view(View::One), view(View::Two)], id, label, image })
    }
}
