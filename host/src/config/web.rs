//! Where remotes that are web pages ask for a link: the table `[web]`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use serde::Deserialize;

/// The table `[web]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Web {
    /// Where HTTPS is served.
    pub(crate) listen: SocketAddr,
    /// The certificate, and those of its issuers, PEM. If nothing is said, a self-signed one is made.
    #[serde(default)]
    pub(crate) certificate: Option<PathBuf>,
    /// Its secret key, PEM.
    #[serde(default)]
    pub(crate) key: Option<PathBuf>,
    /// Origins of pages that may ask, such as `https://desk.example:8443`, beside the endpoint's own: for a proxy under
    /// another name that serves both.
    #[serde(default)]
    pub(crate) origins: Vec<String>,
}

impl Web {
    pub(super) fn check(&self) -> Result<()> {
        if self.certificate.is_some() != self.key.is_some() {
            bail!("certificate and key belong together: give both, or none for a self-signed certificate");
        }
        let bare = |origin: &String| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
        };
        if let Some(origin) = self.origins.iter().find(|origin| !bare(origin)) {
            bail!(
                "`{origin}` is no origin: write scheme, host and port only, such as \"https://desk.example:8443\""
            );
        }
        Ok(())
    }

    /// The files of a certificate of one's own, and of its key.
    pub(crate) fn own(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_its_key_and_an_origin_no_path() {
        for (more, good) in [
            ("", true),
            ("certificate = \"/c\"\nkey = \"/k\"\norigins = [\"https://a.example:1\"]", true),
            ("certificate = \"/c\"", false),
            ("key = \"/k\"", false),
            ("origins = [\"https://a.example/\"]", false),
            ("origins = [\"*\"]", false),
        ] {
            let web: Web = toml::from_str(&format!("listen = \"127.0.0.1:0\"\n{more}")).unwrap();
            assert_eq!(web.check().is_ok(), good, "{more}");
        }
    }
}
