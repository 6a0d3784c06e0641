//! The loop over the MCUs: decode the bits of all, hand over those that are needed.

use crate::bits::Bits;
use crate::blocks::{Block, read_ac, read_dc};
use crate::headers::{Frame, MAX_BLOCKS_PER_MCU, Tables};
use crate::idct::{Coefficients, Transform};
use crate::planes::Plane;
use crate::processor::{self, Processor, Work};
use crate::scan::Scan;

/// What there is to decode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) frame: &'a Frame,
    pub(crate) tables: &'a Tables,
    pub(crate) scan: &'a Scan,
    /// Which MCUs are needed, row by row.
    pub(crate) needed: &'a [bool],
}

/// What is wrong with the pixels, and in which MCU it showed.
pub(crate) type Damage = (&'static str, usize);

/// Decodes what is needed into planes that have room.
pub(crate) fn decode(source: Source<'_>, planes: &mut [Plane]) -> Result<(), Damage> {
    processor::run(Decode { source, planes })
}

/// The arguments of [`decode`].
struct Decode<'a> {
    source: Source<'a>,
    planes: &'a mut [Plane],
}

impl Work for Decode<'_> {
    type Output = Result<(), Damage>;

    #[inline(always)]
    fn run<P: Processor>(self, processor: P) -> Self::Output {
        let Source { frame, tables, .. } = self.source;
        let planes = self.planes;
        self.source.decode(IntoPlanes { frame, quant: &tables.quant, planes, transform: processor })
    }
}

/// The blocks of an MCU, and those that this one has not.
pub(crate) type Blocks = [Block; MAX_BLOCKS_PER_MCU];

/// What becomes of the MCUs that are needed, in their order.
pub(crate) trait Sink {
    /// Takes the blocks of one.
    fn take(&mut self, mcu: usize, blocks: &Blocks);
}

/// Transforms blocks to samples.
pub(crate) struct IntoPlanes<'a, T> {
    pub(crate) frame: &'a Frame,
    pub(crate) quant: &'a [Coefficients; 4],
    pub(crate) planes: &'a mut [Plane],
    pub(crate) transform: T,
}

impl<T: Transform> Sink for IntoPlanes<'_, T> {
    #[inline(always)]
    fn take(&mut self, mcu: usize, blocks: &Blocks) {
        let columns = self.frame.mcus[0];
        let (column, row) = (mcu % columns, mcu / columns);
        for (part, block) in self.frame.parts.iter().zip(blocks) {
            let component = self.frame.components[part.component];
            let [across, down] = component.blocks;
            let steps = &self.quant[component.quant];
            let samples = self.transform.samples(block.coefficients(), steps);
            let (x, y) = (column * across + part.column, row * down + part.row);
            self.planes[part.component].put_block(8 * x, 8 * y, &samples);
        }
    }
}

impl Source<'_> {
    /// Restart interval by restart interval, each as far as something is needed.
    #[inline(always)]
    pub(crate) fn decode(self, mut sink: impl Sink) -> Result<(), Damage> {
        let Source { frame, scan, needed, .. } = self;
        let interval = match frame.restart_interval {
            0 => needed.len(),
            interval => interval,
        };
        for (index, needed) in needed.chunks(interval).enumerate() {
            let Some(last) = needed.iter().rposition(|&needed| needed) else { continue };
            let (bits, end) = scan.interval(index);
            let mut position = Position { source: self, bits, last_dc: [0; 3] };
            let mut blocks = [Block::ZERO; MAX_BLOCKS_PER_MCU];
            for (mcu, &needed) in (index * interval..).zip(&needed[..=last]) {
                if needed {
                    position.read(&mut blocks).ok_or(("a code is impossible", mcu))?;
                    sink.take(mcu, &blocks);
                } else {
                    position.skip().ok_or(("a code is impossible", mcu))?;
                }
            }
            if position.bits.position() > end {
                return Err(("its pixels end early", index * interval + last));
            }
        }
        Ok(())
    }
}

/// Where decoding stands in a restart interval.
struct Position<'a> {
    source: Source<'a>,
    bits: Bits<'a>,
    /// The DC coefficient of the last block, by component.
    last_dc: [i16; 3],
}

impl Position<'_> {
    /// Reads an MCU. All of it before the first transform, so that vectors are not loaded from where
    /// single coefficients are still on their way to memory.
    #[inline(always)]
    fn read(&mut self, blocks: &mut Blocks) -> Option<()> {
        let Source { frame, tables, .. } = self.source;
        for (part, block) in frame.parts.iter().zip(blocks) {
            let component = frame.components[part.component];
            let last_dc = &mut self.last_dc[part.component];
            block.clear();
            self.bits = read_dc(self.bits, &tables.dc[component.dc], last_dc)?;
            block.put(0, *last_dc);
            self.bits = read_ac(self.bits, &tables.ac[component.ac], |position, value| {
                block.put(position, value);
            })?;
        }
        Some(())
    }

    #[inline(always)]
    fn skip(&mut self) -> Option<()> {
        let Source { frame, tables, .. } = self.source;
        for part in &frame.parts {
            let component = frame.components[part.component];
            let last_dc = &mut self.last_dc[part.component];
            self.bits = read_dc(self.bits, &tables.dc[component.dc], last_dc)?;
            self.bits = read_ac(self.bits, &tables.ac[component.ac], |_, _| ())?;
        }
        Some(())
    }
}
