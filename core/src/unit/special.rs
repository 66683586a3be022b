// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules for sections: how each is cut, and what happens to what is in it.
//!
//! Most tables of a kernel are about places in code: such a section is *special*. Of other sections a rule
//! says at least that they hold data like any other. What has no rule is not known; [`super::Unit`]
//! tells which sections those are, and the differ judges.

use crate::arch::Arch;

use super::sections::GENERIC;

/// How long an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntrySize {
    /// Always that many bytes.
    Fixed(u64),
    /// It depends on the kernel's version: the first of these sizes for which all entries have
    /// their relocations at the same offsets, and an owner of the same kind.
    OneOf(&'static [u64]),
    /// It depends on the kernel's version: the smallest size for which that holds.
    FromRelocations,
    /// The section header's `sh_entsize`.
    FromHeader,
    /// The section is not cut: it belongs as a whole to what it is linked to.
    Whole,
}

/// What happens to what is in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Data: an object that is there already is used where it is, a new one travels.
    Data,
    /// Data in a table that the kernel reads of each module it loads: a new object travels even
    /// if nothing refers to it.
    Listed,
    /// Data whose place in the kernel's image means something: there can be no new object.
    Placed,
    /// Numbers that the kernel's link writes, known by their symbols' names: used where they are,
    /// and they must stay as they are.
    Ids,
    /// An entry travels with the function that its owner relocation points into, and describes a
    /// place that the kernel may rewrite there: handed to the architecture as an entry of the code.
    Dynamic,
    /// The same, but only the start of the kernel acts on it: new code cannot have one.
    Boot,
    /// The same, but an entry says something that holds for all that was linked together (that nothing
    /// refers to the place), so it does not travel.
    Stays,
    /// An entry travels with what its owner relocation points into.
    Travels,
    /// The same; it is read by the module's build only, so it makes no function differ.
    Annotates,
    /// Has no relocations of its own: its n-th entry belongs to the n-th entry of that section.
    Parallel {
        /// The other section's name.
        to: &'static str,
    },
    /// Holds code or data that entries refer to; travels when referred to.
    Payload,
    /// A list that the kernel reads of its own image only, mostly at its start: it must stay as
    /// it is.
    Frozen,
    /// Is made again for the module by its build, or means nothing at run time.
    Dropped,
}

impl Role {
    /// Whether the section holds objects that code refers to.
    pub fn is_data(self) -> bool {
        matches!(self, Role::Data | Role::Listed | Role::Placed | Role::Ids)
    }

    /// Whether entries name what they are about by a relocation.
    pub fn has_owner(self) -> bool {
        matches!(self, Role::Dynamic | Role::Boot | Role::Stays | Role::Travels | Role::Annotates)
    }

    /// Whether entries describe places that the kernel may rewrite.
    pub fn is_rewritten(self) -> bool {
        matches!(self, Role::Dynamic | Role::Boot | Role::Stays)
    }
}

/// A row of the table of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialSection {
    /// Name; a `*` stands for any text.
    pub name: &'static str,
    /// How it is cut.
    pub size: EntrySize,
    /// Offset in the entry of the relocation that points at the place which the entry is about.
    pub owner: u64,
    /// What happens to its entries.
    pub role: Role,
}

impl SpecialSection {
    /// Whether this row is for that section.
    pub fn is_for(&self, section: &str) -> bool {
        match self.name.split_once('*') {
            Some((start, end)) => {
                section.len() >= start.len() + end.len()
                    && section.starts_with(start)
                    && section.ends_with(end)
            }
            None => section == self.name,
        }
    }
}

/// The rules that hold for every kernel.
pub fn generic_special_sections() -> &'static [SpecialSection] {
    GENERIC
}

/// The row for a section: the architecture's before the generic one.
pub(super) fn row_for(arch: &dyn Arch, section: &str) -> Option<SpecialSection> {
    arch.special_sections().iter().chain(GENERIC).copied().find(|row| row.is_for(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str) -> SpecialSection {
        SpecialSection { name, size: EntrySize::Whole, owner: 0, role: Role::Data }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(row(".data").is_for(".data"));
        assert!(!row(".data").is_for(".data.x"));
        assert!(row(".data.*").is_for(".data..read_mostly"));
        assert!(row("__*_of_table").is_for("__clk_of_table"));
        assert!(!row("__*_of_table").is_for("__clk_of_table_end"));
        assert!(!row("__x*x").is_for("__x"));
    }

    #[test]
    fn a_generic_row_is_not_hidden_by_one_before_it() {
        for (n, row) in GENERIC.iter().enumerate() {
            let sample = row.name.replace('*', "a");
            for before in GENERIC.iter().take(n) {
                assert!(!before.is_for(&sample), "{} hides {}", before.name, row.name);
            }
        }
    }
}
