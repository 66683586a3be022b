// SPDX-License-Identifier: GPL-2.0-or-later
//! A plugin that was built before loads, and answers as it did (`v1/README.md` says how it was made).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use splice_core::arch::{Arch, ArchError, BitField, Code, CodeReloc, Verdict};
use splice_plugin_host::load;

fn kept() -> &'static dyn Arch {
    let packed = include_bytes!("v1/myarch.so.xz");
    let mut library = Vec::new();
    lzma_rust2::XzReader::new(&packed[..], false).read_to_end(&mut library).unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("libmyarch.so");
    std::fs::write(&file, library).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    load(&file).unwrap_or_else(|error| panic!("{error}"))
}

fn reloc(offset: u64, r_type: u32) -> CodeReloc<'static> {
    CodeReloc { offset, r_type, symbol: "x", key: 1, addend: 4, inside: None }
}

#[test]
fn a_plugin_of_version_1_still_answers() {
    let arch = kept();
    assert_eq!((arch.name(), arch.e_machine(), arch.kernel_arch()), ("myarch", 243, "riscv"));
    assert_eq!(arch.cross_prefixes(), ["riscv64-linux-gnu-"]);
    assert!(arch.special_sections().is_empty());

    let code = |bytes, relocs| Code { name: "f", bytes, relocs, entries: &[] };
    // auipc ra; jalr ra: the bits of a call that its relocation owns, and those that it does not.
    let call = [0x97, 0, 0, 0, 0xe7, 0x80, 0, 0];
    let elsewhere = [0x97, 0x10, 0x20, 0x30, 0xe7, 0x80, 0x40, 0x50];
    let other = [0x17, 3, 0, 0, 0x67, 0, 3, 0];
    let relocs = [reloc(0, 19)];
    let pre = code(&call, &relocs);
    assert_eq!(arch.diff().compare(&pre, &code(&elsewhere, &relocs)), Ok(Verdict::Same));
    let Ok(Verdict::Changed(difference)) = arch.diff().compare(&pre, &code(&other, &relocs)) else {
        panic!("another register is the same")
    };
    assert_eq!((difference.pre_offset, &*difference.pre), (0, "0x0: 0097"));
    assert_eq!(difference.post, "0x0: 0317");
    let unknown = [reloc(0, 200)];
    let refused = arch.diff().compare(&code(&call, &unknown), &code(&call, &unknown));
    let name = String::from("f");
    assert_eq!(refused, Err(ArchError::UnknownRelocation { name, offset: 0, r_type: 200 }));

    let row = arch.reloc().describe(28).unwrap();
    assert_eq!((row.name, row.width, row.mask), ("R_RISCV_LO12_S", 4, 0xfe00_0f80));
    assert_eq!(arch.reloc().target_offsets(&pre), Ok(vec![4]));
    let mut field = [0; 8];
    arch.reloc().apply(2, 0x1000, 0x23, 0, &mut field).unwrap();
    assert_eq!(u64::from_le_bytes(field), 0x1023);

    // What came later, it does not tell.
    assert_eq!(arch.diff().arguments(&pre, &pre), Ok(None));
    assert_eq!(arch.reloc().settled(&pre), Ok(Vec::new()));
    assert!(arch.diff().runs_on(&pre));
    assert_eq!((arch.boot_payload(&call), arch.flat_image(&call)), (None, None));
    assert!(!arch.replaces_by_nothing(".altinstructions", &call));

    let template = arch.trampoline().template();
    assert_eq!(
        (template.bytes, template.granule, template.range_bits),
        (vec![0x6f, 0, 0, 0], 1, 21)
    );
    let first = BitField { word: 0, size: 4, add: 0, shift: 1, bits: 10, position: 21 };
    assert_eq!((template.fields.len(), template.fields.first()), (4, Some(&first)));
    let no_room = arch.trampoline().site(&pre, &[], 0).unwrap().unwrap_err();
    assert_eq!(no_room.0, "f: this backend writes no jumps yet");
    assert_eq!(arch.stack().busy_range(8, 2), (0, 10));
    assert!(arch.stack().never_quiescent().iter().any(|f| f.name == "__switch_to"));
}
