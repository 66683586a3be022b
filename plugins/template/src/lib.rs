// SPDX-License-Identifier: GPL-2.0-or-later
//! A start for a plugin: a backend that compares objects, and refuses all that it does not know.
//!
//! As it is, it knows some relocations of RISC-V, so that one sees it work before anything is changed.
//! What a backend must promise stands at each trait; docs/plugins.md says in which order to go on.

use splice_plugin_abi::arch::{
    Arch, ArchError, BitField, Code, Difference, FunctionDiff, KernelView, Mismatch,
    NeverQuiescent, NoRoom, RelocInfo, RelocKind, RelocationFixup, RunCode, RunMatch, Site,
    StackSafety, Template, TrampolineEncoder, Verdict,
};
use splice_plugin_abi::unit::SpecialSection;

const NAME: &str = "myarch";
/// ELF `e_machine`, from the processor's psABI.
const MACHINE: u16 = 243;

struct MyArch;

splice_plugin_abi::export_arch!(&MyArch, name: NAME, machine: MACHINE);

impl Arch for MyArch {
    fn name(&self) -> &'static str {
        NAME
    }
    fn e_machine(&self) -> u16 {
        MACHINE
    }
    fn kernel_arch(&self) -> &'static str {
        "riscv"
    }
    fn source_arch(&self) -> &'static str {
        "riscv"
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        &["riscv64-linux-gnu-"]
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        &[]
    }
    fn diff(&self) -> &dyn FunctionDiff {
        self
    }
    fn reloc(&self) -> &dyn RelocationFixup {
        self
    }
    fn trampoline(&self) -> &dyn TrampolineEncoder {
        self
    }
    fn stack(&self) -> &dyn StackSafety {
        self
    }
}

/// What each relocation type owns: the bits of its word that the linker fills in.
static RELOCATIONS: [RelocInfo; 9] = [
    row(1, "R_RISCV_32", 4, 0xffff_ffff, RelocKind::Address),
    row(2, "R_RISCV_64", 8, u64::MAX, RelocKind::Address),
    row(19, "R_RISCV_CALL_PLT", 8, 0xfff0_0000_ffff_f000, RelocKind::Branch),
    row(17, "R_RISCV_JAL", 4, 0xffff_f000, RelocKind::Branch),
    row(16, "R_RISCV_BRANCH", 4, 0xfe00_0f80, RelocKind::Branch),
    row(45, "R_RISCV_RVC_JUMP", 2, 0x1ffc, RelocKind::Branch),
    row(26, "R_RISCV_HI20", 4, 0xffff_f000, RelocKind::Address),
    row(27, "R_RISCV_LO12_I", 4, 0xfff0_0000, RelocKind::Address),
    row(28, "R_RISCV_LO12_S", 4, 0xfe00_0f80, RelocKind::Address),
];

const fn row(r_type: u32, name: &'static str, width: u8, mask: u64, kind: RelocKind) -> RelocInfo {
    RelocInfo { r_type, name, width, mask, pc_relative: matches!(kind, RelocKind::Branch), kind }
}

impl RelocationFixup for MyArch {
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
        RELOCATIONS.iter().find(|row| row.r_type == r_type)
    }

    fn absolute64(&self) -> u32 {
        2
    }

    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError> {
        // No bias here: a processor whose branches count from the next instruction has one.
        Ok(code.relocs.iter().map(|reloc| reloc.addend).collect())
    }

    fn apply(
        &self,
        r_type: u32,
        value: u64,
        addend: i64,
        place: u64,
        field: &mut [u8],
    ) -> Result<(), ArchError> {
        if r_type != self.absolute64() || field.len() != 8 {
            return Err(ArchError::UnknownRelocation { name: NAME.into(), offset: place, r_type });
        }
        field.copy_from_slice(&value.wrapping_add_signed(addend).to_le_bytes());
        Ok(())
    }

    fn recover(&self, r_type: u32, _: i64, place: u64, _: &[u8]) -> Result<u64, ArchError> {
        Err(ArchError::UnknownRelocation { name: NAME.into(), offset: place, r_type })
    }
}

/// The code's bytes without the bits that relocations own.
fn fixed(code: &Code<'_>) -> Result<Vec<u8>, ArchError> {
    let mut bytes = code.bytes.to_vec();
    for reloc in code.relocs {
        let (offset, r_type) = (reloc.offset, reloc.r_type);
        let row = MyArch.describe(r_type).ok_or_else(|| ArchError::UnknownRelocation {
            name: code.name.into(),
            offset,
            r_type,
        })?;
        let field = usize::try_from(offset)
            .ok()
            .and_then(|start| bytes.get_mut(start..start.checked_add(usize::from(row.width))?))
            .ok_or_else(|| ArchError::Outside { name: code.name.into(), offset })?;
        for (byte, owned) in field.iter_mut().zip(row.mask.to_le_bytes()) {
            *byte &= !owned;
        }
    }
    Ok(bytes)
}

impl FunctionDiff for MyArch {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        let (a, b) = (fixed(pre)?, fixed(post)?);
        let relocated = |code: &Code<'_>| -> Vec<(u64, u32)> {
            code.relocs.iter().map(|reloc| (reloc.offset, reloc.r_type)).collect()
        };
        if a == b && relocated(pre) == relocated(post) {
            return Ok(Verdict::Same);
        }
        let equal = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
        // A decoder would find the instruction's start; here it is a multiple of two bytes.
        let at = (equal - equal % 2) as u64;
        let line = |code: &Code<'_>| {
            let rest = code.bytes.get(equal - equal % 2..).unwrap_or_default();
            self.disassemble(rest, at, 1).into_iter().next().unwrap_or_default()
        };
        Ok(Verdict::Changed(Difference {
            pre_offset: at,
            post_offset: at,
            pre: line(pre),
            post: line(post),
        }))
    }

    fn match_running(
        &self,
        _: &Code<'_>,
        _: &RunCode<'_>,
        _: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        Ok(RunMatch::Refused(Mismatch {
            offset: 0,
            expected: Vec::new(),
            found: Vec::new(),
            why: "this backend does not know running text yet".into(),
            probed: false,
            short_branch: false,
        }))
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        let line = |(n, word): (usize, &[u8])| {
            let hex: String = word.iter().rev().map(|byte| format!("{byte:02x}")).collect();
            format!("{:#x}: {hex}", address + 2 * n as u64)
        };
        bytes.chunks(2).enumerate().take(count).map(line).collect()
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| *byte == 0)
    }
}

impl TrampolineEncoder for MyArch {
    fn site(
        &self,
        pre: &Code<'_>,
        _: &[(u64, u64)],
        _: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError> {
        Ok(Err(NoRoom(format!("{}: this backend writes no jumps yet", pre.name))))
    }

    /// `j`: a jump within 1 MiB, whose displacement is spread over the word.
    fn template(&self) -> Template {
        let field =
            |shift, bits, position| BitField { word: 0, size: 4, add: 0, shift, bits, position };
        Template {
            bytes: vec![0x6f, 0, 0, 0],
            fields: vec![field(1, 10, 21), field(11, 1, 20), field(12, 8, 12), field(20, 1, 31)],
            bias: 0,
            granule: 1,
            range_bits: 21,
        }
    }

    fn recognise(&self, _: &[u8], _: u64) -> Option<u64> {
        None
    }
}

impl StackSafety for MyArch {
    fn minimum_size(&self) -> u64 {
        4
    }

    fn never_quiescent(&self) -> &'static [NeverQuiescent] {
        &[NeverQuiescent { name: "__switch_to", why: "every sleeping thread is in it" }]
    }
}
