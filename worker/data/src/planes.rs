//! A float image on its way from the decoder to a view: one plane per channel.

use lockstep_jpeg::Colour;

use crate::aligned::Aligned;

/// Pixels that are worked on together; whole vectors on every machine.
pub(crate) const LANES: usize = 32;

/// A value of [`LANES`] pixels next to each other.
pub(crate) type Lanes = [f32; LANES];

/// Three planes in one allocation; only the first counts in [`Colour::Gray`].
#[derive(Debug, Default)]
pub(crate) struct Planes {
    values: Aligned,
    width: usize,
    height: usize,
    colour: Colour,
}

impl Planes {
    /// Makes room for an image. The values are anything.
    pub(crate) fn shape(&mut self, (width, height): (usize, usize), colour: Colour) {
        (self.width, self.height, self.colour) = (width, height, colour);
        self.values.resize(3 * (width * height).next_multiple_of(LANES));
    }

    /// Pixels per row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Pixels in all.
    pub(crate) fn pixels(&self) -> usize {
        self.width * self.height
    }

    /// What the planes mean.
    pub(crate) fn colour(&self) -> Colour {
        self.colour
    }

    /// Says what the planes mean from now on.
    pub(crate) fn set_colour(&mut self, colour: Colour) {
        self.colour = colour;
    }

    /// The rows of every plane, without what fills up its last chunk.
    pub(crate) fn channels(&self) -> [&[f32]; 3] {
        let pixels = self.pixels();
        let plane = self.values.len() / 3;
        std::array::from_fn(|channel| &self.values[channel * plane..][..pixels])
    }

    /// As [`Planes::channels`], to write.
    pub(crate) fn channels_mut(&mut self) -> [&mut [f32]; 3] {
        let pixels = self.pixels();
        self.planes_mut().map(|plane| &mut plane.as_flattened_mut()[..pixels])
    }

    /// Every plane in chunks; the last one has pixels that are none.
    pub(crate) fn planes_mut(&mut self) -> [&mut [Lanes]; 3] {
        let plane = self.values.len() / 3;
        let (first, rest) = self.values.split_at_mut(plane);
        let (second, third) = rest.split_at_mut(plane);
        [first, second, third].map(|plane| plane.as_chunks_mut().0)
    }
}
