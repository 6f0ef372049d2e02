//! First contact: two ends that know nothing of each other but a short code learn each other's static keys.
//!
//! ```text
//!  remote                                                      host
//!  Asking   ── 'P' | version | remote key ───────────────────► Asked
//!  Offer    ◄── 0 | version | host key | B ─────────────────── Offered     B: SPAKE2, 33 bytes
//!  Proving  ── A | Noise e ──────────────────────────────────► Offered     A: SPAKE2, 33 bytes
//!           ◄── 0 | Noise e, ee, s, es ─────────────────────── Judging
//!  Waiting  ── Noise s, se, psk: Hello ──────────────────────► Guest       here a try is spent
//!  Paired   ◄── 0 | Answer ─────────────────────────────────── told
//! ```
//!
//! - Each message is a `u16` length and at most [`crate::MAX_HANDSHAKE`] bytes. Instead of a message that begins with 0
//!   the host may send two bytes, a [`Refusal`]; they are nobody's word, as they come in clear.
//! - The code goes through SPAKE2 only, whose 32-byte key is the psk of `Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s`. Who
//!   listens learns nothing to test codes with, and who takes part actively tests one code for each time that he is
//!   let take part: the third Noise message is the first that depends on the code, and to send it spends a try.
//! - Both static keys and the roles are SPAKE2's identities, and all that was said in clear is Noise's prologue. The keys
//!   that Noise delivers must be those that were sent ahead.
//! - Every state is a value that its message consumes: no message can be taken twice or out of order.
//!
//! Not done: `snow` and `spake2` do not wipe what they hold; a code is worth nothing after two minutes, or one use.

mod code;
mod host;
mod remote;
mod tcp;
#[cfg(test)]
mod tests;

use snow::Builder;
use spake2::{Ed25519Group, Identity, Spake2};
use wire::{DecodeError, control};
use zeroize::Zeroizing;

use crate::{HandshakeError, PublicKey, SecretKey};
pub use code::{Code, ParseCodeError};
pub use host::{Asked, Guest, Judging, Offered};
pub use remote::{Asking, Offer, Proving, Waiting};
pub use tcp::{listen, pair, say};

/// The first byte of a pairing's first message: no suite of the other handshake has this number.
const PAIRING: u8 = b'P';
/// The version of what is described above.
const VERSION: u8 = 1;
/// The first byte of what the host says when it goes on.
const GO_ON: u8 = 0;
/// A SPAKE2 message of the Ed25519 group, with the byte that says whose it is.
const SPAKE2_LEN: usize = 33;
const KEY_LEN: usize = 32;
const PROLOGUE: &[u8] = b"farbus/1 pairing noise-tcp";
const SUITE: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";

/// A host and a remote know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// The host's key, proved.
    pub host: PublicKey,
    /// The VM that the remote may have from now on.
    pub vm: String,
}

/// Why a host does not pair. In clear, so anybody on the way may have said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is expected: there is no code, or it is used, too old, or was guessed at too often.
    NoCode,
    /// The remote speaks another version.
    Version,
    /// The code was not right.
    WrongCode {
        /// How many tries are left.
        left: u8,
    },
}

/// Why there is no pairing.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The connection did not come about, or broke, or was too slow.
    #[error(transparent)]
    Connection(#[from] HandshakeError),
    /// The host does not expect anybody.
    #[error(
        "no code is valid at the host: it is used, older than two minutes, or was wrong three times; make a new one there with `farbus-host pair VM`"
    )]
    NoCode,
    /// The versions do not fit.
    #[error("the host pairs in another way: use the same release of Farbus on both ends")]
    Version,
    /// The code is not the host's.
    #[error("the code is wrong; {}", match .left {
        0 => "that was the last try: make a new one at the host with `farbus-host pair VM`".to_owned(),
        1 => "one try is left: look at it again, and run `farbus-remote pair` again".to_owned(),
        left => format!("{left} tries are left: look at it again, and run `farbus-remote pair` again"),
    })]
    WrongCode {
        /// How many tries are left.
        left: u8,
    },
    /// What came is not what belongs here, or does not prove what it must.
    #[error(
        "the other end did not prove itself ({0}): somebody may be in between; make a new code and try again"
    )]
    Unproved(&'static str),
    /// What came inside the encryption cannot be read.
    #[error("malformed: {0}")]
    Payload(#[from] DecodeError),
    /// The host knows the code, and yet does not want the remote.
    #[error("the host refused: {text}")]
    Refused {
        /// Why.
        reason: control::Refusal,
        /// One sentence for people.
        text: String,
    },
}

/// A message as it goes over the connection, without its length.
pub type Frame = Vec<u8>;

impl Refusal {
    /// The message that says so.
    #[must_use]
    pub fn frame(self) -> Frame {
        match self {
            Self::NoCode => vec![1, 0],
            Self::Version => vec![2, 0],
            Self::WrongCode { left } => vec![3, left],
        }
    }
}

/// What the host says after [`GO_ON`].
fn goes_on(frame: &[u8]) -> Result<&[u8], PairError> {
    match frame {
        [GO_ON, rest @ ..] => Ok(rest),
        [1, 0] => Err(PairError::NoCode),
        [2, 0] => Err(PairError::Version),
        [3, left] => Err(PairError::WrongCode { left: *left }),
        _ => Err(PairError::Unproved("not a message of a pairing")),
    }
}

/// `N` bytes and the rest.
fn split<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), PairError> {
    bytes
        .split_first_chunk()
        .map(|(first, rest)| (*first, rest))
        .ok_or(PairError::Unproved("a message is cut short"))
}

/// What both ends must agree about, beside the code.
struct Identities {
    remote: Identity,
    host: Identity,
}

impl Identities {
    fn new(remote: PublicKey, host: PublicKey) -> Self {
        let identity = |role: &[u8], key: PublicKey| Identity::new(&[role, &key.0].concat());
        Self { remote: identity(b"farbus remote ", remote), host: identity(b"farbus host ", host) }
    }
}

/// The key that SPAKE2 comes to.
fn shared(ours: Spake2<Ed25519Group>, theirs: &[u8; SPAKE2_LEN]) -> Result<Zeroizing<[u8; 32]>, PairError> {
    let unproved = PairError::Unproved("not a SPAKE2 message");
    let key = Zeroizing::new(ours.finish(theirs).map_err(|_| unproved)?);
    let key: &[u8; 32] = key.as_slice().try_into().map_err(|_| PairError::Unproved("not a SPAKE2 key"))?;
    Ok(Zeroizing::new(*key))
}

/// Noise, with everything in its prologue that was said in clear.
fn noise<'a>(me: &'a SecretKey, psk: &'a [u8; 32], prologue: &'a [u8]) -> Result<Builder<'a>, PairError> {
    let suite = SUITE.parse().map_err(broken)?;
    let builder = Builder::new(suite).prologue(prologue).and_then(|b| b.local_private_key(me.as_bytes()));
    builder.and_then(|b| b.psk(3, psk)).map_err(broken)
}

fn prologue(ask: &[u8], offer: &[u8], a: &[u8]) -> Vec<u8> {
    [PROLOGUE, ask, offer, a].concat()
}

fn broken(_: snow::Error) -> PairError {
    PairError::Unproved("a message does not decrypt")
}
