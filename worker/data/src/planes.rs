//! A float image on its way from the decoder to a view: one plane per channel.

use lockstep_jpeg::Colour;

/// Pixels that are worked on together; whole vectors on every machine.
pub(crate) const LANES: usize = 32;

/// A value of [`LANES`] pixels next to each other.
pub(crate) type Lanes = [f32; LANES];

/// Three planes in one allocation; only the first counts in [`Colour::Gray`].
#[derive(Debug, Default)]
pub(crate) struct Planes {
    chunks: Vec<Lanes>,
    width: usize,
    height: usize,
    colour: Colour,
}

impl Planes {
    /// Makes room for an image. The values are anything.
    pub(crate) fn shape(&mut self, (width, height): (usize, usize), colour: Colour) {
        (self.width, self.height, self.colour) = (width, height, colour);
        self.chunks.resize(3 * (width * height).div_ceil(LANES), [0.0; LANES]);
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
        let mut planes = self.chunks.chunks_exact(self.chunks.len() / 3);
        std::array::from_fn(|_| &planes.next().expect("there are three").as_flattened()[..pixels])
    }

    /// As [`Planes::channels`], to write.
    pub(crate) fn channels_mut(&mut self) -> [&mut [f32]; 3] {
        let pixels = self.pixels();
        self.planes_mut().map(|plane| &mut plane.as_flattened_mut()[..pixels])
    }

    /// Every plane in chunks; the last one has pixels that are none.
    pub(crate) fn planes_mut(&mut self) -> [&mut [Lanes]; 3] {
        let chunks = self.chunks.len() / 3;
        let (first, rest) = self.chunks.split_at_mut(chunks);
        let (second, third) = rest.split_at_mut(chunks);
        [first, second, third]
    }
}
