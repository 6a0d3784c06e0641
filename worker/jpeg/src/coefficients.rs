//! All coefficients of an image, packed; little-endian.
//!
//! ```text
//! magic [u8; 4] · colour u8 · components u8 · width u16 · height u16
//! across u8 · down u8 · steps [i16; 64]     per component: blocks per MCU, quantization
//! offset u32                                per row of MCUs, of its first block
//! blocks                                    MCU by MCU, see packing.rs
//! zeros                                     what packing.rs wants behind the last one
//! ```
//!
//! Rows that no region needs are not looked at; left of a region it takes one look per block to go past.

use crate::blocks::Block;
use crate::headers::{Component, Frame, MAX_BLOCKS_PER_MCU, MAX_PIXELS, lay_out};
use crate::idct::Coefficients;
use crate::mcus::{Blocks, Damage, IntoPlanes, Sink, Source};
use crate::packing::{self, HEAD, PADDING, Pack};
use crate::planes::{Colour, Plane};
use crate::processor::{self, Processor, Work};

/// The last byte is the version.
const MAGIC: [u8; 4] = *b"LJC\x01";
const OFFSET: usize = size_of::<u32>();

const COLOURS: [Colour; 3] = [Colour::Gray, Colour::YCbCr, Colour::Rgb];

/// Replaces `bytes` with the coefficients of a scan, all of which is needed.
pub(crate) fn write(source: Source<'_>, bytes: &mut Vec<u8>) -> Result<(), Damage> {
    bytes.clear();
    write_header(source, bytes);
    let offsets = bytes.len();
    bytes.resize(offsets + OFFSET * source.frame.mcus[1], 0);
    processor::run(Write { source, bytes, offsets })?;
    bytes.resize(bytes.len() + PADDING, 0);
    Ok(())
}

fn write_header(Source { frame, tables, .. }: Source<'_>, bytes: &mut Vec<u8>) {
    let colour = COLOURS.iter().position(|&colour| colour == frame.colour).expect("all are there");
    bytes.extend(MAGIC);
    bytes.extend([colour as u8, frame.components.len() as u8]);
    bytes.extend((frame.width as u16).to_le_bytes());
    bytes.extend((frame.height as u16).to_le_bytes());
    for component in &frame.components {
        bytes.extend(component.blocks.map(|blocks| blocks as u8));
        bytes.extend(tables.quant[component.quant].iter().flat_map(|step| step.to_le_bytes()));
    }
}

/// The arguments of [`write()`], with the place of the offsets.
struct Write<'a> {
    source: Source<'a>,
    bytes: &'a mut Vec<u8>,
    offsets: usize,
}

impl Work for Write<'_> {
    type Output = Result<(), Damage>;

    #[inline(always)]
    fn run<P: Processor>(self, pack: P) -> Self::Output {
        let Self { source, bytes, offsets } = self;
        source.decode(IntoBytes { frame: source.frame, bytes, offsets, pack })
    }
}

/// Appends the blocks of all MCUs.
struct IntoBytes<'a, P> {
    frame: &'a Frame,
    bytes: &'a mut Vec<u8>,
    offsets: usize,
    pack: P,
}

impl<P: Pack> Sink for IntoBytes<'_, P> {
    #[inline(always)]
    fn take(&mut self, mcu: usize, blocks: &Blocks) {
        let columns = self.frame.mcus[0];
        if mcu.is_multiple_of(columns) {
            // The largest image takes less than 2^30 bytes.
            let offset = (self.bytes.len() as u32).to_le_bytes();
            let place = self.offsets + OFFSET * (mcu / columns);
            self.bytes[place..place + OFFSET].copy_from_slice(&offset);
        }
        for block in &blocks[..self.frame.parts.len()] {
            packing::write(block, self.pack, self.bytes);
        }
    }
}

/// The packed coefficients of an image whose header was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    bytes: &'a [u8],
    /// Of the rows of MCUs.
    offsets: &'a [[u8; OFFSET]],
}

/// Reads the header; steps of component `c` go to slot `c`.
pub(crate) fn open<'a>(
    bytes: &'a [u8],
    frame: &mut Frame,
    quant: &mut [Coefficients; 4],
) -> Result<Packed<'a>, &'static str> {
    const SHORT: &str = "there are too few bytes";
    let (&[m, a, g, version, colour, components, w0, w1, h0, h1], mut rest) =
        bytes.split_first_chunk().ok_or(SHORT)?;
    if [m, a, g, version] != MAGIC {
        return Err("they begin with something else");
    }
    frame.colour = *COLOURS.get(usize::from(colour)).ok_or("there is no such colour")?;
    frame.width = u16::from_le_bytes([w0, w1]).into();
    frame.height = u16::from_le_bytes([h0, h1]).into();
    if !(1..=MAX_PIXELS).contains(&(frame.width * frame.height)) {
        return Err("there are no pixels, or too many");
    }
    if components != if frame.colour == Colour::Gray { 1 } else { 3 } {
        return Err("the colour has another number of components");
    }
    frame.restart_interval = 0;
    frame.components.clear();
    for (slot, steps) in quant.iter_mut().enumerate().take(components.into()) {
        let (blocks, after) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
        let (table, after) = after.split_first_chunk::<{ 2 * 64 }>().ok_or(SHORT)?;
        for (step, bytes) in steps.iter_mut().zip(table.as_chunks().0) {
            *step = i16::from_le_bytes(*bytes);
        }
        let blocks = blocks.map(usize::from);
        frame.components.push(Component { id: 0, blocks, quant: slot, dc: 0, ac: 0 });
        rest = after;
    }
    lay_out(frame).map_err(|_| "its sampling is unusual")?;
    // Bounds memory and time by the number of bytes.
    if HEAD * frame.blocks() > rest.len() {
        return Err(SHORT);
    }
    let offsets = rest.as_chunks().0.get(..frame.mcus[1]).ok_or(SHORT)?;
    Ok(Packed { bytes, offsets })
}

impl Packed<'_> {
    /// Decodes the needed MCUs into planes that have room.
    pub(crate) fn decode(
        self,
        frame: &Frame,
        quant: &[Coefficients; 4],
        needed: &[bool],
        planes: &mut [Plane],
    ) -> Result<(), &'static str> {
        let decode = Decode { packed: self, frame, quant, needed, planes };
        processor::run(decode).ok_or("its blocks end early")
    }
}

/// The arguments of [`Packed::decode`].
struct Decode<'a> {
    packed: Packed<'a>,
    frame: &'a Frame,
    quant: &'a [Coefficients; 4],
    needed: &'a [bool],
    planes: &'a mut [Plane],
}

impl Work for Decode<'_> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<P: Processor>(self, processor: P) -> Self::Output {
        let Self { packed: Packed { bytes, offsets }, frame, quant, needed, planes } = self;
        let columns = frame.mcus[0];
        let parts = frame.parts.len();
        let mut sink = IntoPlanes { frame, quant, planes, transform: processor };
        let mut blocks = [Block::ZERO; MAX_BLOCKS_PER_MCU];
        for (row, (needed, offset)) in needed.chunks(columns).zip(offsets).enumerate() {
            let Some(last) = needed.iter().rposition(|&needed| needed) else { continue };
            let mut rest = bytes.get(u32::from_le_bytes(*offset) as usize..)?;
            for (mcu, &needed) in (row * columns..).zip(&needed[..=last]) {
                if needed {
                    for block in &mut blocks[..parts] {
                        rest = packing::read(rest, processor, block)?;
                    }
                    sink.take(mcu, &blocks);
                } else {
                    for _ in 0..parts {
                        rest = packing::skip(rest)?;
                    }
                }
            }
        }
        Some(())
    }
}
