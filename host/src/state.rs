//! What the host has learned of remotes since its configuration was written: who was paired, whose key was revoked.
//!
//! One JSON file beside the host's key, mode 0600, replaced whole or not at all; the configuration is the user's and is
//! never written. What is revoked here is refused whatever the configuration says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use noise_tcp::PublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::Vm;

pub(crate) mod tokens;

/// The form described here.
const VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// The remotes that were paired, by the VM that they may have.
    #[serde(default)]
    paired: BTreeMap<String, BTreeMap<Key, Paired>>,
    /// The keys that are refused, and since when: seconds since 1970.
    #[serde(default)]
    revoked: BTreeMap<Key, u64>,
    /// The tokens that web pages may ask by, hashed.
    #[serde(default)]
    web_tokens: BTreeMap<String, tokens::Token>,
}

/// A paired remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paired {
    /// What it called itself.
    name: String,
    /// Seconds since 1970.
    since: u64,
}

/// A public key as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(PublicKey);

/// What is known of a remote that wants a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may have it.
    Allowed,
    /// It may not.
    Unknown,
    /// It may have nothing.
    Revoked,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            paired: BTreeMap::new(),
            revoked: BTreeMap::new(),
            web_tokens: BTreeMap::new(),
        }
    }
}

impl State {
    /// Where the state of the host with this key is.
    pub(crate) fn beside(key_file: &Path) -> PathBuf {
        key_file.with_extension("state.json")
    }

    /// Reads the file; nothing is known if there is none.
    ///
    /// # Errors
    /// It cannot be read, is not a state, or somebody else could have written it.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        Self::read(path).with_context(|| format!("the host's state {}", path.display()))
    }

    fn read(path: &Path) -> Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.mode() & 0o022 != 0 {
            bail!("others can write to it: look at what it says, then `chmod 600` it");
        }
        let state: Self = serde_json::from_str(&io::read_to_string(file)?)?;
        if state.version != VERSION {
            bail!("its version is {} and this farbus-host reads {VERSION}", state.version);
        }
        Ok(state)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        self.write(path).with_context(|| format!("saving the host's state {}", path.display()))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let draft = path.with_extension(format!("draft-{}", std::process::id()));
        let made = replace(&draft, path, &text);
        if made.is_err() {
            // What is left of it is nobody's.
            let _ = fs::remove_file(&draft);
        }
        Ok(made?)
    }

    /// What is known of a remote that wants this VM.
    pub(crate) fn standing(&self, vm: &str, policy: &Vm, key: &PublicKey) -> Standing {
        let own = Key(*key);
        if self.revoked.contains_key(&own) {
            Standing::Revoked
        } else if policy.allows(key) || self.paired.get(vm).is_some_and(|keys| keys.contains_key(&own)) {
            Standing::Allowed
        } else {
            Standing::Unknown
        }
    }

    /// A remote is paired with a VM; its key is not revoked any more.
    pub(crate) fn pair(&mut self, vm: &str, key: PublicKey, name: &str, now: u64) {
        let paired = Paired { name: name.to_owned(), since: now };
        self.revoked.remove(&Key(key));
        self.paired.entry(vm.to_owned()).or_default().insert(Key(key), paired);
    }

    /// A key is refused from now on; the VMs that it was paired with.
    pub(crate) fn revoke(&mut self, key: PublicKey, now: u64) -> BTreeSet<String> {
        self.revoked.entry(Key(key)).or_insert(now);
        let lost = self.paired.iter_mut().filter_map(|(vm, keys)| keys.remove(&Key(key)).map(|_| vm.clone()));
        let lost = lost.collect();
        self.paired.retain(|_, keys| !keys.is_empty());
        lost
    }

    /// A key is not refused any more; whether it was. What the configuration lists it for counts again.
    pub(crate) fn allow(&mut self, key: PublicKey) -> bool {
        self.revoked.remove(&Key(key)).is_some()
    }
}

/// Writes the draft and puts it into the file's place.
fn replace(draft: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use noise_tcp::SecretKey;

    use super::*;
    use crate::config::Allowed;

    fn key() -> PublicKey {
        SecretKey::generate().public()
    }

    #[test]
    fn what_was_paired_and_revoked_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = State::beside(&folder.path().join("host.key"));
        assert_eq!(path.file_name().unwrap(), "host.state.json");
        let (paired, revoked) = (key(), key());
        let mut state = State::load(&path).unwrap();
        state.pair("a", paired, "laptop", 1);
        state.pair("a", revoked, "old laptop", 2);
        assert_eq!(state.revoke(revoked, 3), ["a".to_owned()].into());
        state.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        let state = State::load(&path).unwrap();
        let nobody = Vm::for_tests(vec![]);
        assert_eq!(state.standing("a", &nobody, &paired), Standing::Allowed);
        assert_eq!(state.standing("b", &nobody, &paired), Standing::Unknown);
        assert_eq!(state.standing("a", &nobody, &revoked), Standing::Revoked);
    }

    #[test]
    fn a_revoked_key_is_refused_whatever_the_configuration_says_until_it_is_allowed_or_paired_again() {
        let own = key();
        for remotes in [vec![Allowed::Any], vec![Allowed::Key(own)]] {
            let (vm, mut state) = (Vm::for_tests(remotes), State::default());
            assert_eq!(state.standing("a", &vm, &own), Standing::Allowed);
            state.revoke(own, 1);
            assert_eq!(state.standing("a", &vm, &own), Standing::Revoked);
            assert!(state.allow(own) && !state.allow(own));
            assert_eq!(state.standing("a", &vm, &own), Standing::Allowed);
        }
        let (nobody, mut state) = (Vm::for_tests(vec![]), State::default());
        state.pair("a", own, "", 1);
        state.revoke(own, 2);
        state.allow(own);
        assert_eq!(state.standing("a", &nobody, &own), Standing::Unknown, "what was paired is gone");
        state.revoke(own, 3);
        state.pair("a", own, "", 4);
        assert_eq!(state.standing("a", &nobody, &own), Standing::Allowed);
    }

    #[test]
    fn a_state_that_others_could_have_written_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.state.json");
        State::default().save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(format!("{:#}", State::load(&path).unwrap_err()).contains("others can write"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for (text, says) in [
            ("", "EOF"),
            ("{\"version\": 2}", "version is 2"),
            ("{\"version\": 1, \"allowed\": {}}", "unknown field"),
            ("{\"version\": 1, \"revoked\": {\"zz\": 1}}", "52 letters"),
        ] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", State::load(&path).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
