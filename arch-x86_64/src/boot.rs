// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the compressed kernel lies in a bzImage: the setup header (Documentation/arch/x86/boot.rst).

/// Number of sectors of real-mode code, less the first; 0 stands for 4.
const SETUP_SECTS: usize = 0x1f1;
/// The end of a boot sector.
const BOOT_FLAG: (usize, [u8; 2]) = (0x1fe, [0x55, 0xaa]);
/// What a setup header begins with.
const MAGIC: (usize, &[u8; 4]) = (0x202, b"HdrS");
/// Version of the boot protocol; the payload is told since 2.08.
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// The payload of a bzImage: it begins behind the real-mode code.
pub(crate) fn payload(image: &[u8]) -> Option<&[u8]> {
    let starts =
        |(at, bytes): (usize, &[u8])| image.get(at..).is_some_and(|i| i.starts_with(bytes));
    if !starts((BOOT_FLAG.0, &BOOT_FLAG.1)) || !starts((MAGIC.0, MAGIC.1)) {
        return None;
    }
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let version = u16::from_le_bytes(image.get(VERSION..VERSION + 2)?.try_into().ok()?);
    if version < 0x0208 {
        return None;
    }
    let sectors = match image.get(SETUP_SECTS)? {
        0 => 4,
        n => usize::from(*n),
    };
    let start = ((sectors + 1) * SECTOR).checked_add(word(PAYLOAD_OFFSET)?)?;
    let end = start.checked_add(word(PAYLOAD_LENGTH)?)?;
    image.get(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(sectors: u8, version: u16, offset: u32, length: u32) -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[SETUP_SECTS] = sectors;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&version.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&offset.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        for at in (1024..4096).step_by(4) {
            image[at..at + 4].copy_from_slice(&(at as u32).to_le_bytes());
        }
        image
    }

    #[test]
    fn the_header_tells_where_the_payload_is() {
        let one = image(1, 0x20f, 8, 12);
        assert_eq!(payload(&one), Some(&one[1032..1044]));
        let default = image(0, 0x208, 0, 4);
        assert_eq!(payload(&default), Some(&default[2560..2564]));
        let whole = image(1, 0x20f, 0, 3072);
        assert_eq!(payload(&whole).map(<[u8]>::len), Some(3072));
    }

    #[test]
    fn what_is_no_such_image_has_none() {
        let good = image(1, 0x20f, 8, 12);
        for at in [0x1fe, 0x202, 0x205] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(payload(&bad), None, "{at:#x}");
        }
        assert_eq!(payload(&image(1, 0x207, 8, 12)), None);
        assert_eq!(payload(&image(1, 0x20f, 0, 3073)), None);
        assert_eq!(payload(&image(1, 0x20f, u32::MAX, u32::MAX)), None);
        assert_eq!(payload(&image(255, 0x20f, 0, 0)), None);
        for len in 0..1044 {
            assert_eq!(payload(&good[..len]), None, "{len}");
        }
    }
}
