// SPDX-License-Identifier: GPL-2.0-or-later
//! Distribution packages: what apt offers, a checked copy of one in the cache, and what is in it.
//! Nothing is installed, and nothing here needs root.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The package with the kernel's source.
const SOURCE: &str = "linux-source-6.1";

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
}

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/splice`, or `~/.cache/splice`.
    pub fn open() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let base = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            (None, Some(home)) => PathBuf::from(home).join(".cache"),
            (None, None) => bail!("neither XDG_CACHE_HOME nor HOME says where the cache is"),
        };
        Self::at(&base.join("splice"))
    }

    /// A cache in this directory.
    pub fn at(root: &Path) -> Result<Self> {
        for name in ["packages", "lab"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("cannot create the cache {}", path.display()))?;
        }
        Ok(Self { root: root.to_path_buf() })
    }

    /// A directory of the lab's own in the cache.
    #[must_use]
    pub fn lab(&self) -> PathBuf {
        self.root.join("lab")
    }

    /// A package of exactly this version, checked against the checksum in apt's lists.
    pub fn fetch(&self, package: &str, version: &str) -> Result<PathBuf> {
        let directory = self.root.join("packages");
        let record = Record::of(package, version)?;
        let place = directory.join(&record.file_name);
        if std::fs::metadata(&place).is_ok_and(|data| data.len() == record.size) {
            return Ok(place);
        }
        eprintln!("fetching {package} {version} ({} MB)", record.size / 1_000_000);
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&directory)?;
        let mut apt = Command::new("apt-get");
        if rustix::process::geteuid().is_root() {
            // apt's own unprivileged user cannot write to a private cache.
            apt.args(["-o", "APT::Sandbox::User=root"]);
        }
        apt.args(["-q", "download", &format!("{package}={version}")]).current_dir(work.path());
        run(&mut apt)?;
        let fetched = std::fs::read_dir(work.path())?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download {package} left no file"))?;
        let sum = sha256(&fetched)?;
        if sum != record.sha256 {
            bail!("{package} {version} has the checksum {sum}, but should have {}", record.sha256);
        }
        std::fs::rename(&fetched, &place).context("cannot move a package into the cache")?;
        Ok(place)
    }

    /// An image package, fetched and unpacked.
    pub fn image(&self, release: &str, version: &str) -> Result<Image> {
        let place = self.lab().join(format!("image-{release}-{version}"));
        if !place.is_dir() {
            let package = self.fetch(&format!("linux-image-{release}"), version)?;
            let work = tempfile::Builder::new().prefix(".unpack-").tempdir_in(self.lab())?;
            let tree = work.path().join("tree");
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
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
        Ok(Image { release: release.to_owned(), version: version.to_owned(), kernel, modules })
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
        let series = SOURCE;
        let package = self.fetch(series, version)?;
        let work = tempfile::Builder::new().prefix(".source-").tempdir_in(self.lab())?;
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
            .arg(work.path())
            .args(missing.iter().map(|file| format!("{series}/{file}")))
            .stdin(archive)
            .output()
            .context("cannot run tar")?;
        for (child, name) in
            [(&mut contents, "dpkg-deb"), (&mut tarball, "tar"), (&mut plain, "xz")]
        {
            child.wait().with_context(|| format!("cannot wait for {name}"))?;
        }
        for file in missing {
            let from = work.path().join(file);
            if !from.is_file() {
                bail!(
                    "{series} {version} does not hold {file}: {}",
                    String::from_utf8_lossy(&unpacked.stderr).trim()
                );
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

/// A kernel which can be booted and built against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Kernel release.
    pub release: String,
    /// Version of its packages.
    pub version: String,
}

/// The versions of a package that apt offers, newest first.
pub fn offered(package: &str) -> Result<Vec<String>> {
    Ok(offers(&[package])?.remove(package).unwrap_or_default())
}

/// The same for several packages, with one look at apt's lists.
fn offers<S: AsRef<str>>(packages: &[S]) -> Result<BTreeMap<String, Vec<String>>> {
    let output = Command::new("apt-cache")
        .arg("madison")
        .args(packages.iter().map(AsRef::as_ref))
        .output()
        .context("cannot run apt-cache")?;
    Ok(madison(&String::from_utf8_lossy(&output.stdout)))
}

fn madison(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('|').map(str::trim);
        if let (Some(name), Some(version)) = (fields.next(), fields.next()) {
            let versions = found.entry(name.to_owned()).or_default();
            if !versions.iter().any(|known| known == version) {
                versions.push(version.to_owned());
            }
        }
    }
    found
}

/// Every 6.1 cloud kernel for which apt offers image, headers and source of the same version,
/// oldest first.
pub fn kernels() -> Result<Vec<Kernel>> {
    let output = Command::new("apt-cache")
        .args(["pkgnames", "linux-image-6.1.0-"])
        .output()
        .context("cannot run apt-cache")?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = Vec::new();
    let mut wanted = vec![SOURCE.to_owned()];
    for name in names.lines() {
        let Some(release) = name.strip_prefix("linux-image-") else { continue };
        let number = release
            .strip_prefix("6.1.0-")
            .and_then(|rest| rest.strip_suffix("-cloud-amd64"))
            .and_then(|number| number.parse::<u32>().ok());
        if let Some(number) = number {
            wanted.extend([name.to_owned(), format!("linux-headers-{release}")]);
            numbers.push((number, release.to_owned()));
        }
    }
    let offers = offers(&wanted)?;
    let has = |package: &str, version: &String| {
        offers.get(package).is_some_and(|versions| versions.contains(version))
    };
    let mut found = Vec::new();
    for (number, release) in numbers {
        let images = offers.get(&format!("linux-image-{release}"));
        let headers = format!("linux-headers-{release}");
        let version = images
            .into_iter()
            .flatten()
            .find(|version| has(&headers, version) && has(SOURCE, version));
        if let Some(version) = version {
            found.push((number, Kernel { release, version: version.clone() }));
        }
    }
    found.sort_by_key(|(number, _)| *number);
    if found.is_empty() {
        bail!(
            "apt offers no 6.1 cloud-amd64 kernel with image, headers and source of one version; \
             run apt-get update as root, or add the suites bookworm and bookworm-security"
        );
    }
    Ok(found.into_iter().map(|(_, kernel)| kernel).collect())
}

/// The older image to patch and the newer source to take fixes from: those that the point release
/// holds, if they are still offered; else the oldest kernel with a newer source.
pub fn pair(base: &str, target: &str) -> Result<(Kernel, String)> {
    let all = kernels()?;
    let sources = offered(SOURCE)?;
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

/// What apt's lists say of one package.
struct Record {
    file_name: String,
    size: u64,
    sha256: String,
}

impl Record {
    fn of(package: &str, version: &str) -> Result<Self> {
        let output = Command::new("apt-cache")
            .args(["show", &format!("{package}={version}")])
            .output()
            .context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match Self::parse(&text, version) {
            Some(record) => Ok(record),
            None => bail!(
                "apt does not offer {package} {version} (it has: {}); if its lists are old, run \
                 apt-get update as root",
                offered(package)?.join(", ")
            ),
        }
    }

    fn parse(text: &str, version: &str) -> Option<Self> {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if field("Version")? != version {
                return None;
            }
            Some(Self {
                file_name: field("Filename")?.rsplit('/').next()?.to_owned(),
                size: field("Size")?.parse().ok()?,
                sha256: field("SHA256")?.to_owned(),
            })
        })
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(buffer.get(..length).unwrap_or_default());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn madison_lines_are_read() {
        let text = " linux-source-6.1 |  6.1.192-2 | http://x y/main amd64 Packages\n \
                    linux-source-6.1 |  6.1.170-3 | http://x y/main amd64 Packages\n linux | 1 | z\n";
        let found = madison(text);
        assert_eq!(found["linux-source-6.1"], ["6.1.192-2", "6.1.170-3"]);
        assert_eq!(found["linux"], ["1"]);
    }

    #[test]
    fn the_right_stanza_is_taken() {
        let text = "Package: p\nVersion: 2\nFilename: pool/p_2.deb\nSize: 20\nSHA256: bb\n\n\
                    Package: p\nVersion: 1\nFilename: pool/p_1.deb\nSize: 10\nSHA256: aa\n";
        let record = Record::parse(text, "1").unwrap();
        assert_eq!((record.file_name.as_str(), record.size), ("p_1.deb", 10));
        assert_eq!(record.sha256, "aa");
        assert!(Record::parse(text, "3").is_none());
    }

    #[test]
    fn checksums_are_sha256() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&path).unwrap(), expected);
    }
}
