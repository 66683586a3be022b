// SPDX-License-Identifier: GPL-2.0-or-later
//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use splice_core::diff::Accept;
use splice_core::runpre::VMLINUX;

const EXAMPLES: &str = "\
Examples:
  splice prepare --release 6.1.0-47-cloud-amd64   make a kernel ready, once
  splice create fix.patch -o fix.splice           build an update from a patch
  splice check fix.splice                         would it apply here? loads nothing
  splice apply fix.splice                         switch the running kernel
  splice undo fix                                 and back

Exit codes:
  0 done   1 failed   2 usage   3 nothing changed   4 refused: unsupported or unsafe change
  5 the kernel does not match   6 code in use, gave up   7 not permitted";

/// Puts a security fix into a running Linux kernel, without a reboot.
#[derive(Debug, Parser)]
#[command(name = "splice", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The kernel's architecture; by default that of this machine.
    #[arg(long, value_name = "ARCH", global = true)]
    pub(crate) arch: Option<String>,
    /// A plugin that brings another architecture; may be repeated.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) plugin: Vec<PathBuf>,
    /// How results are printed on standard output.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
    /// Say more, for example how long each phase took.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document with a version.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get a kernel ready to build updates for.
    Prepare(PrepareArgs),
    /// Build an update from patches.
    Create(CreateArgs),
    /// Compare two objects, or two trees of them: which functions and data changed, and why.
    Diff(DiffArgs),
    /// Show what an update holds.
    Inspect(InspectArgs),
    /// Say whether an update would apply to a kernel. Loads and changes nothing.
    Check(CheckArgs),
    /// Prove the kernel's text, function by function, against the objects of its source.
    Verify(VerifyArgs),
    /// Put an update into effect on the running kernel.
    Apply(ApplyArgs),
    /// Take an update back.
    Undo(UndoArgs),
    /// List the updates in the running kernel, and those that are installed.
    List,
    /// Have an update applied whenever its kernel starts.
    Install(InstallArgs),
    /// Have an update applied no more when its kernel starts. What is applied stays so.
    Uninstall(UninstallArgs),
    /// Apply what is installed for the running kernel: a service runs this at each start.
    Boot(BootArgs),
    /// Tell everything about an update in the running kernel, or about all.
    Status(StatusArgs),
    /// Architectures: those compiled in, and those of plugins.
    Plugins(PluginsArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page.
    Man,
}

const PREPARE: &str = "\
A prepared kernel is a private tree in the cache ($XDG_CACHE_HOME/splice, else ~/.cache/splice). With \
--release alone, source, configuration and headers come from the packages that apt offers for exactly \
that release; nothing is installed. With --source and --config, the source tree is copied, and never \
modified.";

/// Which kernel, and where its parts come from.
#[derive(Debug, Args)]
#[command(after_help = PREPARE)]
pub(crate) struct PrepareArgs {
    /// The release, as `uname -r` prints it. Without it, the newest 6.1 cloud kernel of the
    /// distribution, or what the given source says.
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<String>,
    /// A kernel source tree, exactly the one that the kernel was built from.
    #[arg(long, value_name = "DIR", requires = "config")]
    pub(crate) source: Option<PathBuf>,
    /// The kernel's configuration.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub(crate) config: Option<PathBuf>,
    /// The kernel's Module.symvers.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub(crate) symvers: Option<PathBuf>,
    /// Use this machine's compiler although the kernel was built with another one. Then only
    /// `check` and `apply` can tell whether the code is the same.
    #[arg(long)]
    pub(crate) any_compiler: bool,
    /// Make it anew, even if it is ready.
    #[arg(long)]
    pub(crate) again: bool,
    /// Compile every unit of the kernel's image too, for `splice verify`: about half an hour on two
    /// processors, and 4 GiB. It can be interrupted, and goes on where it was. With DIR, only those of
    /// a directory of the source, such as fs/ext4; may be repeated.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".")]
    pub(crate) units: Vec<PathBuf>,
    /// Parallel jobs; by default one for each processor.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

const CREATE: &str = "\
The patches are applied to a copy, in the order given; only the units (.c and .S files) that they reach \
are compiled, before and after. What cannot be put into a running kernel is refused with exit code 4, \
with the reason and the way out; a patch that changes no code ends with exit code 3.

An update patches the modules that are loaded; what is loaded later comes from the disk as it was. With \
--modules, DIR gets the whole modules from the patched source, built as the distribution builds them and \
against its symbol versions, without debug information and BTF. Nothing in DIR is written over. To have \
them loaded, put them into /lib/modules/RELEASE/updates and run depmod RELEASE; an initramfs may hold a \
copy. With --sign-key they are signed; without, a kernel that asks for signatures (module.sig_enforce, \
lockdown) does not load them, and others load them and note the taint E. The update itself is signed when it \
is applied.";

/// What goes into an update.
#[derive(Debug, Args)]
#[command(after_help = CREATE)]
pub(crate) struct CreateArgs {
    /// Patches, as `diff -u` or git write them.
    #[arg(value_name = "PATCH", required = true)]
    pub(crate) patches: Vec<PathBuf>,
    /// The prepared kernel; by default the running one, or the only one that is prepared.
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<String>,
    /// A patch that an update which is applied already was made of: this update is built on its source,
    /// and replaces its code. May be repeated, in the order in which they were applied.
    #[arg(long, value_name = "PATCH")]
    pub(crate) base: Vec<PathBuf>,
    /// The update file; by default ID.splice.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The update's id: lower-case letters, digits, `-` and `_`; by default from the first
    /// patch's file name.
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// What it is, in a line; by default the first patch's subject.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Do it in spite of one objection, named as its message says; may be repeated. NAME: replace a
    /// function that some thread is always in. init:NAME: leave out a change of start-up or exit
    /// code. export:NAME: keep to an export whose version changed. struct:NAME: use a structure
    /// whose layout changed. enum:NAME: an enumeration whose values changed. data:NAME: leave out a change of an object.
    #[arg(long, value_name = "[KIND:]NAME")]
    pub(crate) accept: Vec<Accept>,
    /// Build even if more than 200 units use what changes in a header.
    #[arg(long)]
    pub(crate) wide: bool,
    /// Write each module that the patches change to that directory too, as a whole, so that the
    /// next load of it is right.
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) signing: SigningArgs,
    /// Parallel jobs; by default one for each processor.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

const DIFF: &str = "\
With two directories, the objects (*.o) of both are paired by their paths below them, and every pair that \
differs is reported, with totals. Left out are objects that are no kernel unit: *.mod.o, files that begin \
with a dot, scripts/ and tools/, and objects that were linked from several units. Objects with the same \
bytes are unchanged without a closer look.

The command ends with 0 if something changed, 3 if nothing did, 4 if a change is refused, and 1 if an \
object could not be compared.";

/// Two objects, or two directories of them.
#[derive(Debug, Args)]
#[command(after_help = DIFF)]
pub(crate) struct DiffArgs {
    /// The object, or the directory of objects, before.
    #[arg(value_name = "ORIG")]
    pub(crate) pre: PathBuf,
    /// The object, or the directory of objects, after.
    #[arg(value_name = "PATCHED")]
    pub(crate) post: PathBuf,
    /// Pairs that are compared at the same time; by default one for each processor.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

/// An update file.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The update.
    #[arg(value_name = "FILE.splice")]
    pub(crate) file: PathBuf,
}

/// An update, and the kernel to hold it against.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The update.
    #[arg(value_name = "FILE.splice")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
}

const VERIFY: &str = "\
Every function of the given objects is compared with the running text: each byte must be the object's, or \
one of the forms that the kernel itself gives to it, and each reference must lead where the kernel's \
symbol list and all other functions say. So it is also a check of the running kernel's integrity: it \
finds code that was changed, calls and jumps that lead elsewhere, and text that belongs to nobody. It \
does not see changed data, code outside of the image's text, what is hidden from the symbol list and the \
memory that it reads (it asks the running kernel; a dump taken from outside is the better witness), nor \
whether the state of a jump label or a static call is the right one.

With --kernel the text is that of an image file, before its start: what only a running kernel does to its \
code is foreign there.

The objects are those of a build of the kernel's source with its own configuration and compiler. Without \
any, they are those that splice prepare --release RELEASE --units has compiled.

Exit codes: 0 nothing foreign   5 some function is not what it should be";

/// What to prove.
#[derive(Debug, Args)]
#[command(after_help = VERIFY)]
pub(crate) struct VerifyArgs {
    /// Objects, or build trees with objects; by default all of the prepared kernel's image.
    #[arg(value_name = "FILE.o|DIR")]
    pub(crate) units: Vec<PathBuf>,
    /// The prepared kernel; by default that of the running kernel's release, or of the image's; for a
    /// dump the only one that is prepared.
    #[arg(long, value_name = "RELEASE", conflicts_with = "units")]
    pub(crate) release: Option<String>,
    /// The module that the objects are of; by default the kernel image.
    #[arg(long, value_name = "MODULE", default_value = VMLINUX)]
    pub(crate) target: String,
    /// Parallel jobs; by default one for each processor.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
}

/// A kernel to look at: the running one, or one that was kept.
#[derive(Debug, Args)]
pub(crate) struct KernelArgs {
    /// Not the running kernel but an image file that need not be booted: vmlinuz (bzImage, arm64
    /// Image) or vmlinux, packed in any way that a kernel's build offers. Symbols and release are
    /// those in the image.
    #[arg(long, value_name = "IMAGE", group = "kept")]
    pub(crate) kernel: Option<PathBuf>,
    /// Not the running kernel but a dump of its memory: an ELF core, or raw bytes with the address
    /// of the first one, as FILE@0xADDRESS.
    #[arg(long, value_name = "FILE", requires = "symbols", group = "kept")]
    pub(crate) snapshot: Option<String>,
    /// The dumped kernel's /proc/kallsyms, or the System.map of an image that carries no symbols.
    #[arg(long, value_name = "FILE", requires = "kept")]
    pub(crate) symbols: Option<PathBuf>,
}

/// When to give up.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PatienceArgs {
    /// Further attempts if the code is in use.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) retries: u32,
    /// Begin no attempt after that many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
    /// Only wait for threads that sleep in the code. Otherwise their sleep is interrupted, and they are
    /// held at the boundary to user space for the moment of the next attempt, as a debugger does it;
    /// a few system calls then end with EINTR (signal(7) lists them).
    #[arg(long)]
    pub(crate) no_interrupt: bool,
}

/// What modules are signed with, for a kernel that asks for it.
#[derive(Debug, Args)]
pub(crate) struct SigningArgs {
    /// Sign the modules with this private key, which needs openssl. For a kernel that loads only signed
    /// modules (module.sig_enforce, lockdown=integrity); it must trust the key.
    #[arg(long, value_name = "FILE", requires = "sign_cert")]
    pub(crate) sign_key: Option<PathBuf>,
    /// The key's X.509 certificate.
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub(crate) sign_cert: Option<PathBuf>,
}

const APPLY: &str = "\
An update's modules are finished for the running kernel before they are loaded: addresses that differ from \
one start to the next are written into them. So a kernel that asks for signatures needs them to be made \
here, with a key that it trusts: one built into it, or one that the machine's owner has enrolled (mokutil). \
In lockdown=confidentiality the kernel's memory cannot be read, and no update is applied.";

/// What to apply.
#[derive(Debug, Args)]
#[command(after_help = APPLY)]
pub(crate) struct ApplyArgs {
    /// The update.
    #[arg(value_name = "FILE.splice")]
    pub(crate) file: PathBuf,
    /// Take the place of all updates that are applied, in the same moment: what this one does not
    /// replace is the kernel's own again. It must have been created without --base, from all patches
    /// that are to be in effect.
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) signing: SigningArgs,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}

/// What to take back.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// The update's id; `splice list` shows it.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}

const INSTALL: &str = "\
The update is copied to /var/lib/splice/RELEASE ($SPLICE_STATE says another place than /var/lib/splice). \
At each start of that kernel `splice boot` applies what is installed for it, in the order of \
installation; splice.service runs it. An update that was being applied when the machine went down is held: \
it is not tried again until somebody installs it again. With splice=off on the kernel's command line \
nothing is applied.";

/// What to have applied at each start.
#[derive(Debug, Args)]
#[command(after_help = INSTALL)]
pub(crate) struct InstallArgs {
    /// The update.
    #[arg(value_name = "FILE.splice")]
    pub(crate) file: PathBuf,
}

/// What to have applied no more.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// The update's id; `splice list` shows it.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only of this kernel; of all if absent.
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<String>,
}

/// How to apply what is installed.
#[derive(Debug, Args)]
#[command(after_help = INSTALL)]
pub(crate) struct BootArgs {
    #[command(flatten)]
    pub(crate) signing: SigningArgs,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}

/// Which update.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The update's id; all if it is not given.
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}

const PLUGINS: &str = "\
Plugins are looked for in the files given with --plugin, in the directories of SPLICE_PLUGIN_PATH, in \
splice/plugins of the user's data directory, and in /usr/local/lib/splice/plugins and \
/usr/lib/splice/plugins. Root only loads what nobody else may write.";

/// What to do with plugins.
#[derive(Debug, Args)]
#[command(after_help = PLUGINS)]
pub(crate) struct PluginsArgs {
    #[command(subcommand)]
    pub(crate) command: PluginsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginsCommand {
    /// List all architectures and where they come from. Runs no plugin.
    List,
    /// Load one plugin and say whether it can be used.
    Check {
        /// The plugin.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Which shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Writes the manual page: the program, then each command.
pub(crate) fn man(out: &mut Vec<u8>) -> std::io::Result<()> {
    let cli = Cli::command();
    clap_mangen::Man::new(cli.clone()).render(out)?;
    for command in cli.get_subcommands() {
        let name = format!("splice-{}", command.get_name());
        let page = clap_mangen::Man::new(command.clone().name(name));
        page.render_name_section(out)?;
        page.render_synopsis_section(out)?;
        page.render_description_section(out)?;
        page.render_options_section(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_kernel_is_named_in_one_way() {
        let parse = |args: &str| {
            let line = format!("splice check fix.splice {args}");
            Cli::try_parse_from(line.split_whitespace()).is_ok()
        };
        for good in ["", "--kernel I", "--kernel I --symbols S", "--snapshot C --symbols S"] {
            assert!(parse(good), "{good}");
        }
        for bad in ["--symbols S", "--snapshot C", "--snapshot C --symbols S --kernel I"] {
            assert!(!parse(bad), "{bad}");
        }
    }

    #[test]
    fn the_architecture_may_stand_before_the_command() {
        let cli =
            Cli::try_parse_from(["splice", "--arch", "x86_64", "create", "fix.patch"]).unwrap();
        assert_eq!(cli.arch.as_deref(), Some("x86_64"));
        assert!(matches!(cli.command, Command::Create(args) if args.patches.len() == 1));
    }
}
