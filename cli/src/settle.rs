// SPDX-License-Identifier: GPL-2.0-or-later
//! A kernel that runs rewrites its own code now and then, and is read meanwhile: whoever looks in that
//! moment finds a breakpoint, or half of an instruction (`text_poke_bp_batch`,
//! arch/x86/kernel/alternative.c). So what is found wrong counts only if it stays so.

use std::time::Duration;

use splice_core::runpre::{Refusal, Snapshot};

/// How often in a row the same must be found wrong.
const SAME: usize = 3;
/// How often to look at most.
const MOST: usize = 20;
/// What is waited in between: longer than such a moment lasts.
const PAUSE: Duration = Duration::from_millis(50);

/// What looking at a kernel came to, once it is settled if the kernel runs: `wrong` tells what is found
/// wrong, if it may be such a moment's.
pub(crate) fn settled<T, W: PartialEq>(
    snapshot: &Snapshot,
    mut look: impl FnMut() -> T,
    wrong: impl Fn(&T) -> Option<W>,
) -> T {
    let first = look();
    if snapshot.is_live() { until_same(first, look, wrong) } else { first }
}

fn until_same<T, W: PartialEq>(
    mut found: T,
    mut look: impl FnMut() -> T,
    wrong: impl Fn(&T) -> Option<W>,
) -> T {
    let mut same = 1;
    for _ in 1..MOST {
        let Some(before) = wrong(&found) else { break };
        if same == SAME {
            break;
        }
        std::thread::sleep(PAUSE);
        found = look();
        same = if wrong(&found) == Some(before) { same + 1 } else { 1 };
    }
    found
}

/// A byte that is not explained: where it is, and what stands there.
pub(crate) fn mismatch<T>(found: &Result<T, Refusal>) -> Option<(u64, u64, String)> {
    match found {
        Err(Refusal::Mismatch(report)) => {
            Some((report.address, report.offset, report.found.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often is looked at what is this one after the other, and then for ever.
    fn looks(all: &[Option<(u64, &str)>]) -> (usize, bool) {
        let mut times = 0;
        let mut look = || {
            let now = all.get(times).or(all.last()).expect("something");
            times += 1;
            *now
        };
        let first = look();
        let last = until_same(first, look, |now| *now);
        (times, last.is_none())
    }

    #[test]
    fn what_is_right_is_looked_at_once_and_what_stays_wrong_three_times() {
        let wrong = |offset, found| Some((offset, found));
        assert_eq!(looks(&[None]), (1, true));
        assert_eq!(looks(&[wrong(0, "cc")]), (3, false));
        assert_eq!(looks(&[wrong(0, "cc"), None]), (2, true));
        assert_eq!(looks(&[wrong(0, "cc"), wrong(0, "cc"), wrong(8, "cc")]), (5, false));
        assert_eq!(looks(&[wrong(0, "cc"), wrong(0, "e8"), None]), (3, true));
    }

    #[test]
    fn what_never_settles_is_wrong() {
        let found: Vec<_> = (0..40).map(|n| Some((n, "cc"))).collect();
        assert_eq!(looks(&found), (MOST, false));
    }

    #[test]
    fn other_refusals_are_final() {
        let refusal = Refusal::NotLoaded { targets: Vec::new() };
        assert_eq!(mismatch::<()>(&Err(refusal)), None);
    }
}
