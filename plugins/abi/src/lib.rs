// SPDX-License-Identifier: GPL-2.0-or-later
//! What a plugin for splice depends on: the traits that a processor backend implements, and the
//! frozen interface by which splice calls it.
//!
//! A plugin implements [`arch::Arch`] and the four traits behind it, exactly as a built-in backend
//! does, and exports the result:
//!
//! ```ignore
//! splice_plugin_abi::export_arch!(&MyArch, name: "myarch", machine: 4711);
//! ```
//!
//! The traits are the engine's own, re-exported: a plugin's code and a built-in backend's are
//! interchangeable. What is frozen is the binary interface ([`v1`]), not the traits: when they
//! change, a plugin's *source* may have to follow at its next build, but the file that was built
//! before goes on to load. The macro and [`export`] stand between the two.
//!
//! No policy stands here: where plugins are looked for, and which are trusted, is the host's.

pub mod convert;
pub mod export;
pub mod note;
pub mod v1;

/// The traits and types of the engine's `arch` module.
pub use splice_core::arch;

/// The table of special sections.
pub mod unit {
    pub use splice_core::unit::{EntrySize, Role, SpecialSection};
}

/// The engine's checks of what a backend returns, for a plugin's own tests.
pub use splice_core::arch::check;

#[doc(hidden)]
pub use abi_stable;

/// Name of the symbol by which the host finds a plugin's entries.
pub const SYMBOL: &str = "splice_plugin_v1";

/// Name of the symbol by which it finds those that came later, if the plugin has them.
pub const SYMBOL_ADDED: &str = "splice_plugin_v1_added";

/// Name of the symbol by which it finds those about what is left to the linker, which came after that.
pub const SYMBOL_LINKING: &str = "splice_plugin_v1_linking";

/// Exports a backend: once in a crate of type `cdylib`, at module level.
///
/// The backend is an expression of type `&'static dyn Arch`, usually a reference to a unit struct.
/// Name and machine number are repeated because they go into the file's note, which is read
/// before any code runs; the host refuses a plugin whose note and code disagree.
///
/// A crate that is built with `panic = "abort"` does not compile: a panic must come back as an
/// error instead of ending splice.
#[macro_export]
macro_rules! export_arch {
    ($arch:expr, name: $name:expr, machine: $machine:expr $(,)?) => {
        #[cfg(not(panic = "unwind"))]
        compile_error!("a splice plugin cannot be built with panic = \"abort\"");

        const _: () = {
            #[used]
            #[unsafe(link_section = ".note.splice")]
            static NOTE: $crate::note::Note = $crate::note::Note::new($name, $machine);

            struct Exported;

            impl $crate::export::Export for Exported {
                fn arch() -> &'static dyn $crate::arch::Arch {
                    $arch
                }
            }

            extern "C" fn load() -> $crate::abi_stable::library::RootModuleResult {
                $crate::abi_stable::library::__call_root_module_loader(
                    $crate::export::module::<Exported>,
                )
            }

            #[unsafe(export_name = "splice_plugin_v1")]
            static HEADER: $crate::abi_stable::library::LibHeader =
                // SAFETY: `load` returns a `PluginV1Ref`.
                unsafe {
                    $crate::abi_stable::library::LibHeader::from_constructor::<
                        $crate::v1::PluginV1Ref,
                    >(load, $crate::abi_stable::library::CheckTypeLayout::Yes)
                };

            extern "C" fn load_added() -> $crate::abi_stable::library::RootModuleResult {
                $crate::abi_stable::library::__call_root_module_loader(
                    $crate::export::added::<Exported>,
                )
            }

            #[unsafe(export_name = "splice_plugin_v1_added")]
            static ADDED: $crate::abi_stable::library::LibHeader =
                // SAFETY: `load_added` returns an `AddedV1Ref`.
                unsafe {
                    $crate::abi_stable::library::LibHeader::from_constructor::<
                        $crate::v1::AddedV1Ref,
                    >(load_added, $crate::abi_stable::library::CheckTypeLayout::Yes)
                };

            extern "C" fn load_linking() -> $crate::abi_stable::library::RootModuleResult {
                $crate::abi_stable::library::__call_root_module_loader(
                    $crate::export::linking::<Exported>,
                )
            }

            #[unsafe(export_name = "splice_plugin_v1_linking")]
            static LINKING: $crate::abi_stable::library::LibHeader =
                // SAFETY: `load_linking` returns a `LinkingV1Ref`.
                unsafe {
                    $crate::abi_stable::library::LibHeader::from_constructor::<
                        $crate::v1::LinkingV1Ref,
                    >(load_linking, $crate::abi_stable::library::CheckTypeLayout::Yes)
                };
        };
    };
}
