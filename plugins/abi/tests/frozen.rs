// SPDX-License-Identifier: GPL-2.0-or-later
//! Version 1 is frozen: every type's size and every field's offset, on 64-bit machines. If this
//! fails, the change belongs into a type of the next version beside the old one, or behind a
//! symbol of its own, as `AddedV1` is.

use std::mem::{offset_of, size_of};

use splice_plugin_abi::note::Note;
use splice_plugin_abi::v1::*;

macro_rules! layout {
    ($($type:ident: $($field:ident)*;)*) => {{
        let mut out = String::new();
        $(
            out.push_str(&format!("{} {}:", stringify!($type), size_of::<$type>()));
            $(out.push_str(&format!(" {}@{}", stringify!($field), offset_of!($type, $field)));)*
            out.push('\n');
        )*
        out
    }};
}

const FROZEN: &str = "\
CodeRelocV1 56: offset@0 addend@8 symbol@16 inside@32 r_type@48 key@52
EntryV1 80: section@0 offset@16 data@24 relocs@40 replacement@56 target@64
CodeV1 64: name@0 bytes@16 relocs@32 entries@48
RunCodeV1 24: address@0 bytes@8
KernelV1 40: this@0 addresses@8 is_function@16 is_text@24 read@32
HandleV1 8:
FailureV1 120: kind@0 r_type@4 offset@8 value@16 name@24 section@56 text@88
DifferenceV1 80: pre_offset@0 post_offset@8 pre@16 post@48
VerdictV1 88:
LearnedV1 24: value@0 offset@8 key@16
PartialV1 40: bias@0 known@8 value@16 offset@24 key@32
RuleCountV1 40: rule@0 places@32 bytes@36
RangeV1 16: start@0 len@8
MismatchV1 112: offset@0 expected@8 found@40 why@72 probed@104 short_branch@105
MatchedV1 128: learned@0 partial@32 rules@64 live@96
RunMatchV1 136:
RelocInfoV1 56: name@0 mask@32 recovered_bits@40 r_type@48 width@52 pc_relative@53 kind@54
SpecialSectionV1 88: name@0 size_kind@32 role@36 size@40 owner@48 to@56
BitFieldV1 16: add@0 word@8 size@9 shift@10 bits@11 position@12
TemplateV1 80: bytes@0 fields@32 bias@64 range_bits@72
NeverQuiescentV1 64: name@0 why@32
FactsV1 336: name@0 kernel_arch@32 source_arch@64 cross_prefixes@96 special_sections@128 relocations@160 template@192 never_quiescent@272 stack_clear@304 stack_set@312 minimum_size@320 absolute64@328 e_machine@332 is_64@334 is_little_endian@335
PluginV1 88: facts@0 compare@8 match_running@16 disassemble@24 is_padding@32 target_offsets@40 apply@48 recover@56 site@64 recognise@72 busy_range@80
AddedV1 48: boot_payload@0 flat_image@8 replaces_by_nothing@16 arguments@24 runs_on@32 settled@40
FlatImageV1 24: address@0 relative@16
ArgumentV1 40: offset@0 pre@8 post@16 previous@24
SettledV1 32: offset@0 target@8 addend@16 r_type@24
Note 60:
";

#[test]
#[cfg(target_pointer_width = "64")]
fn version_1_is_frozen() {
    let now = layout! {
        CodeRelocV1: offset addend symbol inside r_type key;
        EntryV1: section offset data relocs replacement target;
        CodeV1: name bytes relocs entries;
        RunCodeV1: address bytes;
        KernelV1: this addresses is_function is_text read;
        HandleV1:;
        FailureV1: kind r_type offset value name section text;
        DifferenceV1: pre_offset post_offset pre post;
        VerdictV1:;
        LearnedV1: value offset key;
        PartialV1: bias known value offset key;
        RuleCountV1: rule places bytes;
        RangeV1: start len;
        MismatchV1: offset expected found why probed short_branch;
        MatchedV1: learned partial rules live;
        RunMatchV1:;
        RelocInfoV1: name mask recovered_bits r_type width pc_relative kind;
        SpecialSectionV1: name size_kind role size owner to;
        BitFieldV1: add word size shift bits position;
        TemplateV1: bytes fields bias range_bits;
        NeverQuiescentV1: name why;
        FactsV1: name kernel_arch source_arch cross_prefixes special_sections relocations template
            never_quiescent stack_clear stack_set minimum_size absolute64 e_machine is_64
            is_little_endian;
        PluginV1: facts compare match_running disassemble is_padding target_offsets apply recover
            site recognise busy_range;
        AddedV1: boot_payload flat_image replaces_by_nothing arguments runs_on settled;
        FlatImageV1: address relative;
        ArgumentV1: offset pre post previous;
        SettledV1: offset target addend r_type;
        Note:;
    };
    assert_eq!(now, FROZEN, "\n{now}");
}
