// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice create`: from patches to an update file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::diff::{Accept, AcceptKind, Objection, UnitDiff, diff_units};
use splice_core::extract::{
    ExtractError, ExtractInput, Extraction, Numbering, extract, new_globals,
};
use splice_core::plan;
use splice_core::unit::Unit;
use splice_core::update::{
    Change, CoreModule, FORMAT, Function, Manifest, Target, UnitEntry, Update, is_id,
};

use crate::args::CreateArgs;
use crate::exit::{Exit, Failure};
use crate::inspect::PATCHES;
use crate::kernel::{self, Built, Compiled, Kbuild, Overlay, Owner, Patched, Tree, cache};
use crate::link;
use crate::output::Output;
use crate::prepare::jobs;
use crate::progress::{Phases, Step};

/// A header that reaches more units needs to be asked for.
const WIDE: usize = 200;
const CORE: &str = "core/splice.ko";

/// What `create` made.
#[derive(Serialize)]
struct Created {
    id: String,
    file: PathBuf,
    /// In bytes.
    size: u64,
    release: String,
    targets: Vec<String>,
    units: usize,
    functions: Functions,
    /// Milliseconds.
    phases: Phases,
}

#[derive(Serialize)]
struct Functions {
    changed: Vec<Function>,
    new: Vec<Function>,
}

/// A unit that differs.
struct Touched {
    pre: Unit,
    post: Unit,
    diff: UnitDiff,
    bytes: Vec<u8>,
}

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &CreateArgs,
    output: &Output,
) -> Result<(), Failure> {
    let mut phases = Phases::new();
    let step = Step::new("reading the patches");
    let mut note = |text: &str| {
        step.at(text);
        output.detail(text);
    };
    let tree = kernel::find(arch, args.release.as_deref())?;
    let mut patched = Patched::default();
    let mut texts = Vec::new();
    for path in &args.patches {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        patched.add(&tree.source(), &path.display().to_string(), &text)?;
        texts.push(text);
    }
    let id = id(args)?;
    let subject = texts.first().and_then(|text| kernel::subject(text)).unwrap_or_default();
    let description = args.description.clone().unwrap_or(subject);
    let units = units(&tree, &patched, args.wide, &mut |text| output.note(text), &mut note)?;
    phases.end("patch");

    let jobs = jobs(args.jobs);
    kernel::before(&tree, &units, jobs, &mut note)?;
    phases.end("pre");
    let builds = tree.directory("build")?;
    let _visit = cache::visit(&builds)?;
    let goals = units.values().map(|built| built.goal.as_str());
    let overlay = Overlay::new(&builds, &tree.source(), patched.files(), goals)?;
    let compiled = kernel::after(&tree, &units, &overlay, jobs, &mut note)?;
    drop(overlay);
    phases.end("post");

    note("comparing");
    let touched = compare(arch, compiled, &args.accept)?;
    phases.end("diff");
    let exported = tree.exported()?;
    let mut by_target: BTreeMap<Owner, Vec<&Touched>> = BTreeMap::new();
    for unit in &touched {
        if let Some(built) = units.get(&unit.pre.name) {
            by_target.entry(built.owner.clone()).or_default().push(unit);
        }
    }
    let mut parts = Vec::new();
    let mut numbering = Numbering::default();
    for (number, (owner, units)) in by_target.iter().enumerate() {
        let all = Globals { exported: &exported, touched: &touched };
        parts.push(part(arch, owner, number, &id, units, &all, &mut numbering)?);
    }
    quiescence(arch, &parts, &args.accept)?;
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
            core: CoreModule {
                file: CORE.to_owned(),
                abi: plan::ABI,
                symbols: core
                    .undefined
                    .iter()
                    .filter(|s| !exported.contains(*s))
                    .cloned()
                    .collect(),
            },
            targets: parts.iter().map(|part| part.target.clone()).collect(),
            files: Vec::new(),
        },
        files: BTreeMap::new(),
    };
    for (number, part) in parts.iter().enumerate() {
        let source = plan::update_c(arch, &update.manifest, number)
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
    let bytes = update.write().map_err(Failure::from_error)?;
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{id}.splice")));
    cache::write_whole(&file, &bytes)?;
    phases.end("pack");
    drop(step);
    report(output, &update, touched.len(), file, bytes.len() as u64, phases);
    Ok(())
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

fn refuse(objections: &[Objection]) -> Failure {
    let mut text = String::from("this change cannot be put into a running kernel:");
    for objection in objections {
        text.push_str(&format!("\n  {}: {}", objection.what, objection.why));
        text.push_str(&format!("\n    way out: {}", objection.ways()));
    }
    Failure::new(Exit::Refused, text).with(objections)
}

/// The objects that the patches reach and that are built.
fn units(
    tree: &Tree,
    patched: &Patched,
    wide: bool,
    warn: &mut dyn FnMut(&str),
    note: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, Built>, Failure> {
    let object = |path: &str| {
        let stem = path.strip_suffix(".c").or_else(|| path.strip_suffix(".S"))?;
        Some(format!("{stem}.o"))
    };
    let mut direct = BTreeSet::new();
    let mut headers = Vec::new();
    for path in patched.paths() {
        match (object(path), path.ends_with(".h")) {
            (Some(object), _) => {
                direct.insert(object);
            }
            (None, true) => headers.push(path),
            (None, false) => warn(&format!("{path} is no code, and is left out")),
        }
    }
    let mut kbuild = Kbuild::new(tree);
    let mut units = BTreeMap::new();
    for object in &direct {
        match kbuild.built(object)? {
            Ok(built) => {
                units.insert(object.clone(), built);
            }
            Err(why) => {
                return Err(refuse(&[Objection::new(
                    object,
                    format!("it is not part of this kernel: {why}"),
                    "leave that file out of the patch; this kernel does not have the code",
                )]));
            }
        }
    }
    if !headers.is_empty() {
        note("looking for what includes the changed headers");
        let files = kernel::reached(&tree.source(), tree.source_arch(), &headers)?;
        let mut reached = Vec::new();
        for object in files.iter().filter_map(|path| object(path)) {
            if let Ok(built) = kbuild.built(&object)? {
                reached.push((object, built));
            }
        }
        if reached.len() > WIDE && !wide {
            return Err(refuse(&[Objection::new(
                headers.join(", "),
                format!("{} units of this kernel include it", reached.len()),
                "say --wide to build them all, which takes a few seconds for each; or change the \
                 functions that use it, and leave the header as it is",
            )]));
        }
        note(&format!("{} units include the changed headers", reached.len()));
        units.extend(reached);
    }
    if units.is_empty() {
        return Err(Failure::new(Exit::Unchanged, "the patches change no code of this kernel"));
    }
    Ok(units)
}

/// Compares the units; those that differ are returned.
fn compare(
    arch: &dyn Arch,
    compiled: Vec<Compiled>,
    accepted: &[Accept],
) -> Result<Vec<Touched>, Failure> {
    let mut touched = Vec::new();
    let mut objections = Vec::new();
    for Compiled { name, pre: bytes, post } in compiled {
        let pre = Unit::read(arch, &name, &bytes).map_err(Failure::from_error)?;
        let post = Unit::read(arch, &name, &post).map_err(Failure::from_error)?;
        let diff = diff_units(arch, &pre, &post).map_err(Failure::from_error)?;
        objections.extend(diff.refusals.iter().map(|objection| Objection {
            what: format!("{} in {name}", objection.what),
            ..objection.clone()
        }));
        if !diff.is_unchanged() {
            touched.push(Touched { pre, post, diff, bytes });
        }
    }
    unless_accepted(objections, accepted)?;
    if touched.is_empty() {
        return Err(Failure::new(
            Exit::Unchanged,
            "the patches change nothing that a running kernel would notice",
        ));
    }
    Ok(touched)
}

/// What is known of global symbols when one unit is extracted.
struct Globals<'a> {
    exported: &'a HashSet<String>,
    touched: &'a [Touched],
}

/// A target's share of the update.
struct Part {
    target: Target,
    objects: Vec<Vec<u8>>,
    pre: Vec<(String, Vec<u8>)>,
}

fn part(
    arch: &dyn Arch,
    owner: &Owner,
    number: usize,
    id: &str,
    units: &[&Touched],
    globals: &Globals<'_>,
    numbering: &mut Numbering,
) -> Result<Part, Failure> {
    let name = match owner {
        Owner::Vmlinux => splice_core::runpre::VMLINUX,
        Owner::Module(name) => name,
    };
    let plain = id.replace('-', "_");
    let module_name =
        if number == 0 { format!("splice_{plain}") } else { format!("splice_{plain}_{number}") };
    let added: BTreeSet<String> =
        globals.touched.iter().flat_map(|unit| new_globals(&unit.post, &unit.diff)).collect();
    let mut part = Part {
        target: Target {
            name: name.to_owned(),
            module: format!("modules/{module_name}.ko"),
            module_name,
            units: Vec::new(),
            functions: Vec::new(),
            symbols: Vec::new(),
        },
        objects: Vec::new(),
        pre: Vec::new(),
    };
    for (index, unit) in units.iter().enumerate() {
        let input = ExtractInput {
            pre: &unit.pre,
            post: &unit.post,
            diff: &unit.diff,
            unit_index: u32::try_from(index).unwrap_or(u32::MAX),
            exported: &|symbol| globals.exported.contains(symbol),
            new_globals: &|symbol| added.contains(symbol),
        };
        let Extraction { object, functions, symbols } =
            extract(arch, &input, numbering).map_err(|error| match error {
                ExtractError::Reference { unit, piece, what, why } => refuse(&[Objection::new(
                    format!("{piece} in {unit}"),
                    format!("it refers to {what}, which cannot travel: {why}"),
                    "write the fix so that the new code does not need it",
                )]),
                error => Failure::from_error(error),
            })?;
        let pre = format!("pre/{name}/{}", unit.pre.name);
        part.target.units.push(UnitEntry { name: unit.pre.name.clone(), pre: pre.clone() });
        part.target.functions.extend(functions);
        part.target.symbols.extend(symbols);
        part.objects.push(object);
        part.pre.push((pre, unit.bytes.clone()));
    }
    Ok(part)
}

/// Refuses functions that are never left, but for those that the user insists on.
fn quiescence(arch: &dyn Arch, parts: &[Part], accepted: &[Accept]) -> Result<(), Failure> {
    let objections: Vec<Objection> = parts
        .iter()
        .flat_map(|part| &part.target.functions)
        .filter(|function| function.change == Change::Changed)
        .filter_map(|function| {
            let why = plan::never_quiescent(arch, &function.name)?;
            let objection = Objection::new(
                &function.name,
                format!("{why}, so it could hardly ever be replaced"),
                "make the change in what it calls",
            );
            Some(objection.or_accept(AcceptKind::Busy, &function.name))
        })
        .collect();
    unless_accepted(objections, accepted)
}

/// Refuses if an objection is left that the user has not accepted.
fn unless_accepted(mut objections: Vec<Objection>, accepted: &[Accept]) -> Result<(), Failure> {
    objections.retain(|o| !o.accept.as_ref().is_some_and(|accept| accepted.contains(accept)));
    if objections.is_empty() { Ok(()) } else { Err(refuse(&objections)) }
}

fn report(
    output: &Output,
    update: &Update,
    units: usize,
    file: PathBuf,
    size: u64,
    phases: Phases,
) {
    let manifest = &update.manifest;
    let of = |change: Change| {
        let all = manifest.targets.iter().flat_map(|target| &target.functions);
        all.filter(|function| function.change == change).cloned().collect::<Vec<_>>()
    };
    let created = Created {
        id: manifest.id.clone(),
        file,
        size,
        release: manifest.release.clone(),
        targets: manifest.targets.iter().map(|target| target.name.clone()).collect(),
        units,
        functions: Functions { changed: of(Change::Changed), new: of(Change::New) },
        phases,
    };
    output.detail(&format!("phases: {}", created.phases));
    output.result(&created, || text(&created, &created.file));
}

fn text(created: &Created, file: &Path) -> String {
    let mut out = format!(
        "{} for {}: {} ({} bytes)\n",
        created.id,
        created.release,
        file.display(),
        created.size
    );
    out.push_str(&format!("  targets  {}\n", created.targets.join(", ")));
    let functions = &created.functions;
    for (what, list) in [("changed", &functions.changed), ("new", &functions.new)] {
        for function in list {
            out.push_str(&format!("  {what:<7}  {}\n", function.name));
            for reason in &function.reasons {
                out.push_str(&format!("           {reason}\n"));
            }
        }
    }
    out
}
