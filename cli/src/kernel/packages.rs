// SPDX-License-Identifier: GPL-2.0-or-later
//! Distribution packages: what apt offers, and a checked copy of one in the cache. Nothing is
//! installed, and nothing here needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::cache;

/// How apt is asked: for this machine's packages, or for those of another architecture.
#[derive(Debug, Clone, Default)]
pub struct Apt {
    words: Vec<String>,
}

/// How old lists of another architecture may be.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

impl Apt {
    /// For the packages that this machine could install, from its own lists.
    #[must_use]
    pub fn native() -> Self {
        Self::default()
    }

    /// For those of that architecture, by Debian's name, from lists of their own in the cache: what the
    /// machine itself can install stays as it is.
    pub fn foreign(architecture: &str, note: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::private(architecture, architecture, None, note)
    }

    /// For an architecture's packages from lists of that name in the cache, of the machine's sources or
    /// of others (sources.list(5)).
    pub fn private(
        name: &str,
        architecture: &str,
        sources: Option<&str>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let place = cache::directory("apt")?.join(name);
        let lists = place.join("lists");
        cache::create(&lists.join("partial"))?;
        cache::create(&place.join("archives/partial"))?;
        let mut options = vec![
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Cache={}", place.display()),
            // Images for containers turn it off; without it each question reads all lists anew.
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            // Whatever is installed here is no part of that.
            "Dir::State::status=/dev/null".to_owned(),
        ];
        if let Some(sources) = sources {
            let list = place.join("sources.list");
            cache::write_whole(&list, sources.as_bytes())?;
            options.push(format!("Dir::Etc::SourceList={}", list.display()));
            options.push("Dir::Etc::SourceParts=/dev/null".to_owned());
        }
        let words = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        let apt = Self { words };
        let _lock = cache::lock(&place.join("lock"), note)?;
        let stamp = place.join("updated");
        let updated = std::fs::metadata(&stamp).and_then(|data| data.modified()).ok();
        if updated.and_then(|time| time.elapsed().ok()).is_none_or(|age| age > OLD) {
            note(&format!("fetching apt's lists of {name}"));
            match run(apt.get().arg("update")) {
                Ok(()) => cache::write_whole(&stamp, b"")?,
                // Older lists are better than none.
                Err(error) if updated.is_some() => note(&format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
        Ok(apt)
    }

    fn cache(&self) -> Command {
        let mut command = Command::new("apt-cache");
        command.args(&self.words);
        command
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.words).arg("-q");
        if rustix::process::geteuid().is_root() {
            // apt's own unprivileged user cannot write to a private cache.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command
    }

    /// The versions of each package that apt offers, newest first, with one look at apt's lists.
    pub fn offers<S: AsRef<str>>(&self, packages: &[S]) -> Result<BTreeMap<String, Vec<String>>> {
        let output = self
            .cache()
            .arg("madison")
            .args(packages.iter().map(AsRef::as_ref))
            .output()
            .context("cannot run apt-cache")?;
        Ok(madison(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The versions of one package, newest first.
    pub fn offered(&self, package: &str) -> Result<Vec<String>> {
        Ok(self.offers(&[package])?.remove(package).unwrap_or_default())
    }

    /// Names of all packages that begin so.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output =
            self.cache().args(["pkgnames", prefix]).output().context("cannot run apt-cache")?;
        let mut names: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// What its lists say of one version of a package.
    pub fn record(&self, package: &str, version: &str) -> Result<Record> {
        let output = self
            .cache()
            .args(["show", &format!("{package}={version}")])
            .output()
            .context("cannot run apt-cache")?;
        match Record::parse(&String::from_utf8_lossy(&output.stdout), version) {
            Some(record) => Ok(record),
            None => bail!(
                "apt does not offer {package} {version} (it has: {}); if its lists are old, run \
                 apt-get update as root",
                self.offered(package)?.join(", ")
            ),
        }
    }

    /// A package of exactly this version in that directory, checked against the checksum in apt's
    /// lists.
    pub fn fetch(
        &self,
        directory: &Path,
        package: &str,
        version: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<PathBuf> {
        let record = self.record(package, version)?;
        let place = directory.join(&record.file_name);
        if std::fs::metadata(&place).is_ok_and(|data| data.len() == record.size)
            && sha256(&place)? == record.sha256
        {
            return Ok(place);
        }
        note(&format!("fetching {package} {version} ({} MB)", record.size / 1_000_000));
        let _visit = cache::visit(directory)?;
        let work = tempfile::Builder::new().prefix(".splice-").tempdir_in(directory)?;
        let wanted = format!("{package}={version}");
        run(self.get().args(["download", &wanted]).current_dir(work.path()))?;
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

    /// Unpacks a package and all that it depends on, but for some, below a directory.
    pub fn unpack_all(
        &self,
        package: &str,
        version: &str,
        but: &[&str],
        to: &Path,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let store = cache::directory("packages")?;
        let mut seen: BTreeSet<String> = but.iter().map(|name| (*name).to_owned()).collect();
        seen.insert(package.to_owned());
        let mut todo = vec![(package.to_owned(), version.to_owned())];
        while let Some((name, version)) = todo.pop() {
            unpack(&self.fetch(&store, &name, &version, note)?, to)?;
            for (name, exact) in self.record(&name, &version)?.depends {
                if !seen.insert(name.clone()) {
                    continue;
                }
                let newest = || Ok(self.offered(&name)?.into_iter().next());
                // What nothing offers under its own name is what another package provides.
                if let Some(version) = exact.map_or_else(newest, |exact| anyhow::Ok(Some(exact)))? {
                    todo.push((name, version));
                }
            }
        }
        Ok(())
    }
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

/// What apt's lists say of one version of a package.
#[derive(Debug)]
pub struct Record {
    file_name: String,
    size: u64,
    sha256: String,
    /// The source package that it was built from.
    pub source: String,
    /// The packages that it depends on, with the version where exactly one will do.
    pub depends: Vec<(String, Option<String>)>,
}

impl Record {
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
                // With its version if that is another (deb-control(5)).
                source: field("Source").or_else(|| field("Package"))?.split(' ').next()?.to_owned(),
                depends: field("Depends")
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(dependency)
                    .collect(),
            })
        })
    }
}

/// `name (= version)`, `name (>= version)` or `name`.
fn dependency(text: &str) -> Option<(String, Option<String>)> {
    let text = text.trim();
    let name = text.split([' ', ':']).next().filter(|name| !name.is_empty())?;
    let exact = text.split_once("(= ").and_then(|(_, rest)| rest.strip_suffix(')'));
    Some((name.to_owned(), exact.map(str::to_owned)))
}

/// Unpacks a package below a directory.
pub fn unpack(package: &Path, to: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(to))
}

/// Runs a program that is to succeed; what it said is in the error if it does not.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout).into_owned()
    } else {
        said.into_owned()
    };
    bail!("{program} failed: {}", said.trim())
}

/// SHA-256 of a file in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).with_context(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).with_context(failed)?;
        if length == 0 {
            break;
        }
        hash.update(buffer.get(..length).unwrap_or_default());
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of bytes in hexadecimal.
pub(crate) fn sum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        let text = "Package: p\nSource: s (2.1)\nVersion: 2\nFilename: pool/p_2.deb\nSize: 20\nSHA256: bb\n\n\
                    Package: p\nVersion: 1\nFilename: pool/p_1.deb\nSize: 10\nSHA256: aa\n\
                    Depends: q (= 1), r (>= 1), s:any\n";
        let record = Record::parse(text, "1").unwrap();
        assert_eq!((record.file_name.as_str(), record.size), ("p_1.deb", 10));
        assert_eq!((record.sha256.as_str(), record.source.as_str()), ("aa", "p"));
        assert_eq!(Record::parse(text, "2").unwrap().source, "s");
        let depends = [("q", Some("1")), ("r", None), ("s", None)];
        let depends = depends.map(|(n, v)| (n.to_owned(), v.map(str::to_owned)));
        assert_eq!(record.depends, depends);
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
