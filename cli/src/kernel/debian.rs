// SPDX-License-Identifier: GPL-2.0-or-later
//! Debian's kernels: which ones can be prepared, and unpacking their parts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use splice_core::arch::Arch;

use super::packages::Apt;
use super::prepare::Parts;
use super::{cache, packages, sources};

/// A kernel whose image, headers and source apt offers in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Kernel release.
    pub release: String,
    /// Version of its packages.
    pub version: String,
}

/// `6.1` of `6.1.0-47-cloud-amd64`.
fn series(release: &str) -> Option<&str> {
    let (second, _) = release.match_indices('.').nth(1)?;
    release.get(..second)
}

/// The package with a kernel's source.
fn source_package(release: &str) -> Result<String> {
    let series = series(release)
        .with_context(|| format!("{release:?} does not look like the release of a kernel"))?;
    Ok(format!("linux-source-{series}"))
}

/// The distribution's name of an architecture, such as `arm64`.
pub(super) fn architecture(arch: &dyn Arch) -> Result<String> {
    for prefix in arch.cross_prefixes() {
        let output = Command::new("dpkg-architecture")
            .args(["-t", prefix.trim_end_matches('-'), "-q", "DEB_HOST_ARCH"])
            .output()
            .context("cannot run dpkg-architecture (Debian package dpkg-dev)")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
    }
    bail!("Debian has no architecture for {}; use --source and --config", arch.name())
}

/// Apt for the kernels of an architecture.
pub fn apt(arch: &dyn Arch, note: &mut dyn FnMut(&str)) -> Result<Apt> {
    if arch.name() == std::env::consts::ARCH {
        return Ok(Apt::native());
    }
    Apt::foreign(&architecture(arch)?, note)
}

/// All kernels of a series and flavour, such as `6.1` and `cloud-amd64`, oldest first.
pub fn kernels(apt: &Apt, series: &str, flavour: &str) -> Result<Vec<Kernel>> {
    let source = format!("linux-source-{series}");
    let mut numbers = Vec::new();
    let mut wanted = vec![source.clone()];
    for name in apt.names(&format!("linux-image-{series}."))? {
        let Some(release) = name.strip_prefix("linux-image-") else { continue };
        let number = release
            .strip_suffix(flavour)
            .and_then(|rest| rest.strip_suffix('-'))
            .and_then(|rest| rest.strip_prefix(&format!("{series}.")))
            // What is left of another flavour that ends in the same word, as `rt-amd64`, is a word.
            .filter(|number| number.ends_with(|last: char| last.is_ascii_digit()));
        if let Some(number) = number {
            let key: Vec<u32> = number
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|n| n.parse().ok())
                .collect();
            wanted.extend([name.clone(), format!("linux-headers-{release}")]);
            numbers.push((key, release.to_owned()));
        }
    }
    let offers = apt.offers(&wanted)?;
    let has = |package: &str, version: &String| {
        offers.get(package).is_some_and(|versions| versions.contains(version))
    };
    let mut found = Vec::new();
    for (key, release) in numbers {
        let headers = format!("linux-headers-{release}");
        let images = offers.get(&format!("linux-image-{release}")).into_iter().flatten();
        let version = images.into_iter().find(|v| has(&headers, v) && has(&source, v));
        if let Some(version) = version {
            found.push((key, Kernel { release, version: version.clone() }));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    ensure!(
        !found.is_empty(),
        "apt offers no {series} {flavour} kernel with image, headers and source of one version; run \
         apt-get update as root, or add the distribution's main and security suites"
    );
    Ok(found.into_iter().map(|(_, kernel)| kernel).collect())
}

/// The newest kernel of the 6.1 line for virtual machines.
pub(super) fn newest(arch: &dyn Arch, apt: &Apt) -> Result<String> {
    let mut all = kernels(apt, "6.1", &format!("cloud-{}", architecture(arch)?))?;
    all.pop().map(|kernel| kernel.release).context("apt offers no kernel")
}

/// What is known once a release's headers are unpacked.
pub(super) struct Headers {
    /// What the source is to be configured with.
    pub(super) parts: Parts,
    apt: Apt,
    source: String,
    version: String,
    /// What these kernels are built with besides, such as `rt`.
    featureset: Option<String>,
}

/// Fetches and unpacks configuration and headers of a release below `root`.
pub(super) fn headers(
    apt: Apt,
    release: &str,
    root: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Headers> {
    let source = source_package(release)?;
    let headers = format!("linux-headers-{release}");
    let offers = apt.offers(&[&source, &headers])?;
    let of = |package: &str| offers.get(package).cloned().unwrap_or_default();
    let (sources, all) = (of(&source), of(&headers));
    let Some(version) = all.into_iter().find(|version| sources.contains(version)) else {
        bail!(
            "apt does not offer {headers} and {source} in one version (headers: {}; source: {}); \
             run apt-get update as root, or use --source and --config",
            listed(&of(&headers)),
            listed(&sources)
        );
    };
    let place = root.join("headers");
    let featureset = unpack_headers(&apt, &place, &headers, &version, note)?;
    let directory = PathBuf::from("headers/usr/src").join(&headers);
    let generated = root.join(&directory).join("include/generated");
    let parts = Parts {
        release: Some(release.to_owned()),
        config: root.join(&directory).join(".config"),
        // Not every kernel has these headers.
        told: told(&std::fs::read_to_string(generated.join("package.h")).unwrap_or_default()),
        symvers: None,
        headers: directory,
        origin: format!("{source} and {headers}, version {version}"),
    };
    Ok(Headers { parts, apt, source, version, featureset })
}

/// What the distribution tells its kernels about their package (Debian's changes to Makefile), from
/// the header that was made of it.
fn told(package: &str) -> Vec<String> {
    let words = package
        .lines()
        .find_map(|line| line.strip_prefix("#define LINUX_PACKAGE_ID \" ")?.strip_suffix('"'))
        .and_then(|id| id.split_once(' '));
    words.map_or_else(Vec::new, |(distributor, version)| {
        vec![
            "DISTRIBUTION_OFFICIAL_BUILD=1".to_owned(),
            format!("DISTRIBUTOR={distributor}"),
            format!("DISTRIBUTION_VERSION={version}"),
        ]
    })
}

fn listed(versions: &[String]) -> String {
    if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
}

/// The feature set of the kernels that share these headers: Debian's common headers are one package
/// for each, `linux-headers-VERSION-common` and `linux-headers-VERSION-common-FEATURESET`.
fn featureset(package: &str) -> Option<&str> {
    package.strip_prefix("linux-headers-")?.split_once("-common-").map(|(_, name)| name)
}

/// Packages of programs that build modules.
const TOOLS: &str = "linux-kbuild-";

/// The headers package and those of the same source that it needs; returns the feature set.
fn unpack_headers(
    apt: &Apt,
    place: &Path,
    headers: &str,
    version: &str,
    note: &mut dyn FnMut(&str),
) -> Result<Option<String>> {
    let store = cache::directory("packages")?;
    // Programs that run here.
    let native = Apt::native();
    let mut found = None;
    let mut todo = vec![(headers.to_owned(), version.to_owned())];
    while let Some((name, version)) = todo.pop() {
        let apt = if name.starts_with(TOOLS) { &native } else { apt };
        found = found.or_else(|| featureset(&name).map(str::to_owned));
        let file = apt.fetch(&store, &name, &version, note)?;
        packages::unpack(&file, place)?;
        for (name, exact) in apt.record(&name, &version)?.depends {
            if !name.starts_with("linux-headers-") && !name.starts_with(TOOLS) {
                continue;
            }
            let version = match exact {
                Some(version) => version,
                // Any later build of the same tools will do.
                None => {
                    let offered = native.offered(&name)?.into_iter().next();
                    offered.with_context(|| format!("apt does not offer {name}"))?
                }
            };
            todo.push((name, version));
        }
    }
    // The packages expect to be installed; here they are not.
    let path = place.join("usr/src").join(headers).join("Makefile");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let here = format!("include {}/", place.join("usr/src").display());
    std::fs::write(&path, text.replace("include /usr/src/", &here))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(found)
}

/// Fetches and unpacks the source that belongs to these headers below `root`.
pub(super) fn source(headers: &Headers, root: &Path, note: &mut dyn FnMut(&str)) -> Result<()> {
    let package = &headers.source;
    let file =
        headers.apt.fetch(&cache::directory("packages")?, package, &headers.version, note)?;
    note("unpacking the source");
    let work = root.join(".package");
    packages::unpack(&file, &work)?;
    packages::run(
        Command::new("tar")
            .args(["--use-compress-program", "xz -dc -T0", "--strip-components=1", "-x", "-f"])
            .arg(work.join(format!("usr/src/{package}.tar.xz")))
            .arg("-C")
            .arg(root.join("source")),
    )?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    let Some(featureset) = &headers.featureset else { return Ok(()) };
    note(&format!("applying the patches of {featureset} kernels"));
    let from = headers.apt.record(package, &headers.version)?.source;
    sources::apply_featureset(&from, &headers.version, featureset, &root.join("source"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_told_to_the_build() {
        let words = told("#define LINUX_PACKAGE_ID \" Debian 6.1.170-3\"\n");
        assert_eq!(
            words,
            [
                "DISTRIBUTION_OFFICIAL_BUILD=1",
                "DISTRIBUTOR=Debian",
                "DISTRIBUTION_VERSION=6.1.170-3"
            ]
        );
        assert!(told("#define LINUX_PACKAGE_ID \"\"\n").is_empty());
    }

    #[test]
    fn the_feature_set_is_that_of_the_common_headers() {
        assert_eq!(featureset("linux-headers-6.1.0-47-common-rt"), Some("rt"));
        assert_eq!(featureset("linux-headers-6.1.0-47-common"), None);
        assert_eq!(featureset("linux-headers-6.1.0-47-rt-amd64"), None);
        assert_eq!(featureset("linux-kbuild-6.1"), None);
    }

    #[test]
    fn the_source_package_follows_from_the_release() {
        assert_eq!(source_package("6.1.0-47-cloud-amd64").unwrap(), "linux-source-6.1");
        assert_eq!(source_package("6.12.9+bpo-amd64").unwrap(), "linux-source-6.12");
        assert!(source_package("vmlinux").is_err());
    }
}
