// SPDX-License-Identifier: GPL-2.0-or-later
//! Every way for a plugin to be wrong, made real, and the one line that each is told in. None of
//! them may take this process down.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use splice_core::arch::{
    Arch, ArchError, Code, CodeReloc, FlatImage, KernelView, Partial, RunCode, RunMatch, check,
};
use splice_core::diff::diff_units;
use splice_core::unit::Unit;
use splice_plugin_host::{Origin, PluginError, Plugins, Search, load};
use tempfile::TempDir;

mod common;

/// The bytes of the test plugin.
fn library() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| std::fs::read(common::build("splice-test-plugin")).unwrap())
}

/// A directory that only this user can write.
fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    path
}

/// Replaces all of `from`, which must be there, by `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<usize> =
        (0..out.len() - from.len()).filter(|at| out[*at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "{:?} is not in the plugin", String::from_utf8_lossy(from));
    for at in places {
        out[at..at + from.len()].copy_from_slice(to);
    }
    out
}

/// The test plugin in that mode.
fn in_mode(mode: &str) -> Vec<u8> {
    let to = format!("splice-test-mode:{mode:31}");
    replaced(library(), format!("splice-test-mode:{:31}", "good").as_bytes(), to.as_bytes())
}

/// Offset of the note's description.
fn note() -> usize {
    let at = library().windows(8).position(|w| w == b"splice\0\0").unwrap();
    at + 8
}

/// Loads a file of those bytes.
fn load_bytes(bytes: &[u8]) -> Result<&'static dyn Arch, PluginError> {
    let dir = directory();
    load(&write(dir.path(), "p.so", bytes))
}

fn arch(mode: &str) -> &'static dyn Arch {
    load_bytes(&in_mode(mode)).unwrap_or_else(|e| panic!("{e}"))
}

/// The line in which loading fails.
#[track_caller]
fn line(result: Result<&'static dyn Arch, PluginError>) -> String {
    let Err(error) = result else { panic!("it loaded") };
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 400, "not one short line: {line}");
    assert!(line.contains(&error.path().display().to_string()));
    line
}

#[test]
fn the_good_one_loads() {
    let arch = arch("good");
    assert_eq!((arch.name(), arch.e_machine()), ("test", 0x7e57));
    assert_eq!(arch.cross_prefixes(), ["test-linux-gnu-"]);
    assert_eq!(arch.diff().disassemble(&[7, 8, 9], 0x10, 2), ["10: 07", "10: 08"]);
    let flat = FlatImage { relative: 7, address: Some(9) };
    assert_eq!((arch.flat_image(&[7, 8]), arch.flat_image(&[])), (Some(flat), None));
    assert_eq!(self::arch("panic-image").flat_image(&[7]), None);
}

#[test]
fn a_file_that_is_not_there() {
    let dir = directory();
    assert!(line(load(&dir.path().join("none.so"))).contains("cannot be read"));
    assert!(line(load(dir.path())).contains("not a regular file"));
    symlink("/nowhere/at/all", dir.path().join("dangling.so")).unwrap();
    assert!(line(load(&dir.path().join("dangling.so"))).contains("cannot be read"));
}

#[test]
fn not_elf() {
    for bytes in [&b""[..], b"\x7fEL", b"!<arch>\n", b"#!/bin/sh\n"] {
        assert!(line(load_bytes(bytes)).contains("not an ELF file"));
    }
}

#[test]
fn not_a_library() {
    let mut object = library().to_vec();
    object[16] = 1; // ET_REL
    assert!(line(load_bytes(&object)).contains("not a shared library"));
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert!(matches!(load_bytes(&own), Err(PluginError::NoNote { .. })));
}

#[test]
fn truncated_anywhere() {
    let bytes = library();
    let cuts = (1..40).map(|n| bytes.len() - n * n * n).chain([5, 63, 64, 200, 4096, 8000]);
    for cut in cuts.filter(|cut| *cut < bytes.len()) {
        let line = line(load_bytes(&bytes[..cut]));
        assert!(line.contains("truncated"), "{cut}: {line}");
    }
}

#[test]
fn damaged_headers() {
    // Program headers whose file ranges lead outside, or overflow.
    for value in [u64::MAX, library().len() as u64, 1 << 40] {
        for field in [8usize, 32] {
            let mut bytes = library().to_vec();
            let at = 64 + field;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(line(load_bytes(&bytes)).contains("truncated"), "{value:#x} {field}");
        }
    }
}

#[test]
fn other_machine() {
    let mut bytes = library().to_vec();
    bytes[18..20].copy_from_slice(&[0x34, 0x12]);
    let line_64 = line(load_bytes(&bytes));
    assert!(line_64.contains("built to run on ELF machine 4660"), "{line_64}");
    bytes[4] = 1;
    assert!(line(load_bytes(&bytes)).contains("32-bit"));
}

#[test]
fn no_note() {
    let bytes = replaced(library(), b"splice\0\0", b"spliff\0\0");
    assert!(line(load_bytes(&bytes)).contains("not a splice plugin"));
    // Any library of the system will do.
    let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc.lines().find_map(|l| l.split(' ').next_back().filter(|p| p.contains("libc")));
    assert!(line(load(Path::new(libc.unwrap()))).contains("not a splice plugin"));
}

#[test]
fn other_version_of_the_interface() {
    let mut bytes = library().to_vec();
    bytes[note()] = 2;
    let line = line(load_bytes(&bytes));
    assert!(line.contains("version 2 of the plugin interface"), "{line}");
    assert!(line.contains("this splice has version 1"), "{line}");
}

#[test]
fn malformed_note() {
    let mut bytes = library().to_vec();
    bytes[note() + 8] = b'\n';
    assert!(line(load_bytes(&bytes)).contains("its note is malformed"));
}

#[test]
fn the_note_and_the_code_disagree() {
    let mut bytes = library().to_vec();
    bytes[note() + 8] = b'b';
    let line_name = line(load_bytes(&bytes));
    assert!(line_name.contains("its code is for test") && line_name.contains("its note for best"));
    let mut bytes = library().to_vec();
    bytes[note() + 4] = 1;
    assert!(line(load_bytes(&bytes)).contains("machine 32257"));
}

#[test]
fn another_layout_behind_the_same_version() {
    // The names of fields are part of what is compared.
    let bytes = replaced(library(), b"target_offsets", b"target_0ffsets");
    let line_layout = line(load_bytes(&bytes));
    assert!(line_layout.contains("laid out differently"), "{line_layout}");
    let bytes = replaced(library(), b"splice_plugin_v1", b"splice_plugin_w1");
    assert!(line(load_bytes(&bytes)).contains("no symbol splice_plugin_v1"));
}

#[test]
fn the_loader_refuses() {
    // A library that needs another that is not there.
    let bytes = replaced(library(), b"libc.so.6\0", b"libq.so.6\0");
    let line = line(load_bytes(&bytes));
    assert!(line.contains("cannot be loaded") && line.contains("libq.so.6"), "{line}");
}

#[test]
fn panics_at_load() {
    let said = line(load_bytes(&in_mode("panic-name")));
    assert!(said.contains("panicked while it was loaded: asked to: panic-name"), "{said}");
    assert!(said.contains("lib.rs:"), "{said}");
    let said = line(load_bytes(&in_mode("payload-name")));
    assert!(said.contains("did not say why"), "{said}");
}

#[test]
fn says_nonsense_at_load() {
    let table = [
        ("32-bit", "64-bit little-endian"),
        ("empty-name", "empty name"),
        ("owner-outside", "owner at 8"),
        ("field-outside", "R_TEST_32 with bits outside its word of 4 bytes"),
        ("odd-width", "R_TEST_24 with a word of 3 bytes"),
        ("other-row", "for another type"),
        ("no-absolute", "absolute addresses"),
        ("template-outside", "field has 24 bits at 9"),
        ("template-long", "trampoline of 17 bytes"),
        ("stack-bits", "stack bits"),
        ("negative-size", "18446744073709551615 bytes"),
        ("no-reason", "never-quiescent"),
    ];
    for (mode, part) in table {
        let line = line(load_bytes(&in_mode(mode)));
        assert!(line.contains("says what cannot be right"), "{mode}: {line}");
        assert!(line.contains(part), "{mode}: {line}");
    }
}

const RELOC: CodeReloc<'static> =
    CodeReloc { offset: 0, r_type: 2, symbol: "x", key: 5, addend: 0, inside: None };
const BYTES: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const CODE: Code<'static> = Code { name: "f", bytes: &BYTES, relocs: &[RELOC], entries: &[] };

/// A kernel that answers.
struct Kernel;

impl KernelView for Kernel {
    fn addresses(&self, name: &str) -> Vec<u64> {
        if name == "asked" { vec![0x1234] } else { Vec::new() }
    }
    fn is_function(&self, address: u64) -> bool {
        address == 1
    }
    fn is_text(&self, address: u64) -> bool {
        address == 2
    }
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        buf.fill(0x5a);
        address == 0x1000
    }
}

fn match_running(arch: &dyn Arch) -> Result<RunMatch, ArchError> {
    let run = RunCode { address: 0x1000, bytes: &BYTES, section: None };
    arch.diff().match_running(&CODE, &run, &Kernel)
}

#[track_caller]
fn panicked<T: std::fmt::Debug>(result: Result<T, ArchError>, mode: &str) {
    match result {
        Err(ArchError::Panicked { arch, why }) => {
            assert_eq!(arch, "test");
            assert!(why.starts_with(&format!("asked to: {mode}")), "{why}");
            assert!(!why.contains('\n'));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn panics_in_a_call() {
    panicked(arch("panic-compare").diff().compare(&CODE, &CODE), "panic-compare");
    panicked(match_running(arch("panic-match")), "panic-match");
    panicked(arch("panic-offsets").reloc().target_offsets(&CODE), "panic-offsets");
    panicked(arch("panic-recover").reloc().recover(1, 0, 0, &[0; 8]), "panic-recover");
    panicked(arch("panic-site").trampoline().site(&CODE, &[], 0), "panic-site");
}

#[test]
fn panics_where_no_error_can_be_returned() {
    // The answer is the careful one, and later calls say what happened.
    let a = arch("panic-padding");
    assert!(!a.diff().is_padding(&[0]));
    panicked(a.diff().compare(&CODE, &CODE), "panic-padding");
    let a = arch("panic-disassemble");
    assert!(a.diff().disassemble(&[0], 0, 1)[0].contains("panicked"));
    panicked(match_running(a), "panic-disassemble");
    let a = arch("panic-recognise");
    assert_eq!(a.trampoline().recognise(&[0], 0), None);
    panicked(a.trampoline().site(&CODE, &[], 0), "panic-recognise");
    let a = arch("panic-busy");
    assert_eq!(a.stack().busy_range(30, 2), (0, 32));
    panicked(a.reloc().recover(1, 0, 0, &[0; 8]), "panic-busy");
}

#[track_caller]
fn nonsense<T: std::fmt::Debug>(result: Result<T, ArchError>, part: &str) {
    match result {
        Err(ArchError::Nonsense { arch, what }) => {
            assert_eq!(arch, "test");
            assert!(what.contains(part), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn returns_nonsense() {
    for (mode, part) in [
        ("live-outside", "live range"),
        ("live-negative", "live range"),
        ("learned-outside", "outside f"),
        ("learned-unknown", "which f does not name"),
        ("mismatch-outside", "outside f"),
        ("partial-unknown-bits", "are known"),
    ] {
        let a = arch(mode);
        nonsense(check::run_match(a, &CODE, &match_running(a).unwrap()), part);
    }
    for mode in ["site-outside", "site-negative"] {
        let a = arch(mode);
        let site = a.trampoline().site(&CODE, &[], 2).unwrap().unwrap();
        nonsense(check::site(a, &CODE, 2, &[], &site), "which has room for 10");
    }
    for mode in ["busy-outside", "busy-negative", "busy-short"] {
        let a = arch(mode);
        let site = splice_core::arch::Site { offset: 0, len: 4 };
        let range = a.stack().busy_range(8, 2);
        nonsense(check::busy_range(a, range, 8, 2, Some(&site)), "busy range");
    }
    let a = arch("too-many-offsets");
    let offsets = a.reloc().target_offsets(&CODE).unwrap();
    nonsense(check::target_offsets(a, &CODE, &offsets), "2 target offsets");
}

/// Two units for the machine of the test plugin, which differ in a constant.
fn units(arch: &dyn Arch) -> (Unit, Unit) {
    let dir = directory();
    let unit = |name: &str, value: u32| {
        let (c, o) = (dir.path().join("u.c"), dir.path().join(format!("{name}.o")));
        std::fs::write(&c, format!("int f(int x) {{ return x + {value}; }}")).unwrap();
        let flags = ["-O2", "-c", "-ffunction-sections", "-fno-asynchronous-unwind-tables"];
        common::run(
            Command::new("gcc").args(flags).arg("-fcf-protection=none").arg(&c).arg("-o").arg(&o),
        );
        let mut bytes = std::fs::read(&o).unwrap();
        bytes[18..20].copy_from_slice(&0x7e57u16.to_le_bytes());
        Unit::read(arch, "u.o", &bytes).unwrap()
    };
    (unit("pre", 1), unit("post", 2))
}

#[test]
fn the_engine_catches_it() {
    let diff = |mode: &str| {
        let a = arch(mode);
        let (pre, post) = units(a);
        diff_units(a, &pre, &post).map_err(|e| e.to_string())
    };
    assert_eq!(diff("good").unwrap().changed.len(), 1);
    let lie = diff("same-always").unwrap_err();
    assert!(lie.contains("returned nonsense: \"same\" for f"), "{lie}");
    let far = diff("difference-outside").unwrap_err();
    assert!(far.contains("returned nonsense: a difference outside f"), "{far}");
    let panicked = diff("panic-compare").unwrap_err();
    assert!(panicked.contains("backend test panicked: asked to: panic-compare"), "{panicked}");
}

#[test]
fn text_from_a_plugin_is_one_line() {
    let a = arch("lines");
    let other = Code { bytes: &[0; 8], ..CODE };
    let verdict = a.diff().compare(&CODE, &other).unwrap();
    assert!(matches!(
        verdict,
        splice_core::arch::Verdict::Changed(d) if d.pre == "one two"
    ));
    assert_eq!(a.diff().disassemble(&[1; 20], 0, 3).len(), 3);
}

#[test]
fn errors_come_back_as_they_were() {
    let a = arch("good");
    let name = || String::from("here");
    let offset = 0x20;
    let table = [
        (10, ArchError::Undecodable { name: name(), offset }),
        (11, ArchError::UnknownRelocation { name: name(), offset, r_type: 11 }),
        (12, ArchError::Range { reloc: "R_TEST_64", value: 99 }),
        (13, ArchError::Outside { name: name(), offset }),
        (
            14,
            ArchError::Entry { section: ".table".into(), name: name(), offset, why: "odd".into() },
        ),
    ];
    for (r_type, want) in table {
        assert_eq!(a.reloc().apply(r_type, 99, 0, offset, &mut [0; 8]), Err(want));
    }
    let own = a.reloc().apply(15, 0, 0, 0, &mut [0; 8]).unwrap_err().to_string();
    assert!(own.contains("own"), "{own}");
    let mut field = [0; 8];
    assert_eq!(a.reloc().apply(1, 0x1122, 1, 0, &mut field), Ok(()));
    assert_eq!(a.reloc().recover(1, 1, 0, &field), Ok(0x1122));
    assert_eq!([1, 2, 3].map(|t| a.reloc().recovered_bits(t)), [u64::MAX, 0xffff, u64::MAX]);
    let page = Partial { key: 5, bias: 8, known: !0xfff, value: 0x1000, offset: 0 };
    let matched = match_running(arch("partial"));
    assert!(matches!(matched, Ok(RunMatch::Matched { partial, .. }) if partial == [page]));
    let why = arch("no-room").trampoline().site(&CODE, &[], 0).unwrap().unwrap_err();
    assert_eq!(why.0, "there is none");
}

#[test]
fn the_kernel_is_asked_through_the_border() {
    let RunMatch::Matched { learned, .. } = match_running(arch("ask")).unwrap() else {
        panic!("no match")
    };
    let values: Vec<u64> = learned.iter().map(|l| l.value).collect();
    assert_eq!(values, [0x1234, 1, 1, 0x5a]);
}

#[test]
fn a_panic_of_the_hosts_own_goes_on_in_the_host() {
    struct Bad;
    impl KernelView for Bad {
        fn addresses(&self, _: &str) -> Vec<u64> {
            panic!("in the view");
        }
        fn is_function(&self, _: u64) -> bool {
            false
        }
        fn is_text(&self, _: u64) -> bool {
            false
        }
        fn read(&self, _: u64, _: &mut [u8]) -> bool {
            false
        }
    }
    let a = arch("ask");
    let run = RunCode { address: 0x1000, bytes: &BYTES, section: None };
    let call = || a.diff().match_running(&CODE, &run, &Bad);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in the view"));
    assert!(match_running(a).is_ok(), "the plugin is not to blame");
}

#[test]
fn calls_from_many_threads() {
    let a = arch("good");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert!(match_running(a).is_ok());
                    assert!(a.diff().compare(&CODE, &CODE).is_ok());
                }
            });
        }
    });
}

fn search(files: &[&Path], directories: &[&Path]) -> Search {
    Search {
        files: files.iter().map(|f| f.to_path_buf()).collect(),
        directories: directories.iter().map(|d| (Origin::User, d.to_path_buf())).collect(),
    }
}

#[test]
fn what_is_found_is_listed_and_loaded_when_asked() {
    let dir = directory();
    let good = write(dir.path(), "good.so", library());
    write(dir.path(), "junk.so", b"junk");
    write(dir.path(), "README", b"no candidate");
    let missing = dir.path().join("missing");
    let plugins = Plugins::find(&search(&[], &[dir.path(), &missing]), Vec::new()).unwrap();
    assert_eq!(plugins.names(), ["test"]);
    let found = &plugins.found()[0];
    assert_eq!((&found.path, found.origin), (&good, Origin::User));
    assert_eq!((found.note.name.as_str(), found.note.e_machine), ("test", 0x7e57));
    let errors: Vec<String> = plugins.errors().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("junk.so: not an ELF file"), "{errors:?}");
    let arch = plugins.by_name("test").unwrap().unwrap();
    assert_eq!(arch.name(), "test");
    let again = plugins.by_machine(0x7e57).unwrap().unwrap();
    assert!(std::ptr::addr_eq(arch, again), "it is loaded once");
    assert!(plugins.by_name("other").unwrap().is_none());
    // A file that the user names must be usable, and is the same by any way.
    let junk = dir.path().join("junk.so");
    assert!(matches!(
        Plugins::find(&search(&[&junk], &[]), Vec::new()),
        Err(PluginError::NotElf { .. })
    ));
    let alias = dir.path().join("alias.so");
    symlink(&good, &alias).unwrap();
    let plugins = Plugins::find(&search(&[&good], &[dir.path()]), Vec::new()).unwrap();
    assert_eq!((plugins.found().len(), plugins.errors().len()), (1, 1));
    assert_eq!(plugins.found()[0].origin, Origin::Explicit);
}

#[test]
fn what_panics_at_load_is_still_listed() {
    let dir = directory();
    write(dir.path(), "p.so", &in_mode("panic-name"));
    let plugins = Plugins::find(&search(&[], &[dir.path()]), Vec::new()).unwrap();
    assert_eq!(plugins.names(), ["test"]);
    assert!(matches!(plugins.by_name("test"), Err(PluginError::Panicked { .. })));
}

#[test]
fn duplicates() {
    let (one, two) = (directory(), directory());
    let first = write(one.path(), "a.so", library());
    let second = write(two.path(), "b.so", library());
    let plugins = Plugins::find(&search(&[], &[one.path(), two.path()]), Vec::new()).unwrap();
    assert_eq!(plugins.found()[0].path, first);
    let said = plugins.errors()[0].to_string();
    assert!(said.starts_with(&format!("{}: test (ELF machine", second.display())), "{said}");
    assert!(said.ends_with(&format!("already provided by {}", first.display())), "{said}");
    let both = Plugins::find(&search(&[&first, &second], &[]), Vec::new());
    assert!(matches!(both, Err(PluginError::Duplicate { .. })));
    // The built-in one wins.
    let builtin: Vec<&'static dyn Arch> = vec![&splice_arch_x86_64::X86_64];
    let mut bytes = library().to_vec();
    bytes[note() + 8..note() + 15].copy_from_slice(b"x86_64\0");
    let file = write(one.path(), "x.so", &bytes);
    let said = match Plugins::find(&search(&[&file], &[]), builtin.clone()) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("it was taken"),
    };
    assert!(said.contains("x86_64") && said.ends_with("provided by splice itself"), "{said}");
    // So it does for the same machine under another name.
    let mut bytes = library().to_vec();
    bytes[note() + 4..note() + 6].copy_from_slice(&62u16.to_le_bytes());
    let file = write(one.path(), "y.so", &bytes);
    assert!(matches!(
        Plugins::find(&search(&[&file], &[]), builtin),
        Err(PluginError::Duplicate { e_machine: 62, .. })
    ));
}

#[test]
fn as_root_only_roots_files() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may give files away; the rule itself has a test of its own.
        println!("not root: only the rule's own test says anything here");
        return;
    }
    let dir = directory();
    let good = write(dir.path(), "good.so", library());
    assert!(load(&good).is_ok());
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    for bits in [0o664, 0o646] {
        mode(&good, bits);
        let line = line(load(&good));
        assert!(line.contains("not loaded as root"), "{line}");
        assert!(line.contains(&format!("mode {bits:04o}")), "{line}");
    }
    mode(&good, 0o644);
    chown(&good, Some(65534), None).unwrap();
    let line_owner = line(load(&good));
    assert!(line_owner.contains("belongs to user 65534, not to root"), "{line_owner}");
    chown(&good, Some(0), None).unwrap();
    for bits in [0o775, 0o757] {
        mode(dir.path(), bits);
        assert!(line(load(&good)).contains("can be written by others"));
    }
    mode(dir.path(), 0o1777);
    assert!(load(&good).is_ok(), "the sticky bit protects what is root's");
    mode(dir.path(), 0o755);
    chown(dir.path(), Some(65534), None).unwrap();
    assert!(line(load(&good)).contains(&format!("{} belongs to", dir.path().display())));
    // A link's target counts, not the link.
    let safe = directory();
    let link = safe.path().join("link.so");
    symlink(&good, &link).unwrap();
    assert!(matches!(load(&link), Err(PluginError::Untrusted { .. })));
}
