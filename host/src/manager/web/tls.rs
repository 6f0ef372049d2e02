//! The endpoint's certificate: the user's own, or a self-signed one that is made once.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// A certificate with those of its issuers, and its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Where the self-signed certificate of the host with this key is, with its own key.
pub(crate) fn beside(key_file: &Path) -> PathBuf {
    key_file.with_extension("web.pem")
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// One cannot be read, or has nothing of its kind in it.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let read = |file: &Path| fs::read(file).with_context(|| file.display().to_string());
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.with_context(|| certificate.display().to_string())?;
        if chain.is_empty() {
            bail!("{} has no certificate in it", certificate.display());
        }
        let key = PrivateKeyDer::from_pem_slice(&read(key)?).with_context(|| key.display().to_string())?;
        Ok(Self { chain, key })
    }

    /// Reads the file, which has both; makes it, mode 0600, if there is none.
    ///
    /// # Errors
    /// It cannot be made or read, or others can read it.
    pub(crate) fn load_or_create(file: &Path) -> Result<Self> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
            Ok(mut made) => {
                let own = rcgen::generate_simple_self_signed(["farbus-host".into(), "localhost".into()])?;
                let pem = own.cert.pem() + &own.signing_key.serialize_pem();
                let written = made.write_all(pem.as_bytes()).and_then(|()| made.sync_all());
                if written.is_err() {
                    // Half of one is none.
                    let _ = fs::remove_file(file);
                }
                written.with_context(|| file.display().to_string())?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("making {}", file.display())),
        }
        if fs::metadata(file)?.mode() & 0o077 != 0 {
            bail!(
                "others can read {}: `chmod 600` it, or remove it so that another one is made",
                file.display()
            );
        }
        Self::load(file, file)
    }

    /// SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint -sha256` show it.
    pub(crate) fn fingerprint(&self) -> String {
        let mut text = String::with_capacity(95);
        for byte in Sha256::digest(self.chain.first().map_or(&[][..], |own| own)) {
            let _ = write!(text, "{}{byte:02X}", if text.is_empty() { "" } else { ":" });
        }
        text
    }

    /// How connections are taken in its name.
    ///
    /// # Errors
    /// The key is not the certificate's, or of a kind that is not known.
    pub(crate) fn config(self) -> Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_self_signed_certificate_is_made_once_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let file = beside(&folder.path().join("host.key"));
        let made = Identity::load_or_create(&file).unwrap().fingerprint();
        assert_eq!(made.len(), 95);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = Identity::load_or_create(&file).unwrap();
        assert_eq!(again.fingerprint(), made);
        again.config().unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Identity::load_or_create(&file).err().unwrap().to_string().contains("others can read"));
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pem");
        fs::write(&file, "hello").unwrap();
        let error = Identity::load(&file, &file).err().unwrap();
        assert!(format!("{error:#}").contains("x.pem"), "{error:#}");
    }
}
