//! The loop over the MCUs: decode the bits of all, transform those that a region needs.

use pulp::NullaryFnOnce;

use crate::bits::Bits;
use crate::blocks::{Block, read_ac, read_dc};
use crate::error::{JpegError, Place, damaged_at};
use crate::headers::{self, Component, Frame, Tables};
use crate::idct::{Portable, Transform};
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

/// A JPEG with headers understood and pixels not yet decoded.
#[derive(Debug)]
pub struct Opened<'a> {
    decoder: &'a mut Decoder,
}

impl Decoder {
    /// Reads the headers of `file`, and checks that there is an end marker behind its pixels.
    ///
    /// # Errors
    ///
    /// [`JpegError::Unsupported`] for files that only a complete decoder reads.
    pub fn open(&mut self, file: &[u8]) -> Result<Opened<'_>, JpegError> {
        let start = headers::read(file, &mut self.frame, &mut self.tables)?;
        let end = self.scan.load(file, start)?;
        headers::check_end(file, end)?;
        self.check_lengths().map_err(|what| damaged_at(end, what))?;
        Ok(Opened { decoder: self })
    }

    /// Bounds memory and time by the size of the file: each block takes two codes, each a bit or more.
    fn check_lengths(&self) -> Result<(), &'static str> {
        let Frame { mcus: [columns, rows], restart_interval, .. } = self.frame;
        if 2 * self.frame.blocks() > self.scan.len_bits() {
            return Err("it has too few bytes for its pixels");
        }
        let expected = match restart_interval {
            0 => 1,
            interval => (columns * rows).div_ceil(interval),
        };
        if expected == self.scan.intervals() {
            Ok(())
        } else {
            Err("it has too many or too few restart markers")
        }
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

    /// Decodes restart interval by restart interval, each as far as something is needed.
    #[inline(always)]
    fn decode_intervals<T: Transform>(
        &self,
        planes: &mut [Plane],
        transform: T,
    ) -> Result<(), JpegError> {
        let interval = match self.frame.restart_interval {
            0 => self.needed.len(),
            interval => interval,
        };
        for (index, needed) in self.needed.chunks(interval).enumerate() {
            let Some(last) = needed.iter().rposition(|&needed| needed) else { continue };
            let first = index * interval;
            let (bits, end) = self.scan.interval(index);
            let mut interval = Interval { decoder: self, bits, last_dc: [0; 3], transform };
            interval.decode(first, &needed[..=last], planes)?;
            if interval.bits.position() > end {
                return Err(self.damaged(first + last, "its pixels end early"));
            }
        }
        Ok(())
    }

    fn damaged(&self, mcu: usize, what: &'static str) -> JpegError {
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
    /// If the pixels up to the last needed one are damaged.
    pub fn decode(self, regions: &[Region], image: &mut PlanarImage) -> Result<(), JpegError> {
        let decoder = self.decoder;
        decoder.shape(image);
        decoder.mark(regions);
        decode_intervals(decoder, &mut image.planes)
    }
}

/// Calls the best compiled [`Decoder::decode_intervals`].
fn decode_intervals(decoder: &Decoder, planes: &mut [Plane]) -> Result<(), JpegError> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        let intervals = Intervals { decoder, planes, transform: simd };
        // Wider vectors would not help, but there are twice as many of them.
        return match pulp::x86::V4::try_new() {
            Some(wide) => wide.vectorize(intervals),
            None => simd.vectorize(intervals),
        };
    }
    Intervals { decoder, planes, transform: Portable }.call()
}

/// A call of [`Decoder::decode_intervals`].
///
/// A closure would do, but its shim is not always inlined, and then compiled for any processor.
struct Intervals<'a, T> {
    decoder: &'a Decoder,
    planes: &'a mut [Plane],
    transform: T,
}

impl<T: Transform> pulp::NullaryFnOnce for Intervals<'_, T> {
    type Output = Result<(), JpegError>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        self.decoder.decode_intervals(self.planes, self.transform)
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

/// Where decoding stands in a restart interval.
struct Interval<'a, T> {
    transform: T,
    decoder: &'a Decoder,
    bits: Bits<'a>,
    /// The DC coefficient of the last block, by component.
    last_dc: [i16; 3],
}

impl<T: Transform> Interval<'_, T> {
    /// Decodes the MCUs from number `first` on, and transforms those that are needed.
    #[inline(always)]
    fn decode(
        &mut self,
        first: usize,
        needed: &[bool],
        planes: &mut [Plane],
    ) -> Result<(), JpegError> {
        let columns = self.decoder.frame.mcus[0];
        let (mut column, mut row) = (first % columns, first / columns);
        for (index, &needed) in needed.iter().enumerate() {
            let decoded = if needed { self.mcu([column, row], planes) } else { self.skip_mcu() };
            decoded.ok_or_else(|| self.decoder.damaged(first + index, "a code is impossible"))?;
            column += 1;
            if column == columns {
                (column, row) = (0, row + 1);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn mcu(&mut self, [column, row]: [usize; 2], planes: &mut [Plane]) -> Option<()> {
        let Decoder { frame, tables, .. } = self.decoder;
        let mut block = Block::ZERO;
        let parts = frame.components.iter().zip(planes).zip(&mut self.last_dc);
        for ((component, plane), last_dc) in parts {
            let Component { blocks: [across, down], quant, dc, ac, .. } = *component;
            for y in row * down..(row + 1) * down {
                for x in column * across..(column + 1) * across {
                    block.clear();
                    self.bits = read_dc(self.bits, &tables.dc[dc], last_dc)?;
                    block.put(0, *last_dc);
                    self.bits = read_ac(self.bits, &tables.ac[ac], |position, value| {
                        block.put(position, value)
                    })?;
                    let samples =
                        self.transform.samples(&block.coefficients(), &tables.quant[quant]);
                    plane.put_block(8 * x, 8 * y, &samples);
                }
            }
        }
        Some(())
    }

    #[inline(always)]
    fn skip_mcu(&mut self) -> Option<()> {
        let Decoder { frame, tables, .. } = self.decoder;
        for (component, last_dc) in frame.components.iter().zip(&mut self.last_dc) {
            let Component { blocks: [across, down], dc, ac, .. } = *component;
            for _ in 0..across * down {
                self.bits = read_dc(self.bits, &tables.dc[dc], last_dc)?;
                self.bits = read_ac(self.bits, &tables.ac[ac], |_, _| ())?;
            }
        }
        Some(())
    }
}
