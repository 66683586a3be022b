// SPDX-License-Identifier: GPL-2.0-or-later
//! Checks of what a backend returns, before the engine uses it.
//!
//! The engine calls the function named after a trait's method right after that method. A backend
//! may be a third party's: an offset outside the code, a field wider than its word or a value
//! too many ends in [`ArchError::Nonsense`], never in a wrong update.

use super::{
    Arch, ArchError, Argument, Code, Mismatch, NeverQuiescent, Partial, RelocInfo, RelocKind,
    RunMatch, Settled, Site, StackWord, Template, Verdict,
};

/// Longest template in bytes that the kernel side takes.
pub const TEMPLATE_BYTES: usize = 16;
/// Most fields of a template that the kernel side takes.
pub const TEMPLATE_FIELDS: usize = 4;

fn nonsense(arch: &dyn Arch, what: String) -> ArchError {
    ArchError::Nonsense { arch: arch.name().into(), what }
}

fn size(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

/// Whether `len` bytes from `start` lie within `size` bytes.
fn within(start: u64, len: u64, size: u64) -> bool {
    start.checked_add(len).is_some_and(|end| end <= size)
}

/// Bits of a word of `bytes` bytes.
fn word_mask(bytes: u8) -> u64 {
    match bytes {
        0 => 0,
        1..8 => (1u64 << (u32::from(bytes) * 8)) - 1,
        _ => u64::MAX,
    }
}

/// Checks the facade's names and numbers.
pub fn facade(arch: &dyn Arch) -> Result<(), ArchError> {
    if arch.name().is_empty() || arch.kernel_arch().is_empty() || arch.source_arch().is_empty() {
        return Err(nonsense(arch, "an empty name".into()));
    }
    if arch.e_machine() == 0 {
        return Err(nonsense(arch, "the machine number of no machine".into()));
    }
    let absolute = arch.reloc().absolute64();
    match described(arch, absolute)? {
        Some(row) if row.width == 8 && row.mask == u64::MAX && !row.pc_relative => Ok(()),
        _ => Err(nonsense(
            arch,
            format!("type {absolute} for absolute addresses, which its table does not bear out"),
        )),
    }
}

/// The table's row for a type, checked.
pub fn described(arch: &dyn Arch, r_type: u32) -> Result<Option<&'static RelocInfo>, ArchError> {
    let Some(row) = arch.reloc().describe(r_type) else { return Ok(None) };
    if row.r_type != r_type {
        let what = format!("the row of relocation type {} for type {r_type}", row.r_type);
        return Err(nonsense(arch, what));
    }
    if !matches!(row.width, 0 | 1 | 2 | 4 | 8) {
        return Err(nonsense(arch, format!("{} with a word of {} bytes", row.name, row.width)));
    }
    if row.mask & !word_mask(row.width) != 0 {
        let what = format!("{} with bits outside its word of {} bytes", row.name, row.width);
        return Err(nonsense(arch, what));
    }
    Ok(Some(row))
}

/// Checks the answer of [`super::RelocationFixup::target_offsets`].
pub fn target_offsets(arch: &dyn Arch, code: &Code<'_>, offsets: &[i64]) -> Result<(), ArchError> {
    if offsets.len() == code.relocs.len() {
        return Ok(());
    }
    let what = format!(
        "{} target offsets for the {} relocations of {}",
        offsets.len(),
        code.relocs.len(),
        code.name
    );
    Err(nonsense(arch, what))
}

/// Checks the answer of [`super::RelocationFixup::settled`].
pub fn settled(arch: &dyn Arch, code: &Code<'_>, found: &[Settled]) -> Result<(), ArchError> {
    for one in found {
        let width = described(arch, one.r_type)?.map_or(0, |row| u64::from(row.width));
        let field = one.offset..one.offset.saturating_add(width);
        let inside =
            i64::try_from(size(code.bytes)).is_ok_and(|len| (0..len).contains(&one.target));
        let relocated = code.relocs.iter().any(|r| field.contains(&r.offset));
        if width == 0 || !within(one.offset, width, size(code.bytes)) || inside || relocated {
            let what =
                format!("a reference without relocation at {:#x} of {}", one.offset, code.name);
            return Err(nonsense(arch, what));
        }
    }
    Ok(())
}

/// Whether two types of relocation, one of them a branch's, fill the same field by the place's
/// distance: an assembler may write another type for a symbol that others may override.
fn same_field(arch: &dyn Arch, a: u32, b: u32) -> bool {
    let (Some(a), Some(b)) = (arch.reloc().describe(a), arch.reloc().describe(b)) else {
        return false;
    };
    let branch = a.kind == RelocKind::Branch || b.kind == RelocKind::Branch;
    branch && a.pc_relative && b.pc_relative && (a.width, a.mask) == (b.width, b.mask)
}

/// Checks the answer of [`super::FunctionDiff::compare`].
pub fn verdict(
    arch: &dyn Arch,
    pre: &Code<'_>,
    post: &Code<'_>,
    verdict: &Verdict,
) -> Result<(), ArchError> {
    let name = pre.name;
    match verdict {
        Verdict::Same => {
            // What every backend must see, whatever the processor.
            if pre.bytes.len() != post.bytes.len() || pre.relocs.len() != post.relocs.len() {
                let what = format!("\"same\" for two sizes or relocation counts of {name}");
                return Err(nonsense(arch, what));
            }
            let equal = |(a, b): (&super::CodeReloc<'_>, &super::CodeReloc<'_>)| {
                a.offset == b.offset
                    && (a.r_type == b.r_type || same_field(arch, a.r_type, b.r_type))
            };
            if !pre.relocs.iter().zip(post.relocs).all(equal) {
                return Err(nonsense(arch, format!("\"same\" for other relocations in {name}")));
            }
            same_outside_relocs(arch, pre, post)
        }
        Verdict::Changed(d) => {
            if d.pre_offset > size(pre.bytes) || d.post_offset > size(post.bytes) {
                return Err(nonsense(arch, format!("a difference outside {name}")));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Checks that bytes which no relocation touches at all are equal.
fn same_outside_relocs(arch: &dyn Arch, pre: &Code<'_>, post: &Code<'_>) -> Result<(), ArchError> {
    let mut relocs = pre.relocs.iter().peekable();
    let mut owned = 0u64..0u64;
    for (at, (a, b)) in pre.bytes.iter().zip(post.bytes).enumerate() {
        let at = at as u64;
        while let Some(r) = relocs.next_if(|r| r.offset <= at) {
            let width = described(arch, r.r_type)?.map_or(0, |row| row.width);
            owned = r.offset..owned.end.max(r.offset.saturating_add(u64::from(width)));
        }
        if a != b && !owned.contains(&at) {
            let what = format!("\"same\" for {}, whose byte {at:#x} differs", pre.name);
            return Err(nonsense(arch, what));
        }
    }
    Ok(())
}

/// Checks the answer of [`super::FunctionDiff::arguments`].
pub fn arguments(
    arch: &dyn Arch,
    pre: &Code<'_>,
    post: &Code<'_>,
    found: &[Argument],
) -> Result<(), ArchError> {
    let sane = |a: &Argument| {
        a.offset < size(pre.bytes)
            && a.pre != a.post
            && a.previous.is_none_or(|p| pre.relocs.iter().any(|r| r.offset == p))
    };
    let places = |code: &Code<'_>| code.relocs.iter().map(|r| r.offset).collect::<Vec<_>>();
    let alike = pre.bytes.len() == post.bytes.len() && places(pre) == places(post);
    if found.is_empty() || !alike || !found.iter().all(sane) {
        return Err(nonsense(arch, format!("arguments that {} cannot have", pre.name)));
    }
    Ok(())
}

/// Checks the answer of [`super::FunctionDiff::match_running`].
pub fn run_match(arch: &dyn Arch, pre: &Code<'_>, answer: &RunMatch) -> Result<(), ArchError> {
    let size = size(pre.bytes);
    let name = pre.name;
    match answer {
        RunMatch::Matched { learned, partial, rules: _, live } => {
            partials(arch, pre, partial)?;
            if let Some(l) = learned.iter().find(|l| l.offset >= size) {
                let what = format!("a symbol value from offset {:#x}, outside {name}", l.offset);
                return Err(nonsense(arch, what));
            }
            if let Some(l) = learned.iter().find(|l| !key_is_known(pre, l.key)) {
                let what = format!("a value for symbol {}, which {name} does not name", l.key);
                return Err(nonsense(arch, what));
            }
            if let Some((start, len)) = live.iter().find(|(s, l)| *l == 0 || !within(*s, *l, size))
            {
                let what = format!("a live range of {len} bytes at {start:#x}, outside {name}");
                return Err(nonsense(arch, what));
            }
            Ok(())
        }
        RunMatch::Refused(m) => mismatch(arch, pre, m),
    }
}

/// Checks parts of symbol values.
fn partials(arch: &dyn Arch, pre: &Code<'_>, partial: &[Partial]) -> Result<(), ArchError> {
    let name = pre.name;
    for p in partial {
        if p.offset >= size(pre.bytes) {
            let what = format!("part of a symbol value from {:#x}, outside {name}", p.offset);
            return Err(nonsense(arch, what));
        }
        if !key_is_known(pre, p.key) {
            let what = format!("part of symbol {}'s value, which {name} does not name", p.key);
            return Err(nonsense(arch, what));
        }
        if p.value & !p.known != 0 || p.known == 0 {
            let what = format!("bits {:#x} of a value of which {:#x} are known", p.value, p.known);
            return Err(nonsense(arch, what));
        }
    }
    Ok(())
}

/// Whether any relocation of the code, of its entries or their replacements has that key.
fn key_is_known(code: &Code<'_>, key: u32) -> bool {
    let has = |relocs: &[super::CodeReloc<'_>]| relocs.iter().any(|r| r.key == key);
    has(code.relocs)
        || code
            .entries
            .iter()
            .any(|e| has(e.relocs) || e.replacement.is_some_and(|code| key_is_known(code, key)))
}

fn mismatch(arch: &dyn Arch, pre: &Code<'_>, m: &Mismatch) -> Result<(), ArchError> {
    if m.offset > size(pre.bytes) {
        let what = format!("a mismatch at {:#x}, outside {}", m.offset, pre.name);
        return Err(nonsense(arch, what));
    }
    if m.why.is_empty() {
        return Err(nonsense(arch, format!("a mismatch in {} without a reason", pre.name)));
    }
    Ok(())
}

/// Checks the answer of [`super::TrampolineEncoder::template`].
pub fn template(arch: &dyn Arch, template: &Template) -> Result<(), ArchError> {
    let len = template.bytes.len();
    if len == 0 || len > TEMPLATE_BYTES {
        return Err(nonsense(
            arch,
            format!("a trampoline of {len} bytes; 1 to {TEMPLATE_BYTES} are possible"),
        ));
    }
    let count = template.fields.len();
    if count == 0 || count > TEMPLATE_FIELDS {
        return Err(nonsense(
            arch,
            format!("a trampoline with {count} fields; 1 to {TEMPLATE_FIELDS} are possible"),
        ));
    }
    if !template.granule.is_power_of_two() {
        return Err(nonsense(arch, format!("a granule of {} bytes", template.granule)));
    }
    if !(1..=64).contains(&template.range_bits) {
        return Err(nonsense(arch, format!("a range of {} bits", template.range_bits)));
    }
    for field in &template.fields {
        let wrong = |why: &str| Err(nonsense(arch, format!("a trampoline whose field {why}")));
        if !matches!(field.size, 1 | 2 | 4 | 8) {
            return wrong(&format!("is in a word of {} bytes", field.size));
        }
        if !within(u64::from(field.word), u64::from(field.size), len as u64) {
            return wrong("lies outside its bytes");
        }
        let word_bits = u16::from(field.size) * 8;
        if field.bits == 0 || u16::from(field.bits) + u16::from(field.position) > word_bits {
            return wrong(&format!(
                "has {} bits at {} of a word of {word_bits}",
                field.bits, field.position
            ));
        }
        if field.shift > 63 {
            return wrong(&format!("is shifted by {}", field.shift));
        }
    }
    overlapping_fields(arch, template)
}

/// Checks that no bit of a template belongs to two fields, and that all field bits are zero.
fn overlapping_fields(arch: &dyn Arch, template: &Template) -> Result<(), ArchError> {
    let mut owned = [0u8; TEMPLATE_BYTES];
    for field in &template.fields {
        let bits = u32::from(field.position)..u32::from(field.position) + u32::from(field.bits);
        for bit in bits {
            let at = usize::from(field.word) + (bit / 8) as usize;
            let flag = 1u8 << (bit % 8);
            let (Some(mine), Some(byte)) = (owned.get_mut(at), template.bytes.get(at)) else {
                return Err(nonsense(
                    arch,
                    "a trampoline whose field lies outside its bytes".into(),
                ));
            };
            if *mine & flag != 0 {
                return Err(nonsense(arch, "a trampoline whose fields overlap".into()));
            }
            if byte & flag != 0 {
                return Err(nonsense(arch, "a trampoline whose field is not zero".into()));
            }
            *mine |= flag;
        }
    }
    Ok(())
}

/// Checks the answer of [`super::TrampolineEncoder::site`].
pub fn site(
    arch: &dyn Arch,
    pre: &Code<'_>,
    padding: u64,
    live: &[(u64, u64)],
    site: &Site,
) -> Result<(), ArchError> {
    let room = size(pre.bytes).saturating_add(padding);
    let (offset, len) = (site.offset, site.len);
    if !within(offset, len, room) {
        return Err(nonsense(
            arch,
            format!(
                "a site of {len} bytes at {offset:#x} of {}, which has room for {room}",
                pre.name
            ),
        ));
    }
    let expected = arch.trampoline().template().bytes.len() as u64;
    if len != expected {
        return Err(nonsense(arch, format!("a site of {len} bytes for a jump of {expected}")));
    }
    let end = offset + len;
    if live.iter().any(|(start, len)| *start < end && offset < start.saturating_add(*len)) {
        let what = format!("a site at {offset:#x} of {} on a live range", pre.name);
        return Err(nonsense(arch, what));
    }
    Ok(())
}

/// Checks the answer of [`super::StackSafety::word`].
pub fn stack_word(arch: &dyn Arch, word: StackWord) -> Result<(), ArchError> {
    if word.set & !word.clear != 0 {
        return Err(nonsense(arch, "stack bits to be set that are not cleared first".into()));
    }
    Ok(())
}

/// Checks the answer of [`super::StackSafety::busy_range`] for a part of `size` bytes with
/// `borrowed` bytes of padding. `site` is where a trampoline will stand in it, if one will.
pub fn busy_range(
    arch: &dyn Arch,
    range: (u64, u64),
    size: u64,
    borrowed: u64,
    site: Option<&Site>,
) -> Result<(), ArchError> {
    let (start, len) = range;
    if !within(start, len, size.saturating_add(borrowed)) {
        let what = format!("a busy range of {len} bytes at {start:#x} in a part of {size}");
        return Err(nonsense(arch, what));
    }
    if let Some(site) = site
        && (site.offset < start || !within(site.offset - start, site.len, len))
    {
        return Err(nonsense(arch, "a busy range that leaves the trampoline's bytes out".into()));
    }
    Ok(())
}

/// Checks the answer of [`super::StackSafety::never_quiescent`].
pub fn never_quiescent(arch: &dyn Arch, list: &[NeverQuiescent]) -> Result<(), ArchError> {
    match list.iter().find(|n| n.name.is_empty() || n.why.is_empty()) {
        Some(n) => {
            Err(nonsense(arch, format!("a never-quiescent function {:?}: {:?}", n.name, n.why)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    /// A backend whose answers are given to the checks by hand.
    struct Mock;

    static ROWS: &[RelocInfo] = &[
        RelocInfo {
            r_type: 1,
            name: "ABS64",
            width: 8,
            mask: u64::MAX,
            pc_relative: false,
            kind: RelocKind::Address,
        },
        RelocInfo {
            r_type: 2,
            name: "TOO_WIDE",
            width: 2,
            mask: 0xfffff,
            pc_relative: false,
            kind: RelocKind::Address,
        },
        RelocInfo {
            r_type: 3,
            name: "ODD",
            width: 3,
            mask: 0xff,
            pc_relative: false,
            kind: RelocKind::Address,
        },
        RelocInfo {
            r_type: 7,
            name: "OTHER",
            width: 4,
            mask: 0xff,
            pc_relative: false,
            kind: RelocKind::Address,
        },
    ];

    impl Arch for Mock {
        fn name(&self) -> &'static str {
            "mock"
        }
        fn e_machine(&self) -> u16 {
            1
        }
        fn kernel_arch(&self) -> &'static str {
            "mock"
        }
        fn source_arch(&self) -> &'static str {
            "mock"
        }
        fn cross_prefixes(&self) -> &'static [&'static str] {
            &[]
        }
        fn special_sections(&self) -> &'static [crate::unit::SpecialSection] {
            &[]
        }
        fn diff(&self) -> &dyn FunctionDiff {
            unreachable!()
        }
        fn reloc(&self) -> &dyn RelocationFixup {
            self
        }
        fn trampoline(&self) -> &dyn TrampolineEncoder {
            self
        }
        fn stack(&self) -> &dyn StackSafety {
            unreachable!()
        }
    }

    impl RelocationFixup for Mock {
        fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
            match r_type {
                8 => ROWS.get(3),
                t => ROWS.iter().find(|r| r.r_type == t),
            }
        }
        fn absolute64(&self) -> u32 {
            1
        }
        fn target_offsets(&self, _: &Code<'_>) -> Result<Vec<i64>, ArchError> {
            unreachable!()
        }
        fn apply(&self, _: u32, _: u64, _: i64, _: u64, _: &mut [u8]) -> Result<(), ArchError> {
            unreachable!()
        }
        fn recover(&self, _: u32, _: i64, _: u64, _: &[u8]) -> Result<u64, ArchError> {
            unreachable!()
        }
    }

    impl TrampolineEncoder for Mock {
        fn site(
            &self,
            _: &Code<'_>,
            _: &[(u64, u64)],
            _: u64,
        ) -> Result<Result<Site, NoRoom>, ArchError> {
            unreachable!()
        }
        fn template(&self) -> Template {
            good_template()
        }
        fn recognise(&self, _: &[u8], _: u64) -> Option<u64> {
            None
        }
    }

    fn good_template() -> Template {
        Template {
            bytes: vec![0xe9, 0, 0, 0, 0],
            fields: vec![BitField { word: 1, size: 4, add: 0, shift: 0, bits: 32, position: 0 }],
            bias: 5,
            granule: 1,
            range_bits: 32,
        }
    }

    const RELOC: CodeReloc<'static> =
        CodeReloc { offset: 0, r_type: 1, symbol: "x", key: 5, addend: 0, inside: None };

    fn code<'a>(bytes: &'a [u8], relocs: &'a [CodeReloc<'a>]) -> Code<'a> {
        Code { name: "f", bytes, relocs, entries: &[] }
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, ArchError>) {
        assert!(matches!(result, Err(ArchError::Nonsense { .. })), "{result:?}");
    }

    #[test]
    fn facade_and_rows() {
        assert_eq!(facade(&Mock), Ok(()));
        assert!(described(&Mock, 1).unwrap().is_some());
        assert_eq!(described(&Mock, 99), Ok(None));
        refused(described(&Mock, 2));
        refused(described(&Mock, 3));
        refused(described(&Mock, 8));
    }

    #[test]
    fn target_offsets_are_counted() {
        assert_eq!(target_offsets(&Mock, &code(&[0; 8], &[RELOC]), &[4]), Ok(()));
        refused(target_offsets(&Mock, &code(&[0; 8], &[RELOC]), &[]));
        refused(target_offsets(&Mock, &code(&[0; 8], &[]), &[1]));
    }

    #[test]
    fn same_is_not_believed_blindly() {
        let bytes = [0u8; 9];
        let pre = code(&bytes, &[RELOC]);
        let same = |post: &Code<'_>| verdict(&Mock, &pre, post, &Verdict::Same);
        assert_eq!(same(&pre), Ok(()));
        let field = [1, 1, 1, 1, 1, 1, 1, 1, 0];
        assert_eq!(same(&code(&field, &[RELOC])), Ok(()));
        let behind = [0, 0, 0, 0, 0, 0, 0, 0, 1];
        refused(same(&code(&behind, &[RELOC])));
        refused(same(&code(&bytes[..8], &[RELOC])));
        refused(same(&code(&bytes, &[])));
        refused(same(&code(&bytes, &[CodeReloc { offset: 1, ..RELOC }])));
        let far = Difference { pre_offset: 10, post_offset: 0, pre: "".into(), post: "".into() };
        refused(verdict(&Mock, &pre, &pre, &Verdict::Changed(far)));
    }

    #[test]
    fn matches_stay_within_the_code() {
        let bytes = [0u8; 8];
        let pre = code(&bytes, &[RELOC]);
        let answer = |key, offset, live: &[(u64, u64)]| RunMatch::Matched {
            learned: vec![Learned { key, value: 1, offset }],
            partial: Vec::new(),
            rules: Vec::new(),
            live: live.to_vec(),
        };
        assert_eq!(run_match(&Mock, &pre, &answer(5, 0, &[(3, 5)])), Ok(()));
        refused(run_match(&Mock, &pre, &answer(5, 8, &[])));
        refused(run_match(&Mock, &pre, &answer(6, 0, &[])));
        refused(run_match(&Mock, &pre, &answer(5, 0, &[(4, 5)])));
        refused(run_match(&Mock, &pre, &answer(5, 0, &[(4, 0)])));
        refused(run_match(&Mock, &pre, &answer(5, 0, &[(u64::MAX, 2)])));
        let part = |part| RunMatch::Matched {
            learned: Vec::new(),
            partial: vec![part],
            rules: Vec::new(),
            live: Vec::new(),
        };
        let page = Partial { key: 5, bias: 8, known: !0xfff, value: 0x1000, offset: 0 };
        assert_eq!(run_match(&Mock, &pre, &part(page)), Ok(()));
        refused(run_match(&Mock, &pre, &part(Partial { key: 6, ..page })));
        refused(run_match(&Mock, &pre, &part(Partial { offset: 8, ..page })));
        refused(run_match(&Mock, &pre, &part(Partial { value: 0x1001, ..page })));
        refused(run_match(&Mock, &pre, &part(Partial { known: 0, value: 0, ..page })));
        let mismatch = |offset, why: &str| {
            RunMatch::Refused(Mismatch {
                offset,
                expected: vec![],
                found: vec![],
                why: why.into(),
                probed: false,
                short_branch: false,
            })
        };
        assert_eq!(run_match(&Mock, &pre, &mismatch(8, "x")), Ok(()));
        refused(run_match(&Mock, &pre, &mismatch(9, "x")));
        refused(run_match(&Mock, &pre, &mismatch(0, "")));
    }

    #[test]
    fn templates_fit_the_kernel_side() {
        let with = |change: fn(&mut Template)| {
            let mut t = good_template();
            change(&mut t);
            template(&Mock, &t)
        };
        assert_eq!(with(|_| {}), Ok(()));
        refused(with(|t| t.bytes = vec![0; 17]));
        refused(with(|t| t.bytes.clear()));
        refused(with(|t| t.fields.clear()));
        refused(with(|t| t.fields = vec![t.fields[0]; 5]));
        refused(with(|t| t.fields = vec![t.fields[0]; 2]));
        refused(with(|t| t.fields[0].word = 2));
        refused(with(|t| t.fields[0].size = 3));
        refused(with(|t| t.fields[0].position = 1));
        refused(with(|t| t.fields[0].bits = 0));
        refused(with(|t| t.fields[0].shift = 64));
        refused(with(|t| t.bytes[1] = 1));
        refused(with(|t| t.granule = 0));
        refused(with(|t| t.granule = 3));
        refused(with(|t| t.range_bits = 0));
        refused(with(|t| t.range_bits = 65));
    }

    #[test]
    fn sites_stay_off_live_ranges() {
        let bytes = [0u8; 8];
        let pre = code(&bytes, &[]);
        let at = |offset, live: &[(u64, u64)], padding| {
            site(&Mock, &pre, padding, live, &Site { offset, len: 5 })
        };
        assert_eq!(at(3, &[(0, 3)], 0), Ok(()));
        assert_eq!(at(4, &[], 1), Ok(()));
        refused(at(4, &[], 0));
        refused(at(u64::MAX, &[], 0));
        refused(at(0, &[(4, 1)], 0));
        refused(site(&Mock, &pre, 0, &[], &Site { offset: 0, len: 4 }));
    }

    #[test]
    fn stack_answers() {
        assert_eq!(stack_word(&Mock, StackWord { clear: 0xf0, set: 0x10 }), Ok(()));
        refused(stack_word(&Mock, StackWord { clear: 0xf0, set: 1 }));
        let jump = Site { offset: 5, len: 5 };
        assert_eq!(busy_range(&Mock, (0, 10), 8, 2, Some(&jump)), Ok(()));
        refused(busy_range(&Mock, (0, 11), 8, 2, None));
        refused(busy_range(&Mock, (6, 4), 8, 2, Some(&jump)));
        refused(busy_range(&Mock, (0, 9), 8, 2, Some(&jump)));
        refused(never_quiescent(&Mock, &[NeverQuiescent { name: "x", why: "" }]));
        assert_eq!(never_quiescent(&Mock, &[]), Ok(()));
    }
}
