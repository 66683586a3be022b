// SPDX-License-Identifier: GPL-2.0-or-later
//! The C source of an update module's glue: the transaction as constant data.
//!
//! It holds no address. Sites and ranges are undefined symbols that [`super::finalise`] gives
//! values to when the update is applied; the numbering is the contract between the two:
//! site `i` is the i-th changed function of the target, and the ranges are, for each of them in
//! order, the function itself and then its split-off parts. Object `i` is the i-th data object
//! of the target.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{
    ABI, BASES, LOAD, PlanError, base_symbol, contents_symbol, expected_symbol, object_symbol,
    range_symbols, site_symbol,
};
use crate::arch::{Arch, ArchError, Template, check};
use crate::update::{Change, DataObject, Function, Hook, Manifest, When};

/// The update module's parameter that says how many parts of the update are loaded, if not all are.
pub const PARTS: &str = "parts";
/// The one that names the targets, separated by commas, that are left out since they are not there.
pub const LEFT_OUT: &str = "left_out";

fn unsupported(what: impl Into<String>) -> PlanError {
    PlanError::Unsupported(what.into())
}

/// A C string literal. What is not printable ASCII is an octal escape of three digits, which
/// cannot run into what follows it.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            // A question mark could begin a trigraph.
            b'"' | b'\\' | b'?' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn site(n: usize, new: &str, template: &Template) -> String {
    let mut out = String::new();
    let bytes: Vec<_> = template.bytes.iter().map(|b| format!("{b:#04x}")).collect();
    let _ = write!(
        out,
        "\t{{\n\t\t.addr = {},\n\t\t.target = {new},\n\t\t.expected = {},\n\t\t.bias = {},\n\
         \t\t.granule = {},\n\t\t.template = {{ {} }},\n\t\t.fields = {{\n",
        site_symbol(n),
        expected_symbol(n),
        template.bias,
        template.granule,
        bytes.join(", ")
    );
    for field in &template.fields {
        let _ = writeln!(
            out,
            "\t\t\t{{ .add = {}, .word = {}, .size = {}, .shift = {}, .bits = {}, .position = {} }},",
            field.add, field.word, field.size, field.shift, field.bits, field.position
        );
    }
    let _ = writeln!(
        out,
        "\t\t}},\n\t\t.len = {},\n\t\t.range_bits = {},\n\t\t.nfields = {},\n\t}},",
        template.bytes.len(),
        template.range_bits,
        template.fields.len()
    );
    out
}

fn object(n: usize, object: &DataObject) -> String {
    format!(
        "\t{{\n\t\t.addr = {},\n\t\t.expected = {},\n\t\t.data = {},\n\t\t.len = {},\n\t}},\n",
        object_symbol(n),
        contents_symbol(n),
        object.new_link,
        object.size
    )
}

fn hook(hook: &Hook) -> String {
    let step = match hook.when {
        When::Pre => "PRE",
        When::Check => "CHECK",
        When::Do => "DO",
        When::Post => "POST",
        When::Fail => "FAIL",
    };
    let kind = if hook.when.is_asked() { "ask" } else { "tell" };
    let Hook { link, undo, .. } = hook;
    format!("\t{{ .{kind} = &{link}, .step = SPLICE_{step}, .undo = {undo} }},\n")
}

fn changed(functions: &[Function]) -> impl Iterator<Item = &Function> {
    functions.iter().filter(|f| f.change == Change::Changed)
}

/// How many ranges a target's update module has.
pub fn range_count(functions: &[Function]) -> usize {
    changed(functions).map(|f| 1 + f.pre_parts.len()).sum()
}

/// The source of `update.c` for one target of an update, whose new code uses symbols that are
/// exported in these namespaces.
pub fn update_c(
    arch: &dyn Arch,
    manifest: &Manifest,
    target: usize,
    namespaces: &BTreeSet<String>,
) -> Result<String, PlanError> {
    let nonsense = |source: ArchError| unsupported(source.to_string());
    let template = arch.trampoline().template();
    check::template(arch, &template).map_err(nonsense)?;
    let word = arch.stack().word();
    check::stack_word(arch, word).map_err(nonsense)?;
    let parts = manifest.targets.len();
    let target = manifest
        .targets
        .get(target)
        .ok_or_else(|| unsupported(format!("it has no target number {target}")))?;
    let usable = |new, name: &str| match is_identifier(new) {
        true => Ok(new),
        false => Err(unsupported(format!("the new {name} has no usable symbol ({new:?})"))),
    };
    let mut news = Vec::new();
    for function in changed(&target.functions) {
        news.push(usable(function.new_link.as_deref().unwrap_or_default(), &function.name)?);
    }
    for object in &target.objects {
        usable(&object.new_link, &object.name)?;
    }
    let links = target.hooks.iter().map(|hook| (&hook.link, &hook.name));
    for (link, name) in links.chain(target.shadows.iter().map(|s| (&s.link, &s.name))) {
        usable(link, name)?;
    }
    if news.is_empty() && target.objects.is_empty() && target.hooks.is_empty() {
        return Err(unsupported(format!("nothing of {} is replaced", target.name)));
    }
    let ranges = range_count(&target.functions);

    let mut out = String::from(
        "// SPDX-License-Identifier: GPL-2.0-only\n\
         /* Generated by splice: what this update switches, and to what. */\n\
         #include \"splice.h\"\n\n",
    );
    for (n, new) in news.iter().enumerate() {
        let _ = writeln!(
            out,
            "extern const char {}[], {new}[];\n\
             /* Written when the update is applied, so it must not be in .bss. */\n\
             extern u8 {expected}[SPLICE_SITE_MAX];\n\
             u8 {expected}[SPLICE_SITE_MAX] __section(\".data\");",
            site_symbol(n),
            expected = expected_symbol(n)
        );
    }
    for (n, object) in target.objects.iter().enumerate() {
        let _ = writeln!(
            out,
            "extern const char {}[], {}[];\n\
             extern u8 {contents}[{size}];\n\
             u8 {contents}[{size}] __section(\".data\");",
            object_symbol(n),
            object.new_link,
            contents = contents_symbol(n),
            size = object.size
        );
    }
    for n in 0..ranges {
        let (start, end) = range_symbols(n);
        let _ = writeln!(out, "extern const char {start}[], {end}[];");
    }
    for hook in &target.hooks {
        let kind = if hook.when.is_asked() { "ask" } else { "tell" };
        let _ = writeln!(out, "extern const struct splice_{kind} {};", hook.link);
    }
    for shadow in &target.shadows {
        let _ = writeln!(out, "extern const struct splice_shadow {};", shadow.link);
    }
    let bases: Vec<String> = (0..BASES).map(base_symbol).collect();
    for symbol in bases.iter().map(String::as_str).chain([LOAD]) {
        let _ = writeln!(out, "extern const char {symbol}[];");
    }
    let table = |out: &mut String, kind: &str, rows: Vec<String>| {
        let _ = write!(
            out,
            "\nstatic const struct splice_{kind} {kind}s[] = {{\n{}}};\n",
            rows.concat()
        );
    };
    let sites = news.iter().enumerate().map(|(n, new)| site(n, new, &template));
    table(&mut out, "site", sites.collect());
    let objects = target.objects.iter().enumerate().map(|(n, row)| object(n, row));
    table(&mut out, "object", objects.collect());
    let rows =
        (0..ranges).map(range_symbols).map(|(start, end)| format!("\t{{ {start}, {end} }},\n"));
    table(&mut out, "range", rows.collect());
    table(&mut out, "hook", target.hooks.iter().map(hook).collect());
    let shadows: Vec<String> = target.shadows.iter().map(|s| format!("\t&{},\n", s.link)).collect();
    let _ = write!(
        out,
        "\nstatic const struct splice_shadow *const shadows[] = {{\n{}}};\n",
        shadows.concat()
    );
    let place = if target.name == "vmlinux" { String::from("NULL") } else { literal(&target.name) };
    let _ = write!(
        out,
        "\n/* Which parts there are is known when it is loaded: a target that is absent has none. */\n\
         static struct splice_part part __ro_after_init = {{\n\
         \t.abi = {ABI},\n\
         \t.nparts = {parts},\n\
         \t.id = {},\n\
         \t.description = {},\n\
         \t.target = {place},\n\
         \t.load = (unsigned long){LOAD},\n\
         \t.sites = sites,\n\
         \t.objects = objects,\n\
         \t.ranges = ranges,\n\
         \t.hooks = hooks,\n\
         \t.shadows = shadows,\n\
         \t.nsites = ARRAY_SIZE(sites),\n\
         \t.nobjects = ARRAY_SIZE(objects),\n\
         \t.nranges = ARRAY_SIZE(ranges),\n\
         \t.nhooks = ARRAY_SIZE(hooks),\n\
         \t.nshadows = ARRAY_SIZE(shadows),\n\
         \t.bases = {{ {} }},\n\
         \t.stack_clear = {:#x}ULL,\n\
         \t.stack_set = {:#x}ULL,\n\
         }};\n\
         module_param_cb({PARTS}, &splice_part_ops, &part, 0444);\n\
         __MODULE_PARM_TYPE({PARTS}, \"uint\");\n\n\
         static char *{LEFT_OUT} = \"\";\n\
         module_param({LEFT_OUT}, charp, 0444);\n\n\
         static int __init update_init(void)\n\
         {{\n\
         \treturn splice_register_part(&part, THIS_MODULE);\n\
         }}\n\n\
         static void __exit update_exit(void)\n\
         {{\n\
         \tsplice_unregister_part(&part);\n\
         }}\n\n\
         module_init(update_init);\n\
         module_exit(update_exit);\n\
         MODULE_DESCRIPTION(\"splice update\");\n\
         MODULE_LICENSE(\"GPL\");\n",
        literal(&manifest.id),
        literal(&manifest.description),
        bases.join(", "),
        word.clear,
        word.set
    );
    // MODULE_IMPORT_NS takes a name until 6.12, and a string since.
    for namespace in namespaces {
        let _ = writeln!(out, "MODULE_INFO(import_ns, {});", literal(namespace));
    }
    Ok(out)
}
