//! Everything before the scan: frame, tables, and whether this crate reads such a file.

use crate::blocks::placed;
use crate::error::{JpegError, damaged_at};
use crate::huffman::{Kind, Table};
use crate::idct::Coefficients;
use crate::planes::Colour;

/// Largest image that is decoded; the limit keeps a hostile header from taking all memory.
pub(crate) const MAX_PIXELS: usize = 100_000_000;
/// Most blocks that an MCU may have (T.81, B.2.3).
pub(crate) const MAX_BLOCKS_PER_MCU: usize = 10;

/// A component of the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Component {
    pub(crate) id: u8,
    /// Blocks per MCU, across and down.
    pub(crate) blocks: [usize; 2],
    /// Slots of its tables.
    pub(crate) quant: usize,
    pub(crate) dc: usize,
    pub(crate) ac: usize,
}

/// A block of an MCU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Index of its component.
    pub(crate) component: usize,
    /// Where it stands among those of its component.
    pub(crate) column: usize,
    pub(crate) row: usize,
}

/// What the headers say about the image.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) colour: Colour,
    pub(crate) components: Vec<Component>,
    /// The blocks of an MCU, in the order of the file; [`MAX_BLOCKS_PER_MCU`] or fewer.
    pub(crate) parts: Vec<Part>,
    /// Blocks of 8×8 pixels that an MCU covers, across and down.
    pub(crate) mcu: [usize; 2],
    /// MCUs per row and per column of the image.
    pub(crate) mcus: [usize; 2],
    /// MCUs between restart markers, 0 where there are none.
    pub(crate) restart_interval: usize,
}

impl Frame {
    /// Blocks that the whole scan codes.
    pub(crate) fn blocks(&self) -> usize {
        self.mcus[0] * self.mcus[1] * self.parts.len()
    }
}

/// Tables by slot. Those of the image before stay, as most files define the same ones.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) quant: [Coefficients; 4],
    pub(crate) dc: [Table; 4],
    pub(crate) ac: [Table; 4],
    /// Which of them this file has defined.
    defined: Defined,
}

#[derive(Debug, Default)]
struct Defined {
    quant: [bool; 4],
    dc: [bool; 4],
    ac: [bool; 4],
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            quant: [[0; 64]; 4],
            dc: [(); 4].map(|()| Table::new(Kind::Dc)),
            ac: [(); 4].map(|()| Table::new(Kind::Ac)),
            defined: Defined::default(),
        }
    }
}

/// Marks of the writing program that tell the colours of three components.
#[derive(Default)]
struct Marks {
    jfif: bool,
    adobe_transform: Option<u8>,
}

/// Reads up to the first scan and returns where its data start.
pub(crate) fn read(
    file: &[u8],
    frame: &mut Frame,
    tables: &mut Tables,
) -> Result<usize, JpegError> {
    if !file.starts_with(&[0xFF, 0xD8]) {
        return Err(damaged_at(0, "there is no start marker"));
    }
    frame.components.clear();
    frame.restart_interval = 0;
    tables.defined = Defined::default();
    let (mut at, mut marks) = (2, Marks::default());
    loop {
        let (marker, mut segment) = next_segment(file, at)?;
        let end = segment.end();
        match marker {
            0xDB => read_quant_tables(&mut segment, tables)?,
            0xC4 => read_huffman_tables(&mut segment, tables)?,
            0xC0 | 0xC1 => read_frame(&mut segment, frame)?,
            0xDD => frame.restart_interval = segment.word()?.into(),
            0xE0 => marks.jfif |= segment.bytes.len() >= 14 && segment.bytes.starts_with(b"JFIF\0"),
            0xEE if segment.bytes.starts_with(b"Adobe") => {
                marks.adobe_transform = segment.bytes.get(11).copied();
            }
            0xDA => {
                read_scan_header(&mut segment, frame, tables)?;
                frame.colour = colour(&frame.components, &marks);
                return Ok(end);
            }
            0xC2 | 0xC6 | 0xCA | 0xCE => {
                return Err(JpegError::Unsupported("progressive coding"));
            }
            0xC9 | 0xCB | 0xCC | 0xCD | 0xCF => {
                return Err(JpegError::Unsupported("arithmetic coding"));
            }
            0xD8 | 0xD9 => return Err(damaged_at(at, "it has no pixels")),
            0xC3 | 0xC5 | 0xC7 | 0xC8 => {
                return Err(JpegError::Unsupported("lossless or hierarchical coding"));
            }
            // Application data, comments.
            _ => {}
        }
        at = end;
    }
}

/// Are there only known segments between the scan and an end marker?
///
/// Otherwise the file ends early, or has more scans.
pub(crate) fn check_end(file: &[u8], mut at: usize) -> Result<(), JpegError> {
    loop {
        let (marker, segment) = next_segment(file, at)?;
        match marker {
            0xD9 => return Ok(()),
            0xDA => return Err(JpegError::Unsupported("several scans")),
            0xDC => return Err(JpegError::Unsupported("a height that follows the pixels")),
            _ => at = segment.end(),
        }
    }
}

/// The contents of a marker segment.
struct Segment<'a> {
    bytes: &'a [u8],
    /// Of the first byte, in the file.
    offset: usize,
}

impl<'a> Segment<'a> {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], JpegError> {
        let too_short = || damaged_at(self.offset, "a segment is too short for what it holds");
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(too_short)?;
        self.bytes = rest;
        self.offset += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, JpegError> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u16, JpegError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Two numbers of four bits.
    fn nibbles(&mut self) -> Result<(u8, u8), JpegError> {
        let byte = self.byte()?;
        Ok((byte >> 4, byte & 15))
    }

    /// Checks the number of a table.
    fn slot(&self, number: u8) -> Result<usize, JpegError> {
        let slot = usize::from(number);
        if slot < 4 { Ok(slot) } else { Err(damaged_at(self.offset, "a table has no such number")) }
    }
}

/// The first segment from `at` on, with its marker. Stray bytes before it are passed over.
fn next_segment(file: &[u8], mut at: usize) -> Result<(u8, Segment<'_>), JpegError> {
    let missing = || damaged_at(file.len(), "it ends before its end marker");
    let rest = file.get(at..).ok_or_else(missing)?;
    at += memchr::memchr(0xFF, rest).ok_or_else(missing)?;
    at += file[at..].iter().position(|&byte| byte != 0xFF).ok_or_else(missing)?;
    let marker = file[at];
    // These stand alone (T.81, table B.1).
    if matches!(marker, 0x00 | 0x01 | 0xD0..=0xD9) {
        return Ok((marker, Segment { bytes: &[], offset: at + 1 }));
    }
    let mut rest = Segment { bytes: &file[at + 1..], offset: at + 1 };
    let length = usize::from(rest.word()?);
    let content = length.checked_sub(2).ok_or_else(|| damaged_at(at, "a segment has no length"))?;
    Ok((marker, Segment { offset: rest.offset, bytes: rest.take(content)? }))
}

/// Quantization tables (T.81, B.2.4.1).
fn read_quant_tables(segment: &mut Segment<'_>, tables: &mut Tables) -> Result<(), JpegError> {
    while !segment.bytes.is_empty() {
        let (precision, number) = segment.nibbles()?;
        let slot = segment.slot(number)?;
        let mut steps = [0; 64];
        for step in &mut steps {
            let unsigned = if precision == 0 { segment.byte()?.into() } else { segment.word()? };
            *step = unsigned.cast_signed();
        }
        tables.quant[slot] = placed(&steps);
        tables.defined.quant[slot] = true;
    }
    Ok(())
}

/// Huffman tables (T.81, B.2.4.2).
fn read_huffman_tables(segment: &mut Segment<'_>, tables: &mut Tables) -> Result<(), JpegError> {
    while !segment.bytes.is_empty() {
        let start = segment.offset;
        let (class, number) = segment.nibbles()?;
        let slot = segment.slot(number)?;
        let counts = segment.take(16)?.first_chunk().expect("16 were taken");
        let count = counts.iter().map(|&count| usize::from(count)).sum();
        if count > 256 {
            return Err(damaged_at(start, "a Huffman table has more than 256 symbols"));
        }
        let symbols = segment.take(count)?;
        let (table, defined) = match class {
            0 => (&mut tables.dc[slot], &mut tables.defined.dc[slot]),
            1 => (&mut tables.ac[slot], &mut tables.defined.ac[slot]),
            _ => return Err(damaged_at(start, "a Huffman table has no such class")),
        };
        table.define(counts, symbols).map_err(|what| damaged_at(start, what))?;
        *defined = true;
    }
    Ok(())
}

/// The frame header (T.81, B.2.2).
fn read_frame(segment: &mut Segment<'_>, frame: &mut Frame) -> Result<(), JpegError> {
    let start = segment.offset;
    if !frame.components.is_empty() {
        return Err(damaged_at(start, "it has two frames"));
    }
    if segment.byte()? != 8 {
        return Err(JpegError::Unsupported("samples of more than 8 bits"));
    }
    (frame.height, frame.width) = (segment.word()?.into(), segment.word()?.into());
    if frame.width == 0 {
        return Err(damaged_at(start, "it has no columns"));
    }
    if frame.height == 0 {
        return Err(JpegError::Unsupported("a height that follows the pixels"));
    }
    if frame.width * frame.height > MAX_PIXELS {
        return Err(JpegError::Unsupported("more than 100,000,000 pixels"));
    }
    let count = segment.byte()?;
    if !matches!(count, 1 | 3) {
        return Err(JpegError::Unsupported("neither one nor three components"));
    }
    for _ in 0..count {
        let id = segment.byte()?;
        let (across, down) = segment.nibbles()?;
        let number = segment.byte()?;
        let quant = segment.slot(number)?;
        let blocks = [usize::from(across), usize::from(down)];
        frame.components.push(Component { id, blocks, quant, dc: 0, ac: 0 });
    }
    lay_out(frame)
}

/// Decides the size of the MCUs.
pub(crate) fn lay_out(frame: &mut Frame) -> Result<(), JpegError> {
    let unusual = Err(JpegError::Unsupported("unusual sampling"));
    // The MCU of a single component is one block, whatever its factors (A.2.2).
    if let [gray] = &mut frame.components[..] {
        gray.blocks = [1, 1];
    }
    frame.mcu = frame.components[0].blocks;
    for component in &frame.components {
        for (blocks, most) in component.blocks.into_iter().zip(frame.mcu) {
            // Resolution falls from the first component on, if at all.
            if blocks == 0 || blocks > most || most > 2 {
                return unusual;
            }
        }
    }
    frame.mcus = [frame.width.div_ceil(8 * frame.mcu[0]), frame.height.div_ceil(8 * frame.mcu[1])];
    frame.parts.clear();
    for (component, Component { blocks: [across, down], .. }) in frame.components.iter().enumerate()
    {
        for row in 0..*down {
            frame.parts.extend((0..*across).map(|column| Part { component, column, row }));
        }
    }
    if frame.parts.len() > MAX_BLOCKS_PER_MCU { unusual } else { Ok(()) }
}

/// The scan header (T.81, B.2.3).
fn read_scan_header(
    segment: &mut Segment<'_>,
    frame: &mut Frame,
    tables: &Tables,
) -> Result<(), JpegError> {
    let start = segment.offset;
    if frame.components.is_empty() {
        return Err(damaged_at(start, "its pixels come before their size"));
    }
    if usize::from(segment.byte()?) != frame.components.len() {
        return Err(JpegError::Unsupported("several scans"));
    }
    for component in &mut frame.components {
        if segment.byte()? != component.id {
            return Err(JpegError::Unsupported("components in another order"));
        }
        let (dc, ac) = segment.nibbles()?;
        (component.dc, component.ac) = (segment.slot(dc)?, segment.slot(ac)?);
        let defined = &tables.defined;
        if !defined.quant[component.quant] {
            return Err(damaged_at(start, "a quantization table is missing"));
        }
        if !defined.dc[component.dc] || !defined.ac[component.ac] {
            return Err(JpegError::Unsupported("Huffman tables that are to be known"));
        }
    }
    Ok(())
}

/// The same guesses as libjpeg's.
fn colour(components: &[Component], marks: &Marks) -> Colour {
    match components {
        [_] => Colour::Gray,
        _ if marks.jfif => Colour::YCbCr,
        _ if marks.adobe_transform.is_some() => match marks.adobe_transform {
            Some(0) => Colour::Rgb,
            _ => Colour::YCbCr,
        },
        [r, g, b] if [r.id, g.id, b.id] == *b"RGB" => Colour::Rgb,
        _ => Colour::YCbCr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_guessed_as_libjpeg_does() {
        let guess = |ids: &[u8], jfif, adobe_transform| {
            let components: Vec<_> = ids
                .iter()
                .map(|&id| Component { id, blocks: [1, 1], quant: 0, dc: 0, ac: 0 })
                .collect();
            colour(&components, &Marks { jfif, adobe_transform })
        };
        assert_eq!(guess(&[1], true, None), Colour::Gray);
        assert_eq!(guess(&[1, 2, 3], false, None), Colour::YCbCr);
        assert_eq!(guess(b"RGB", false, None), Colour::Rgb);
        assert_eq!(guess(b"RGB", true, None), Colour::YCbCr);
        assert_eq!(guess(b"RGB", false, Some(1)), Colour::YCbCr);
        assert_eq!(guess(&[1, 2, 3], false, Some(0)), Colour::Rgb);
        assert_eq!(guess(&[1, 2, 3], true, Some(0)), Colour::YCbCr);
    }
}
