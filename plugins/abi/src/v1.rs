// SPDX-License-Identifier: GPL-2.0-or-later
//! The frozen types of version 1: what crosses the border between splice and a plugin.
//!
//! Nothing here may ever change, not even by a field at a type's end: a plugin that was built
//! years ago has to load (`tests/frozen.rs` holds every size and offset). What is missing becomes
//! a `…V2` beside it. Enumerations that the engine may extend are numbers, whose values are the
//! constants below; a number that the other side does not know is an error there, never a guess.
//!
//! All offsets and sizes are in bytes. Borrowed things live as long as the call.

#![expect(
    missing_docs,
    reason = "a field means what the field of the same name in the engine does"
)]
use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec};

/// A call's answer: every entry of a plugin can fail, if only by panicking.
pub type Answer<T> = RResult<T, FailureV1>;

/// See [`splice_core::arch::CodeReloc`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct CodeRelocV1<'a> {
    pub offset: u64,
    pub addend: i64,
    pub symbol: RStr<'a>,
    pub inside: ROption<u64>,
    pub r_type: u32,
    pub key: u32,
}

/// See [`splice_core::arch::Entry`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct EntryV1<'a> {
    pub section: RStr<'a>,
    pub offset: u64,
    pub data: RSlice<'a, u8>,
    pub relocs: RSlice<'a, CodeRelocV1<'a>>,
    pub replacement: Option<&'a CodeV1<'a>>,
    pub target: ROption<u64>,
}

/// See [`splice_core::arch::Code`]: a whole function.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct CodeV1<'a> {
    pub name: RStr<'a>,
    pub bytes: RSlice<'a, u8>,
    pub relocs: RSlice<'a, CodeRelocV1<'a>>,
    pub entries: RSlice<'a, EntryV1<'a>>,
}

/// See [`splice_core::arch::RunCode`], but for the section's symbol, which version 1 does not tell.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RunCodeV1<'a> {
    pub address: u64,
    pub bytes: RSlice<'a, u8>,
}

/// Questions about the running kernel, answered by the host while a call lasts; see
/// [`splice_core::arch::KernelView`]. `this` is handed back in each.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct KernelV1<'a> {
    pub this: HandleV1<'a>,
    pub addresses: extern "C" fn(HandleV1<'_>, RStr<'_>) -> RVec<u64>,
    pub is_function: extern "C" fn(HandleV1<'_>, u64) -> bool,
    pub is_text: extern "C" fn(HandleV1<'_>, u64) -> bool,
    pub read: extern "C" fn(HandleV1<'_>, u64, RSliceMut<'_, u8>) -> bool,
}

/// Something of the host's that a plugin only hands back.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct HandleV1<'a>(pub abi_stable::sabi_types::RRef<'a, ()>);

/// See [`splice_core::arch::ArchError`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct FailureV1 {
    /// One of the `FAILURE_…` numbers.
    pub kind: u32,
    pub r_type: u32,
    pub offset: u64,
    pub value: u64,
    /// Name of the code or of the relocation.
    pub name: RString,
    pub section: RString,
    /// What is wrong, in words.
    pub text: RString,
}

/// `ArchError::Undecodable`: `name`, `offset`.
pub const FAILURE_UNDECODABLE: u32 = 1;
/// `ArchError::UnknownRelocation`: `name`, `offset`, `r_type`.
pub const FAILURE_UNKNOWN_RELOCATION: u32 = 2;
/// `ArchError::Range`: `name` is the relocation's, `value`.
pub const FAILURE_RANGE: u32 = 3;
/// `ArchError::Outside`: `name`, `offset`.
pub const FAILURE_OUTSIDE: u32 = 4;
/// `ArchError::Entry`: `section`, `name`, `offset`, `text`.
pub const FAILURE_ENTRY: u32 = 5;
/// The plugin panicked: `text`.
pub const FAILURE_PANIC: u32 = 6;
/// Anything else: `text`.
pub const FAILURE_OTHER: u32 = 7;

/// See [`splice_core::arch::Difference`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct DifferenceV1 {
    pub pre_offset: u64,
    pub post_offset: u64,
    pub pre: RString,
    pub post: RString,
}

/// See [`splice_core::arch::Verdict`].
#[repr(u8)]
#[derive(StableAbi, Debug, Clone)]
pub enum VerdictV1 {
    Same,
    Changed(DifferenceV1),
    CannotJudge(RString),
}

/// See [`splice_core::arch::Learned`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct LearnedV1 {
    pub value: u64,
    pub offset: u64,
    pub key: u32,
}

/// See [`splice_core::arch::Partial`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct PartialV1 {
    pub bias: u64,
    pub known: u64,
    pub value: u64,
    pub offset: u64,
    pub key: u32,
}

/// See [`splice_core::arch::RuleCount`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct RuleCountV1 {
    pub rule: RString,
    pub places: u32,
    pub bytes: u32,
}

/// Offset (or start) and length.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RangeV1 {
    pub start: u64,
    pub len: u64,
}

/// See [`splice_core::arch::Mismatch`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct MismatchV1 {
    pub offset: u64,
    pub expected: RVec<u8>,
    pub found: RVec<u8>,
    pub why: RString,
    pub probed: bool,
    pub short_branch: bool,
}

/// The symbol values, their parts, rules and live ranges of [`splice_core::arch::RunMatch::Matched`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct MatchedV1 {
    pub learned: RVec<LearnedV1>,
    pub partial: RVec<PartialV1>,
    pub rules: RVec<RuleCountV1>,
    pub live: RVec<RangeV1>,
}

/// See [`splice_core::arch::RunMatch`].
#[repr(u8)]
#[derive(StableAbi, Debug, Clone)]
pub enum RunMatchV1 {
    Matched(MatchedV1),
    Refused(MismatchV1),
}

/// See [`splice_core::arch::RelocInfo`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct RelocInfoV1 {
    pub name: RString,
    pub mask: u64,
    /// See [`splice_core::arch::RelocationFixup::recovered_bits`].
    pub recovered_bits: u64,
    pub r_type: u32,
    pub width: u8,
    pub pc_relative: bool,
    /// One of the `RELOC_…` numbers.
    pub kind: u8,
}

/// `Uleb128::Set`.
pub const ULEB128_SET: u8 = 1;
/// `Uleb128::Sub`.
pub const ULEB128_SUB: u8 = 2;
/// `RelocKind::None`.
pub const RELOC_NONE: u8 = 0;
/// `RelocKind::Branch`.
pub const RELOC_BRANCH: u8 = 1;
/// `RelocKind::Address`.
pub const RELOC_ADDRESS: u8 = 2;

/// See [`splice_core::unit::SpecialSection`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct SpecialSectionV1 {
    pub name: RString,
    /// One of the `SIZE_…` numbers.
    pub size_kind: u32,
    /// One of the `ROLE_…` numbers.
    pub role: u32,
    /// For `SIZE_FIXED`; for `SIZE_ONE_OF` up to eight sizes of one byte each, the lowest first.
    pub size: u64,
    pub owner: u64,
    /// For `ROLE_PARALLEL`.
    pub to: RString,
}

/// `EntrySize::Fixed`.
pub const SIZE_FIXED: u32 = 1;
/// `EntrySize::FromRelocations`.
pub const SIZE_FROM_RELOCATIONS: u32 = 2;
/// `EntrySize::FromHeader`.
pub const SIZE_FROM_HEADER: u32 = 3;
/// `EntrySize::Whole`.
pub const SIZE_WHOLE: u32 = 4;
/// `EntrySize::OneOf`.
pub const SIZE_ONE_OF: u32 = 5;

/// `Role::Dynamic`.
pub const ROLE_DYNAMIC: u32 = 1;
/// `Role::Travels`.
pub const ROLE_TRAVELS: u32 = 2;
/// `Role::Parallel`.
pub const ROLE_PARALLEL: u32 = 3;
/// `Role::Payload`.
pub const ROLE_PAYLOAD: u32 = 4;
/// `Role::Dropped`.
pub const ROLE_DROPPED: u32 = 5;
/// `Role::Data`.
pub const ROLE_DATA: u32 = 6;
/// `Role::Listed`.
pub const ROLE_LISTED: u32 = 7;
/// `Role::Placed`.
pub const ROLE_PLACED: u32 = 8;
/// `Role::Ids`.
pub const ROLE_IDS: u32 = 9;
/// `Role::Boot`.
pub const ROLE_BOOT: u32 = 10;
/// `Role::Stays`.
pub const ROLE_STAYS: u32 = 13;
/// `Role::Annotates`.
pub const ROLE_ANNOTATES: u32 = 11;
/// `Role::Frozen`.
pub const ROLE_FROZEN: u32 = 12;

/// See [`splice_core::arch::BitField`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct BitFieldV1 {
    pub add: i64,
    pub word: u8,
    pub size: u8,
    pub shift: u8,
    pub bits: u8,
    pub position: u8,
}

/// See [`splice_core::arch::Template`]; the granule is 1.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct TemplateV1 {
    pub bytes: RVec<u8>,
    pub fields: RVec<BitFieldV1>,
    pub bias: i64,
    pub range_bits: u8,
}

/// See [`splice_core::arch::NeverQuiescent`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct NeverQuiescentV1 {
    pub name: RString,
    pub why: RString,
}

/// Everything about an architecture that does not depend on code: asked for once, when the
/// plugin is loaded.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct FactsV1 {
    pub name: RString,
    pub kernel_arch: RString,
    pub source_arch: RString,
    pub cross_prefixes: RVec<RString>,
    pub special_sections: RVec<SpecialSectionV1>,
    /// The whole table.
    pub relocations: RVec<RelocInfoV1>,
    pub template: TemplateV1,
    pub never_quiescent: RVec<NeverQuiescentV1>,
    pub stack_clear: u64,
    pub stack_set: u64,
    pub minimum_size: u64,
    pub absolute64: u32,
    pub e_machine: u16,
    pub is_64: bool,
    pub is_little_endian: bool,
}

/// See [`splice_core::arch::FlatImage`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct FlatImageV1 {
    pub address: ROption<u64>,
    pub relative: u32,
}

/// See [`splice_core::arch::Argument`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct ArgumentV1 {
    pub offset: u64,
    pub pre: u64,
    pub post: u64,
    pub previous: ROption<u64>,
}

/// See [`splice_core::arch::Settled`].
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct SettledV1 {
    pub offset: u64,
    pub target: i64,
    pub addend: i64,
    pub r_type: u32,
}

/// The entries of a plugin. Each may be called from any thread, and several at once.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginV1Ref)))]
#[sabi(missing_field(panic))]
pub struct PluginV1 {
    pub facts: extern "C" fn() -> Answer<FactsV1>,
    pub compare: extern "C" fn(&CodeV1<'_>, &CodeV1<'_>) -> Answer<VerdictV1>,
    pub match_running:
        extern "C" fn(&CodeV1<'_>, &RunCodeV1<'_>, &KernelV1<'_>) -> Answer<RunMatchV1>,
    pub disassemble: extern "C" fn(RSlice<'_, u8>, u64, u64) -> Answer<RVec<RString>>,
    pub is_padding: extern "C" fn(RSlice<'_, u8>) -> Answer<bool>,
    pub target_offsets: extern "C" fn(&CodeV1<'_>) -> Answer<RVec<i64>>,
    /// Type, value, addend, place, field.
    pub apply: extern "C" fn(u32, u64, i64, u64, RSliceMut<'_, u8>) -> Answer<()>,
    /// Type, addend, place, field.
    pub recover: extern "C" fn(u32, i64, u64, RSlice<'_, u8>) -> Answer<u64>,
    /// Code, live ranges, padding; the inner error says why there is no room.
    pub site:
        extern "C" fn(&CodeV1<'_>, RSlice<'_, RangeV1>, u64) -> Answer<RResult<RangeV1, RString>>,
    pub recognise: extern "C" fn(RSlice<'_, u8>, u64) -> Answer<ROption<u64>>,
    /// Size, borrowed.
    #[sabi(last_prefix_field)]
    pub busy_range: extern "C" fn(u64, u64) -> Answer<RangeV1>,
}

impl abi_stable::library::RootModule for PluginV1Ref {
    abi_stable::declare_root_module_statics! {PluginV1Ref}
    const BASE_NAME: &'static str = "splice_plugin";
    const NAME: &'static str = "splice plugin, version 1";
    /// The interface's own version; the crate's may move on.
    const VERSION_STRINGS: abi_stable::sabi_types::VersionStrings =
        abi_stable::sabi_types::VersionStrings::new("1.0.0");
}

/// Entries that came later, behind a symbol of their own ([`crate::SYMBOL_ADDED`]): a plugin that was built
/// before has not got it, and answers as the traits' defaults do.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = AddedV1Ref)))]
#[sabi(missing_field(panic))]
pub struct AddedV1 {
    /// Boot image; where in it the packed kernel is.
    pub boot_payload: extern "C" fn(RSlice<'_, u8>) -> Answer<ROption<RangeV1>>,
    /// Boot image.
    pub flat_image: extern "C" fn(RSlice<'_, u8>) -> Answer<ROption<FlatImageV1>>,
    /// Name of a special section, entry.
    pub replaces_by_nothing: extern "C" fn(RStr<'_>, RSlice<'_, u8>) -> Answer<bool>,
    pub arguments: extern "C" fn(&CodeV1<'_>, &CodeV1<'_>) -> Answer<ROption<RVec<ArgumentV1>>>,
    pub runs_on: extern "C" fn(&CodeV1<'_>) -> Answer<bool>,
    #[sabi(last_prefix_field)]
    pub settled: extern "C" fn(&CodeV1<'_>) -> Answer<RVec<SettledV1>>,
}

impl abi_stable::library::RootModule for AddedV1Ref {
    abi_stable::declare_root_module_statics! {AddedV1Ref}
    const BASE_NAME: &'static str = "splice_plugin_added";
    const NAME: &'static str = "splice plugin, version 1, what came later";
    const VERSION_STRINGS: abi_stable::sabi_types::VersionStrings = PluginV1Ref::VERSION_STRINGS;
}

/// Entries that came after those, about what an assembler leaves to the linker, behind a symbol of their own
/// ([`crate::SYMBOL_LINKING`]).
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LinkingV1Ref)))]
#[sabi(missing_field(panic))]
pub struct LinkingV1 {
    /// Type; [`ULEB128_SET`], [`ULEB128_SUB`], or something else for none.
    pub uleb128: extern "C" fn(u32) -> Answer<u8>,
    /// Address, type, addend.
    #[sabi(last_prefix_field)]
    pub padding: extern "C" fn(u64, u32, i64) -> Answer<ROption<RVec<u8>>>,
}

impl abi_stable::library::RootModule for LinkingV1Ref {
    abi_stable::declare_root_module_statics! {LinkingV1Ref}
    const BASE_NAME: &'static str = "splice_plugin_linking";
    const NAME: &'static str = "splice plugin, version 1, what is left to the linker";
    const VERSION_STRINGS: abi_stable::sabi_types::VersionStrings = PluginV1Ref::VERSION_STRINGS;
}
