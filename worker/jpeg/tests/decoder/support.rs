//! Generated JPEGs, and the planes that libjpeg-turbo's code decodes from any.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use lockstep_jpeg::{Decoder, JpegError, PlanarImage, Region};

/// How a JPEG is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) size: (u16, u16),
    /// Pixels per chroma sample, across and down; `None` for grayscale.
    pub(crate) shrink: Option<(u8, u8)>,
    pub(crate) quality: u8,
    pub(crate) coding: Coding,
    /// Amplitude of the noise, 0 to 255.
    pub(crate) noise: u8,
    pub(crate) seed: u32,
}

/// How coefficients become bits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Coding {
    /// With the tables of the standard.
    Standard,
    /// The same with a restart marker after so many MCUs.
    Restart(u16),
    /// With tables for this image, and quantization steps of 16 bits at low quality.
    Optimized,
    /// Not baseline.
    Progressive,
}

impl Spec {
    /// A small photo-like image.
    pub(crate) const PLAIN: Self = Self {
        size: (83, 59),
        shrink: Some((2, 2)),
        quality: 85,
        coding: Coding::Standard,
        noise: 24,
        seed: 1,
    };

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self.coding {
            Coding::Standard => self.encode_plainly(None),
            Coding::Restart(interval) => self.encode_plainly(Some(interval)),
            Coding::Optimized => self.encode_with_libjpeg(|_| ()),
            Coding::Progressive => {
                self.encode_with_libjpeg(mozjpeg::Compress::set_progressive_mode)
            }
        }
    }

    fn encode_plainly(&self, restart: Option<u16>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, self.quality);
        if let Some(interval) = restart {
            encoder.set_restart_interval(interval);
        }
        let mut color = ColorType::Luma;
        if let Some((across, down)) = self.shrink {
            encoder
                .set_sampling_factor(SamplingFactor::from_factors(across, down).expect("1 or 2"));
            color = ColorType::Ycbcr;
        }
        encoder.encode(&self.pixels(), self.size.0, self.size.1, color).expect("memory takes it");
        bytes
    }

    fn encode_with_libjpeg(&self, adjust: impl Fn(&mut mozjpeg::Compress)) -> Vec<u8> {
        let color = match self.shrink {
            Some(_) => mozjpeg::ColorSpace::JCS_YCbCr,
            None => mozjpeg::ColorSpace::JCS_GRAYSCALE,
        };
        let mut compress = mozjpeg::Compress::new(color);
        compress.set_fastest_defaults();
        compress.set_size(self.size.0.into(), self.size.1.into());
        compress.set_quality(self.quality.into());
        compress.set_optimize_coding(true);
        if let Some(shrink) = self.shrink {
            compress.set_chroma_sampling_pixel_sizes(shrink, shrink);
        }
        adjust(&mut compress);
        let mut started = compress.start_compress(Vec::new()).expect("memory takes it");
        started.write_scanlines(&self.pixels()).expect("memory takes it");
        started.finish().expect("memory takes it")
    }

    /// Shades, edges and noise.
    fn pixels(&self) -> Vec<u8> {
        let (width, height) = (u32::from(self.size.0), u32::from(self.size.1));
        let channels = if self.shrink.is_some() { 3 } else { 1 };
        let mut state = self.seed;
        let mut pixels = Vec::new();
        for (y, x, channel) in (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |c| (y, x, c))))
        {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 24) * u32::from(self.noise) / 255;
            let edge = if (x / 13 + y / 17) % 2 == channel % 2 { 90 } else { 20 };
            pixels.push(
                (edge + x + y * (channel + 1) + noise).min(255).try_into().expect("at most 255"),
            );
        }
        pixels
    }
}

/// The whole image as this crate decodes it.
pub(crate) fn decode(file: &[u8]) -> Result<PlanarImage, JpegError> {
    let mut image = PlanarImage::default();
    let mut decoder = Decoder::default();
    let opened = decoder.open(file)?;
    let all = Region { left: 0, top: 0, width: opened.width(), height: opened.height() };
    opened.decode(&[all], &mut image)?;
    Ok(image)
}

/// A plane of the reference: rows that are as long as its blocks.
pub(crate) struct ReferencePlane {
    pub(crate) samples: Vec<u8>,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The planes before upsampling and colour conversion, by the slow integer transform.
pub(crate) fn reference(file: &[u8]) -> Vec<ReferencePlane> {
    let mut decompress = mozjpeg::Decompress::new_mem(file).expect("a good file");
    decompress.dct_method(mozjpeg::DctMethod::IntegerSlow);
    let mut started = decompress.raw().expect("a good file");
    let mut planes = [Vec::new(), Vec::new(), Vec::new()];
    started.read_raw_data(&mut planes.each_mut());
    let sizes: Vec<_> = started
        .components()
        .iter()
        .map(|info| (8 * info.width_in_blocks as usize, 8 * info.height_in_blocks as usize))
        .collect();
    planes
        .into_iter()
        .zip(sizes)
        .map(|(samples, (width, height))| ReferencePlane { samples, width, height })
        .collect()
}
