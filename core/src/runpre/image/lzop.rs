// SPDX-License-Identifier: GPL-2.0-or-later
//! The file that `lzop` makes of a kernel (`KERNEL_LZO`; lib/decompress_unlzo.c reads the same): a header,
//! then blocks with their sizes and checksums. All numbers are big-endian.

const MAGIC: [u8; 9] = *b"\x89LZO\0\r\n\x1a\n";
/// Versions from this one on have more fields in the header.
const VERSION_WITH_LEVEL: u16 = 0x0940;
/// Flags: which checksums a block has, of its contents and of what they are packed into; a filter.
const ADLER32: u32 = 0x1;
const PACKED_ADLER32: u32 = 0x2;
const CRC32: u32 = 0x100;
const PACKED_CRC32: u32 = 0x200;
const FILTER: u32 = 0x800;
/// Largest block that the program makes, uncompressed.
const BLOCK_MAX: usize = 64 << 20;

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const WIDTH: usize>(&mut self) -> Result<[u8; WIDTH], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.number().map(u32::from_be_bytes)
    }

    /// The header, of which only the flags matter here.
    fn header(&mut self) -> Result<u32, String> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err("it does not begin as a file of lzop".into());
        }
        let version = u16::from_be_bytes(self.number()?);
        let newer = version >= VERSION_WITH_LEVEL;
        // The library's version; that which is needed, the method, the level.
        self.take(if newer { 2 + 2 + 1 + 1 } else { 2 + 1 })?;
        let flags = self.u32()?;
        if flags & FILTER != 0 {
            return Err("it was filtered before it was packed".into());
        }
        // Mode, and time.
        self.take(if newer { 4 + 4 + 4 } else { 4 + 4 })?;
        let [name] = self.number()?;
        // The header's own checksum stands behind the name.
        self.take(usize::from(name) + 4)?;
        Ok(flags)
    }
}

/// Unpacks it; no more than `most` bytes come out.
pub(super) fn unpack(packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let mut from = Bytes(packed);
    let flags = from.header()?;
    let mut out = Vec::new();
    loop {
        let size = from.u32()? as usize;
        if size == 0 {
            return Ok(out);
        }
        let packed_size = from.u32()? as usize;
        if size > BLOCK_MAX || packed_size > size {
            return Err(format!("a block has {packed_size} bytes for {size}"));
        }
        if out.len() + size > most {
            return Err(format!("more than {most} bytes come out"));
        }
        let sum = if flags & ADLER32 != 0 { Some(from.u32()?) } else { None };
        let is_packed = packed_size < size;
        let others = [(CRC32, true), (PACKED_ADLER32, is_packed), (PACKED_CRC32, is_packed)];
        let others = others.iter().filter(|(flag, there)| flags & flag != 0 && *there).count();
        from.take(4 * others)?;
        let bytes = from.take(packed_size)?;
        let start = out.len();
        if is_packed {
            out.resize(start + size, 0);
            let block = out.get_mut(start..).unwrap_or_default();
            let len = lzokay::decompress::decompress(bytes, block)
                .map_err(|error| format!("a block cannot be unpacked: {error}"))?;
            if len != size {
                return Err(format!("a block has {len} bytes, and not {size}"));
            }
        } else {
            out.extend_from_slice(bytes);
        }
        let block = out.get(start..).unwrap_or_default();
        if sum.is_some_and(|sum| sum != adler2::adler32_slice(block)) {
            return Err("a block does not have its checksum".into());
        }
    }
}
