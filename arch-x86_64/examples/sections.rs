// SPDX-License-Identifier: GPL-2.0-or-later
//! Says which sections of a kernel's objects no rule covers, and which tables cannot be cut:
//! `cargo run -p splice-arch-x86_64 --example sections -- DIRECTORY`, after a build there. Ends with 1 if
//! there is one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use splice_arch_x86_64 as _;
use splice_core::arch::by_name;
use splice_core::unit::Unit;

fn objects(directory: &Path, found: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            objects(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "o") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(arch) = by_name("x86_64") else { return ExitCode::FAILURE };
    let (mut files, mut read, mut unread) = (Vec::new(), 0, 0);
    for directory in std::env::args().skip(1) {
        if let Err(error) = objects(Path::new(&directory), &mut files) {
            eprintln!("{directory}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let mut odd: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for file in files {
        let name = file.display().to_string();
        let unit = std::fs::read(&file)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Unit::read(arch, &name, &bytes).map_err(|error| error.to_string()));
        let unit = match unit {
            Ok(unit) => unit,
            Err(error) => {
                // Programs for the build machine's or the boot's other modes are among them.
                unread += 1;
                println!("not read: {error}");
                continue;
            }
        };
        read += 1;
        let unknown = unit.unknown_sections().map(|n| (n, "unknown"));
        for (n, what) in unknown.chain(unit.unclear_tables().map(|n| (n, "unclear"))) {
            let section = unit.sections.get(n).map_or_else(String::new, |s| s.name.clone());
            odd.entry((section, what)).or_default().push(name.clone());
        }
    }
    for ((section, what), names) in &odd {
        println!("{what}: {section} in {} objects, {}", names.len(), names.join(" "));
    }
    println!("{read} objects read, {unread} not, {} sections without a rule", odd.len());
    if odd.is_empty() && read > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
