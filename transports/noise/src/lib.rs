//! Who is there, whatever carries the question: static keys, and the messages of the Noise handshake.
//!
//! `Noise_IK_25519_ChaChaPoly_BLAKE2s`, or `AESGCM` in its place where the remote's processor has instructions for it.
//! The remote is the initiator: it knows the host's key beforehand, and its own key is hidden from everybody else.
//! Nothing here reads or writes a socket: a link carries the messages, and says in the prologue which kind it is.
//!
//! ```text
//!  remote: Initiator::begin() ── suite u8 | e, es, s, ss, Hello ──► host: Responder::read() ─► Caller
//!          Initiator::finish() ◄────────── e, ee, se, Answer ─────────── Responder::answer()
//!          Finished ── first transport message: proves the remote's key ──► Finished
//! ```
//!
//! Message 1 can be replayed by anybody who has seen it, so a [`Caller`] is known only when the initiator's first
//! transport message decrypts.
//!
//! A crate of its own, so that no link need name another one.
#![forbid(unsafe_code)]

mod fingerprint;
mod handshake;
mod key;
mod suite;

pub use fingerprint::Fingerprint;
pub use handshake::{Caller, Finished, FirstFrame, Initiator, MAX_HANDSHAKE, MessageError, Responder, open};
pub use key::{KeyError, ParseKeyError, PublicKey, SecretKey};
pub use suite::Suite;
