// SPDX-License-Identifier: GPL-2.0-or-later
//! Signatures that a kernel asks of modules: behind a module stands a detached CMS signature of it, then
//! what it is and how long (`struct module_signature`, include/linux/module_signature.h), then a mark
//! (`mod_check_sig`, kernel/module_signature.c). Attributes in it are not accepted (`pkcs7_verify`,
//! crypto/asymmetric_keys/pkcs7_verify.c). openssl makes it, with whatever keys it can use.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::args::SigningArgs;
use crate::exit::{Exit, Failure};

const MARK: &[u8] = b"~Module signature appended~\n";
/// `PKEY_ID_PKCS7`: all else is in the signature itself.
const KIND: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];

/// A key, and the certificate by which the kernel knows it.
#[derive(Debug)]
pub(crate) struct Signer {
    key: PathBuf,
    certificate: PathBuf,
}

impl Signer {
    /// What the command line names; none if it names none.
    pub(crate) fn named(args: &SigningArgs) -> Option<Self> {
        let (key, certificate) = args.sign_key.clone().zip(args.sign_cert.clone())?;
        Some(Self { key, certificate })
    }

    /// The module, signed if there is somebody who signs.
    pub(crate) fn perhaps(signer: Option<&Self>, module: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match signer {
            Some(signer) => signer.sign(module),
            None => Ok(module),
        }
    }

    /// The module with a signature behind it.
    fn sign(&self, mut module: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let signature = self.signature(&module)?;
        let len = u32::try_from(signature.len()).context("openssl made too long a signature")?;
        module.extend(&signature);
        module.extend(KIND);
        module.extend(len.to_be_bytes());
        module.extend(MARK);
        Ok(module)
    }

    fn signature(&self, module: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut openssl = Command::new("openssl")
            .args(["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256"])
            .args(["-outform", "DER", "-inkey"])
            .arg(&self.key)
            .arg("-signer")
            .arg(&self.certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run openssl, which signs modules (Debian package openssl)")?;
        if let Some(mut input) = openssl.stdin.take() {
            // If it does not read all, it says why.
            let _ = input.write_all(module);
        }
        let output = openssl.wait_with_output().context("cannot wait for openssl")?;
        if output.status.success() && !output.stdout.is_empty() {
            return Ok(output.stdout);
        }
        let text = format!(
            "openssl cannot sign with the key {} and the certificate {}: {}",
            self.key.display(),
            self.certificate.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Err(Failure::new(Exit::Failed, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openssl(words: &[&str], place: &std::path::Path) -> String {
        let run = Command::new("openssl").args(words).current_dir(place).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    #[test]
    fn what_is_behind_a_module_is_a_signature_of_it() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let make = "req -x509 -newkey rsa:2048 -nodes -subj /CN=test -keyout key -out cert";
        openssl(&make.split(' ').collect::<Vec<_>>(), place.path());
        let signer = Signer { key: path("key"), certificate: path("cert") };
        let signed = signer.sign(b"a module".to_vec()).unwrap();
        let rest = signed.strip_suffix(MARK).unwrap();
        let (rest, len) = rest.split_last_chunk::<4>().unwrap();
        let rest = rest.strip_suffix(&KIND).unwrap();
        let signature = rest.strip_prefix(b"a module").unwrap();
        assert_eq!(signature.len(), u32::from_be_bytes(*len) as usize);

        std::fs::write(path("module"), b"a module").unwrap();
        std::fs::write(path("signature"), signature).unwrap();
        let verify = "cms -verify -binary -inform DER -in signature -content module -certfile cert \
                      -CAfile cert -purpose any -out said";
        openssl(&verify.split_whitespace().collect::<Vec<_>>(), place.path());
        assert_eq!(std::fs::read(path("said")).unwrap(), b"a module");
        let shown = openssl(
            &["cms", "-cmsout", "-print", "-inform", "DER", "-in", "signature"],
            place.path(),
        );
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert!(words.join(" ").contains(" signedAttrs: <ABSENT> "), "{shown}");
    }

    #[test]
    fn a_key_that_is_none_is_told() {
        let signer = Signer { key: "/dev/null".into(), certificate: "/dev/null".into() };
        let error = signer.sign(b"a module".to_vec()).unwrap_err();
        assert!(error.text.contains("/dev/null"), "{}", error.text);
    }
}
