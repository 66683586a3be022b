// SPDX-License-Identifier: GPL-2.0-or-later
//! The types and static variables that debug information describes, as they stand there.

use gimli::{AttributeValue, DwTag, Operation, UnitRef, constants as dw};

use super::sections::Sections;
use super::{Budget, DebugError, Reader};

/// Index into [`Types::all`].
pub(super) type TypeId = usize;

/// What kind of type it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A number or a pointer.
    Scalar,
    /// A typedef or a qualifier; a typedef has a name.
    Alias,
    /// An array: the number of elements in all dimensions.
    Array(u64),
    /// A struct or a union.
    Aggregate { union: bool, members: Vec<Member<'a>> },
    /// An enumeration.
    Enum(Vec<(&'a [u8], i128)>),
    /// Nothing that an object could be of: a function, or a type that is only declared.
    Opaque,
}

/// A member as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member<'a> {
    pub(super) name: Option<&'a [u8]>,
    /// From the start of the type, in bytes.
    pub(super) at: u64,
    /// For a bit field: its width, and where it begins, in bits.
    pub(super) bits: Option<(u64, BitPlace)>,
    of: Option<u64>,
}

/// Where a bit field begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BitPlace {
    /// That many bits from the start of the type.
    FromStart(u64),
    /// In the storage unit of `size` bytes at the member's place, counted from the other end
    /// (DWARF 3 and before).
    InUnit { size: Option<u64>, offset: u64 },
}

/// A type.
#[derive(Debug, Clone)]
pub(super) struct Type<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) name: Option<&'a [u8]>,
    /// In bytes.
    pub(super) size: Option<u64>,
    of: Option<u64>,
    /// Number of the compiled unit, and of the file in it.
    file: (usize, u64),
}

/// An object that exists as long as the code does.
#[derive(Debug, Clone)]
pub(super) struct Variable<'a> {
    pub(super) name: &'a [u8],
    pub(super) of: TypeId,
}

/// Everything of one object.
#[derive(Debug, Default)]
pub(super) struct Types<'a> {
    pub(super) all: Vec<Type<'a>>,
    pub(super) variables: Vec<Variable<'a>>,
    /// Where each type stands, in order.
    places: Vec<u64>,
    files: Vec<Vec<String>>,
}

/// What is read of an entry.
#[derive(Default)]
struct Entry<'a> {
    name: Option<&'a [u8]>,
    of: Option<u64>,
    origin: Option<u64>,
    byte_size: Option<u64>,
    bit_size: Option<u64>,
    bit_offset: Option<u64>,
    data_bit_offset: Option<u64>,
    member_at: Option<u64>,
    declaration: bool,
    file: u64,
    value: i128,
    count: Option<u64>,
    fixed: bool,
}

/// A variable's entry, which another one may refer to.
struct RawVariable<'a> {
    place: u64,
    name: Option<&'a [u8]>,
    of: Option<u64>,
    origin: Option<u64>,
    fixed: bool,
}

impl<'a> Types<'a> {
    /// Reads them.
    pub(super) fn read(sections: &'a Sections) -> Result<Self, DebugError> {
        let dwarf = sections.dwarf();
        let mut budget = sections.budget();
        let mut types = Self::default();
        let mut variables = Vec::new();
        for unit in sections.units(&mut budget)? {
            types.unit(unit.unit_ref(&dwarf), &mut variables, &mut budget)?;
        }
        let by_place = |place: u64| {
            let index =
                variables.binary_search_by_key(&place, |v: &RawVariable<'_>| v.place).ok()?;
            variables.get(index)
        };
        for variable in variables.iter().filter(|v| v.fixed) {
            // A definition may refer to its declaration, and an inlined one to its original.
            let origin = variable.origin.and_then(by_place);
            let name = variable.name.or_else(|| origin?.name);
            let of = variable.of.or_else(|| origin?.of);
            if let (Some(name), Some(of)) = (name, of) {
                let of = types.find(of)?;
                types.variables.push(Variable { name, of });
            }
        }
        Ok(types)
    }

    fn unit(
        &mut self,
        unit: UnitRef<'_, Reader<'a>>,
        variables: &mut Vec<RawVariable<'a>>,
        budget: &mut Budget,
    ) -> Result<(), DebugError> {
        let number = self.files.len();
        self.files.push(files(unit)?);
        let mut entries = unit.entries_raw(None)?;
        // For each level that is open, the type whose parts stand there.
        let mut open: Vec<Option<TypeId>> = Vec::new();
        while !entries.is_empty() {
            let depth = usize::try_from(entries.next_depth()).unwrap_or(0);
            let at = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let attributes = abbreviation.attributes();
            budget.spend(attributes.len().saturating_add(1))?;
            open.truncate(depth);
            let within = open.last().copied().flatten();
            open.push(None);
            let tag = abbreviation.tag();
            if !is_read(tag) {
                entries.skip_attributes(attributes)?;
                continue;
            }
            let mut entry = Entry::default();
            for spec in attributes {
                let attribute = entries.read_attribute(*spec)?;
                entry.take(unit, attribute.name(), attribute.value())?;
            }
            let place = at.to_unit_section_offset(&unit.header).0 as u64;
            match tag {
                dw::DW_TAG_member => self.member(within, &entry)?,
                dw::DW_TAG_enumerator => {
                    if let Some(Kind::Enum(all)) = self.kind(within) {
                        all.push((entry.name.unwrap_or_default(), entry.value));
                    }
                }
                dw::DW_TAG_subrange_type => {
                    if let Some(Kind::Array(count)) = self.kind(within) {
                        *count = count.saturating_mul(entry.count.unwrap_or(0));
                    }
                }
                dw::DW_TAG_variable => variables.push(RawVariable {
                    place,
                    name: entry.name,
                    of: entry.of,
                    origin: entry.origin,
                    fixed: entry.fixed,
                }),
                _ => {
                    let size = entry.byte_size;
                    let pointer = tag == dw::DW_TAG_pointer_type;
                    let width = u64::from(unit.header.address_size());
                    if let Some(last) = open.last_mut() {
                        *last = Some(self.all.len());
                    }
                    self.places.push(place);
                    self.all.push(Type {
                        kind: kind(tag, entry.declaration),
                        name: entry.name,
                        size: if pointer { size.or(Some(width)) } else { size },
                        // What a pointer points to is no part of its layout.
                        of: entry.of.filter(|_| !pointer),
                        file: (number, entry.file),
                    });
                }
            }
        }
        Ok(())
    }

    fn kind(&mut self, id: Option<TypeId>) -> Option<&mut Kind<'a>> {
        self.all.get_mut(id?).map(|t| &mut t.kind)
    }

    fn member(&mut self, within: Option<TypeId>, entry: &Entry<'a>) -> Result<(), DebugError> {
        let Some(Kind::Aggregate { union, members }) = self.kind(within) else { return Ok(()) };
        let at = match (entry.member_at, entry.data_bit_offset) {
            (Some(at), _) => at,
            (None, Some(_)) => 0,
            // All of a union's members are at its start.
            (None, None) if *union => 0,
            (None, None) => return Err(DebugError("a member's place is not known".into())),
        };
        let bits = entry.bit_size.map(|width| {
            let place = match (entry.data_bit_offset, entry.bit_offset) {
                (Some(offset), _) => {
                    BitPlace::FromStart(at.saturating_mul(8).saturating_add(offset))
                }
                (None, Some(offset)) => BitPlace::InUnit { size: entry.byte_size, offset },
                (None, None) => BitPlace::FromStart(at.saturating_mul(8)),
            };
            (width, place)
        });
        members.push(Member { name: entry.name, at, bits, of: entry.of });
        Ok(())
    }

    /// The type that stands at a place.
    fn find(&self, place: u64) -> Result<TypeId, DebugError> {
        self.places
            .binary_search(&place)
            .map_err(|_| DebugError(format!("there is no type that splice knows at {place:#x}")))
    }

    /// The type that a typedef, qualifier or array is made of.
    pub(super) fn inner(&self, id: TypeId) -> Result<Option<TypeId>, DebugError> {
        self.all.get(id).and_then(|t| t.of).map(|place| self.find(place)).transpose()
    }

    /// A member's type.
    pub(super) fn of_member(&self, member: &Member<'_>) -> Result<TypeId, DebugError> {
        self.find(member.of.ok_or_else(|| DebugError("a member has no type".into()))?)
    }

    /// The file that a type is declared in.
    pub(super) fn file(&self, id: TypeId) -> &str {
        let file = self
            .all
            .get(id)
            .and_then(|t| self.files.get(t.file.0)?.get(usize::try_from(t.file.1).ok()?));
        file.map_or("", String::as_str)
    }
}

impl<'a> Entry<'a> {
    fn take(
        &mut self,
        unit: UnitRef<'_, Reader<'a>>,
        name: gimli::DwAt,
        value: AttributeValue<Reader<'a>>,
    ) -> Result<(), DebugError> {
        match name {
            dw::DW_AT_name => self.name = Some(unit.attr_string(value)?.slice()),
            dw::DW_AT_type => self.of = Some(reference(unit, &value)?),
            dw::DW_AT_specification | dw::DW_AT_abstract_origin => {
                self.origin = Some(reference(unit, &value)?);
            }
            dw::DW_AT_byte_size => self.byte_size = value.udata_value(),
            dw::DW_AT_bit_size => self.bit_size = value.udata_value(),
            dw::DW_AT_bit_offset => self.bit_offset = value.udata_value(),
            dw::DW_AT_data_bit_offset => self.data_bit_offset = value.udata_value(),
            dw::DW_AT_data_member_location => self.member_at = Some(member_at(unit, &value)?),
            dw::DW_AT_declaration => self.declaration = matches!(value, AttributeValue::Flag(true)),
            dw::DW_AT_decl_file => {
                self.file = match value {
                    AttributeValue::FileIndex(index) => index,
                    value => value.udata_value().unwrap_or(0),
                }
            }
            dw::DW_AT_const_value => self.value = constant(&value),
            dw::DW_AT_count => self.count = value.udata_value(),
            dw::DW_AT_upper_bound => self.count = count(&value),
            dw::DW_AT_location => {
                if let AttributeValue::Exprloc(expression) = value {
                    self.fixed = matches!(
                        expression.0.slice().first().map(|b| gimli::DwOp(*b)),
                        Some(dw::DW_OP_addr | dw::DW_OP_addrx)
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_read(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_array_type
            | dw::DW_TAG_atomic_type
            | dw::DW_TAG_base_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_const_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_enumerator
            | dw::DW_TAG_member
            | dw::DW_TAG_pointer_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_subrange_type
            | dw::DW_TAG_subroutine_type
            | dw::DW_TAG_typedef
            | dw::DW_TAG_union_type
            | dw::DW_TAG_unspecified_type
            | dw::DW_TAG_variable
            | dw::DW_TAG_volatile_type
    )
}

fn kind<'a>(tag: DwTag, declaration: bool) -> Kind<'a> {
    match tag {
        _ if declaration => Kind::Opaque,
        dw::DW_TAG_base_type | dw::DW_TAG_pointer_type => Kind::Scalar,
        dw::DW_TAG_array_type => Kind::Array(1),
        dw::DW_TAG_structure_type | dw::DW_TAG_class_type => {
            Kind::Aggregate { union: false, members: Vec::new() }
        }
        dw::DW_TAG_union_type => Kind::Aggregate { union: true, members: Vec::new() },
        dw::DW_TAG_enumeration_type => Kind::Enum(Vec::new()),
        dw::DW_TAG_subroutine_type | dw::DW_TAG_unspecified_type => Kind::Opaque,
        _ => Kind::Alias,
    }
}

/// The place in the section that an attribute refers to.
pub(super) fn reference(
    unit: UnitRef<'_, Reader<'_>>,
    value: &AttributeValue<Reader<'_>>,
) -> Result<u64, DebugError> {
    match value {
        AttributeValue::UnitRef(offset) => Ok(offset.to_unit_section_offset(&unit.header).0 as u64),
        AttributeValue::DebugInfoRef(offset) => Ok(offset.0 as u64),
        _ => Err(DebugError("a reference leads out of the debug information".into())),
    }
}

fn member_at(
    unit: UnitRef<'_, Reader<'_>>,
    value: &AttributeValue<Reader<'_>>,
) -> Result<u64, DebugError> {
    let unknown = || DebugError("a member's place has a form that splice does not know".into());
    if let AttributeValue::Exprloc(expression) = value {
        let mut operations = expression.operations(unit.encoding());
        return match (operations.next()?, operations.next()?) {
            (Some(Operation::PlusConstant { value }), None) => Ok(value),
            _ => Err(unknown()),
        };
    }
    value.udata_value().ok_or_else(unknown)
}

/// A number. One of a fixed width is not negative: compilers have another form for those.
fn constant(value: &AttributeValue<Reader<'_>>) -> i128 {
    match value {
        AttributeValue::Sdata(value) => i128::from(*value),
        value => value.udata_value().map_or(0, i128::from),
    }
}

/// How many elements an array has whose last has that number. One without a bound has no number, or
/// -1 in one form or another.
fn count(last: &AttributeValue<Reader<'_>>) -> Option<u64> {
    match last {
        AttributeValue::Sdata(last) => last.checked_add(1).and_then(|n| u64::try_from(n).ok()),
        AttributeValue::Data4(u32::MAX) => Some(0),
        value => value.udata_value().map(|last| last.wrapping_add(1)),
    }
}

/// The files of a compiled unit, by number, as paths below the directory it was compiled in.
pub(super) fn files(unit: UnitRef<'_, Reader<'_>>) -> Result<Vec<String>, DebugError> {
    let Some(program) = &unit.line_program else { return Ok(Vec::new()) };
    let header = program.header();
    let base = unit.comp_dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
    let count = header.file_names().len() as u64;
    let mut files = Vec::new();
    // Numbers begin at 0 in DWARF 5, at 1 before.
    for number in 0..=count {
        let Some(file) = header.file(number) else {
            files.push(String::new());
            continue;
        };
        let text = |value| unit.attr_string(value).map(|s| s.to_string_lossy().into_owned());
        let name = text(file.path_name())?;
        let directory = match file.directory_index() {
            0 => String::new(),
            _ => file.directory(header).map(text).transpose()?.unwrap_or_default(),
        };
        let path = if directory.is_empty() || name.starts_with('/') {
            name
        } else {
            format!("{directory}/{name}")
        };
        let below = path.strip_prefix(&base).and_then(|rest| rest.strip_prefix('/'));
        let path = below.filter(|_| !base.is_empty()).unwrap_or(&path);
        files.push(path.strip_prefix("./").unwrap_or(path).to_owned());
    }
    Ok(files)
}
