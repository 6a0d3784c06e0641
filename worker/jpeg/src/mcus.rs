//! The loop over the MCUs: decode the bits of all, transform those that a region needs.

use pulp::NullaryFnOnce;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use crate::bits::Bits;
use crate::blocks::{Block, read_ac, read_dc};
use crate::headers::{Frame, MAX_BLOCKS_PER_MCU, Tables};
use crate::idct::{Portable, Transform};
use crate::planes::Plane;
use crate::scan::Scan;

/// What there is to decode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) frame: &'a Frame,
    pub(crate) tables: &'a Tables,
    pub(crate) scan: &'a Scan,
    /// Which MCUs to transform, row by row.
    pub(crate) needed: &'a [bool],
}

/// What is wrong with the pixels, and in which MCU it showed.
pub(crate) type Damage = (&'static str, usize);

/// Decodes into planes that have room, with the best code for this processor.
pub(crate) fn decode(source: Source<'_>, planes: &mut [Plane]) -> Result<(), Damage> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = V3::try_new() {
        let call = Decode { source, planes, transform: simd };
        // Wider vectors would not help, but there are twice as many of them.
        return match V4::try_new() {
            Some(wide) => wide.vectorize(call),
            None => simd.vectorize(call),
        };
    }
    Decode { source, planes, transform: Portable }.call()
}

/// The arguments of [`decode`].
///
/// A closure would do, but its shim is not always inlined, and is then compiled for any processor.
struct Decode<'a, T> {
    source: Source<'a>,
    planes: &'a mut [Plane],
    transform: T,
}

impl<T: Transform> NullaryFnOnce for Decode<'_, T> {
    type Output = Result<(), Damage>;

    /// Restart interval by restart interval, each as far as something is needed.
    #[inline(always)]
    fn call(self) -> Self::Output {
        let Source { frame, scan, needed, .. } = self.source;
        let interval = match frame.restart_interval {
            0 => needed.len(),
            interval => interval,
        };
        for (index, needed) in needed.chunks(interval).enumerate() {
            let Some(last) = needed.iter().rposition(|&needed| needed) else { continue };
            let (bits, end) = scan.interval(index);
            let mut position = Position { source: self.source, bits, last_dc: [0; 3] };
            let mut blocks = [Block::ZERO; MAX_BLOCKS_PER_MCU];
            for (mcu, &needed) in (index * interval..).zip(&needed[..=last]) {
                if needed {
                    position.read(&mut blocks).ok_or(("a code is impossible", mcu))?;
                    self.source.transform(self.transform, mcu, &blocks, self.planes);
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

impl Source<'_> {
    #[inline(always)]
    fn transform<T: Transform>(
        self,
        transform: T,
        mcu: usize,
        blocks: &[Block; MAX_BLOCKS_PER_MCU],
        planes: &mut [Plane],
    ) {
        let columns = self.frame.mcus[0];
        let (column, row) = (mcu % columns, mcu / columns);
        for (part, block) in self.frame.parts.iter().zip(blocks) {
            let component = self.frame.components[part.component];
            let [across, down] = component.blocks;
            let samples =
                transform.samples(block.coefficients(), &self.tables.quant[component.quant]);
            let (x, y) = (column * across + part.column, row * down + part.row);
            planes[part.component].put_block(8 * x, 8 * y, &samples);
        }
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
    fn read(&mut self, blocks: &mut [Block; MAX_BLOCKS_PER_MCU]) -> Option<()> {
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
