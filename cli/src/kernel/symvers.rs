// SPDX-License-Identifier: GPL-2.0-or-later
//! The symbols that a kernel exports to modules.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Symbols that are exported to modules, each with its namespace, which is empty for most.
#[derive(Debug)]
pub(crate) struct Exports(HashMap<String, String>);

impl Exports {
    /// What a `Module.symvers` lists: checksum, symbol, module, kind, namespace (`write_dump`,
    /// scripts/mod/modpost.c; the last one since 5.4).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let row = |line: &str| {
            let mut words = line.split('\t').skip(1);
            let name = words.next()?.to_owned();
            Some((name, words.nth(2).unwrap_or_default().to_owned()))
        };
        Ok(Self(text.lines().filter_map(row).collect()))
    }

    /// Whether that symbol is exported.
    pub(crate) fn contains(&self, symbol: &str) -> bool {
        self.0.contains_key(symbol)
    }

    /// The namespace that a module must import to use that symbol.
    pub(crate) fn namespace(&self, symbol: &str) -> Option<&str> {
        self.0.get(symbol).map(String::as_str).filter(|namespace| !namespace.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_symbols_have_their_namespaces() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "0x1\tf\tvmlinux\tEXPORT_SYMBOL\t\n0x2\tg\td/m\tEXPORT_SYMBOL_GPL\tNS\n\
                    0x3\th\tvmlinux\tEXPORT_SYMBOL\n";
        std::fs::write(file.path(), text).unwrap();
        let exports = Exports::read(file.path()).unwrap();
        let of = |symbol| (exports.contains(symbol), exports.namespace(symbol));
        assert_eq!([of("f"), of("g"), of("h")], [(true, None), (true, Some("NS")), (true, None)]);
        assert_eq!(of("vmlinux"), (false, None));
    }
}
