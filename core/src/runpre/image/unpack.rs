// SPDX-License-Identifier: GPL-2.0-or-later
//! Unpacking a kernel: the compressions that its build offers (`KERNEL_GZIP` and the others of
//! init/Kconfig), told apart by their first bytes as lib/decompress.c does.
//!
//! Whatever the file says, no more than [`MOST`] bytes come out.

use std::io::{self, Read};

use super::lzop;

/// More is no kernel.
const MOST: usize = 1 << 30;
/// Memory that a decoder may take, in KiB: twice the largest window that the kernel's build uses.
const WINDOW: u32 = 256 * 1024;
/// Uncompressed size of a block of LZ4's old frame.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

impl Packing {
    /// Which one it is.
    pub(super) fn of(packed: &[u8]) -> Option<Packing> {
        const FIRST: [(&[u8], Packing); 8] = [
            (&[0x1f, 0x8b], Packing::Gzip),
            (&[0x1f, 0x9e], Packing::Gzip),
            (b"BZh", Packing::Bzip2),
            (&[0x5d, 0, 0], Packing::Lzma),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Packing::Xz),
            (&[0x89, b'L', b'Z', b'O', 0], Packing::Lzo),
            (&LZ4_MAGIC, Packing::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
        ];
        FIRST.iter().find(|(first, _)| packed.starts_with(first)).map(|(_, packing)| *packing)
    }

    /// Unpacks a file.
    pub(super) fn unpack(self, packed: &[u8]) -> Result<Vec<u8>, String> {
        self.at_most(packed, MOST)
    }

    /// Unpacks the payload of a boot image, behind which its uncompressed size stands.
    pub(super) fn unpack_payload(self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let (packed, size) = payload.split_last_chunk().ok_or("its payload is cut short")?;
        let size = u32::from_le_bytes(*size) as usize;
        // A gzip file ends with its size, to the others the build adds it.
        let packed = if self == Packing::Gzip { payload } else { packed };
        let kernel = self.at_most(packed, size.min(MOST))?;
        if kernel.len() != size {
            return Err(format!("{} bytes came out, and not {size}", kernel.len()));
        }
        Ok(kernel)
    }

    fn at_most(self, packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
        let all = |from: &mut dyn Read| read(from, most).map_err(|e| e.to_string());
        match self {
            Packing::Gzip => all(&mut flate2::read::GzDecoder::new(packed)),
            Packing::Bzip2 => all(&mut bzip2::read::BzDecoder::new(packed)),
            Packing::Lzma => {
                let reader = lzma_rust2::LzmaReader::new_mem_limit(packed, WINDOW, None);
                all(&mut reader.map_err(|e| e.to_string())?)
            }
            Packing::Xz => all(&mut lzma_rust2::XzReader::new_mem_limit(packed, false, WINDOW)),
            Packing::Zstd => all(&mut zstd::Decoder::new(packed).map_err(|e| e.to_string())?),
            Packing::Lz4 => lz4(packed, most),
            Packing::Lzo => lzop::unpack(packed, most),
        }
    }
}

fn read(from: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut out)?;
    if out.len() > most {
        return Err(io::Error::other(format!("more than {most} bytes come out")));
    }
    Ok(out)
}

/// LZ4's old frame: after the magic number, blocks with their compressed sizes.
fn lz4(mut packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while !packed.is_empty() {
        let (size, rest) = packed.split_first_chunk().ok_or("its last block is cut short")?;
        packed = rest;
        if *size == LZ4_MAGIC {
            continue;
        }
        let size = u32::from_le_bytes(*size) as usize;
        let (one, rest) = packed.split_at_checked(size).ok_or("a block is cut short")?;
        packed = rest;
        let len = lz4_flex::block::decompress_into(one, &mut block).map_err(|e| e.to_string())?;
        out.extend_from_slice(block.get(..len).unwrap_or_default());
        if out.len() > most {
            return Err(format!("more than {most} bytes come out"));
        }
    }
    Ok(out)
}
