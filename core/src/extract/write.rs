// SPDX-License-Identifier: GPL-2.0-or-later
//! Writing the selected pieces as a relocatable object.
//!
//! A function or data object becomes a section of its own, under its old section's name; the
//! entries of one special section stay together, since the kernel walks them as an array.

use std::collections::{BTreeMap, BTreeSet};

use object::Endianness;
use object::elf::{
    ELFOSABI_NONE, ET_REL, FileFlags, Machine, RelocationType, SHF_GROUP, SHF_INFO_LINK,
    SHF_LINK_ORDER, SHN_ABS, SHN_UNDEF, SHT_NOBITS, SHT_PROGBITS, STB_GLOBAL, STB_LOCAL, STT_FUNC,
    STT_NOTYPE, STT_OBJECT, STT_SECTION, SectionFlags, SectionType, SymbolInfo, SymbolOther,
    SymbolType,
};
use object::write::StringId;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, Writer};

use super::select::{Piece, Reference, Selection};
use crate::arch::Arch;
use crate::unit::{Role, SpanId, SpanKind, Unit};

/// One output section.
struct Out {
    name: String,
    sh_type: u32,
    flags: u64,
    align: u64,
    entsize: u64,
    size: u64,
    data: Vec<u8>,
    /// The pieces in it and their offsets.
    pieces: Vec<(SpanId, u64)>,
}

/// Writes the object; an error is a fragment that says why not.
pub(super) fn object(
    arch: &dyn Arch,
    post: &Unit,
    selection: &Selection,
) -> Result<Vec<u8>, String> {
    let outs = lay_out(post, selection)?;
    let mut position: BTreeMap<SpanId, (usize, u64)> = BTreeMap::new();
    for (index, out) in outs.iter().enumerate() {
        for (span, offset) in &out.pieces {
            position.insert(*span, (index, *offset));
        }
    }
    let file = File { arch, post, selection, outs: &outs, position: &position };
    file.write()
}

fn lay_out(post: &Unit, selection: &Selection) -> Result<Vec<Out>, String> {
    let mut outs: Vec<Out> = Vec::new();
    let mut tables: BTreeMap<usize, usize> = BTreeMap::new();
    let joined = joined_sections(post, selection);
    let mut code: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    let mut preamble: Option<SpanId> = None;
    for id in selection.pieces.keys() {
        let span = post.spans.get(*id).ok_or("a piece is in no span")?;
        let section = post.sections.get(span.section).ok_or("a piece is in no section")?;
        // Alternatives' replacements and the like must keep their entries apart from others',
        // but stay one section; every other piece gets its own.
        let shared = match post.special(span.section) {
            Some(special) => special.role != Role::Payload || span.kind == SpanKind::Entry,
            None => false,
        };
        let joins = joined.contains(&span.section);
        let follows = preamble.is_some_and(|before| before + 1 == *id);
        preamble = Some(*id).filter(|id| selection.preambles.contains(id));
        let index = match (tables.get(&span.section), code.get(&span.section)) {
            (Some(index), _) if shared => *index,
            _ if follows && !outs.is_empty() => outs.len() - 1,
            (_, Some((index, _))) if joins => *index,
            _ => {
                outs.push(Out {
                    name: output_name(&section.name).to_owned(),
                    sh_type: section.sh_type,
                    flags: section.flags & !(SHF_GROUP.0 | SHF_INFO_LINK.0),
                    align: piece_align(section.align, span.offset, shared),
                    entsize: section.entsize,
                    size: 0,
                    data: Vec::new(),
                    pieces: Vec::new(),
                });
                if shared {
                    tables.insert(span.section, outs.len() - 1);
                }
                if joins {
                    code.insert(span.section, (outs.len() - 1, span.offset));
                }
                outs.len() - 1
            }
        };
        let out = outs.get_mut(index).ok_or("an output section is missing")?;
        if let Some((_, first)) = code.get(&span.section).filter(|_| joins) {
            let distance = span.offset.checked_sub(*first).ok_or("pieces are out of order")?;
            out.size = out.size.max(distance);
            out.data.resize(usize::try_from(out.size).map_err(|e| e.to_string())?, 0);
        }
        out.pieces.push((*id, out.size));
        out.size = out.size.checked_add(span.size).ok_or("a section is too large")?;
        if section.sh_type != SHT_NOBITS.0 {
            out.data.extend_from_slice(post.bytes_of(span));
            if out.data.len() as u64 != out.size {
                return Err(format!("{} reaches beyond its section", span.name));
            }
        }
    }
    Ok(outs)
}

/// The sections of code of which pieces without a name travel: replacements behind a function.
/// Branches between them and the function have no relocations, so all pieces of such a section
/// keep their distances.
fn joined_sections(post: &Unit, selection: &Selection) -> BTreeSet<usize> {
    selection
        .pieces
        .keys()
        .filter(|id| !selection.preambles.contains(id))
        .filter_map(|id| post.spans.get(*id))
        .filter(|s| s.kind == SpanKind::Anonymous && post.is_code(s))
        .map(|s| s.section)
        .filter(|section| post.special(*section).is_none())
        .collect()
}

/// The name that a section has in a module. A module's per-CPU data is all in one section
/// (include/linux/percpu-defs.h, `MODULE`), and what stood elsewhere would be one plain object.
fn output_name(name: &str) -> &str {
    const PER_CPU: &str = ".data..percpu";
    if name.strip_prefix(PER_CPU).is_some_and(|rest| rest.starts_with("..")) {
        return PER_CPU;
    }
    name
}

/// A piece that stood at `offset` of a section keeps the alignment that it had there.
fn piece_align(section: u64, offset: u64, shared: bool) -> u64 {
    let section = section.max(1);
    if shared || offset == 0 {
        return section;
    }
    section.min(1 << offset.trailing_zeros().min(63))
}

struct File<'a> {
    arch: &'a dyn Arch,
    post: &'a Unit,
    selection: &'a Selection,
    outs: &'a [Out],
    position: &'a BTreeMap<SpanId, (usize, u64)>,
}

/// A symbol of the output.
struct OutSymbol<'a> {
    name: &'a str,
    section: Option<usize>,
    absolute: bool,
    value: u64,
    size: u64,
    kind: SymbolType,
    global: bool,
}

impl OutSymbol<'_> {
    /// A local one that only relocations know: a place in a section, or a number.
    fn unnamed(section: Option<usize>, value: u64, kind: SymbolType) -> Self {
        let absolute = section.is_none();
        Self { name: "", section, absolute, value, size: 0, kind, global: false }
    }
}

/// Where the output's symbols are, by what a relocation may lead to.
type Indexes = BTreeMap<Reference, u32>;

impl<'a> File<'a> {
    fn write(&self) -> Result<Vec<u8>, String> {
        let (symbols, indexes) = self.symbols()?;
        let rela_names: Vec<String> =
            self.outs.iter().map(|o| format!(".rela{}", o.name)).collect();
        let mut buffer = Vec::new();
        let mut writer = Writer::new(Endianness::Little, self.arch.is_64(), &mut buffer);

        // First everything is announced, so that the writer knows all offsets…
        writer.reserve_file_header();
        let mut sections = Vec::new();
        for out in self.outs {
            let name = writer.add_section_name(out.name.as_bytes());
            sections.push((name, writer.reserve_section_index()));
        }
        let mut relas = Vec::new();
        for (out, name) in self.outs.iter().zip(&rela_names) {
            relas.push(match self.reloc_count(out) {
                0 => None,
                count => {
                    let name = writer.add_section_name(name.as_bytes());
                    writer.reserve_section_index();
                    Some((name, count))
                }
            });
        }
        let stack_note = writer.add_section_name(b".note.GNU-stack");
        writer.reserve_section_index();
        writer.reserve_null_symbol_index();
        let mut strings = Vec::new();
        for symbol in &symbols {
            strings.push(match symbol.name {
                "" => None,
                name => Some(writer.add_string(name.as_bytes())),
            });
            writer.reserve_symbol_index(self.section_index(symbol, &sections));
        }
        let symtab = writer.reserve_symtab_section_index();
        writer.reserve_strtab_section_index();
        writer.reserve_shstrtab_section_index();
        let offsets: Vec<u64> =
            self.outs.iter().map(|o| writer.reserve(o.data.len() as u64, o.align)).collect();
        let rela_offsets: Vec<u64> = relas
            .iter()
            .map(|r| r.map_or(0, |(_, count)| writer.reserve_relocations(count, true)))
            .collect();
        writer.reserve_symtab();
        writer.reserve_strtab().map_err(|e| e.to_string())?;
        writer.reserve_shstrtab().map_err(|e| e.to_string())?;
        writer.reserve_section_headers();

        // …and then written in the same order.
        let header = FileHeader {
            os_abi: ELFOSABI_NONE,
            abi_version: 0,
            e_type: ET_REL,
            e_machine: Machine(self.arch.e_machine()),
            e_entry: 0,
            e_flags: FileFlags(self.post.e_flags),
        };
        writer.write_file_header(&header).map_err(|e| e.to_string())?;
        for out in self.outs {
            writer.write_align(out.align);
            writer.write(&out.data);
        }
        for (out, rela) in self.outs.iter().zip(&relas) {
            if rela.is_some() {
                writer.write_align_relocation();
                self.write_relocs(&mut writer, out, &indexes)?;
            }
        }
        writer.write_null_symbol();
        for (symbol, string) in symbols.iter().zip(&strings) {
            let binding = if symbol.global { STB_GLOBAL } else { STB_LOCAL };
            let sym = Sym {
                section: self.section_index(symbol, &sections).map(|s| s.0),
                st_name: writer.string_offset(*string),
                st_info: SymbolInfo::new(binding, symbol.kind),
                st_other: SymbolOther(0),
                st_shndx: if symbol.absolute { SHN_ABS } else { SHN_UNDEF },
                st_value: symbol.value,
                st_size: symbol.size,
            };
            writer.write_symbol(&sym);
        }
        writer.write_strtab();
        writer.write_shstrtab();
        writer.write_null_section_header();
        for ((out, offset), (name, _)) in self.outs.iter().zip(&offsets).zip(&sections) {
            let (flags, link) = self.linked(out, &sections)?;
            let header = SectionHeader {
                sh_name: writer.section_name_offset(Some(*name)),
                sh_type: SectionType(out.sh_type),
                sh_flags: SectionFlags(flags),
                sh_addr: 0,
                sh_offset: *offset,
                sh_size: out.size,
                sh_link: link,
                sh_info: 0,
                sh_addralign: out.align,
                sh_entsize: out.entsize,
            };
            writer.write_section_header(&header);
        }
        for ((rela, offset), (_, section)) in relas.iter().zip(&rela_offsets).zip(&sections) {
            if let Some((name, count)) = rela {
                writer.write_relocation_section_header(
                    *name, *section, symtab, *offset, *count, true,
                );
            }
        }
        let header = SectionHeader {
            sh_name: writer.section_name_offset(Some(stack_note)),
            sh_type: SHT_PROGBITS,
            sh_flags: SectionFlags(0),
            sh_addr: 0,
            sh_offset: 0,
            sh_size: 0,
            sh_link: 0,
            sh_info: 0,
            sh_addralign: 1,
            sh_entsize: 0,
        };
        writer.write_section_header(&header);
        let locals = symbols.iter().take_while(|s| !s.global).count() + 1;
        writer.write_symtab_section_header(u32::try_from(locals).unwrap_or(u32::MAX));
        writer.write_strtab_section_header();
        writer.write_shstrtab_section_header();
        Ok(buffer)
    }

    fn section_index(
        &self,
        symbol: &OutSymbol<'_>,
        sections: &[(StringId, SectionIndex)],
    ) -> Option<SectionIndex> {
        symbol.section.and_then(|s| sections.get(s)).map(|s| s.1)
    }

    /// A section's flags, and the section that it is to stand in the order of: that of the code which its
    /// first entry leads to. The linker takes no sections of one name of which only some have an order.
    fn linked(
        &self,
        out: &Out,
        sections: &[(StringId, SectionIndex)],
    ) -> Result<(u64, u32), String> {
        if out.flags & SHF_LINK_ORDER.0 == 0 {
            return Ok((out.flags, 0));
        }
        let (first, _) = self.pieces(out).next().ok_or("a section is empty")?;
        let target = first.relocs.first().and_then(|reloc| match &reloc.to {
            Reference::Piece(id) | Reference::Code(id) => self.position.get(id),
            _ => None,
        });
        let section = target.and_then(|(section, _)| sections.get(*section));
        let (_, index) =
            section.ok_or_else(|| format!("{} has an order, but of no code", out.name))?;
        Ok((out.flags, index.0))
    }

    fn pieces<'o>(&'o self, out: &'o Out) -> impl Iterator<Item = (&'o Piece, u64)> {
        out.pieces.iter().filter_map(|(id, offset)| Some((self.selection.pieces.get(id)?, *offset)))
    }

    fn reloc_count(&self, out: &Out) -> usize {
        out.pieces
            .iter()
            .filter_map(|(id, _)| self.selection.pieces.get(id))
            .map(|p| p.relocs.len())
            .sum()
    }

    fn write_relocs(
        &self,
        writer: &mut Writer<'_>,
        out: &'a Out,
        indexes: &Indexes,
    ) -> Result<(), String> {
        for (piece, offset) in self.pieces(out) {
            for reloc in &piece.relocs {
                let nowhere = || format!("a reference from {} leads nowhere", out.name);
                let symbol = indexes.get(&reloc.to).ok_or_else(nowhere)?;
                let in_section = match &reloc.to {
                    Reference::Code(id) => self.position.get(id).ok_or_else(nowhere)?.1,
                    _ => 0,
                };
                let rel = Rel {
                    r_offset: offset + reloc.offset,
                    r_sym: *symbol,
                    r_type: RelocationType(reloc.r_type),
                    r_addend: reloc.addend.wrapping_add_unsigned(in_section),
                };
                writer.write_relocation(true, &rel);
            }
        }
        Ok(())
    }

    /// The symbols, local ones first, and where each reference finds its own.
    fn symbols(&self) -> Result<(Vec<OutSymbol<'_>>, Indexes), String> {
        let mut locals = Vec::new();
        let mut globals = Vec::new();
        let mut local_index = BTreeMap::new();
        for (id, piece) in &self.selection.pieces {
            let span = self.post.spans.get(*id).ok_or("a piece is in no span")?;
            let (section, offset) = *self.position.get(id).ok_or("a piece was not laid out")?;
            let kind = match span.kind {
                SpanKind::Function => STT_FUNC,
                SpanKind::Data if was_object(self.post, span.symbol) => STT_OBJECT,
                _ => STT_NOTYPE,
            };
            // Table entries are referred to by nobody; strings need no name of their own.
            let name = match span.kind {
                SpanKind::Function | SpanKind::Data => piece.name.as_ref().unwrap_or(&span.name),
                _ => "",
            };
            let symbol = OutSymbol {
                name,
                section: Some(section),
                absolute: false,
                value: offset,
                size: span.size,
                kind,
                global: piece.global,
            };
            if piece.global {
                globals.push((Reference::Piece(*id), symbol));
            } else {
                local_index.insert(Reference::Piece(*id), locals.len());
                locals.push(symbol);
            }
        }
        let mut by_section = BTreeMap::new();
        let mut outside = BTreeSet::new();
        for reloc in self.selection.pieces.values().flat_map(|p| &p.relocs) {
            match &reloc.to {
                Reference::Outside(name) => {
                    outside.insert(name.as_str());
                }
                Reference::Code(id) if !local_index.contains_key(&reloc.to) => {
                    let (section, _) = *self.position.get(id).ok_or("a piece was not laid out")?;
                    let index = *by_section.entry(section).or_insert_with(|| {
                        locals.push(OutSymbol::unnamed(Some(section), 0, STT_SECTION));
                        locals.len() - 1
                    });
                    local_index.insert(reloc.to.clone(), index);
                }
                Reference::Label(id, at) if !local_index.contains_key(&reloc.to) => {
                    let (section, offset) =
                        *self.position.get(id).ok_or("a piece was not laid out")?;
                    local_index.insert(reloc.to.clone(), locals.len());
                    locals.push(OutSymbol::unnamed(Some(section), offset + at, STT_NOTYPE));
                }
                Reference::Absolute(index) if !local_index.contains_key(&reloc.to) => {
                    let value =
                        self.post.symbols.get(*index as usize).map_or(0, |symbol| symbol.value);
                    local_index.insert(reloc.to.clone(), locals.len());
                    locals.push(OutSymbol::unnamed(None, value, STT_NOTYPE));
                }
                _ => {}
            }
        }
        let undefined = |name| OutSymbol {
            name,
            section: None,
            absolute: false,
            value: 0,
            size: 0,
            kind: STT_NOTYPE,
            global: true,
        };
        for (index, needed) in self.selection.needed.iter().enumerate() {
            globals.push((Reference::Needed(index), undefined(needed.link.as_str())));
        }
        for name in outside {
            globals.push((Reference::Outside(name.to_owned()), undefined(name)));
        }
        let number = |n: usize| u32::try_from(n + 1).map_err(|_| "too many symbols".to_owned());
        let mut indexes = BTreeMap::new();
        for (reference, index) in local_index {
            indexes.insert(reference, number(index)?);
        }
        let mut symbols = locals;
        for (reference, symbol) in globals {
            indexes.insert(reference, number(symbols.len())?);
            symbols.push(symbol);
        }
        Ok((symbols, indexes))
    }
}

/// Whether a symbol was an object in its unit (an untyped label stays untyped).
fn was_object(unit: &Unit, symbol: Option<u32>) -> bool {
    symbol.and_then(|s| unit.symbols.get(s as usize)).is_some_and(|s| s.kind == STT_OBJECT.0)
}
