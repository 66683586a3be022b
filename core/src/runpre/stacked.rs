// SPDX-License-Identifier: GPL-2.0-or-later
//! Updates that are applied already: where the functions now are that they have replaced.
//!
//! The old entry of a replaced function keeps its identity: whoever calls the function or holds its
//! address leads there. So a value that is the entry of an applied update's new code is taken for
//! the old entry, wherever it is met, and a function's code is looked for where its entry leads.
//! A jump that no applied update claims, or that leads elsewhere than it claims, is foreign.

use std::collections::HashMap;

use super::Kallsyms;
use crate::diff::parent_name;

/// An update that is applied to the kernel of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedUpdate {
    /// Its id.
    pub id: String,
    /// Its modules.
    pub modules: Vec<String>,
    /// Its jumps: where each stands, and where it leads.
    pub jumps: Vec<(u64, u64)>,
}

/// A function that an update has replaced.
#[derive(Debug, Clone, Copy)]
struct Replaced {
    /// Where its jump stands.
    site: u64,
    /// Entry of the new code.
    new: u64,
    /// The update, by number.
    update: usize,
}

/// All updates that are applied.
#[derive(Debug, Default)]
pub(super) struct Stack {
    updates: Vec<AppliedUpdate>,
    /// By the entry of the old code.
    replaced: HashMap<u64, Replaced>,
    /// The entry of the old code, by that of the new.
    old: HashMap<u64, u64>,
}

/// Where a function is, and what put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now<'a> {
    /// Entry of the code that runs.
    pub(super) address: u64,
    /// Id of the update.
    pub(super) update: &'a str,
}

/// Longer than any chain of updates of one function.
const CHAIN_MAX: usize = 1000;

impl Stack {
    pub(super) fn new(updates: Vec<AppliedUpdate>, symbols: &Kallsyms) -> Stack {
        let mut stack = Stack { updates, ..Stack::default() };
        for (update, applied) in stack.updates.iter().enumerate() {
            for (site, new) in applied.jumps.iter().copied() {
                // A jump stands near the start of its function, which has a symbol.
                let Some(entry) = symbols.below(site).map(|s| s.address) else { continue };
                stack.replaced.insert(entry, Replaced { site, new, update });
                stack.old.insert(new, entry);
            }
        }
        stack
    }

    /// Where the function with that old entry is now, if updates have replaced it and their jumps
    /// are there; `leads` says where a jump that stands at an address leads.
    pub(super) fn now(&self, leads: impl Fn(u64) -> Option<u64>, entry: u64) -> Option<Now<'_>> {
        let mut now = None;
        let mut at = entry;
        for _ in 0..CHAIN_MAX {
            let Some(replaced) = self.replaced.get(&at) else { return now };
            if leads(replaced.site) != Some(replaced.new) {
                return None;
            }
            at = replaced.new;
            let update = self.updates.get(replaced.update).map_or("", |u| u.id.as_str());
            now = Some(Now { address: at, update });
        }
        None
    }

    /// Whether that is the entry of code that replaces a function.
    pub(super) fn has_replaced(&self, entry: u64) -> bool {
        self.old.contains_key(&entry)
    }

    /// The entry by which the function of that entry is known: the oldest.
    pub(super) fn known_as(&self, entry: u64) -> u64 {
        let mut at = entry;
        for _ in 0..CHAIN_MAX {
            match self.old.get(&at) {
                Some(old) => at = *old,
                None => return at,
            }
        }
        entry
    }

    /// The update that a module belongs to.
    pub(super) fn update_of(&self, module: &str) -> Option<&str> {
        let owns = |u: &&AppliedUpdate| u.modules.iter().any(|own| own == module);
        self.updates.iter().find(owns).map(|u| u.id.as_str())
    }

    /// Places of code that updates have brought, by its name in its unit: new functions, and the
    /// split-off parts of those that they have replaced. `entries` are the places of the old
    /// function of a name. Each with its update.
    pub(super) fn brought<'a>(
        &'a self,
        symbols: &'a Kallsyms,
        name: &str,
        entries: impl Fn(&str) -> Vec<u64>,
    ) -> Vec<(u64, &'a str)> {
        let mut names = vec![name.to_owned()];
        if let Some(parent) = parent_name(name) {
            // A replaced function has a name of its own in the update, and its parts have that.
            let links = entries(parent).into_iter().filter_map(|e| self.replaced.get(&e));
            let links = links.flat_map(|r| symbols.at(r.new)).filter(|s| s.is_code());
            names.extend(links.map(|link| name.replacen(parent, link.name, 1)));
        }
        let mut found: Vec<(u64, &str)> = Vec::new();
        for name in names {
            for symbol in symbols.named(&name).filter(|s| s.is_code()) {
                if let Some(update) = self.update_of(symbol.module) {
                    found.push((symbol.address, update));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
        1000 t foo\n1040 t foo.cold\n2000 t bar\n3000 t same\n\
        9000 t splice_new_0_foo\t[splice_a]\n9100 t splice_new_0_foo.cold\t[splice_a]\n\
        9200 t helper\t[splice_a]\n9300 t helper\t[other]\n\
        a000 t splice_new_0_foo\t[splice_b]\n";

    fn stack() -> (Stack, Kallsyms) {
        let symbols = Kallsyms::parse(LIST.into()).unwrap();
        let update = |id: &str, jumps: &[(u64, u64)]| AppliedUpdate {
            id: id.to_owned(),
            modules: vec![format!("splice_{id}")],
            jumps: jumps.to_vec(),
        };
        let all = vec![update("a", &[(0x1005, 0x9000)]), update("b", &[(0x9005, 0xa000)])];
        (Stack::new(all, &symbols), symbols)
    }

    fn there(site: u64) -> Option<u64> {
        HashMap::from([(0x1005, 0x9000), (0x9005, 0xa000)]).get(&site).copied()
    }

    #[test]
    fn a_function_is_where_the_last_update_has_put_it() {
        let (stack, _) = stack();
        assert_eq!(stack.now(there, 0x1000), Some(Now { address: 0xa000, update: "b" }));
        assert_eq!(stack.now(there, 0x2000), None);
        for entry in [0x1000, 0x9000, 0xa000] {
            assert_eq!(stack.known_as(entry), 0x1000);
        }
        assert_eq!(stack.known_as(0x1005), 0x1005);
    }

    #[test]
    fn a_jump_that_is_not_the_updates_is_foreign() {
        let (stack, _) = stack();
        assert_eq!(stack.now(|_| None, 0x1000), None);
        let elsewhere = |site| if site == 0x1005 { Some(0x2000) } else { there(site) };
        assert_eq!(stack.now(elsewhere, 0x1000), None);
        let above = |site| if site == 0x9005 { None } else { there(site) };
        assert_eq!(stack.now(above, 0x1000), None);
    }

    #[test]
    fn jumps_in_a_circle_lead_nowhere() {
        let symbols = Kallsyms::parse("1000 t f\n2000 t g\n".into()).unwrap();
        let jumps = vec![(0x1005, 0x2000), (0x2005, 0x1000)];
        let update = AppliedUpdate { id: "x".into(), modules: Vec::new(), jumps };
        let stack = Stack::new(vec![update], &symbols);
        let leads = |site| Some(if site == 0x1005 { 0x2000 } else { 0x1000 });
        assert_eq!(stack.now(leads, 0x1000), None);
        assert_eq!(stack.known_as(0x1000), 0x1000);
    }

    #[test]
    fn what_updates_have_brought_is_found_by_name() {
        let (stack, symbols) = stack();
        let entries = |name: &str| if name == "foo" { vec![0x1000] } else { Vec::new() };
        let brought = |name: &str| stack.brought(&symbols, name, entries);
        assert_eq!(brought("helper"), [(0x9200, "a")]);
        assert_eq!(brought("foo.cold"), [(0x9100, "a")]);
        assert_eq!(brought("bar"), []);
    }
}
