// SPDX-License-Identifier: GPL-2.0-or-later
//! What `create` makes of patches that are more, or less, than a changed function: headers, assembly,
//! start-up code, exports, makefiles, and what is no code of the kernel.

use std::path::PathBuf;
use std::slice;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::targets::new_file;
use super::{Fixture, MODULE_FIX, Suite};
use crate::fixes::{self, edit_on};
use crate::session::{Answer, search};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("reach_leaves_noise_out", || noise(fixture));
    suite.test("reach_refuses_what_is_mapped_into_processes", || mapped(fixture));
    suite.test("reach_refuses_a_new_unit", || new_unit(fixture));
    suite.test("reach_refuses_start_up_code_unless_accepted", || start_up(fixture));
    suite.test("reach_refuses_a_changed_export_unless_accepted", || export(fixture));
    suite.test("reach_refuses_changed_constants_of_assembly", || constants(fixture));
    suite.test("reach_tells_what_objtool_finds", || suspicious(fixture));
    suite.test("reach_follows_an_inline_function", || inline(fixture));
    suite.test("reach_compiles_what_uses_a_change", || header(fixture));
    suite.test("reach_of_an_assembly_unit", || assembly(fixture));
    suite.test("reach_of_several_patches_and_targets", || several(fixture));
    suite.test("reach_carries_what_another_unit_adds", || added(fixture));
}

const RAW: &str = "net/ipv4/raw.c";
const LENGTH: (&str, &str) = ("iphlen > length", "iphlen > length || iphlen < 4");

fn edits(fixture: &Fixture, file: &str, all: &[(&str, &str)]) -> Result<String> {
    fixes::edit(&fixture.lab.cache, &fixture.fix.base, file, all)
}

/// Runs `create` on these patches, with more words.
fn create(
    fixture: &Fixture,
    id: &str,
    patches: &[String],
    words: &[&str],
) -> Result<(PathBuf, Answer)> {
    let update = fixture.lab.work.path().join(format!("{id}.splice"));
    let output = update.to_string_lossy().into_owned();
    let mut all = vec!["create", "--release", &fixture.lab.kernel.release, "--id", id];
    all.extend(["--output", &output]);
    all.extend(words);
    let mut files = Vec::new();
    for (number, text) in patches.iter().enumerate() {
        let file = fixture.lab.work.path().join(format!("{id}-{number}.patch"));
        std::fs::write(&file, text)?;
        files.push(file.to_string_lossy().into_owned());
    }
    all.extend(files.iter().map(String::as_str));
    let answer = fixture.lab.splice(&all)?;
    Ok((update, answer))
}

/// Fails unless it was refused, with these words.
fn refused(fixture: &Fixture, id: &str, patch: &str, words: &[&str]) -> Result<()> {
    let (file, answer) = create(fixture, id, &[patch.to_owned()], &[])?;
    ensure!(!file.exists(), "{} left an update behind", answer.what);
    answer.expect(4)?.says(words)?.says(&["way out"]).map(drop)
}

/// The changed functions of an update that was made.
fn changed(answer: &Answer) -> Result<Vec<String>> {
    let functions = search(&answer.json, "changed").and_then(Value::as_array);
    let functions = functions.context("create does not list the changed functions")?;
    let mut names: Vec<String> = functions
        .iter()
        .filter_map(|function| Some(function.get("name")?.as_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn noise(fixture: &Fixture) -> Result<()> {
    let patch = [
        edits(fixture, RAW, &[LENGTH])?,
        edits(fixture, "MAINTAINERS", &[("List of maintainers", "List of the maintainers")])?,
        edits(fixture, "net/ipv4/Kconfig", &[("IP: multicasting", "IP: multi casting")])?,
        edits(fixture, "net/ipv4/Makefile", &[("obj-y", "# a comment\nobj-y")])?,
        edits(fixture, "tools/lib/string.c", &[("#include", "/* a comment */\n#include")])?,
    ]
    .concat();
    let (_, answer) = create(fixture, "noise", &[patch], &[])?;
    let files = ["MAINTAINERS", "net/ipv4/Kconfig", "net/ipv4/Makefile", "tools/lib/string.c"];
    let words = files.map(|file| format!("{file} is left out"));
    let answer = answer.success()?.says(&words.each_ref().map(String::as_str))?;
    ensure!(changed(&answer)? == ["raw_sendmsg"], "{}", answer.explanation());
    // Alone, it is nothing.
    let patch = edits(fixture, "MAINTAINERS", &[("List of", "A list of")])?;
    let (_, answer) = create(fixture, "noise-alone", &[patch], &[])?;
    answer.expect(3).map(drop)
}

fn mapped(fixture: &Fixture) -> Result<()> {
    let file = "arch/x86/entry/vdso/vgetcpu.c";
    let edit = ("vdso_read_cpunode(cpu, node)", "vdso_read_cpunode(node, cpu)");
    refused(fixture, "vdso", &edits(fixture, file, &[edit])?, &[file, "mapped into every process"])
}

/// A unit with what only a kernel that starts, or one that is built anew, could take.
const REFUSED_UNIT: &str = "\
#include <linux/module.h>
int splice_lab(void);
int splice_lab(void)
{
\treturn 1;
}
EXPORT_SYMBOL_GPL(splice_lab);
static int __init splice_lab_start(void)
{
\treturn splice_lab();
}
late_initcall(splice_lab_start);
static int level = 3;
module_param(level, int, 0400);
";

fn new_unit(fixture: &Fixture) -> Result<()> {
    let makefile = |old: &str, new: &str| edits(fixture, "net/ipv4/Makefile", &[(old, new)]);
    let list = makefile("route.o", "route.o splice_lab.o")?;
    let source = "net/ipv4/splice_lab.c";
    let file = new_file(source, REFUSED_UNIT);
    let words = [
        "splice_lab_start in net/ipv4/splice_lab.o: it is new, and it would run only while",
        ".initcall7.init",
        "--accept init:splice_lab_start",
        "a new unit exports it",
        "--accept export:splice_lab",
        "__param_level",
    ];
    refused(fixture, "new-unit", &format!("{list}{file}"), &words)?;
    refused(fixture, "no-unit", &list, &["net/ipv4/splice_lab.o", "net/ipv4/Makefile", "new .c"])?;
    let module = makefile("obj-$(CONFIG_INET_AH)", "obj-m += splice_lab.o\nobj-$(CONFIG_INET_AH)")?;
    let words = ["net/ipv4/splice_lab.o", "as a module", "by itself"];
    refused(fixture, "new-module", &format!("{module}{file}"), &words)?;
    // The unit may be there, but nothing leads to it.
    let file = new_file(source, "int splice_lab(void);\nint splice_lab(void)\n{\n\treturn 1;\n}\n");
    let (_, answer) = create(fixture, "unit-alone", &[format!("{list}{file}")], &[])?;
    answer.expect(3)?.says(&["splice_lab in", "is left out", "nothing would change"]).map(drop)
}

fn start_up(fixture: &Fixture) -> Result<()> {
    let init = (
        "return register_pernet_subsys(&raw_net_ops)",
        "return raw_net_ops.init ? register_pernet_subsys(&raw_net_ops) : -EINVAL",
    );
    let words = ["raw_proc_init", "starts", "--accept init:raw_proc_init"];
    let alone = edits(fixture, RAW, &[init])?;
    refused(fixture, "init", &alone, &words)?;
    let both = edits(fixture, RAW, &[LENGTH, init])?;
    refused(fixture, "init-too", &both, &words)?;
    let accept = ["--accept", "init:raw_proc_init"];
    let (_, answer) = create(fixture, "init-left-out", &[both], &accept)?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == ["raw_sendmsg"], "{}", answer.explanation());
    // What is left is nothing.
    let (_, answer) = create(fixture, "init-alone", &[alone], &accept)?;
    answer.expect(3).map(drop)
}

fn export(fixture: &Fixture) -> Result<()> {
    // The declaration that other units see stays, so only this unit is compiled.
    let edits_of = [
        ("#include <linux/glob.h>\n", ""),
        (
            "bool __pure glob_match(char const *pat, char const *str)\n{",
            "int __pure glob_match(char const *pat, char const *str)\n{\n\tif (!*pat)\n\t\treturn 2;",
        ),
    ];
    let patch = edits(fixture, "lib/glob.c", &edits_of)?;
    // The version before is what the kernel's own list says.
    let words = ["glob_match", "declaration differs", "--accept export:glob_match"];
    refused(fixture, "export", &patch, &words)?;
    let (_, answer) =
        create(fixture, "export-accepted", &[patch], &["--accept", "export:glob_match"])?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == ["glob_match"], "{}", answer.explanation());
    Ok(())
}

fn constants(fixture: &Fixture) -> Result<()> {
    let file = "arch/x86/kernel/asm-offsets.c";
    let patch = edits(fixture, file, &[("OFFSET(TASK_threadsp", "OFFSET(TASK_thread_sp")])?;
    refused(fixture, "constant-name", &patch, &[file, "constants"])?;
    // A structure whose members assembly reaches; many units include it, but none is compiled.
    let order = ("unsigned long cr0, cr2, cr3, cr4;", "unsigned long cr2, cr0, cr3, cr4;");
    let patch = edits(fixture, "arch/x86/include/asm/suspend_64.h", &[order])?;
    let (file, answer) = create(fixture, "constant-offset", &[patch], &["--wide"])?;
    ensure!(!file.exists(), "{} left an update behind", answer.what);
    let words = ["saved_context_cr0", "asm-offsets", "way out"];
    answer.expect(4)?.says(&words).map(drop)
}

/// Code that leaves the direction of string instructions reversed.
fn suspicious(fixture: &Fixture) -> Result<()> {
    let edit = ("iphlen > length", "({ asm volatile(\"std\"); iphlen > length; })");
    let (_, answer) = create(fixture, "suspicious", &[edits(fixture, RAW, &[edit])?], &[])?;
    let words = ["suspicious: net/ipv4/raw.o: warning: objtool: raw_sendmsg", "DF set"];
    answer.says(&words).map(drop)
}

/// A header of which two units use a function.
const HEADER: &str = "include/net/raw.h";
const HASH: (&str, &str) = ("net_hash_mix(net) ^ proto", "net_hash_mix(net) ^ (proto + 1)");
/// Those that call it, in these units, by the source.
const HASHING: [&str; 5] =
    ["raw6_icmp_error", "raw6_local_deliver", "raw_hash_sk", "raw_icmp_error", "raw_local_deliver"];

fn inline(fixture: &Fixture) -> Result<()> {
    let patch = edits(fixture, HEADER, &[HASH])?;
    let (_, answer) = create(fixture, "inline", slice::from_ref(&patch), &[])?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == HASHING, "{}", answer.explanation());
    for number in ["compiled", "units"] {
        ensure!(answer.number(number) == Some(2), "{}", answer.explanation());
    }
    // On top of it, the source as it was is a change.
    let base = fixture.lab.work.path().join("inline-base.patch");
    std::fs::write(&base, &patch)?;
    let back =
        edit_on(&fixture.lab.cache, &fixture.fix.base, HEADER, &[HASH], &[(HASH.1, HASH.0)])?;
    let (_, answer) = create(fixture, "back", &[back], &["--base", &base.to_string_lossy()])?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == HASHING, "{}", answer.explanation());
    Ok(())
}

fn header(fixture: &Fixture) -> Result<()> {
    let hash = "static inline u32 raw_hashfunc(";
    let short = "static inline bool splice_lab(int length)\n{\n\treturn length < 4;\n}\n\n";
    let function = edits(fixture, HEADER, &[(hash, &format!("{short}{hash}"))])?;
    let (_, answer) = create(fixture, "header-alone", slice::from_ref(&function), &[])?;
    answer.expect(3)?;
    let user =
        edits(fixture, RAW, &[("iphlen > length", "iphlen > length || splice_lab(iphlen)")])?;
    let (_, answer) = create(fixture, "header-used", &[function, user], &[])?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == ["raw_sendmsg"], "{}", answer.explanation());
    ensure!(answer.number("compiled") == Some(1), "{}", answer.explanation());
    Ok(())
}

fn assembly(fixture: &Fixture) -> Result<()> {
    let edit = ("cmp  $680, %rdx", "cmp  $681, %rdx");
    let patch = edits(fixture, "arch/x86/lib/memmove_64.S", &[edit])?;
    let (_, answer) = create(fixture, "assembly", &[patch], &[])?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == ["__memmove"], "{}", answer.explanation());
    let edit = ("SYM_CODE_START(entry_SYSCALL_64)\n", "SYM_CODE_START(entry_SYSCALL_64)\n\tnop\n");
    let patch = edits(fixture, "arch/x86/entry/entry_64.S", &[edit])?;
    refused(fixture, "entry", &patch, &["entry_SYSCALL_64", "the way into the kernel"])
}

fn several(fixture: &Fixture) -> Result<()> {
    let first = edits(fixture, RAW, &[LENGTH])?;
    let second = fixes::find(MODULE_FIX)?.patch(&fixture.lab.cache)?;
    let (_, answer) = create(fixture, "several", &[first, second], &[])?;
    let answer = answer.success()?;
    let targets = answer.json.get("targets").and_then(Value::as_array).context("no targets")?;
    ensure!(*targets == ["vmlinux", "tipc"], "{}", answer.explanation());
    ensure!(changed(&answer)?.contains(&"raw_sendmsg".to_owned()), "{}", answer.explanation());
    ensure!(changed(&answer)?.len() > 1, "{}", answer.explanation());
    Ok(())
}

fn added(fixture: &Fixture) -> Result<()> {
    // Defined where nothing else changes, used elsewhere in the same target.
    let glob = "bool __pure glob_match(char const *pat, char const *str)\n{";
    let variable = format!("int splice_lab_shortest = 4;\n{glob}");
    let variable = edits(fixture, "lib/glob.c", &[(glob, &variable)])?;
    let send = "static int raw_send_hdrinc(";
    let declared = format!("extern int splice_lab_shortest;\n{send}");
    let length = ("iphlen > length", "iphlen > length || iphlen < splice_lab_shortest");
    let user = edits(fixture, RAW, &[length, (send, &declared)])?;
    let (file, answer) = create(fixture, "added", &[variable.clone(), user], &[])?;
    let answer = answer.success()?;
    ensure!(changed(&answer)? == ["raw_sendmsg"], "{}", answer.explanation());
    ensure!(answer.number("units") == Some(2), "{}", answer.explanation());
    // It is part of the update, not looked for in the kernel.
    let answer = fixture.lab.splice(&["inspect", &file.to_string_lossy()])?.success()?;
    let needed = search(&answer.json, "targets").context("inspect does not list the targets")?;
    ensure!(!needed.to_string().contains("splice_lab_shortest"), "{needed}");
    // What was static is the running kernel's, found by the unit that has it.
    let file = "net/ipv4/route.c";
    let limit =
        edits(fixture, file, &[("static int ip_rt_redirect_number", "int ip_rt_redirect_number")])?;
    let declared = format!("extern int ip_rt_redirect_number;\n{send}");
    let length = ("iphlen > length", "iphlen > length || iphlen < ip_rt_redirect_number");
    let user = edits(fixture, RAW, &[length, (send, &declared)])?;
    let (file, answer) = create(fixture, "raised", &[limit, user], &[])?;
    ensure!(changed(&answer.success()?)? == ["raw_sendmsg"], "more than raw_sendmsg changed");
    let answer = fixture.lab.splice(&["inspect", &file.to_string_lossy()])?.success()?;
    let targets = search(&answer.json, "targets").context("inspect does not list the targets")?;
    let symbols = search(targets, "symbols").and_then(Value::as_array).context("no symbols")?;
    let symbol = symbols.iter().find(|s| s.get("name") == Some(&"ip_rt_redirect_number".into()));
    let place = symbol.and_then(|s| search(s, "local")).context("it is not the unit's")?;
    ensure!(place.get("unit").is_some(), "{place}");
    // What nothing uses is no change; neither is a function.
    let function = format!("int splice_lab_new(int n)\n{{\n\treturn n + 1;\n}}\n{glob}");
    let function = edits(fixture, "lib/glob.c", &[(glob, &function)])?;
    for (id, patch) in [("added-alone", variable), ("added-function", function)] {
        let (_, answer) = create(fixture, id, &[patch], &[])?;
        answer.expect(3)?;
    }
    Ok(())
}
