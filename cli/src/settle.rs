// SPDX-License-Identifier: GPL-2.0-or-later
//! A kernel that runs rewrites its own code now and then, and is read meanwhile: whoever looks in that
//! moment finds a breakpoint, or half of an instruction (`text_poke_bp_batch`,
//! arch/x86/kernel/alternative.c). So what is found wrong counts only if it stays so.

use std::time::Duration;

use splice_core::runpre::Refusal;

/// How often in a row the same must be found wrong.
const SAME: usize = 3;
/// How often to look at most.
const MOST: usize = 20;
/// What is waited in between: longer than such a moment lasts.
const PAUSE: Duration = Duration::from_millis(50);

/// What looking at a running kernel came to, once it is settled.
pub(crate) fn settled<T>(mut look: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut last = look();
    let mut same = 1;
    for _ in 1..MOST {
        let Err(Refusal::Mismatch(before)) = &last else { break };
        if same == SAME {
            break;
        }
        std::thread::sleep(PAUSE);
        let next = look();
        same = match &next {
            Err(Refusal::Mismatch(now))
                if (now.address, now.offset) == (before.address, before.offset)
                    && now.found == before.found =>
            {
                same + 1
            }
            _ => 1,
        };
        last = next;
    }
    last
}

#[cfg(test)]
mod tests {
    use splice_core::runpre::MismatchReport;

    use super::*;

    fn wrong(offset: u64, found: &str) -> Result<(), Refusal> {
        Err(Refusal::Mismatch(Box::new(MismatchReport {
            function: "f".to_owned(),
            unit: "u.o".to_owned(),
            address: 0x1000,
            offset,
            expected: "90".to_owned(),
            found: found.to_owned(),
            expected_code: Vec::new(),
            found_code: Vec::new(),
            why: String::new(),
            probed: false,
            trampoline: None,
            namesakes: Vec::new(),
        })))
    }

    /// How often is looked at what is this one after the other, and then for ever.
    fn looks(all: &[Result<(), (u64, &str)>]) -> (usize, bool) {
        let mut times = 0;
        let result = settled(|| {
            let now = all.get(times).or(all.last()).expect("something");
            times += 1;
            now.map_or_else(|(offset, found)| wrong(offset, found), Ok)
        });
        (times, result.is_ok())
    }

    #[test]
    fn what_is_right_is_looked_at_once_and_what_stays_wrong_three_times() {
        assert_eq!(looks(&[Ok(())]), (1, true));
        assert_eq!(looks(&[Err((0, "cc"))]), (3, false));
        assert_eq!(looks(&[Err((0, "cc")), Ok(())]), (2, true));
        assert_eq!(looks(&[Err((0, "cc")), Err((0, "cc")), Err((8, "cc"))]), (5, false));
        assert_eq!(looks(&[Err((0, "cc")), Err((0, "e8")), Ok(())]), (3, true));
    }

    #[test]
    fn what_never_settles_is_wrong() {
        let found: Vec<_> = (0..40).map(|n| Err((n, "cc"))).collect();
        assert_eq!(looks(&found), (MOST, false));
    }

    #[test]
    fn other_refusals_are_final() {
        let mut times = 0;
        let result: Result<(), Refusal> = settled(|| {
            times += 1;
            Err(Refusal::NotLoaded { targets: Vec::new() })
        });
        assert!(result.is_err());
        assert_eq!(times, 1);
    }
}
