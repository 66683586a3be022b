// SPDX-License-Identifier: GPL-2.0-or-later
//! What a kernel module says of itself, in its section `.modinfo`.

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

/// The line of a name, such as `depends`, without `depends=`.
pub fn line(module: &[u8], name: &str) -> Result<Option<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("a module without .modinfo")?;
    let start = format!("{name}=");
    let mut lines = section.data()?.split(|byte| *byte == 0);
    let found = lines.find_map(|line| line.strip_prefix(start.as_bytes()));
    Ok(found.map(|line| String::from_utf8(line.to_vec())).transpose()?)
}
