// SPDX-License-Identifier: GPL-2.0-or-later
//! Nops, as the kernel and the assembler write them.

/// The kernel's nops by length (asm/nops.h; those of nine and more bytes since 6.3).
const KERNEL: &[&[u8]] = &[
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
    &[0x66, 0x66, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
    &[0x66, 0x66, 0x66, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
];

/// Those of nine and more bytes with another prefix, as 6.12 has them.
const LONG: &[&[u8]] = &[
    &[0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
    &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
    &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
];

/// The kernel's 5-byte nop.
pub(crate) const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// The kernel's 2-byte nop.
pub(crate) const NOP2: [u8; 2] = [0x66, 0x90];
/// The breakpoint instruction, which also fills what must never run.
pub(crate) const INT3: u8 = 0xcc;

/// Length of the kernel nop that `bytes` begin with.
pub(crate) fn kernel_nop(bytes: &[u8]) -> Option<usize> {
    LONG.iter().chain(KERNEL).rev().find(|n| bytes.starts_with(n)).map(|n| n.len())
}

/// Length of the nop that `bytes` begin with, the assembler's alignment forms included.
fn any_nop(bytes: &[u8]) -> Option<usize> {
    if let Some(n) = kernel_nop(bytes) {
        return Some(n);
    }
    // data16… cs nopw 0x0(%rax,%rax,1)
    let prefixes = bytes.iter().take_while(|b| **b == 0x66).count();
    let rest = bytes.get(prefixes..)?;
    let fits = (1..=6).contains(&prefixes)
        && rest.starts_with(&[0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0]);
    fits.then_some(prefixes + 9)
}

/// Whether `bytes` are kernel nops and nothing else, or what newer kernels write for a long run:
/// a jump to its end over breakpoints.
pub(crate) fn is_fill(bytes: &[u8]) -> bool {
    if let [0xeb, distance, rest @ ..] = bytes {
        return usize::from(*distance) == rest.len() && rest.iter().all(|b| *b == INT3);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(n) = kernel_nop(rest) else { return false };
        rest = rest.get(n..).unwrap_or_default();
    }
    true
}

/// Whether `bytes` are nothing but padding between functions: nops, or breakpoints.
pub(crate) fn is_padding(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let n = if *first == INT3 { Some(1) } else { any_nop(rest) };
        let Some(n) = n else { return false };
        rest = rest.get(n..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    #[test]
    fn each_kernel_nop_is_one_nop_instruction() {
        for (i, nop) in KERNEL.iter().enumerate() {
            assert_eq!(nop.len(), i + 1);
            let lines = decode::disassemble(nop, 0, 9);
            assert_eq!(lines.len(), 1, "{lines:?}");
            // The formatter knows the 2-byte form by its other name.
            let nop = lines[0].contains("nop") || lines[0] == "xchg ax, ax";
            assert!(nop, "{lines:?}");
        }
    }

    #[test]
    fn fill_is_nops_only() {
        assert!(is_fill(&[]));
        assert!(is_fill(&[0x90, 0x0f, 0x1f, 0x00, 0x66, 0x90]));
        assert!(is_fill(&[0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]));
        assert!(is_fill(&[0xeb, 0x02, 0xcc, 0xcc]));
        assert!(!is_fill(&[0xeb, 0x01, 0xcc, 0xcc]), "jumps into the breakpoints");
        assert!(!is_fill(&[0xeb, 0x02, 0xcc, 0x90]));
        assert!(!is_fill(&[0x0f, 0x1f]), "cut short");
        assert!(!is_fill(&[0xcc]));
        assert!(!is_fill(&[0x0f, 0x1f, 0x44, 0x00, 0x01]), "not the kernel's");
    }

    #[test]
    fn padding_is_nops_and_breakpoints() {
        assert!(is_padding(&[]));
        assert!(is_padding(&[0xcc, 0xcc, 0x90, 0xcc]));
        assert!(is_padding(&[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]));
        assert!(!is_padding(&[0xcc, 0xc3]));
        assert!(!is_padding(&[0x00, 0x00]));
        assert!(!is_padding(&[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 1]));
    }
}
