//! From a file to the planes of some regions.

use crate::coefficients::{self, Packed};
use crate::error::{JpegError, Place, damaged_at};
use crate::headers::{self, Frame, Tables};
use crate::mcus::{self, Damage, Source};
use crate::planes::{Colour, PlanarImage, Plane, Region};
use crate::scan::Scan;

/// Decodes baseline JPEG; keeps its memory, and tables that files have in common.
#[derive(Debug, Default)]
pub struct Decoder {
    frame: Frame,
    tables: Tables,
    scan: Scan,
    /// MCUs that some region needs, row by row.
    needed: Vec<bool>,
    /// Chroma planes that a gray image left unused.
    spare: Vec<Plane>,
}

/// An image with headers understood and pixels not yet decoded.
#[derive(Debug)]
pub struct Opened<'a> {
    decoder: &'a mut Decoder,
    content: Content<'a>,
}

/// Where the coefficients are.
#[derive(Debug)]
enum Content<'a> {
    /// In the scan, as Huffman codes.
    Scan,
    /// Here, packed.
    Packed(Packed<'a>),
}

impl Decoder {
    /// Reads the headers of `file`, and checks that there is an end marker behind its pixels.
    ///
    /// # Errors
    ///
    /// [`JpegError::Unsupported`] for files that only a complete decoder reads.
    pub fn open(&mut self, file: &[u8]) -> Result<Opened<'_>, JpegError> {
        self.load(file)?;
        Ok(Opened { decoder: self, content: Content::Scan })
    }

    /// Replaces `packed` with the coefficients of the whole `file`, to be opened by
    /// [`Decoder::open_packed`]. Takes about twice the bytes of the file.
    ///
    /// # Errors
    ///
    /// As [`Decoder::open`], and if any of the pixels are damaged.
    pub fn pack(&mut self, file: &[u8], packed: &mut Vec<u8>) -> Result<(), JpegError> {
        self.load(file)?;
        self.needed.clear();
        self.needed.resize(self.frame.mcus[0] * self.frame.mcus[1], true);
        coefficients::write(self.source(), packed).map_err(|damage| self.located(damage))
    }

    /// Opens what [`Decoder::pack`] has written. It decodes to the same samples as the file did.
    ///
    /// Other bytes are an error, here or later, or decode to anything; a checksum is the caller's.
    ///
    /// # Errors
    ///
    /// [`JpegError::NoCoefficients`] if nothing can come of the bytes.
    pub fn open_packed<'a>(&'a mut self, packed: &'a [u8]) -> Result<Opened<'a>, JpegError> {
        let packed = coefficients::open(packed, &mut self.frame, &mut self.tables.quant);
        let content = Content::Packed(packed.map_err(JpegError::NoCoefficients)?);
        Ok(Opened { decoder: self, content })
    }

    fn load(&mut self, file: &[u8]) -> Result<(), JpegError> {
        let start = headers::read(file, &mut self.frame, &mut self.tables)?;
        let end = self.scan.load(file, start)?;
        headers::check_end(file, end)?;
        self.check_lengths().map_err(|what| damaged_at(end, what))
    }

    fn source(&self) -> Source<'_> {
        let Self { frame, tables, scan, needed, .. } = self;
        Source { frame, tables, scan, needed }
    }

    /// Bounds memory and time by the size of the file: each block takes two codes, each a bit or more.
    fn check_lengths(&self) -> Result<(), &'static str> {
        let Frame { mcus: [columns, rows], restart_interval, .. } = self.frame;
        if 2 * self.frame.blocks() > self.scan.len_bits() {
            return Err("it has too few bytes for its pixels");
        }
        let found = self.scan.intervals();
        let sound = match restart_interval {
            0 => found == 1,
            // Some encoders write a last marker that no interval follows.
            interval => found >= (columns * rows).div_ceil(interval),
        };
        if sound { Ok(()) } else { Err("it has too many or too few restart markers") }
    }

    /// Gives `image` the planes of the opened file.
    fn shape(&mut self, image: &mut PlanarImage) {
        let Frame { width, height, colour, ref components, mcu, mcus, .. } = self.frame;
        (image.width, image.height, image.colour) = (width as u32, height as u32, colour);
        while image.planes.len() > components.len() {
            self.spare.extend(image.planes.pop());
        }
        while image.planes.len() < components.len() {
            image.planes.push(self.spare.pop().unwrap_or_default());
        }
        for (plane, component) in image.planes.iter_mut().zip(components) {
            let [across, down] = component.blocks;
            plane.stride = 8 * across * mcus[0];
            plane.samples.resize(plane.stride * 8 * down * mcus[1], 0);
            plane.shrink = [(mcu[0] / across) as u32, (mcu[1] / down) as u32];
        }
    }

    /// Marks the MCUs that the regions need, neighbours for chroma upsampling included.
    fn mark(&mut self, regions: &[Region]) {
        let Frame { width, height, mcu, mcus, .. } = self.frame;
        self.needed.clear();
        self.needed.resize(mcus[0] * mcus[1], false);
        for region in regions {
            let columns = span(region.left, region.width, width, mcu[0]);
            for row in span(region.top, region.height, height, mcu[1]) {
                self.needed[row * mcus[0]..][columns.clone()].fill(true);
            }
        }
    }

    fn located(&self, (what, mcu): Damage) -> JpegError {
        let row = mcu / self.frame.mcus[0] * 8 * self.frame.mcu[1];
        JpegError::Damaged { what, place: Place::Row(row) }
    }
}

impl Opened<'_> {
    /// Pixels per row.
    pub fn width(&self) -> u32 {
        self.decoder.frame.width as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.decoder.frame.height as u32
    }

    /// What the planes will mean.
    pub fn colour(&self) -> Colour {
        self.decoder.frame.colour
    }

    /// Decodes into `image` what the regions cover; what lies outside of the image is ignored.
    ///
    /// Where chroma is sampled more coarsely, the sample next to a region is there too.
    ///
    /// # Errors
    ///
    /// If the pixels up to the last needed one are damaged; what the image then holds is undefined.
    pub fn decode(self, regions: &[Region], image: &mut PlanarImage) -> Result<(), JpegError> {
        let Self { decoder, content } = self;
        decoder.shape(image);
        decoder.mark(regions);
        let Decoder { frame, tables, needed, .. } = &*decoder;
        match content {
            Content::Scan => mcus::decode(decoder.source(), &mut image.planes)
                .map_err(|damage| decoder.located(damage)),
            Content::Packed(packed) => packed
                .decode(frame, &tables.quant, needed, &mut image.planes)
                .map_err(JpegError::NoCoefficients),
        }
    }
}

/// The MCUs that cover pixels `start..start + length` of an axis, and one coarse sample more at both ends.
fn span(start: u32, length: u32, limit: usize, blocks: usize) -> std::ops::Range<usize> {
    let margin = if blocks == 1 { 0 } else { blocks };
    let start = start as usize;
    let end = (start + length as usize).min(limit);
    if start >= end {
        return 0..0;
    }
    start.saturating_sub(margin) / (8 * blocks)..(end + margin).min(limit).div_ceil(8 * blocks)
}
