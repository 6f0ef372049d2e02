//! A link over one TCP connection, encrypted and authenticated with Noise.
//!
//! The messages of the handshake are those of the crate `noise`: the remote is the initiator, knows the host's key
//! beforehand, and its own key is hidden from everybody else. Both static keys are proved before anything is allocated
//! for a session.
//!
//! ```text
//!  remote                                    host: manager                     worker
//!  connect() ─ u16 len | suite u8 | e, es, s, ss, Hello ─► read_first(), identify()
//!                                                 decides ──► refuse()
//!                                                    └─ socket, FirstFrame ──► accept()
//!            ◄──────────── u16 len | e, ee, se, Answer ─────────────────────────┘
//!            ── first record ──────────────────────────────────────────────────► authenticated
//!
//!  then records:   u16 len | ciphertext of  lane u8 | u16 len | bytes,  lane u8 | u16 len | bytes, ...
//! ```
//!
//! - Message 1 can be replayed by anybody who has seen it, so a host knows a remote only when the first record of the
//!   initiator decrypts: [`accept`] waits for it.
//! - A host that cannot read message 1 answers with `u16 len | 'F' | fingerprint` of its key, in clear, for people.
//! - The first message of a [`pairing`] begins with another number than any suite's.
//! - A record holds as many small frames as waited for it, and on a fast line some records share a write. Records are strictly numbered by the
//!   cipher; one that does not decrypt ends the link.
//! - Each direction is rekeyed from within: a frame on the pseudo lane `0xf0` says that the next record has the next key.
//! - Numbers are big-endian, as Noise writes lengths.
#![forbid(unsafe_code)]

mod handshake;
mod low_water;
mod noise_tcp;
pub mod pairing;
mod records;
mod socket;

pub use handshake::{
    DEADLINE, HandshakeError, accept, connect, connect_over, identify, not_for_us, read_first, refuse,
};
pub use noise::{
    Caller, Fingerprint, FirstFrame, KeyError, MAX_HANDSHAKE, MessageError, ParseKeyError, PublicKey,
    SecretKey,
};
pub use noise_tcp::{NoiseTcp, PROFILE};
