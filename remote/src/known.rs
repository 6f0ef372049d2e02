//! The keys of the hosts that this remote knows: a file of lines `HOST:PORT KEY`, mode 0600, replaced whole or not at all.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use noise_tcp::PublicKey;

/// The file's name; it is beside the remote's key.
const NAME: &str = "known-hosts";

/// The hosts that are known, by the address that they are called by.
#[derive(Debug)]
pub(crate) struct KnownHosts {
    file: PathBuf,
    keys: BTreeMap<String, PublicKey>,
}

impl KnownHosts {
    /// Reads the file beside this key; no host is known if there is none.
    ///
    /// # Errors
    /// It cannot be read, or a line of it makes no sense.
    pub(crate) fn beside(key_file: &Path) -> Result<Self> {
        let file = key_file.with_file_name(NAME);
        let keys = match fs::read_to_string(&file) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.into()),
        };
        let keys = keys.with_context(|| format!("the known hosts {}", file.display()))?;
        Ok(Self { file, keys })
    }

    /// The key of the host that is called so.
    pub(crate) fn key(&self, address: &str) -> Option<PublicKey> {
        self.keys.get(&plain(address)).copied()
    }

    /// This is the key of the host that is called so from now on.
    ///
    /// # Errors
    /// It cannot be written down.
    pub(crate) fn pin(&mut self, address: &str, key: PublicKey) -> Result<()> {
        self.keys.insert(plain(address), key);
        self.save()
    }

    /// The host that is called so is not known any more; whether it was.
    ///
    /// # Errors
    /// It cannot be written down.
    pub(crate) fn forget(&mut self, address: &str) -> Result<bool> {
        let known = self.keys.remove(&plain(address)).is_some();
        if known {
            self.save()?;
        }
        Ok(known)
    }

    fn save(&self) -> Result<()> {
        let mut text = "# Written by farbus-remote: HOST:PORT KEY\n".to_owned();
        for (address, key) in &self.keys {
            let _ = writeln!(text, "{address} {key}");
        }
        let draft = self.file.with_file_name(format!("{NAME}.draft-{}", std::process::id()));
        let written = write(&draft, &text).and_then(|()| fs::rename(&draft, &self.file));
        if written.is_err() {
            // What is left of it is nobody's.
            let _ = fs::remove_file(&draft);
        }
        written.with_context(|| format!("saving the known hosts {}", self.file.display()))
    }
}

fn write(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Names of computers have no case.
fn plain(address: &str) -> String {
    address.to_ascii_lowercase()
}

fn parse(text: &str) -> Result<BTreeMap<String, PublicKey>> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(at, line)| {
            let (address, key) =
                line.split_once(char::is_whitespace).with_context(|| format!("line {at} has no key"))?;
            let key = key.trim().parse().with_context(|| format!("in line {at}"))?;
            Ok((plain(address), key))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use noise_tcp::SecretKey;

    use super::*;

    #[test]
    fn a_pinned_host_is_known_after_a_restart_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("remote.key");
        let (one, two) = (SecretKey::generate().public(), SecretKey::generate().public());
        let mut hosts = KnownHosts::beside(&key_file).unwrap();
        assert_eq!(hosts.key("Desk:7411"), None);
        hosts.pin("Desk:7411", one).unwrap();
        hosts.pin("[::1]:7411", two).unwrap();
        let file = folder.path().join(NAME);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        let mut hosts = KnownHosts::beside(&key_file).unwrap();
        assert_eq!((hosts.key("desk:7411"), hosts.key("[::1]:7411")), (Some(one), Some(two)));
        assert_eq!(hosts.key("desk:7412"), None);
        assert!(hosts.forget("DESK:7411").unwrap() && !hosts.forget("desk:7411").unwrap());
        let hosts = KnownHosts::beside(&key_file).unwrap();
        assert_eq!((hosts.key("desk:7411"), hosts.key("[::1]:7411")), (None, Some(two)));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        for (text, says) in [("# fine\nhost:1\n", "line 2 has no key"), ("host:1 zz\n", "in line 1")] {
            fs::write(folder.path().join(NAME), text).unwrap();
            let error = format!("{:#}", KnownHosts::beside(&folder.path().join("remote.key")).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
