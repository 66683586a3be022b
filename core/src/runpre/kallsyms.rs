// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's symbol list, in the form of `/proc/kallsyms` (kernel/kallsyms.c, `s_show`).

use super::VMLINUX;

/// Why a symbol list is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KallsymsError {
    /// A line that is not `address type name [module]`.
    #[error("line {line} of the symbol list is not of the form \"address type name [module]\"")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
    /// Every address is zero.
    #[error("the kernel hides its addresses: all of them read as zero")]
    Hidden,
    /// There is no symbol in it.
    #[error("the symbol list is empty")]
    Empty,
    /// Larger than the engine handles.
    #[error("the symbol list is larger than 4 GiB")]
    TooLarge,
}

/// A symbol of the running kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    /// Run-time address; for a per-CPU symbol its offset.
    pub address: u64,
    /// Type letter as `nm` prints it; upper case for global symbols.
    pub kind: char,
    /// Name.
    pub name: &'a str,
    /// The module that it belongs to, or [`VMLINUX`].
    pub module: &'a str,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    address: u64,
    name: (u32, u32),
    module: (u32, u32),
    kind: u8,
}

/// The symbol list, indexed by name and by address.
#[derive(Debug)]
pub struct Kallsyms {
    text: String,
    records: Vec<Record>,
    by_name: Vec<u32>,
    by_address: Vec<u32>,
    lists_data: bool,
}

impl Kallsyms {
    /// Reads a symbol list.
    pub fn parse(text: String) -> Result<Kallsyms, KallsymsError> {
        if u32::try_from(text.len()).is_err() {
            return Err(KallsymsError::TooLarge);
        }
        let mut records = Vec::with_capacity(text.len() / 40);
        let mut start = 0usize;
        for (number, line) in text.split('\n').enumerate() {
            if !line.is_empty() {
                let record =
                    parse_line(line, start).ok_or(KallsymsError::Malformed { line: number + 1 })?;
                records.push(record);
            }
            start += line.len() + 1;
        }
        if records.is_empty() {
            return Err(KallsymsError::Empty);
        }
        if records.iter().all(|r| r.address == 0) {
            return Err(KallsymsError::Hidden);
        }
        let lists_data = records.iter().any(|r| matches!(r.kind, b'd' | b'b' | b'r'));
        let (by_name, by_address) = (Vec::new(), Vec::new());
        let mut list = Kallsyms { text, records, by_name, by_address, lists_data };
        let count = list.records.len() as u32;
        let mut by_name: Vec<u32> = (0..count).collect();
        by_name.sort_unstable_by(|a, b| list.name_of(*a).cmp(list.name_of(*b)).then(a.cmp(b)));
        let mut by_address: Vec<u32> = (0..count).collect();
        by_address.sort_unstable_by_key(|i| (list.address_of(*i), *i));
        list.by_name = by_name;
        list.by_address = by_address;
        Ok(list)
    }

    /// Whether it lists data: a kernel without `CONFIG_KALLSYMS_ALL` lists code alone (and the end of the
    /// text), so that a name in its list is never that of an object.
    pub fn lists_data(&self) -> bool {
        self.lists_data
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none; a list that was read has at least one.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All symbols, in the list's order.
    pub fn iter(&self) -> impl Iterator<Item = KernelSymbol<'_>> + '_ {
        (0..self.records.len() as u32).map(|i| self.symbol(i))
    }

    /// All symbols of that name, in the list's order.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = KernelSymbol<'a>> + 'a {
        let from = self.by_name.partition_point(|i| self.name_of(*i) < name);
        self.by_name
            .get(from..)
            .unwrap_or_default()
            .iter()
            .map(|i| self.symbol(*i))
            .take_while(move |s| s.name == name)
    }

    /// All symbols at exactly that address.
    pub fn at(&self, address: u64) -> impl Iterator<Item = KernelSymbol<'_>> + '_ {
        let from = self.by_address.partition_point(|i| self.address_of(*i) < address);
        self.by_address
            .get(from..)
            .unwrap_or_default()
            .iter()
            .map(|i| self.symbol(*i))
            .take_while(move |s| s.address == address)
    }

    /// The nearest symbol at or below that address.
    pub fn below(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let end = self.by_address.partition_point(|i| self.address_of(*i) <= address);
        self.by_address.get(end.checked_sub(1)?).map(|i| self.symbol(*i))
    }

    /// The lowest address above that one at which a symbol stands.
    pub fn next_address(&self, address: u64) -> Option<u64> {
        let from = self.by_address.partition_point(|i| self.address_of(*i) <= address);
        self.by_address.get(from).map(|i| self.address_of(*i))
    }

    /// Whether that module is loaded: whether any symbol is said to belong to it.
    pub fn has_module(&self, module: &str) -> bool {
        self.records.iter().any(|r| self.slice(r.module) == module)
    }

    /// The addresses of a module's code symbols.
    pub fn code_of<'a>(&'a self, module: &'a str) -> impl Iterator<Item = u64> + 'a {
        let count = self.records.len() as u32;
        let own = (0..count).map(|i| self.symbol(i)).filter(move |s| s.module == module);
        own.filter(KernelSymbol::is_code).map(|s| s.address)
    }

    fn symbol(&self, index: u32) -> KernelSymbol<'_> {
        match self.records.get(index as usize) {
            Some(r) => KernelSymbol {
                address: r.address,
                kind: char::from(r.kind),
                name: self.slice(r.name),
                module: match self.slice(r.module) {
                    "" => VMLINUX,
                    module => module,
                },
            },
            None => KernelSymbol { address: 0, kind: '?', name: "", module: "" },
        }
    }

    fn name_of(&self, index: u32) -> &str {
        self.records.get(index as usize).map_or("", |r| self.slice(r.name))
    }

    fn address_of(&self, index: u32) -> u64 {
        self.records.get(index as usize).map_or(0, |r| r.address)
    }

    fn slice(&self, (start, end): (u32, u32)) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// Reads one line that begins at `start` of the text.
fn parse_line(line: &str, start: usize) -> Option<Record> {
    let (address, rest) = line.split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (kind, rest) = rest.split_once(' ')?;
    let kind = match kind.as_bytes() {
        [one] if one.is_ascii_graphic() => *one,
        _ => return None,
    };
    let at = line.len() - rest.len();
    let name_len = rest.find(['\t', ' ']).unwrap_or(rest.len());
    if name_len == 0 {
        return None;
    }
    let tail = rest.get(name_len..)?.trim_matches([' ', '\t', '\r']);
    let module = if tail.is_empty() {
        (0, 0)
    } else {
        let inner = tail.strip_prefix('[')?.strip_suffix(']')?;
        let from = start + line.find('[')? + 1;
        (from, from + inner.len())
    };
    let position = |n: usize| u32::try_from(n).ok();
    Some(Record {
        address,
        kind,
        name: (position(start + at)?, position(start + at + name_len)?),
        module: (position(module.0)?, position(module.1)?),
    })
}

impl KernelSymbol<'_> {
    /// Whether it names code.
    pub fn is_code(&self) -> bool {
        matches!(self.kind, 't' | 'T' | 'w' | 'W')
    }

    /// Whether it is visible outside its unit.
    pub fn is_global(&self) -> bool {
        self.kind.is_ascii_uppercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_code_alone_is_told_from_a_whole_one() {
        let lists_data = |text: &str| Kallsyms::parse(text.to_owned()).unwrap().lists_data();
        assert!(!lists_data("ffff0000 T _stext\nffff1000 t f\nffff2000 W g\nffff3000 D _etext\n"));
        assert!(lists_data("ffff0000 T _stext\nffff3000 d object\n"));
    }

    const LIST: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000010 t twin\n\
        ffffffff81000040 T alpha\n\
        ffffffff81000090 t twin\n\
        0000000000000040 A percpu_thing\n\
        ffffffffc0001000 t probe\t[some_module]\n";

    #[test]
    fn finds_by_name_and_address() {
        let list = Kallsyms::parse(LIST.into()).unwrap();
        assert_eq!(list.len(), 6);
        let twins: Vec<u64> = list.named("twin").map(|s| s.address).collect();
        assert_eq!(twins, [0xffff_ffff_8100_0010, 0xffff_ffff_8100_0090]);
        assert_eq!(list.named("twi").count(), 0);
        assert_eq!(list.below(0xffff_ffff_8100_0050).unwrap().name, "alpha");
        assert_eq!(list.next_address(0xffff_ffff_8100_0040), Some(0xffff_ffff_8100_0090));
        assert_eq!(list.at(0xffff_ffff_8100_0040).next().unwrap().name, "alpha");
        assert!(list.at(0xffff_ffff_8100_0041).next().is_none());
    }

    #[test]
    fn tells_modules_apart() {
        let list = Kallsyms::parse(LIST.into()).unwrap();
        assert!(list.has_module("some_module"));
        assert!(!list.has_module("other"));
        assert_eq!(list.named("probe").next().unwrap().module, "some_module");
        assert_eq!(list.named("alpha").next().unwrap().module, VMLINUX);
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        assert_eq!(Kallsyms::parse(String::new()).unwrap_err(), KallsymsError::Empty);
        assert_eq!(
            Kallsyms::parse("0000000000000000 T a\n0000000000000000 t b\n".into()).unwrap_err(),
            KallsymsError::Hidden
        );
        for bad in ["zz T a", "ffff T", "ffff TT a", "ffff T a [m", "ffff T \t[m]"] {
            assert_eq!(
                Kallsyms::parse(format!("1 T x\n{bad}\n")).unwrap_err(),
                KallsymsError::Malformed { line: 2 },
                "{bad}"
            );
        }
    }
}
