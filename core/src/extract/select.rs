// SPDX-License-Identifier: GPL-2.0-or-later
//! Which pieces of the post unit travel, and where each of their references leads.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::{SHF_ALLOC, SHF_MERGE, STB_LOCAL, STT_SECTION};

use super::{ExtractError, ExtractInput, Numbering};
use crate::arch::{Arch, Code, CodeReloc, RelocKind};
use crate::diff::{UnitDiff, is_startup};
use crate::unit::{Reloc, Role, Span, SpanId, SpanKind, SymbolPlace, Target, Unit};
use crate::update::{Change, DataObject, Function, Hook, NeededSymbol, Place, Shadow};

/// Where a reference of a piece leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reference {
    /// Another piece.
    Piece(SpanId),
    /// A place in a piece's code, said by its section. Checkers of the kernel take a branch to a
    /// function's name for a call, and to a section for a jump, so what was said that way stays so.
    Code(SpanId),
    /// A label in a piece's code, at so many bytes. Some relocations name the place of another one, and
    /// whoever applies them looks for it at the symbol, whatever the addend (RISC-V psABI,
    /// "PC-Relative Symbol Addresses"): so where a label was named there is one.
    Label(SpanId, u64),
    /// A symbol that the kernel exports, or another unit of the update adds.
    Outside(String),
    /// A needed symbol: index into [`Selection::needed`].
    Needed(usize),
    /// A fixed value: index into the post unit's symbols.
    Absolute(u32),
}

/// A relocation of a piece, after its target is decided.
#[derive(Debug, Clone)]
pub(super) struct PieceReloc {
    /// Offset of the field in the piece, in bytes.
    pub(super) offset: u64,
    /// ELF relocation type number.
    pub(super) r_type: u32,
    /// Where it leads.
    pub(super) to: Reference,
    /// Addend in bytes.
    pub(super) addend: i64,
}

/// A piece that travels.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Its relocations, sorted by offset.
    pub(super) relocs: Vec<PieceReloc>,
    /// The name that it gets instead of its own: the running kernel has a function of that name,
    /// and one who probes it by name must find only that.
    pub(super) name: Option<String>,
    /// Whether its name is global.
    pub(super) global: bool,
}

/// Everything that travels.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Pieces, by span of the post unit.
    pub(super) pieces: BTreeMap<SpanId, Piece>,
    /// Pieces that must stay right before the next one.
    pub(super) preambles: BTreeSet<SpanId>,
    /// Needed symbols.
    pub(super) needed: Vec<NeededSymbol>,
    /// Functions for the manifest.
    pub(super) functions: Vec<Function>,
    /// Data objects for the manifest.
    pub(super) objects: Vec<DataObject>,
    /// Hooks for the manifest.
    pub(super) hooks: Vec<Hook>,
    /// Declarations of shadow variables for the manifest.
    pub(super) shadows: Vec<Shadow>,
}

struct Selector<'a, 'b> {
    arch: &'a dyn Arch,
    input: &'a ExtractInput<'b>,
    /// Changed functions and their parts, by post span, with their pre span.
    replaced: BTreeMap<SpanId, SpanId>,
    /// Data objects of which only the new contents travel, by post span, with their pre span.
    in_place: BTreeMap<SpanId, SpanId>,
    /// Needed symbols that exist already, by place.
    known: BTreeMap<(Option<u32>, String), usize>,
    selection: Selection,
    queue: Vec<SpanId>,
    seen: BTreeSet<SpanId>,
}

/// Selects the pieces.
pub(super) fn select(
    arch: &dyn Arch,
    input: &ExtractInput<'_>,
    numbering: &mut Numbering,
) -> Result<Selection, ExtractError> {
    let mut selector = Selector {
        arch,
        input,
        replaced: BTreeMap::new(),
        in_place: BTreeMap::new(),
        known: BTreeMap::new(),
        selection: Selection::default(),
        queue: Vec::new(),
        seen: BTreeSet::new(),
    };
    let mut names = selector.functions(numbering);
    names.extend(selector.objects(numbering)?);
    let declared = selector.declared(numbering);
    selector.on_their_own();
    // Entries join the pieces that they are about; what they refer to joins too, and may be code
    // with entries of its own, so this runs until nothing is added.
    loop {
        selector.drain(numbering)?;
        if !selector.add_entries()? {
            break;
        }
    }
    for (span, name) in names {
        if let Some(piece) = selector.selection.pieces.get_mut(&span) {
            piece.global =
                selector.replaced.contains_key(&span) || selector.in_place.contains_key(&span);
            piece.name = Some(name);
        }
    }
    for (span, name) in declared {
        if let Some(piece) = selector.selection.pieces.get_mut(&span) {
            piece.global = true;
            piece.name = Some(name);
        }
    }
    Ok(selector.selection)
}

/// Global definitions of the post unit that the pre unit does not have.
pub(super) fn unpaired_globals(post: &Unit, diff: &UnitDiff) -> Vec<String> {
    let mut names: Vec<String> = post
        .spans
        .iter()
        .enumerate()
        .filter(|(id, _)| paired(diff, *id).is_none())
        .filter(|(_, span)| is_global(post, span))
        .map(|(_, span)| span.name.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Global definitions of the post unit that are local in the pre unit, with their symbols there.
pub(super) fn raised_globals(pre: &Unit, post: &Unit, diff: &UnitDiff) -> Vec<(String, u32)> {
    let all = post.spans.iter().enumerate().filter(|(_, span)| is_global(post, span));
    all.filter_map(|(id, span)| {
        let before = pre.spans.get(paired(diff, id)?)?;
        let symbol = before.symbol.filter(|_| !is_global(pre, before))?;
        Some((span.name.clone(), symbol))
    })
    .collect()
}

fn is_global(unit: &Unit, span: &Span) -> bool {
    span.symbol.and_then(|s| unit.symbols.get(s as usize)).is_some_and(|s| s.binding != STB_LOCAL.0)
}

fn paired(diff: &UnitDiff, post: SpanId) -> Option<SpanId> {
    diff.pairs.get(post).copied().flatten()
}

impl Selector<'_, '_> {
    /// Starts with the functions that the differ found; returns the names of the changed ones' new
    /// code and its parts.
    fn functions(&mut self, numbering: &mut Numbering) -> Vec<(SpanId, String)> {
        let (pre, post) = (self.input.pre, self.input.post);
        let mut names = Vec::new();
        for changed in &self.input.diff.changed {
            let Some(span) = post.spans.get(changed.post) else { continue };
            let link = format!("splice_new_{}_{}", numbering.take(), identifier(&span.name));
            names.push((changed.post, link.clone()));
            self.replaced.insert(changed.post, changed.pre);
            let symbol_of = |id: SpanId| pre.spans.get(id).and_then(|s| s.symbol);
            self.selection.functions.push(Function {
                name: span.name.clone(),
                unit: self.input.unit_index,
                change: Change::Changed,
                reasons: changed.reasons.iter().map(ToString::to_string).collect(),
                pre_symbol: symbol_of(changed.pre),
                pre_parts: changed.pre_parts.iter().filter_map(|p| symbol_of(*p)).collect(),
                new_link: Some(link.clone()),
            });
            self.enqueue(changed.post);
            for part in &changed.post_parts {
                if let Some(own) = post.spans.get(*part) {
                    names.push((*part, own.name.replacen(&span.name, &link, 1)));
                }
                self.enqueue(*part);
            }
        }
        for new in &self.input.diff.new {
            self.enqueue(new.post);
            for part in &new.post_parts {
                self.enqueue(*part);
            }
            if let Some(span) = post.spans.get(new.post) {
                self.selection.functions.push(Function {
                    name: span.name.clone(),
                    unit: self.input.unit_index,
                    change: Change::New,
                    reasons: new.reasons.iter().map(ToString::to_string).collect(),
                    pre_symbol: None,
                    pre_parts: Vec::new(),
                    new_link: None,
                });
            }
        }
        names
    }

    /// Starts with new objects that the unit's own code need not refer to: those in tables that the
    /// kernel reads of each module, and global ones, which other units of the update may use.
    fn on_their_own(&mut self) {
        let post = self.input.post;
        for id in &self.input.diff.data_new {
            let Some(span) = post.spans.get(*id) else { continue };
            let global = is_global(post, span) && !is_startup(post, span);
            if global || post.role_of(span) == Some(Role::Listed) {
                self.enqueue(*id);
            }
        }
    }

    /// Then the data objects whose contents are replaced; returns the global names of the new
    /// contents.
    fn objects(
        &mut self,
        numbering: &mut Numbering,
    ) -> Result<Vec<(SpanId, String)>, ExtractError> {
        let (pre, post) = (self.input.pre, self.input.post);
        let mut links = Vec::new();
        for replaced in &self.input.diff.data_replaced {
            let Some(span) = post.spans.get(replaced.post) else { continue };
            let Some(pre_symbol) = pre.spans.get(replaced.pre).and_then(|s| s.symbol) else {
                return Err(self.reference(span, &span.name, "no symbol names it in the pre unit"));
            };
            let link = format!("splice_data_{}_{}", numbering.take(), identifier(&span.name));
            links.push((replaced.post, link.clone()));
            self.in_place.insert(replaced.post, replaced.pre);
            self.selection.objects.push(DataObject {
                name: span.name.clone(),
                unit: self.input.unit_index,
                size: span.size,
                reasons: replaced.reasons.iter().map(ToString::to_string).collect(),
                pre_symbol,
                new_link: link,
            });
            self.enqueue(replaced.post);
        }
        Ok(links)
    }

    /// Then what the patch's author declares for splice; returns the global names.
    fn declared(&mut self, numbering: &mut Numbering) -> Vec<(SpanId, String)> {
        let mut links = Vec::new();
        let unit = self.input.unit_index;
        for (id, hook) in &self.input.diff.hooks {
            let link = format!("splice_hook_{}_{}", numbering.take(), identifier(&hook.name));
            links.push((*id, link.clone()));
            self.selection.hooks.push(Hook { unit, link, ..hook.clone() });
            self.enqueue(*id);
        }
        for id in &self.input.diff.shadows {
            let Some(span) = self.input.post.spans.get(*id) else { continue };
            let link = format!("splice_shadow_{}_{}", numbering.take(), identifier(&span.name));
            links.push((*id, link.clone()));
            self.selection.shadows.push(Shadow { name: span.name.clone(), unit, link });
            self.enqueue(*id);
        }
        links
    }

    fn enqueue(&mut self, span: SpanId) {
        if self.seen.insert(span) {
            self.queue.push(span);
            if let Some(before) = self.preamble(span) {
                self.selection.preambles.insert(before);
                self.enqueue(before);
            }
        }
    }

    /// What belongs right before a function: its type's hash, or room that the kernel writes code
    /// into when it finds the function called (`callthunks.c`, `cfi_rewrite_preamble`).
    fn preamble(&self, id: SpanId) -> Option<SpanId> {
        let post = self.input.post;
        let span = post.spans.get(id)?;
        let before = id.checked_sub(1)?;
        let other = post.spans.get(before)?;
        let adjoins = other.section == span.section
            && other.offset.checked_add(other.size) == Some(span.offset)
            && span.kind == SpanKind::Function
            && post.is_code(span);
        let named = ["__cfi_", "__pfx_"]
            .iter()
            .any(|prefix| other.name.strip_prefix(prefix) == Some(span.name.as_str()));
        let room = other.kind == SpanKind::Anonymous
            && post.relocs_of(before).is_empty()
            && self.arch.diff().is_padding(post.bytes_of(other));
        (adjoins && (named || room)).then_some(before)
    }

    fn drain(&mut self, numbering: &mut Numbering) -> Result<(), ExtractError> {
        while let Some(id) = self.queue.pop() {
            let relocs = self.relocs(id, numbering)?;
            let post = self.input.post;
            let global = post.spans.get(id).is_some_and(|s| is_global(post, s))
                && paired(self.input.diff, id).is_none();
            self.selection.pieces.insert(id, Piece { relocs, name: None, global });
        }
        Ok(())
    }

    /// Adds the special entries that are about pieces; whether there was a new one.
    fn add_entries(&mut self) -> Result<bool, ExtractError> {
        let post = self.input.post;
        let mut found = Vec::new();
        for (id, span) in post.spans.iter().enumerate() {
            if span.kind != SpanKind::Entry || self.seen.contains(&id) {
                continue;
            }
            let Some(special) = post.special(span.section) else { continue };
            let travels = match special.role {
                Role::Stays => false,
                Role::Parallel { .. } => {
                    post.parallel(id).is_some_and(|other| self.seen.contains(&other))
                }
                _ => post.owner(id).is_some_and(|(owner, _)| self.seen.contains(&owner)),
            };
            if travels && special.role == Role::Boot {
                let why = "only the start of the kernel acts on it";
                return Err(self.reference(span, "new code", why));
            }
            if travels {
                found.push(id);
            }
        }
        for id in &found {
            self.enqueue(*id);
        }
        Ok(!found.is_empty())
    }

    /// Decides where each relocation of a piece leads.
    fn relocs(
        &mut self,
        id: SpanId,
        numbering: &mut Numbering,
    ) -> Result<Vec<PieceReloc>, ExtractError> {
        let post = self.input.post;
        let Some(span) = post.spans.get(id) else { return Ok(Vec::new()) };
        let relocs = post.relocs_of(id);
        let offsets = self.target_offsets(span, relocs)?;
        let mut result = Vec::with_capacity(relocs.len());
        for (reloc, target_offset) in relocs.iter().zip(offsets) {
            let kind = self.arch.reloc().describe(reloc.r_type).map(|info| info.kind);
            if kind == Some(RelocKind::None) {
                // It stores nothing: leave for the linker to change code, which is not given.
                continue;
            }
            let bias = reloc.addend.wrapping_sub(target_offset);
            let target = post.refers(id, reloc, target_offset);
            let is_within = matches!(target, Target::Span { id: to, .. } if to == id);
            let (to, addend) = self.leads_to(span, reloc, target, bias, numbering)?;
            if let Some(reach) = self.short_reach(reloc).filter(|_| !is_within) {
                let what = post.symbols.get(reloc.symbol as usize).map_or("", |s| &s.name);
                let why = format!("its branch there reaches no further than {reach} bytes");
                return Err(self.reference(span, what, &why));
            }
            result.push(PieceReloc {
                offset: reloc.offset.wrapping_sub(span.offset),
                r_type: reloc.r_type,
                to,
                addend,
            });
        }
        Ok(result)
    }

    /// How far a branch reaches, if that is not to be relied on between sections.
    fn short_reach(&self, reloc: &Reloc) -> Option<u64> {
        let info = self.arch.reloc().describe(reloc.r_type)?;
        let bits = info.mask.count_ones();
        (info.kind == RelocKind::Branch && (1..12).contains(&bits)).then(|| 1 << (bits - 1))
    }

    /// For code the backend says how far from its symbol each relocation points; data has no
    /// bias.
    fn target_offsets(&self, span: &Span, relocs: &[Reloc]) -> Result<Vec<i64>, ExtractError> {
        let post = self.input.post;
        if !post.is_code(span) {
            return Ok(relocs.iter().map(|r| r.addend).collect());
        }
        let bytes = post.bytes_of(span);
        let code_relocs: Vec<CodeReloc<'_>> = relocs
            .iter()
            .map(|r| CodeReloc {
                offset: r.offset.wrapping_sub(span.offset),
                r_type: r.r_type,
                symbol: post.symbols.get(r.symbol as usize).map_or("", |s| s.name.as_str()),
                key: r.symbol,
                addend: r.addend,
                inside: post.inside(span, r),
            })
            .collect();
        let code = Code { name: &span.name, bytes, relocs: &code_relocs, entries: &[] };
        let offsets = self
            .arch
            .reloc()
            .target_offsets(&code)
            .and_then(|offsets| {
                crate::arch::check::target_offsets(self.arch, &code, &offsets)?;
                Ok(offsets)
            })
            .map_err(|source| ExtractError::Arch { unit: post.name.clone(), source })?;
        Ok(offsets)
    }

    fn leads_to(
        &mut self,
        from: &Span,
        reloc: &Reloc,
        target: Target,
        bias: i64,
        numbering: &mut Numbering,
    ) -> Result<(Reference, i64), ExtractError> {
        let post = self.input.post;
        match target {
            Target::Nowhere => {
                let symbol = post.symbols.get(reloc.symbol as usize);
                let section = symbol.and_then(|s| match s.place {
                    SymbolPlace::Section(section) => post.sections.get(section),
                    _ => None,
                });
                let loaded = section.filter(|s| s.flags & SHF_ALLOC.0 != 0);
                let (what, why) = match (symbol, loaded) {
                    (_, Some(section)) => (
                        section.name.as_str(),
                        "it is far outside that section, so it is not known which object is meant",
                    ),
                    (Some(symbol), None) => {
                        (symbol.name.as_str(), "its target is not part of the kernel's image")
                    }
                    (None, None) => ("", "it names no symbol"),
                };
                Err(self.reference(from, what, why))
            }
            Target::Absolute => Ok((Reference::Absolute(reloc.symbol), reloc.addend)),
            Target::Undefined => {
                let name = post.symbols.get(reloc.symbol as usize).map_or("", |s| s.name.as_str());
                let outside = (self.input.exported)(name) || (self.input.new_globals)(name);
                let to = if outside {
                    Reference::Outside(name.to_owned())
                } else {
                    Reference::Needed(self.need_global(name, numbering))
                };
                Ok((to, reloc.addend))
            }
            Target::Span { id, offset } => {
                let Some(span) = post.spans.get(id) else {
                    return Err(self.reference(from, "nothing", "its target is in no span"));
                };
                let branch = self
                    .arch
                    .reloc()
                    .describe(reloc.r_type)
                    .is_some_and(|info| info.kind == RelocKind::Branch);
                if let Some(why) = self.sealed_key(from, span) {
                    return Err(self.reference(from, &span.name, why));
                }
                match self.running(from, (id, span), offset, branch)? {
                    None => {
                        self.enqueue(id);
                        let addend = offset.wrapping_add(bias);
                        let symbol = post.symbols.get(reloc.symbol as usize);
                        let symbol = symbol.filter(|_| post.is_code(from) && post.is_code(span));
                        let label = symbol.map_or(0, |s| s.value.wrapping_sub(span.offset));
                        Ok(if symbol.is_some_and(|s| s.kind == STT_SECTION.0) {
                            (Reference::Code(id), addend)
                        } else if branch && (1..span.size).contains(&label) {
                            (Reference::Label(id, label), addend.wrapping_sub_unsigned(label))
                        } else {
                            (Reference::Piece(id), addend)
                        })
                    }
                    Some(pre) => self.need_span(from, pre, offset, bias, numbering),
                }
            }
        }
    }

    /// A jump label's key that is read-only after the start: up to 6.9 the loader links a module's
    /// entries into it all the same (`jump_label_add_module`), which no memory allows.
    fn sealed_key(&self, from: &Span, key: &Span) -> Option<&'static str> {
        let post = self.input.post;
        let section = |span: &Span| post.sections.get(span.section).map(|s| s.name.as_str());
        let sealed = from.kind == SpanKind::Entry
            && section(from) == Some("__jump_table")
            && section(key).is_some_and(|name| name.starts_with(".data..ro_after_init"));
        sealed.then_some("the key is read-only since the start, and loading a module writes to it")
    }

    /// Whether a reference from `from` to `offset` in a post span leads into the running kernel,
    /// and to which pre span there; otherwise it leads to a piece.
    fn running(
        &self,
        from: &Span,
        (id, span): (SpanId, &Span),
        offset: i64,
        branch: bool,
    ) -> Result<Option<SpanId>, ExtractError> {
        let post = self.input.post;
        if let Some(pre) = self.replaced.get(&id) {
            // Entries are about the new code, and branches go straight to it; whatever else
            // refers to a replaced function takes its address, which must stay the old one. A
            // place within it (a label of a switch table) exists in the new code only.
            let about =
                offset != 0 || from.kind == SpanKind::Entry || (branch && post.is_code(from));
            return Ok(if about { None } else { Some(*pre) });
        }
        // The object is the running one; the piece is what will stand there.
        if let Some(pre) = self.in_place.get(&id) {
            return Ok(Some(*pre));
        }
        if self.seen.contains(&id) {
            return Ok(None);
        }
        let section = post.sections.get(span.section);
        let merges = section.is_some_and(|s| s.flags & SHF_MERGE.0 != 0);
        if merges || matches!(span.kind, SpanKind::String | SpanKind::Constant) {
            return Ok(None);
        }
        if let Some(special) = post.special(span.section) {
            return match special.role {
                Role::Payload => Ok(None),
                _ => Err(self.reference(
                    from,
                    &span.name,
                    &format!("it is part of {}", special.name),
                )),
            };
        }
        let pair = paired(self.input.diff, id);
        let fixed = matches!(post.role_of(span), Some(Role::Placed | Role::Ids));
        if pair.is_none() && fixed {
            let why = "it is new, and it would have to be in the kernel's image";
            return Err(self.reference(from, &span.name, why));
        }
        // What the pre unit does not have travels.
        Ok(pair)
    }

    /// A needed symbol for a place `offset` bytes into a pre span.
    fn need_span(
        &mut self,
        from: &Span,
        pre: SpanId,
        offset: i64,
        bias: i64,
        numbering: &mut Numbering,
    ) -> Result<(Reference, i64), ExtractError> {
        let unit = self.input.pre;
        let Some(span) = unit.spans.get(pre) else {
            return Err(self.reference(from, "nothing", "its pair is in no span"));
        };
        let named = span.symbol.and_then(|i| unit.symbols.get(i as usize).map(|s| (i, s)));
        // A span without a symbol is named by its section's symbol, or by one that stands in it.
        let place = span.offset.saturating_add_signed(offset);
        let Some((index, symbol)) = named
            .or_else(|| unit.section_symbol(span.section))
            .or_else(|| unit.symbol_below(span.section, place))
        else {
            return Err(self.reference(from, &span.name, "no symbol names it in the pre unit"));
        };
        let addend = span
            .offset
            .wrapping_sub(symbol.value)
            .wrapping_add_signed(offset)
            .wrapping_add_signed(bias)
            .cast_signed();
        let exported = symbol.binding != STB_LOCAL.0 && (self.input.exported)(&symbol.name);
        let name = symbol.name.clone();
        let to = if exported {
            Reference::Outside(name)
        } else if symbol.binding != STB_LOCAL.0 {
            Reference::Needed(self.need_global(&name, numbering))
        } else {
            let place = Place::Local { unit: self.input.unit_index, symbol: index };
            Reference::Needed(self.need(Some(index), &name, place, numbering))
        };
        Ok((to, addend))
    }

    fn need_global(&mut self, name: &str, numbering: &mut Numbering) -> usize {
        self.need(None, name, Place::Global, numbering)
    }

    fn need(
        &mut self,
        symbol: Option<u32>,
        name: &str,
        place: Place,
        numbering: &mut Numbering,
    ) -> usize {
        let key = (symbol, name.to_owned());
        if let Some(index) = self.known.get(&key) {
            return *index;
        }
        let index = self.selection.needed.len();
        self.selection.needed.push(NeededSymbol {
            link: format!("splice_sym_{}_{}", numbering.take(), identifier(name)),
            name: name.to_owned(),
            place,
        });
        self.known.insert(key, index);
        index
    }

    fn reference(&self, from: &Span, what: &str, why: &str) -> ExtractError {
        ExtractError::Reference {
            unit: self.input.post.name.clone(),
            piece: from.name.clone(),
            what: what.to_owned(),
            why: why.to_owned(),
        }
    }
}

/// A C identifier made of a symbol's name.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(80).collect()
}
