//! The static key of an endpoint: how it is written, and where it is kept.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use data_encoding::BASE32_NOPAD_NOCASE;
use link::PeerKey;
use snow::{
    params::DHChoice,
    resolvers::{CryptoResolver, DefaultResolver},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Stands before a secret key, so that nobody pastes one where a public key belongs.
const SECRET_PREFIX: &str = "farbus-secret:";
/// More than a key file ever has, bytes.
const MAX_FILE: u64 = 1024;

/// An X25519 public key. People read it as 52 letters and digits: base32 of RFC 4648, in lower case, without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// An X25519 secret key. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// It is a secret key, which must stay where it was made.
    #[error("this is a secret key; a public key was asked for")]
    Secret,
    /// It is something else.
    #[error("a key is 52 letters a-z and digits 2-7")]
    Malformed,
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others than its owner can read it.
    #[error("others can read {path}: run `chmod 600 {path}` if you trust that nobody did")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// What it holds is no secret key.
    #[error("{path} does not hold a secret key; move it away to have a new one made")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or made.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// # Panics
    /// The system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        let mut dh = x25519();
        let mut random = DefaultResolver.resolve_rng().expect("the default resolver has randomness");
        dh.generate(&mut *random).expect("the system gives randomness");
        Self::from_slice(dh.privkey()).expect("an X25519 key has 32 bytes")
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut dh = x25519();
        dh.set(&self.0);
        PublicKey(dh.pubkey().try_into().expect("an X25519 key has 32 bytes"))
    }

    /// Reads the key of a file; makes file and key (mode 0600) if there is none.
    ///
    /// # Errors
    /// The file is readable by others, malformed, or cannot be read or made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::load(file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path).map_err(io)?;
                Self::load(File::open(path).map_err(io)?, path)
            }
            Err(error) => Err(io(error)),
        }
    }

    fn load(file: File, path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        if exposed(&file).map_err(io)? {
            return Err(KeyError::Exposed { path: path.to_owned() });
        }
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
        let read = file.take(MAX_FILE).read_to_string(&mut text);
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        match read {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(malformed()),
            other => other.map_err(io)?,
        };
        let key = text.trim().strip_prefix(SECRET_PREFIX).and_then(decode).map(|bytes| Self(*bytes));
        key.ok_or_else(malformed)
    }

    /// Makes the file whole or not at all, and never replaces one: of two processes that try, both load one key.
    fn create(path: &Path) -> io::Result<()> {
        let key = Self::generate();
        let encoded = Zeroizing::new(BASE32_NOPAD_NOCASE.encode(&key.0));
        let text = Zeroizing::new(format!("{SECRET_PREFIX}{}\n", encoded.as_str().to_ascii_lowercase()));
        let mut draft = path.as_os_str().to_owned();
        // Nobody else's draft has this key in its name.
        draft.push(format!(".{:.16}", key.public()));
        let draft = PathBuf::from(draft);
        let made = write_new(&draft, text.as_bytes()).and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        fs::remove_file(&draft).or_else(|error| if made.is_err() { Ok(()) } else { Err(error) })?;
        made
    }

    fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes, for a cipher. Whoever copies them wipes the copy.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        if text.starts_with(SECRET_PREFIX) {
            return Err(ParseKeyError::Secret);
        }
        decode(text).map(|bytes| Self(*bytes)).ok_or(ParseKeyError::Malformed)
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<PeerKey> for PublicKey {
    fn from(key: PeerKey) -> Self {
        Self(key.0)
    }
}

impl From<PublicKey> for PeerKey {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

fn x25519() -> Box<dyn snow::types::Dh> {
    DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("the default resolver has X25519")
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

#[cfg(unix)]
fn exposed(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn exposed(_: &File) -> io::Result<bool> {
    Ok(false)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
