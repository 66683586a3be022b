// SPDX-License-Identifier: GPL-2.0-or-later
//! From a matched kernel to a module that can be loaded: the source of the update module's glue
//! ([`source`], when an update is created) and its symbol values and bytes ([`finalise`], when
//! it is applied).

pub mod finalise;
mod keys;
mod quiescence;
pub mod source;
mod values;

pub use finalise::{finalise, undefined};
pub use keys::sealed_key;
pub use quiescence::{SpecialText, never_quiescent, special_text};
pub use source::{LEFT_OUT, PARTS, update_c};
pub use values::{Values, plan};

/// Version of the interface between the transaction core and an update module, `SPLICE_ABI`.
pub const ABI: u32 = 6;

/// How many updates one may stand on, `SPLICE_BASES_MAX`.
pub const BASES: usize = 4;

/// Symbols that the transaction core may need and that kernels do not export to modules; a
/// kernel's configuration decides which of them it does need.
pub const CORE_SYMBOLS: &[&str] = &["find_module", "get_kprobe", "idle_task"];

/// What the transaction core exports to update modules and, by `kmod/patch.h`, to new code.
pub const CORE_EXPORTS: &[&str] = &[
    "splice_part_ops",
    "splice_refuse",
    "splice_register_part",
    "splice_shadow_add",
    "splice_shadow_get",
    "splice_shadow_remove",
    "splice_unregister_part",
];

/// What the names of sites', objects', ranges' and bases' symbols begin with.
const SITE: &str = "splice_site_";
const OBJECT: &str = "splice_object_";
const RANGE: &str = "splice_range_";
const BASE: &str = "splice_base_";

/// The undefined symbol of an update module whose value says which load of its target module was matched;
/// it is zero for the kernel's image.
pub const LOAD: &str = "splice_load";

/// Whether an undefined symbol of an update module stands for a site, an object, a range, a base or the
/// target's load.
pub fn is_place_symbol(name: &str) -> bool {
    name == LOAD || [SITE, OBJECT, RANGE, BASE].iter().any(|prefix| name.starts_with(prefix))
}

/// Name of the undefined symbol that stands for the address of site `n`.
pub fn site_symbol(n: usize) -> String {
    format!("{SITE}{n}")
}

/// Name of the undefined symbol that stands for the address of data object `n`.
pub fn object_symbol(n: usize) -> String {
    format!("{OBJECT}{n}")
}

/// Names of the undefined symbols that stand for the start and the end of range `n`.
pub fn range_symbols(n: usize) -> (String, String) {
    (format!("{RANGE}{n}"), format!("{RANGE}end_{n}"))
}

/// Name of the undefined symbol that stands for an address in the `n`-th update that this one
/// stands on; it is zero if there are fewer.
pub fn base_symbol(n: usize) -> String {
    format!("{BASE}{n}")
}

/// Name of the object that holds the bytes expected at site `n`.
pub fn expected_symbol(n: usize) -> String {
    format!("splice_expected_{n}")
}

/// Name of the object that holds the bytes expected at data object `n`.
pub fn contents_symbol(n: usize) -> String {
    format!("splice_contents_{n}")
}

/// Why a plan could not be made or put into a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file is not a relocatable ELF object, or is damaged.
    #[error("the module is not a readable ELF object: {0}")]
    Elf(String),
    /// A symbol that is to get a value or bytes does not exist.
    #[error("the module has no {what} symbol {name}")]
    Missing {
        /// "undefined" or "defined".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A symbol that is to get a value or bytes exists more than once.
    #[error("the module has several symbols {0}")]
    Duplicate(String),
    /// Bytes do not lie where the symbol's section has its contents.
    #[error("{len} bytes at symbol {name} do not lie inside it and the module's file")]
    Outside {
        /// The symbol's name.
        name: String,
        /// How many bytes were to be written.
        len: usize,
    },
    /// A symbol that only splice can give a value to was left without one.
    #[error("symbol {0} was left without a value")]
    Unresolved(String),
    /// The update's manifest or the architecture asks for what the kernel side cannot do.
    #[error("the update module cannot be described to the kernel: {0}")]
    Unsupported(String),
}
