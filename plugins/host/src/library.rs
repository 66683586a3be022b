// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading: the one place where a plugin's code begins to run.

use std::path::{Path, PathBuf};

use abi_stable::library::{AbiHeaderRef, LibraryError, RootModule};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use splice_core::arch::{Arch, ArchError, check};
use splice_plugin_abi::v1::FAILURE_PANIC;
use splice_plugin_abi::{SYMBOL, SYMBOL_ADDED, SYMBOL_LINKING};

use crate::PluginError;
use crate::error::one_line;
use crate::facts::Facts;
use crate::file::{self, Note};
use crate::import::{Imported, Tables};

/// Loads the plugin in that file, after everything that can be known without running it has been
/// looked at, and checks what it says of its architecture. It stays loaded for ever.
pub fn load(path: &Path) -> Result<&'static dyn Arch, PluginError> {
    let (real, note) = file::inspect(path)?;
    load_inspected(path, &real, &note)
}

/// The same for a file that was inspected already. `path` is for messages, `real` is opened.
pub(crate) fn load_inspected(
    path: &Path,
    real: &Path,
    note: &Note,
) -> Result<&'static dyn Arch, PluginError> {
    let owned = || path.to_owned();
    let tables = open(path, real)?;
    let facts = match tables.entries.facts()().into_result() {
        Ok(facts) => facts,
        Err(failure) if failure.kind == FAILURE_PANIC => {
            return Err(PluginError::Panicked { path: owned(), why: one_line(&failure.text) });
        }
        Err(failure) => {
            return Err(PluginError::Nonsense { path: owned(), why: one_line(&failure.text) });
        }
    };
    let facts = Facts::new(&facts, note)
        .map_err(|why| PluginError::Nonsense { path: owned(), why: one_line(&why) })?;
    let imported = Imported::new(facts, tables);
    constant_answers(&imported).map_err(|e| {
        let why = match e {
            ArchError::Nonsense { what, .. } => what,
            other => other.to_string(),
        };
        PluginError::Nonsense { path: owned(), why: one_line(&why) }
    })?;
    Ok(Box::leak(Box::new(imported)))
}

/// The engine's checks of everything that does not depend on code.
fn constant_answers(arch: &Imported) -> Result<(), ArchError> {
    check::facade(arch)?;
    for row in arch.relocations() {
        check::described(arch, row.r_type)?;
    }
    check::template(arch, &arch.trampoline().template())?;
    check::stack_word(arch, arch.stack().word())?;
    check::never_quiescent(arch, arch.stack().never_quiescent())
}

/// The plugin's entries, and those that came later if it has them.
fn open(path: &Path, real: &Path) -> Result<Tables, PluginError> {
    let cannot = |e: libloading::Error| PluginError::Open {
        path: path.to_owned(),
        why: loader_says(real, &e),
    };
    // SAFETY: the file is whole, is for this machine, is marked as a plugin and, for root, is
    // root's alone. What its initialisers do is its author's responsibility.
    let library = unsafe { Library::open(Some(real), RTLD_NOW | RTLD_LOCAL) }.map_err(cannot)?;
    let header = |symbol: &str| {
        // SAFETY: by the note, the symbol is a header of the interface's; the header itself begins
        // with a mark and a version that are checked before the rest is looked at.
        unsafe { library.get::<AbiHeaderRef>(symbol) }.ok().map(|header| *header)
    };
    let [first, added, linking] = [SYMBOL, SYMBOL_ADDED, SYMBOL_LINKING].map(header);
    // Never unloaded: see the crate's documentation.
    std::mem::forget(library);
    let first = first.ok_or_else(|| PluginError::Layout {
        path: path.to_owned(),
        why: format!("it has no symbol {SYMBOL}"),
    })?;
    let layout = |e: LibraryError| layout(path.to_owned(), &e);
    let entries = table(first).map_err(layout)?;
    let added = added.map(table).transpose().map_err(layout)?;
    let linking = linking.map(table).transpose().map_err(layout)?;
    Ok(Tables { entries, added, linking })
}

/// The table that a header leads to, once its layout was checked.
fn table<T: RootModule>(header: AbiHeaderRef) -> Result<T, LibraryError> {
    header.upgrade()?.init_root_module()
}

/// The dynamic loader's reason without the file's name, which the message has already.
fn loader_says(real: &Path, e: &libloading::Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    let text = text.replace(&format!("{}: ", real.display()), "");
    one_line(&text)
}

/// The layout checker's message is many kilobytes of type layouts: its kind must do.
fn layout(path: PathBuf, e: &LibraryError) -> PluginError {
    let why = match e {
        LibraryError::InvalidAbiHeader(_) => {
            "its header is of another version of the layout checker".into()
        }
        LibraryError::AbiInstability(_) => {
            "its types are laid out differently (was it built against a changed copy of \
             splice-plugin-abi?)"
                .into()
        }
        LibraryError::IncompatibleVersionNumber { actual_version, .. } => {
            format!("its types are version {actual_version}")
        }
        LibraryError::InvalidCAbi { .. } => "its calling convention differs".into(),
        other => one_line(&other.to_string()),
    };
    PluginError::Layout { path, why }
}
