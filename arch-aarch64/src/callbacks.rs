// SPDX-License-Identifier: GPL-2.0-or-later
//! Callbacks of alternatives: what each function of the kernel writes over its place.
//!
//! Sources, 6.1 and 6.12: arch/arm64/kernel/alternative.c, proton-pack.c, and
//! arch/arm64/kvm/va_layout.c. A callback that is not listed is refused by name;
//! `kvm_patch_vector_branch` is left out on purpose, for it writes the hypervisor's vectors.

use crate::forms::{Form, What, Word};
use crate::insn::{self, HVC, NOP, SMC};

/// The 16-bit immediate of `movz` and `movk`.
const IMM16: u32 = 0x001f_ffe0;
/// The shifted 12-bit immediate of `add`, and as many bits of a logical immediate.
const IMM13: u32 = 0x007f_fc00;
/// The distance of `ror`.
const IMMS: u32 = 0x0000_fc00;

/// `orr wd, wzr, #0x80003fff`, the number of the firmware's workaround 3, for any `wd`.
const MOV_WORKAROUND_3: u32 = 0x3201_3be0;

/// The forms that the callback of that name gives a place which holds `own`, besides the
/// object's; `None` for an unknown callback or a place that it does not expect.
pub(crate) fn forms<'a>(name: &str, own: &[u32]) -> Option<Vec<Form<'a>>> {
    match (name, own) {
        ("alt_cb_patch_nops", _) => Some(vec![Form::nops("alternative nops", own.len())]),
        (
            "spectre_v4_patch_fw_mitigation_enable"
            | "spectre_bhb_patch_loop_mitigation_enable"
            | "spectre_bhb_patch_fw_mitigation_enabled",
            [_],
        ) => Some(vec![Form::fixed("mitigation switch", &[NOP])]),
        ("spectre_bhb_patch_clearbhb", [_, _]) => {
            Some(vec![Form::fixed("mitigation switch", &[NOP, NOP])])
        }
        ("smccc_patch_fw_mitigation_conduit", [_]) => {
            Some(vec![Form::fixed("firmware call", &[HVC]), Form::fixed("firmware call", &[SMC])])
        }
        ("spectre_bhb_patch_loop_iter", [word]) => {
            let words = vec![Word::with(0xd280_0000 | insn::rd(*word), What::Any(IMM16))];
            Some(vec![Form { rule: "mitigation loop count", words }])
        }
        ("spectre_bhb_patch_wa3", [word]) => {
            Some(vec![Form::fixed("mitigation switch", &[MOV_WORKAROUND_3 | insn::rd(*word)])])
        }
        ("kvm_get_kimage_voffset" | "kvm_compute_final_ctr_el0", [word, _, _, _]) => {
            let rd = insn::rd(*word);
            let heads: [u32; 4] = [0xd280_0000, 0xf2a0_0000, 0xf2c0_0000, 0xf2e0_0000];
            let words = heads.map(|h| Word::with(h | rd, What::Any(IMM16))).to_vec();
            Some(vec![Form { rule: "alternative constant", words }])
        }
        ("kvm_update_va_mask", [_, _, _, _, _]) => Some(va_mask(own)),
        _ => None,
    }
}

/// The hypervisor's address of a kernel address: five instructions, or the first of them, or
/// none.
fn va_mask<'a>(own: &[u32]) -> Vec<Form<'a>> {
    const RULE: &str = "hypervisor address mask";
    let words: Vec<Word<'a>> = own
        .iter()
        .enumerate()
        .map(|(n, word)| {
            let (rd, rn) = (insn::rd(*word), insn::rn(*word));
            let registers = rn << 5 | rd;
            match n {
                0 => Word::with(0x9200_0000 | registers, What::Any(IMM13)),
                1 | 4 => Word::with(0x93c0_0000 | rn << 16 | registers, What::Any(IMMS)),
                _ => Word::with(0x9100_0000 | registers, What::Any(IMM13)),
            }
        })
        .collect();
    let mut masked = vec![Word::fixed(NOP); own.len()];
    if let (Some(slot), Some(first)) = (masked.first_mut(), words.first()) {
        *slot = *first;
    }
    vec![
        Form::nops(RULE, own.len()),
        Form { rule: RULE, words: masked },
        Form { rule: RULE, words },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, own: &[u32]) -> Vec<Vec<u32>> {
        let forms = forms(name, own).unwrap_or_default();
        assert!(forms.iter().all(|f| f.words.len() == own.len()), "{name}");
        forms.iter().map(|f| f.words.iter().map(|w| w.value).collect()).collect()
    }

    #[test]
    fn each_callback_keeps_length_and_registers() {
        // (callback, place, forms)
        type Row<'a> = (&'a str, &'a [u32], &'a [&'a [u32]]);
        let table: &[Row<'_>] = &[
            ("alt_cb_patch_nops", &[0x1400_0010], &[&[NOP]]),
            ("spectre_v4_patch_fw_mitigation_enable", &[0x1400_0010], &[&[NOP]]),
            ("smccc_patch_fw_mitigation_conduit", &[NOP], &[&[HVC], &[SMC]]),
            // mov x7, #32 and mov w0, w1
            ("spectre_bhb_patch_loop_iter", &[0xd280_0407], &[&[0xd280_0007]]),
            ("spectre_bhb_patch_wa3", &[0x2a01_03e0], &[&[0x3201_3be0]]),
            ("spectre_bhb_patch_clearbhb", &[0xd503_22df, 0xd503_3fdf], &[&[NOP, NOP]]),
            (
                "kvm_get_kimage_voffset",
                &[0xd280_0003, 0xf2a0_0003, 0xf2c0_0003, 0xf2e0_0003],
                &[&[0xd280_0003, 0xf2a0_0003, 0xf2c0_0003, 0xf2e0_0003]],
            ),
        ];
        for (name, own, expected) in table {
            assert_eq!(words(name, own), *expected, "{name}");
        }
        // and x2, x2, #1; ror x2, x2, #1; add x2, x2, #0; add x2, x2, #0, lsl #12; ror x2, x2, #63
        let own = [0x9240_0042, 0x93c2_0442, 0x9100_0042, 0x9140_0042, 0x93c2_fc42];
        let got = words("kvm_update_va_mask", &own);
        assert_eq!(got[0], [NOP; 5]);
        assert_eq!(got[1], [0x9200_0042, NOP, NOP, NOP, NOP]);
        assert_eq!(got[2], [0x9200_0042, 0x93c2_0042, 0x9100_0042, 0x9100_0042, 0x93c2_0042]);
    }

    #[test]
    fn unknown_ones_and_other_lengths_are_refused() {
        assert_eq!(forms("kvm_patch_vector_branch", &[NOP; 4]), None);
        assert_eq!(forms("", &[NOP]), None);
        assert_eq!(forms("kvm_update_va_mask", &[NOP; 4]), None);
        assert_eq!(forms("spectre_bhb_patch_clearbhb", &[NOP]), None);
    }
}
