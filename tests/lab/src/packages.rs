// SPDX-License-Identifier: GPL-2.0-or-later
//! What the lab takes from the distribution's packages: bootable images, and single files of a
//! kernel's source. Nothing is installed, and nothing here needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use splice_cli::kernel::packages::{Apt, unpack};
use splice_cli::kernel::{Kernel, cache};

use crate::processor::Processor;

/// The package with a kernel's source, by its version: `linux-source-6.1` of `6.1.170-3`.
fn source_package(version: &str) -> String {
    let series: Vec<&str> = version.splitn(3, '.').take(2).collect();
    format!("linux-source-{}", series.join("."))
}

/// The cache that every run shares.
pub struct Cache {
    root: PathBuf,
}

/// A kernel image package, unpacked.
pub struct Image {
    /// Kernel release.
    pub release: String,
    /// Package version.
    pub version: String,
    /// The bootable image.
    pub kernel: PathBuf,
    /// Its `lib/modules/RELEASE`.
    pub modules: PathBuf,
    /// What a machine with it needs, in MiB.
    pub memory_mib: u32,
    /// How many times longer all takes on it than on a stock kernel.
    pub pace: u32,
}

impl Image {
    /// What it runs on.
    #[must_use]
    pub fn processor(&self) -> &'static Processor {
        Processor::of(&self.release)
    }
}

impl Cache {
    /// The user's cache.
    pub fn open() -> Result<Self> {
        cache::directory("packages")?;
        cache::directory("lab")?;
        Ok(Self { root: cache::root()? })
    }

    /// A directory of the lab's own in the cache.
    #[must_use]
    pub fn lab(&self) -> PathBuf {
        self.root.join("lab")
    }

    fn fetch(&self, apt: &Apt, package: &str, version: &str) -> Result<PathBuf> {
        let store = self.root.join("packages");
        apt.fetch(&store, package, version, &mut |text| eprintln!("{text}"))
    }

    /// An image package, fetched and unpacked.
    pub fn image(&self, release: &str, version: &str) -> Result<Image> {
        let place = self.lab().join(format!("image-{release}-{version}"));
        if !place.is_dir() {
            let apt = Processor::of(release).apt()?;
            let package = self.fetch(&apt, &format!("linux-image-{release}"), version)?;
            let work = tempfile::Builder::new().prefix(".unpack-").tempdir_in(self.lab())?;
            let tree = work.path().join("tree");
            unpack(&package, &tree)?;
            if std::fs::rename(&tree, &place).is_err() && !place.is_dir() {
                bail!("cannot move the unpacked image to {}", place.display());
            }
        }
        let modules = ["lib/modules", "usr/lib/modules"]
            .into_iter()
            .map(|part| place.join(part).join(release))
            .find(|path| path.is_dir())
            .with_context(|| format!("linux-image-{release} holds no modules"))?;
        let kernel = place.join(format!("boot/vmlinuz-{release}"));
        if !kernel.is_file() {
            bail!("linux-image-{release} holds no boot/vmlinuz-{release}");
        }
        Ok(Image {
            release: release.to_owned(),
            version: version.to_owned(),
            kernel,
            modules,
            memory_mib: 1024,
            pace: 1,
        })
    }

    /// A whole kernel source, as that directory, which is not there yet.
    pub fn source(&self, version: &str, to: &Path) -> Result<()> {
        let work = tempfile::Builder::new().prefix(".source-").tempdir_in(self.lab())?;
        let tree = work.path().join("tree");
        std::fs::create_dir(&tree)?;
        let said = self.extract(version, &tree, &[])?;
        if !said.is_empty() {
            bail!("cannot unpack the source of {version}: {said}");
        }
        std::fs::rename(&tree, to).context("cannot move the source to its place")
    }

    /// Unpacks these members of a source package's tarball, or all; what tar complained of.
    fn extract(&self, version: &str, to: &Path, members: &[String]) -> Result<String> {
        let series = source_package(version);
        let package = self.fetch(&Apt::native(), &series, version)?;
        let mut contents = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&package)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run dpkg-deb")?;
        let outer = contents.stdout.take().context("no output")?;
        let mut tarball = Command::new("tar")
            .args(["-xO", &format!("./usr/src/{series}.tar.xz")])
            .stdin(outer)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run tar")?;
        let compressed = tarball.stdout.take().context("no output")?;
        let mut plain = Command::new("xz")
            .args(["-dc", "-T0"])
            .stdin(compressed)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run xz (Debian package xz-utils)")?;
        let archive = plain.stdout.take().context("no output")?;
        let unpacked = Command::new("tar")
            .args(["-x", "--strip-components=1", "-C"])
            .arg(to)
            .args(members)
            .stdin(archive)
            .output()
            .context("cannot run tar")?;
        for (child, name) in
            [(&mut contents, "dpkg-deb"), (&mut tarball, "tar"), (&mut plain, "xz")]
        {
            child.wait().with_context(|| format!("cannot wait for {name}"))?;
        }
        Ok(String::from_utf8_lossy(&unpacked.stderr).trim().to_owned())
    }

    /// Files of a kernel source package, below a directory which is returned. The tarball is read
    /// once for all files which are not there yet.
    pub fn source_files(&self, version: &str, files: &[String]) -> Result<PathBuf> {
        let place = self.lab().join(format!("source-{version}"));
        std::fs::create_dir_all(&place)?;
        let missing: Vec<&String> =
            files.iter().filter(|file| !place.join(file).exists()).collect();
        if missing.is_empty() {
            return Ok(place);
        }
        let series = source_package(version);
        let work = tempfile::Builder::new().prefix(".source-").tempdir_in(self.lab())?;
        let members: Vec<String> = missing.iter().map(|file| format!("{series}/{file}")).collect();
        let said = self.extract(version, work.path(), &members)?;
        for file in missing {
            let from = work.path().join(file);
            if !from.is_file() {
                bail!("{series} {version} does not hold {file}: {said}");
            }
            let to = place.join(file);
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::rename(&from, &to)?;
        }
        Ok(place)
    }
}

/// Every 6.1 cloud kernel that can be booted and built against, oldest first.
pub fn kernels() -> Result<Vec<Kernel>> {
    series("6.1")
}

/// The same of another series.
pub fn series(series: &str) -> Result<Vec<Kernel>> {
    splice_cli::kernel::kernels(&Apt::native(), series, "cloud-amd64")
}

/// The kernel of this release, of whatever series and flavour.
pub fn kernel(release: &str) -> Result<Kernel> {
    let series: Vec<&str> = release.splitn(3, '.').take(2).collect();
    let named = |part: &&str| part.starts_with(|first: char| first.is_ascii_alphabetic());
    let flavour: Vec<&str> = release.split('-').skip_while(|part| !named(part)).collect();
    splice_cli::kernel::kernels(
        &Processor::of(release).apt()?,
        &series.join("."),
        &flavour.join("-"),
    )?
    .into_iter()
    .find(|kernel| kernel.release == release)
    .with_context(|| format!("apt does not offer the kernel {release}"))
}

/// The newest cloud kernel of a series for which a newer source is offered, and that source's version.
pub fn newest_pair(of: &str) -> Result<(Kernel, String)> {
    let all = series(of)?;
    let [.., base, target] = all.as_slice() else {
        bail!("apt offers only one {of} cloud kernel, so there is no fix to take from a newer one");
    };
    Ok((base.clone(), target.version.clone()))
}

/// The older image to patch and the newer source to take fixes from: those that the point release
/// holds, if they are still offered; else the oldest kernel with a newer source.
pub fn pair(base: &str, target: &str) -> Result<(Kernel, String)> {
    let all = kernels()?;
    let sources = Apt::native().offered(&source_package(base))?;
    match all.iter().find(|kernel| kernel.version == base) {
        Some(kernel) if sources.iter().any(|version| version == target) => {
            Ok((kernel.clone(), target.to_owned()))
        }
        _ => bail!(
            "apt offers no longer both the kernel {base} and the source {target} (it has the \
             kernels {} and the sources {}); choose others with --base and --target",
            all.iter().map(|kernel| kernel.version.as_str()).collect::<Vec<_>>().join(", "),
            sources.join(", ")
        ),
    }
}
