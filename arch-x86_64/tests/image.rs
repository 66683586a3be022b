// SPDX-License-Identifier: GPL-2.0-or-later
//! Kernel image files as snapshots: small images made here, with the tables of symbols as
//! scripts/kallsyms.c of several kernels writes them, packed by the programs that a kernel's build runs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::io::Write;
use std::process::{Command, Stdio};

use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, KernelView, by_name};
use splice_core::runpre::{ImageError, Kallsyms, Snapshot, read_image};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_ffff_8200_0000;
const RELEASE: &str = "6.1.0-99-test";
/// Size of the code, and where the rest of the first segment begins.
const CODE: usize = 0x800;

/// Where and how the offsets stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Before the names, no table of names' places: up to 6.1.
    Oldest,
    /// The same, with such a table: 6.2, and kernels that have taken it over.
    Before,
    /// Behind the tokens: since 6.4.
    Behind,
    /// The same, all of them unsigned: since 6.15, and where there are no per-CPU places.
    Unsigned,
    /// From their own places: since 7.0.
    Own,
}

const LAYOUTS: [Layout; 5] =
    [Layout::Oldest, Layout::Before, Layout::Behind, Layout::Unsigned, Layout::Own];

impl Layout {
    fn has_absolute(self) -> bool {
        matches!(self, Layout::Oldest | Layout::Before | Layout::Behind)
    }
}

/// The symbols of the kernel: address, type, name, in the order of addresses.
fn symbols(layout: Layout) -> Vec<(u64, char, String)> {
    let mut all = Vec::new();
    if layout.has_absolute() {
        all.push((0, 'A', "__per_cpu_start".to_owned()));
        all.push((0x1040, 'A', "runqueues".to_owned()));
    }
    all.push((TEXT, 'T', "_text".to_owned()));
    all.push((TEXT, 'T', "_stext".to_owned()));
    for n in 0..600 {
        all.push((TEXT + 2 + 2 * n, 't', format!("sys_call_{n}.cold")));
    }
    // As long as no name was before 6.1, and so long that its length takes two bytes.
    all.push((TEXT + 0x700, 'T', format!("_R{}", "x".repeat(300))));
    all.push((TEXT + CODE as u64, 'T', "_etext".to_owned()));
    all.push((DATA + 8, 'd', "tail".to_owned()));
    all
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn tokens() -> Vec<String> {
    let token = |n: u8| match n {
        1 => "sys_".to_owned(),
        2 => "call_".to_owned(),
        0x80 => ".cold".to_owned(),
        0xff => "tsys_call_".to_owned(),
        b'.' | b'_' => char::from(n).to_string(),
        n if n.is_ascii_alphanumeric() => char::from(n).to_string(),
        n => format!("q{n:x}"),
    };
    (0..=255).map(token).collect()
}

fn packed(kind: char, name: &str) -> Vec<u8> {
    let name =
        format!("{kind}{name}").replace("tsys_call_", "\u{1}\u{1}").replace(".cold", "\u{2}");
    let mut out = Vec::new();
    let mut bytes = name.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            1 => {
                bytes.next();
                out.push(0xff);
            }
            2 => out.push(0x80),
            byte => out.push(byte),
        }
    }
    out
}

/// Appends the tables to a segment that begins at `TEXT`.
fn kallsyms(out: &mut Vec<u8>, layout: Layout) {
    let symbols = symbols(layout);
    let base = TEXT;
    let offsets = |out: &mut Vec<u8>| {
        align(out);
        for (address, kind, _) in &symbols {
            let place = TEXT + out.len() as u64;
            let offset = match layout {
                Layout::Own => address.wrapping_sub(place) as i32,
                Layout::Unsigned => address.wrapping_sub(base) as i32,
                _ if *kind == 'A' => *address as i32,
                _ => base.wrapping_sub(*address).wrapping_sub(1) as i32,
            };
            out.extend(offset.to_le_bytes());
        }
        align(out);
        if layout != Layout::Own {
            out.extend(base.to_le_bytes());
        }
    };
    let places = |out: &mut Vec<u8>| {
        align(out);
        for n in 0..symbols.len() {
            out.extend(&(n as u32).to_be_bytes()[1..]);
        }
    };
    let before = matches!(layout, Layout::Oldest | Layout::Before);
    if before {
        offsets(out);
    }
    align(out);
    out.extend((symbols.len() as u32).to_le_bytes());
    align(out);
    let first = out.len();
    let mut markers = Vec::new();
    for (n, (_, kind, name)) in symbols.iter().enumerate() {
        if n % 256 == 0 {
            markers.push((out.len() - first) as u32);
        }
        let name = packed(*kind, name);
        match name.len() {
            len @ 0..0x80 => out.push(len as u8),
            len => out.extend([len as u8 & 0x7f | 0x80, (len >> 7) as u8]),
        }
        out.extend(name);
    }
    align(out);
    for marker in markers {
        out.extend(marker.to_le_bytes());
    }
    if layout == Layout::Before {
        places(out);
    }
    align(out);
    let mut index = Vec::new();
    let table = out.len();
    for token in tokens() {
        index.push((out.len() - table) as u16);
        out.extend(token.bytes());
        out.push(0);
    }
    align(out);
    for at in index {
        out.extend(at.to_le_bytes());
    }
    if !before {
        offsets(out);
        places(out);
    }
    align(out);
}

/// A vmlinux of two segments.
fn vmlinux(layout: Option<Layout>, banners: &[&str]) -> Vec<u8> {
    let mut text = vec![0xcc; CODE];
    for banner in banners {
        text.extend(format!("Linux version {banner} (me@here) #1 SMP\n\0").bytes());
    }
    if let Some(layout) = layout {
        kallsyms(&mut text, layout);
    }
    // What comes behind: zeros, then something else.
    text.extend([0; 4096]);
    text.extend((0..999_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()));
    let data = b"the data".repeat(4);
    let mut out = Vec::new();
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend(2u16.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for word in [TEXT, 64, 0] {
        out.extend(u64::to_le_bytes(word));
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let begin = 64 + 2 * 56;
    let mut offset = begin;
    for (flags, address, body) in [(5u32, TEXT, text.as_slice()), (6, DATA, &data)] {
        out.extend(1u32.to_le_bytes());
        out.extend(flags.to_le_bytes());
        let len = body.len() as u64;
        for word in [offset, address, 0, len, len + 64, 8] {
            out.extend(u64::to_le_bytes(word));
        }
        offset += len;
    }
    out.extend(text);
    out.extend(data);
    out
}

fn good() -> Vec<u8> {
    vmlinux(Some(Layout::Before), &[RELEASE])
}

/// A bzImage with that payload.
fn boot_image(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    let at = 64;
    image[0x248..0x24c].copy_from_slice(&(at as u32).to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(vec![0x90; at]);
    image.extend(payload);
    image.extend([0x90; 100]);
    image
}

/// Runs a program on some input.
fn through(command: &str, input: &[u8]) -> Vec<u8> {
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {command}: {e}; its package is in the Makefile"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("the program reads its input"));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command}");
    output.stdout
}

/// The commands of scripts/Makefile.lib (`cmd_gzip` and its like).
const PACKERS: [&str; 7] = [
    "gzip -n -f -9 -c",
    "bzip2 -9 -c",
    "lzma -9 -c",
    "xz --check=crc32 --x86 --lzma2=dict=32MiB -c",
    "lz4 -l -9 -c",
    "zstd -22 --ultra -q -c",
    "lzop -9 -c",
];

/// The payload that a kernel's build makes of a kernel.
fn payload(packer: &str, kernel: &[u8]) -> Vec<u8> {
    let mut payload = through(packer, kernel);
    if !packer.starts_with("gzip") {
        payload.extend((kernel.len() as u32).to_le_bytes());
    }
    payload
}

fn arch() -> &'static dyn Arch {
    by_name("x86_64").expect("registered")
}

fn read(file: Vec<u8>) -> Result<Snapshot, ImageError> {
    read_image(arch(), file, None)
}

fn refusal(file: Vec<u8>) -> ImageError {
    match read(file) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error,
    }
}

fn listed(snapshot: &Snapshot) -> Vec<(u64, char, String)> {
    snapshot.symbols.iter().map(|s| (s.address, s.kind, s.name.to_owned())).collect()
}

#[test]
fn the_symbols_of_every_layout_are_read() {
    for layout in LAYOUTS {
        let snapshot = read(vmlinux(Some(layout), &[RELEASE])).expect("a kernel");
        assert_eq!(listed(&snapshot), symbols(layout), "{layout:?}");
    }
}

#[test]
fn memory_and_release_are_those_of_the_image() {
    let snapshot = read(good()).expect("a kernel");
    assert_eq!(snapshot.release.as_deref(), Some(RELEASE));
    assert!(!snapshot.is_started());
    let mut bytes = [0; 8];
    assert!(snapshot.read(DATA + 8, &mut bytes));
    assert_eq!(&bytes, b"the data");
    assert!(snapshot.read(TEXT + CODE as u64 - 8, &mut bytes));
    assert_eq!(bytes, [0xcc; 8]);
    // What is not in the file is not known, and no read goes from one segment to another.
    for beyond in [DATA + 25, DATA + 32, TEXT - 1, DATA - 4, 0, u64::MAX - 3] {
        assert!(!snapshot.read(beyond, &mut bytes), "{beyond:#x}");
    }
}

#[test]
fn every_compression_is_unpacked() {
    let kernel = good();
    for packer in PACKERS {
        let image = boot_image(&payload(packer, &kernel));
        let snapshot = read(image).unwrap_or_else(|e| panic!("{packer}: {e}"));
        assert_eq!(listed(&snapshot), symbols(Layout::Before), "{packer}");
        let plain = read(through(packer, &kernel)).unwrap_or_else(|e| panic!("{packer}: {e}"));
        assert_eq!(listed(&plain), symbols(Layout::Before), "{packer}");
    }
}

#[test]
fn a_payload_of_another_size_is_refused() {
    let kernel = good();
    for packer in PACKERS {
        for change in [-1_i32, 1, 1 << 20] {
            let mut payload = payload(packer, &kernel);
            let at = payload.len() - 4;
            let size = (kernel.len() as i32 + change).to_le_bytes();
            payload[at..].copy_from_slice(&size);
            let error = refusal(boot_image(&payload));
            assert!(matches!(error, ImageError::Packed(_)), "{packer} {change}: {error}");
        }
    }
}

#[test]
fn what_is_no_kernel_is_refused_with_the_reason() {
    let says = |file: Vec<u8>, words: &str| {
        let error = refusal(file).to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    };
    says(Vec::new(), "neither a boot image");
    says(b"MZ".repeat(500), "neither a boot image");
    says(through(PACKERS[0], b"no kernel"), "neither a boot image");
    says(boot_image(&payload(PACKERS[5], b"no kernel")), "neither a boot image");
    says(boot_image(b"plain"), "compression is not known");
    says(boot_image(b"\x89LZO\0\r\n\x1a\n and so on"), "cut short");
    let mut other = good();
    other[18] = 183;
    says(other, "ELF machine 183");
    let mut core = good();
    core[16] = 4;
    says(core, "ELF type");
    says(vmlinux(Some(Layout::Before), &[]), "0 different banners");
    for none in ["%s", "../6.1.0", ""] {
        says(vmlinux(Some(Layout::Before), &[none]), "0 different banners");
    }
    says(vmlinux(Some(Layout::Before), &[RELEASE, "6.2.0"]), "2 different banners");
}

#[test]
fn a_kernel_without_symbols_takes_those_that_are_given() {
    let bare = || vmlinux(None, &[RELEASE]);
    let error = refusal(bare());
    assert!(matches!(error, ImageError::NoSymbols), "{error}");
    assert!(error.to_string().contains("--symbols"), "{error}");
    let list = |address: u64| {
        let text = format!("{address:x} T _stext\n{:x} T alpha\n", address + 16);
        Kallsyms::parse(text).unwrap()
    };
    let snapshot = read_image(arch(), bare(), Some(list(TEXT))).expect("a kernel");
    assert_eq!(snapshot.addresses("alpha"), [TEXT + 16]);
    // A booted kernel is elsewhere.
    for elsewhere in [TEXT + 0x200_0000, DATA] {
        let error = read_image(arch(), bare(), Some(list(elsewhere))).err().expect("a refusal");
        assert!(matches!(error, ImageError::OtherSymbols), "{error}");
    }
}

#[test]
fn tables_that_do_not_agree_are_no_list() {
    for layout in LAYOUTS {
        let kernel = vmlinux(Some(layout), &[RELEASE]);
        let find = |wanted: &[u8]| kernel.windows(wanted.len()).position(|w| w == wanted).unwrap();
        let count = (symbols(layout).len() as u64).to_le_bytes();
        let digits = find(b"0\x001\x002\x00");
        // The number, a marker, the table of tokens and its index.
        let mut index = Vec::new();
        let mut at = 0_u16;
        for token in tokens().iter().take(9) {
            index.extend(at.to_le_bytes());
            at += token.len() as u16 + 1;
        }
        for (what, at) in [("number", find(&count)), ("digit", digits), ("index", find(&index) + 4)]
        {
            for bit in 0..8 {
                let mut bad = kernel.clone();
                bad[at] ^= 1 << bit;
                let error = read(bad).err();
                let told = matches!(error, Some(ImageError::NoSymbols));
                assert!(told, "{layout:?}, {what}, bit {bit}: {error:?}");
            }
        }
    }
}

/// Numbers without a pattern (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }
}

#[test]
fn damaged_images_are_refused_or_read_and_nothing_else() {
    let mut dice = Dice(0x5eed);
    let mut images: Vec<Vec<u8>> = LAYOUTS.iter().map(|l| vmlinux(Some(*l), &[RELEASE])).collect();
    images.extend(PACKERS.iter().map(|packer| boot_image(&payload(packer, &good()))));
    let mut refused = 0;
    for image in images {
        for _ in 0..60 {
            let len = dice.roll(image.len());
            refused += usize::from(read(image[..len].to_vec()).is_err());
        }
        for round in 0..240 {
            let mut bad = image.clone();
            for _ in 0..=round % 3 {
                // Half of the damage is in the headers.
                let at = if round % 2 == 0 { dice.roll(bad.len()) } else { dice.roll(1200) };
                bad[at] ^= 1 << dice.roll(8);
            }
            // Damage in the code or in a name is not to be seen here.
            refused += usize::from(read(bad).is_err());
        }
    }
    assert!(refused > 1000, "only {refused} were refused");
}
