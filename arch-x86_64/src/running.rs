// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with running text.

use splice_core::arch::{ArchError, Code, FunctionDiff, KernelView, RunCode, RunMatch, Verdict};

use crate::{X86_64, decode, diff, nops};

impl FunctionDiff for X86_64 {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        diff::compare(pre, post)
    }

    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        kernel: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        let _ = (run, kernel);
        Err(ArchError::Nonsense {
            arch: "x86_64".into(),
            what: format!("no match of {} yet", pre.name),
        })
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        decode::disassemble(bytes, address, count)
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        nops::is_padding(bytes)
    }
}
