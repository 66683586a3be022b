// SPDX-License-Identifier: GPL-2.0-or-later
//! What a plugin says of its architecture, once, as the engine's own types. They live for ever.

use splice_core::arch::{BitField, NeverQuiescent, RelocInfo, RelocKind, StackWord, Template};
use splice_core::unit::{EntrySize, Role, SpecialSection};
use splice_plugin_abi::v1::{
    FactsV1, RELOC_ADDRESS, RELOC_BRANCH, RELOC_NONE, ROLE_ANNOTATES, ROLE_BOOT, ROLE_DATA,
    ROLE_DROPPED, ROLE_DYNAMIC, ROLE_FROZEN, ROLE_IDS, ROLE_LISTED, ROLE_PARALLEL, ROLE_PAYLOAD,
    ROLE_PLACED, ROLE_STAYS, ROLE_TRAVELS, RelocInfoV1, SIZE_FIXED, SIZE_FROM_HEADER,
    SIZE_FROM_RELOCATIONS, SIZE_ONE_OF, SIZE_WHOLE, SpecialSectionV1,
};

use crate::file::Note;

/// No patchable function needs more bytes than that.
const MOST_MINIMUM: u64 = 4096;

/// The constant answers of a backend.
#[derive(Debug)]
pub(crate) struct Facts {
    pub name: &'static str,
    pub e_machine: u16,
    pub kernel_arch: &'static str,
    pub source_arch: &'static str,
    pub cross_prefixes: &'static [&'static str],
    pub special_sections: &'static [SpecialSection],
    /// Sorted by type.
    pub relocations: &'static [RelocInfo],
    /// The bits that a field of each of them tells, where it is not all; sorted by type.
    pub recovered_bits: Vec<(u32, u64)>,
    pub absolute64: u32,
    pub template: Template,
    pub word: StackWord,
    pub minimum_size: u64,
    pub never_quiescent: &'static [NeverQuiescent],
}

/// Text that lives for ever.
pub(crate) fn keep(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn keep_all<T>(all: Vec<T>) -> &'static [T] {
    Box::leak(all.into_boxed_slice())
}

impl Facts {
    /// Takes over what a plugin said; the error is what cannot be right. What the engine's own
    /// checks find ([`splice_core::arch::check`]) is left to them.
    pub(crate) fn new(facts: &FactsV1, note: &Note) -> Result<Facts, String> {
        if facts.name.as_str() != note.name || facts.e_machine != note.e_machine {
            return Err(format!(
                "its code is for {} (ELF machine {}), its note for {} (machine {})",
                crate::error::one_line(&facts.name),
                facts.e_machine,
                note.name,
                note.e_machine
            ));
        }
        if !facts.is_64 || !facts.is_little_endian {
            return Err("splice reads 64-bit little-endian objects only".into());
        }
        if facts.minimum_size == 0 || facts.minimum_size > MOST_MINIMUM {
            return Err(format!("a smallest patchable function of {} bytes", facts.minimum_size));
        }
        let mut relocations =
            facts.relocations.iter().map(relocation).collect::<Result<Vec<_>, _>>()?;
        relocations.sort_by_key(|r| r.r_type);
        for pair in relocations.windows(2) {
            if let [a, b] = pair
                && a.r_type == b.r_type
            {
                return Err(format!("two rows for relocation type {}", a.r_type));
            }
        }
        let mut recovered_bits: Vec<(u32, u64)> = facts
            .relocations
            .iter()
            .map(|r| (r.r_type, r.recovered_bits))
            .filter(|(_, bits)| *bits != u64::MAX)
            .collect();
        recovered_bits.sort_unstable();
        let sections = facts.special_sections.iter().map(section).collect::<Result<Vec<_>, _>>()?;
        let template = &facts.template;
        Ok(Facts {
            name: keep(&facts.name),
            e_machine: facts.e_machine,
            kernel_arch: keep(&facts.kernel_arch),
            source_arch: keep(&facts.source_arch),
            cross_prefixes: keep_all(facts.cross_prefixes.iter().map(|p| keep(p)).collect()),
            special_sections: keep_all(sections),
            relocations: keep_all(relocations),
            recovered_bits,
            absolute64: facts.absolute64,
            template: Template {
                bytes: template.bytes.to_vec(),
                fields: template
                    .fields
                    .iter()
                    .map(|f| BitField {
                        word: f.word,
                        size: f.size,
                        add: f.add,
                        shift: f.shift,
                        bits: f.bits,
                        position: f.position,
                    })
                    .collect(),
                bias: template.bias,
                granule: 1,
                range_bits: template.range_bits,
            },
            word: StackWord { clear: facts.stack_clear, set: facts.stack_set },
            minimum_size: facts.minimum_size,
            never_quiescent: keep_all(
                facts
                    .never_quiescent
                    .iter()
                    .map(|n| NeverQuiescent { name: keep(&n.name), why: keep(&n.why) })
                    .collect(),
            ),
        })
    }
}

fn relocation(row: &RelocInfoV1) -> Result<RelocInfo, String> {
    let kind = match row.kind {
        RELOC_NONE => RelocKind::None,
        RELOC_BRANCH => RelocKind::Branch,
        RELOC_ADDRESS => RelocKind::Address,
        other => return Err(format!("{} of unknown kind {other}", row.name)),
    };
    if row.r_type == u32::MAX {
        return Err(format!("the row of {} for another type", row.name));
    }
    Ok(RelocInfo {
        r_type: row.r_type,
        name: keep(&row.name),
        width: row.width,
        mask: row.mask,
        pc_relative: row.pc_relative,
        kind,
    })
}

/// The sizes that an entry may have; none is longer than the owner's offset allows.
fn sizes(row: &SpecialSectionV1) -> Result<&'static [u64], String> {
    let bytes = row.size.to_le_bytes();
    let sizes: Vec<u64> = bytes.iter().take_while(|b| **b != 0).copied().map(u64::from).collect();
    if sizes.is_empty() || sizes.iter().any(|size| row.owner >= *size) {
        return Err(format!("section {} with entries of no possible size", row.name));
    }
    Ok(keep_all(sizes))
}

fn section(row: &SpecialSectionV1) -> Result<SpecialSection, String> {
    let size = match row.size_kind {
        SIZE_FIXED => EntrySize::Fixed(row.size),
        SIZE_FROM_RELOCATIONS => EntrySize::FromRelocations,
        SIZE_FROM_HEADER => EntrySize::FromHeader,
        SIZE_WHOLE => EntrySize::Whole,
        SIZE_ONE_OF => EntrySize::OneOf(sizes(row)?),
        other => return Err(format!("section {} of unknown size {other}", row.name)),
    };
    let role = match row.role {
        ROLE_DYNAMIC => Role::Dynamic,
        ROLE_TRAVELS => Role::Travels,
        ROLE_PARALLEL => Role::Parallel { to: keep(&row.to) },
        ROLE_PAYLOAD => Role::Payload,
        ROLE_DROPPED => Role::Dropped,
        ROLE_DATA => Role::Data,
        ROLE_LISTED => Role::Listed,
        ROLE_PLACED => Role::Placed,
        ROLE_IDS => Role::Ids,
        ROLE_BOOT => Role::Boot,
        ROLE_ANNOTATES => Role::Annotates,
        ROLE_STAYS => Role::Stays,
        ROLE_FROZEN => Role::Frozen,
        other => return Err(format!("section {} of unknown role {other}", row.name)),
    };
    if row.name.is_empty() {
        return Err("a special section without a name".into());
    }
    if let EntrySize::Fixed(bytes) = size
        && row.owner >= bytes
    {
        return Err(format!(
            "entries of {} with {bytes} bytes and their owner at {}",
            row.name, row.owner
        ));
    }
    Ok(SpecialSection { name: keep(&row.name), size, owner: row.owner, role })
}
