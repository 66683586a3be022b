// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice create`: from patches to an update file.
//!
//! [`reach`] finds the units, [`compare`] what differs in them, [`part`] makes each target's share;
//! what cannot be put into a running kernel ends in [`refuse`].

mod compare;
mod exports;
mod modules;
mod part;
mod paths;
mod reach;
mod refuse;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use splice_core::arch::Arch;
use splice_core::diff::Objection;
use splice_core::extract::Numbering;
use splice_core::plan;
use splice_core::update::{CoreModule, FORMAT, Manifest, Update, is_id};

use compare::Touched;
use part::{Elsewhere, Globals, part};

use crate::args::CreateArgs;
use crate::exit::{Exit, Failure};
use crate::inspect::PATCHES;
use crate::kernel::{self, Built, Overlay, Owner, Patched, Sides, Tree, cache};
use crate::link;
use crate::output::Output;
use crate::prepare::jobs;
use crate::progress::{Phases, Step};

const CORE: &str = "core/splice.ko";

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &CreateArgs,
    output: &Output,
) -> Result<(), Failure> {
    if args.signing.sign_key.is_some() && args.modules.is_none() {
        let text = "--sign-key signs what --modules writes; an update is signed when it is applied, \
                    with splice apply --sign-key";
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut phases = Phases::new();
    let step = Step::new("reading the patches");
    let mut note = |text: &str| {
        step.at(text);
        output.detail(text);
    };
    let tree = kernel::find(arch, args.release.as_deref())?;
    let builds = tree.directory("build")?;
    let _visit = cache::visit(&builds)?;
    let mut base = Patched::default();
    add(&mut base, &tree, &args.base)?;
    let mut whole = base.clone();
    let texts = add(&mut whole, &tree, &args.patches)?;
    let patched = whole.since(&base);
    let id = id(args)?;
    let subject = texts.first().and_then(|text| kernel::subject(text)).unwrap_or_default();
    let description = description(args, subject)?;
    let wish = reach::Wish { wide: args.wide, accepted: &args.accept };
    let reached = reach::units(&tree, &patched, &wish, &mut |text| output.note(text), &mut note)?;
    phases.end("patch");

    let jobs = jobs(args.jobs);
    // Of a file that the patches take back to what it was, the base has another text.
    let changed: BTreeSet<&str> = whole.paths().chain(base.paths()).collect();
    let changed: Vec<&str> = changed.into_iter().collect();
    let constants = kernel::constant_outputs(&tree);
    let units = {
        let lay = |patched: &Patched| lay(&tree, &builds, patched, reached.all(), &constants);
        let after = lay(&whole)?;
        // What is refused anyway is so before anything is compiled.
        constant(&tree, &after, &changed)?;
        phases.end("overlay");
        let before = if args.base.is_empty() { None } else { Some(lay(&base)?) };
        let sides = Sides { before: before.as_ref(), after: &after };
        reached.narrowed(&tree, &sides, jobs, &wish, &mut note)?
    };
    phases.end("preprocess");
    let lay = |patched: &Patched| lay(&tree, &builds, patched, units.values(), &constants);
    kernel::before(&tree, &units, jobs, &mut note)?;
    phases.end("pre");
    // Anew: the build has made headers that the units include.
    let overlay = lay(&whole)?;
    let tell = |text: &str| step.at(text);
    let mut compiled = kernel::after(&tree, &units, &changed, &overlay, jobs, &tell)?;
    let below = if args.base.is_empty() { None } else { Some(lay(&base)?) };
    if let Some(below) = &below {
        let changed: Vec<&str> = base.paths().collect();
        let mut there = units.clone();
        there.retain(|_, unit| !unit.is_new);
        let older = kernel::after(&tree, &there, &changed, below, jobs, &tell)?;
        kernel::put_on(&mut compiled, older, below)?;
    }
    phases.end("post");
    let wanted = match &args.modules {
        Some(directory) => modules::wanted(&tree, directory, &units, &compiled)?,
        None => modules::Wanted::new(),
    };

    for warning in compiled.iter().flat_map(|unit| &unit.warnings) {
        output.note(&format!("the patched code is suspicious: {warning}"));
    }
    note("comparing");
    let number = compiled.len();
    let (mut touched, mut objections) = compare::compare(arch, compiled, &patched)?;
    let warn = &mut |text: &str| output.note(text);
    objections.extend(exports::objections(&tree, overlay.path(), &touched, warn)?);
    drop((overlay, below));
    refuse::unless_accepted(objections, &args.accept)?;
    if touched.is_empty() {
        let text = "the patches change nothing that a running kernel would notice";
        return Err(Failure::new(Exit::Unchanged, text));
    }
    phases.end("diff");
    if tree.facts.anchors {
        let old = || touched.iter().filter(|unit| !unit.is_new);
        let commands: Vec<(String, String)> =
            old().map(|unit| (unit.pre.name.clone(), unit.command.clone())).collect();
        let built = kernel::as_built(&tree, &lay(&base)?, &commands, jobs, &tell)?;
        for (unit, bytes) in touched.iter_mut().filter(|unit| !unit.is_new).zip(built) {
            if let Some(bytes) = bytes {
                unit.take_built(arch, bytes)?;
            }
        }
        phases.end("as built");
    }
    let exported = tree.exported()?;
    let mut by_target: BTreeMap<Owner, Vec<&Touched>> = BTreeMap::new();
    for unit in &touched {
        if let Some(built) = units.get(&unit.pre.name) {
            by_target.entry(built.owner.clone()).or_default().push(unit);
        }
    }
    let all = by_target.clone();
    by_target.retain(|_, units| is_switched(units, &mut |text| output.note(text)));
    if by_target.is_empty() {
        let text =
            "nothing would change in the running kernel: what is new there, nothing leads to";
        return Err(Failure::new(Exit::Unchanged, text));
    }
    let mut parts = Vec::new();
    let mut numbering = Numbering::default();
    for (number, (owner, units)) in by_target.iter().enumerate() {
        let elsewhere =
            all.iter().filter(|(other, _)| *other != owner).flat_map(|(other, units)| {
                let target = by_target.contains_key(other).then(|| part::name(other));
                let units = units.iter().enumerate();
                units.map(move |(index, unit)| Elsewhere { target, index, unit })
            });
        let elsewhere: Vec<Elsewhere<'_>> = elsewhere.collect();
        let all = Globals { exported: &exported, here: units, elsewhere: &elsewhere };
        let part = part(arch, owner, number, &id, &all, &mut numbering)?;
        if args.modules.is_some() {
            modules::without_splice(&part.target)?;
        }
        parts.push(part);
    }
    phases.end("extract");

    note("linking");
    let core = link::core(&tree, &mut note)?;
    phases.end("core");
    let mut update = Update {
        manifest: Manifest {
            version: FORMAT,
            id: id.clone(),
            description,
            arch: arch.name().to_owned(),
            release: tree.facts.release.clone(),
            compiler: tree.facts.compiler.clone(),
            stacked: !args.base.is_empty(),
            core: CoreModule {
                file: CORE.to_owned(),
                abi: plan::ABI,
                symbols: core.undefined.iter().filter(|s| !exported.contains(s)).cloned().collect(),
            },
            targets: parts.iter().map(|part| part.target.clone()).collect(),
            files: Vec::new(),
        },
        files: BTreeMap::new(),
    };
    for (number, part) in parts.iter().enumerate() {
        let source = plan::update_c(arch, &update.manifest, number, &part.namespaces)
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        let known = |symbol: &str| {
            exported.contains(symbol)
                || plan::is_place_symbol(symbol)
                || part.target.symbols.iter().any(|needed| needed.link == symbol)
        };
        let input = link::Input {
            name: &part.target.module_name,
            source: &source,
            objects: &part.objects,
            known: &known,
        };
        let module = link::module(&tree, &core, &input)?;
        update.files.insert(part.target.module.clone(), module);
        update.files.extend(part.pre.iter().cloned());
    }
    update.files.insert(CORE.to_owned(), core.module);
    for (number, text) in texts.into_iter().enumerate() {
        update.files.insert(format!("{PATCHES}{}.patch", number + 1), text.into_bytes());
    }
    phases.end("link");
    let fixed = modules::build(&tree, &patched, &wanted, (args, jobs), &mut note)?;
    phases.end("modules");
    let bytes = update.write().map_err(Failure::from_error)?;
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{id}.splice")));
    let written = fixed.write()?;
    cache::write_whole(&file, &bytes)?;
    let modules = written.keep();
    phases.end("pack");
    drop(step);
    if args.modules.is_some() && modules.is_empty() {
        output.note("the patches change no module, so no fixed module is written");
    }
    let files = report::Files { update: file, size: bytes.len() as u64, modules };
    let units = report::Units { compiled: number, differ: touched.len() };
    report::report(output, &update, units, files, phases);
    Ok(())
}

/// A tree with these patches and the header for their authors, in which the units can be compiled.
fn lay<'a>(
    tree: &Tree,
    builds: &Path,
    patched: &Patched,
    units: impl Iterator<Item = &'a Built>,
    constants: &'a [String],
) -> anyhow::Result<Overlay> {
    let goals = units.map(|built| built.goal.as_str());
    let outputs = goals.chain(constants.iter().map(String::as_str));
    let (header, text) = link::PATCH_HEADER;
    let files = patched.files().chain([(header, text.to_owned())]);
    Overlay::new(builds, &tree.source(), files, outputs)
}

/// Applies patches on top of those before; returns their texts.
fn add(patched: &mut Patched, tree: &Tree, paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        patched.add(&tree.source(), &path.display().to_string(), &text)?;
        texts.push(text);
    }
    Ok(texts)
}

/// Whether something of a target's is replaced; else whatever is new in it is left out.
fn is_switched(units: &[&Touched], warn: &mut dyn FnMut(&str)) -> bool {
    let switched = units.iter().any(|unit| unit.diff.replaces());
    for unit in units.iter().filter(|unit| !switched && !unit.diff.new.is_empty()) {
        let new = unit.diff.new.iter().filter_map(|new| unit.post.spans.get(new.post));
        let names: Vec<&str> = new.map(|span| span.name.as_str()).collect();
        let (names, unit) = (names.join(", "), &unit.pre.name);
        warn(&format!("{names} in {unit} is left out: nothing that is replaced leads to it"));
    }
    switched
}

/// Refuses a patch that changes constants which code that is not compiled anew was built with.
fn constant(tree: &Tree, overlay: &Overlay, changed: &[&str]) -> Result<(), Failure> {
    let found = kernel::changed_constants(tree, overlay, changed)?;
    let objections: Vec<Objection> = found
        .iter()
        .map(|constant| {
            let or =
                |value: &str| if value.is_empty() { "nothing".into() } else { value.to_owned() };
            Objection::new(
                format!("{} in {}", constant.name, constant.source),
                format!(
                    "code is compiled with this constant, and it would change from {} to {}",
                    or(&constant.before),
                    or(&constant.after)
                ),
                "keep the structure or the number that it is computed from as it is",
            )
        })
        .collect();
    if objections.is_empty() { Ok(()) } else { Err(refuse::refuse(&objections)) }
}

/// Bytes of the longest description: the kernel side shows it as a line of a file, and takes no longer
/// one than a page.
const DESCRIPTION: usize = 1000;

fn description(args: &CreateArgs, subject: String) -> Result<String, Failure> {
    let text = args.description.clone().unwrap_or(subject);
    if text.len() > DESCRIPTION || text.chars().any(char::is_control) {
        let text = format!(
            "the description is no line of at most {DESCRIPTION} bytes; give another one with \
             --description"
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(text)
}

/// The update's id: the one given, or made from the first patch's file name.
fn id(args: &CreateArgs) -> Result<String, Failure> {
    if let Some(id) = &args.id {
        if is_id(id) {
            return Ok(id.clone());
        }
        return Err(Failure::new(
            Exit::Usage,
            format!("{id:?} is no id: at most 40 lower-case letters, digits, - and _"),
        ));
    }
    let stem = args.patches.first().and_then(|path| path.file_stem()).unwrap_or_default();
    let clean: String = stem
        .to_string_lossy()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(40)
        .collect();
    let id = clean.trim_matches(['-', '_']).to_owned();
    if is_id(&id) {
        return Ok(id);
    }
    Err(Failure::new(Exit::Usage, "the patch's name makes no id; give one with --id"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn a_description_is_a_line_that_the_kernel_side_can_show() {
        let described = |text: &str| {
            let cli = Cli::try_parse_from(["splice", "create", "a.patch", "--description", text]);
            let Command::Create(args) = cli.unwrap().command else { unreachable!() };
            description(&args, "a subject".to_owned())
        };
        assert_eq!(described("mends it").unwrap(), "mends it");
        for wrong in ["two\nlines".to_owned(), "x".repeat(DESCRIPTION + 1)] {
            let error = described(&wrong).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.text.contains("--description"), "{}", error.text);
        }
    }
}
