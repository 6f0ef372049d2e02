//! What the frames carry that attach a link: versions, identity, and the claim to a session with its proof.
//!
//! ```text
//! HELLO              oldest u16 | newest u16
//! WELCOME            version u16 | id 16 | secret 32
//! ATTACH, ATTACHED   id 16 | mac 32 | for CTL, INT, BULK: next u64, base u64          (little-endian)
//! RESET              reason u8
//! mac = HMAC-SHA256(secret, label | kind | sender | id | epoch | binding | next and base of each lane)
//! ```
//! `next` is the offset up to which the sender has everything, `base` the one from which it can send again.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{Identity, ProtocolError, Role, Secret, SessionId, frame::Kind, lanes::RELIABLE};

/// The versions of this protocol that this crate speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;
/// What is proved is a claim of this protocol and nothing else that may be signed with the same secret.
const LABEL: &[u8] = b"farbus session attach 1";
const CLAIM_LEN: usize = 16 + 32 + RELIABLE.len() * 16;

/// Why a session cannot begin, or go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// There is no session of this id.
    Unknown,
    /// It was detached for too long.
    Expired,
    /// One end no longer has what the other needs.
    Gap,
    /// The two ends speak no version in common.
    Version,
    /// It was closed.
    Closed,
    /// One that this version does not know.
    Other(u8),
}

impl ResetReason {
    fn to_wire(self) -> u8 {
        match self {
            Self::Unknown => 1,
            Self::Expired => 2,
            Self::Gap => 3,
            Self::Version => 4,
            Self::Closed => 5,
            Self::Other(reason) => reason,
        }
    }

    pub(crate) fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&[self.to_wire()])
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let &[reason] = body else { return Err(malformed(Kind::Reset, body)) };
        let known = [Self::Unknown, Self::Expired, Self::Gap, Self::Version, Self::Closed];
        Ok(known.into_iter().find(|known| known.to_wire() == reason).unwrap_or(Self::Other(reason)))
    }
}

/// Where the reliable lanes are, in the order of [`RELIABLE`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Everything up to here was received.
    pub(crate) next: u64,
    /// What was sent from here on can be sent again.
    pub(crate) base: u64,
}

/// The claim to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: SessionId,
    mac: [u8; 32],
    pub(crate) places: [Place; RELIABLE.len()],
}

/// What a claim is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) kind: Kind,
    pub(crate) sender: Role,
    pub(crate) epoch: u32,
    pub(crate) binding: [u8; 32],
}

impl Claim {
    pub(crate) fn new(identity: &Identity, purpose: Purpose, places: [Place; RELIABLE.len()]) -> Self {
        let mac = hmac(identity, purpose, &places).finalize().into_bytes().into();
        Self { id: identity.id, mac, places }
    }

    /// Whether the sender owns the session, and means this.
    pub(crate) fn proves(&self, identity: &Identity, purpose: Purpose) -> Result<(), ProtocolError> {
        // Compares in constant time.
        hmac(identity, purpose, &self.places).verify(&self.mac.into()).map_err(|_| ProtocolError::Proof)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(CLAIM_LEN);
        bytes.put_slice(&self.id.0);
        bytes.put_slice(&self.mac);
        for place in self.places {
            bytes.put_u64_le(place.next);
            bytes.put_u64_le(place.base);
        }
        bytes.freeze()
    }

    pub(crate) fn decode(kind: Kind, body: &[u8]) -> Result<Self, ProtocolError> {
        let read = || {
            let (id, rest) = body.split_first_chunk::<16>()?;
            let (mac, rest) = rest.split_first_chunk::<32>()?;
            let (numbers, []) = rest.as_chunks::<8>() else { return None };
            let &[a, b, c, d, e, f] = numbers else { return None };
            let place = |next, base| Place { next: u64::from_le_bytes(next), base: u64::from_le_bytes(base) };
            Some(Self { id: SessionId(*id), mac: *mac, places: [place(a, b), place(c, d), place(e, f)] })
        };
        read().ok_or_else(|| malformed(kind, body))
    }
}

fn hmac(identity: &Identity, purpose: Purpose, places: &[Place]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(identity.secret.bytes()).expect("a key of 32 bytes");
    mac.update(LABEL);
    mac.update(&[purpose.kind as u8, u8::from(purpose.sender == Role::Host)]);
    mac.update(&identity.id.0);
    mac.update(&purpose.epoch.to_le_bytes());
    mac.update(&purpose.binding);
    for place in places {
        mac.update(&place.next.to_le_bytes());
        mac.update(&place.base.to_le_bytes());
    }
    mac
}

pub(crate) fn hello() -> Bytes {
    let mut bytes = BytesMut::with_capacity(4);
    bytes.put_u16_le(*VERSIONS.start());
    bytes.put_u16_le(*VERSIONS.end());
    bytes.freeze()
}

/// The newest version that both ends speak, if there is one.
pub(crate) fn common_version(hello: &[u8]) -> Result<Option<u16>, ProtocolError> {
    let &[a, b, c, d] = hello else { return Err(malformed(Kind::Hello, hello)) };
    let (oldest, newest) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    if oldest > newest {
        return Err(malformed(Kind::Hello, hello));
    }
    let version = newest.min(*VERSIONS.end());
    Ok((version >= oldest && VERSIONS.contains(&version)).then_some(version))
}

pub(crate) fn welcome(version: u16, identity: &Identity) -> Bytes {
    let mut bytes = BytesMut::with_capacity(50);
    bytes.put_u16_le(version);
    bytes.put_slice(&identity.id.0);
    bytes.put_slice(identity.secret.bytes());
    bytes.freeze()
}

pub(crate) fn welcomed(body: &[u8]) -> Result<Identity, ProtocolError> {
    let read = || {
        let (version, rest) = body.split_first_chunk::<2>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let secret = <[u8; 32]>::try_from(rest).ok()?;
        let identity = Identity { id: SessionId(*id), secret: Secret::new(secret) };
        VERSIONS.contains(&u16::from_le_bytes(*version)).then_some(identity)
    };
    read().ok_or_else(|| malformed(Kind::Welcome, body))
}

fn malformed(kind: Kind, body: &[u8]) -> ProtocolError {
    ProtocolError::Body { kind: kind as u8, len: body.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { id: SessionId([0x11; 16]), secret: Secret::new([0x22; 32]) }
    }

    const PURPOSE: Purpose =
        Purpose { kind: Kind::Attach, sender: Role::Remote, epoch: 7, binding: [0x33; 32] };
    const PLACES: [Place; 3] =
        [Place { next: 1, base: 2 }, Place { next: 3, base: 4 }, Place { next: 5, base: 6 }];

    #[test]
    fn a_claim_proves_what_it_was_made_for_and_nothing_else() {
        let claim = Claim::decode(Kind::Attach, &Claim::new(&identity(), PURPOSE, PLACES).encode()).unwrap();
        assert_eq!((claim.id, claim.places), (identity().id, PLACES));
        assert_eq!(claim.proves(&identity(), PURPOSE), Ok(()));
        let wrong = [
            ("kind", Purpose { kind: Kind::Attached, ..PURPOSE }),
            ("sender", Purpose { sender: Role::Host, ..PURPOSE }),
            ("epoch", Purpose { epoch: 8, ..PURPOSE }),
            ("binding", Purpose { binding: [0x34; 32], ..PURPOSE }),
        ];
        for (name, purpose) in wrong {
            assert_eq!(claim.proves(&identity(), purpose), Err(ProtocolError::Proof), "{name}");
        }
        let other = Identity { secret: Secret::new([0x23; 32]), ..identity() };
        assert_eq!(claim.proves(&other, PURPOSE), Err(ProtocolError::Proof), "secret");
        let bytes = claim.encode();
        for at in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            let claim = Claim::decode(Kind::Attach, &bytes).unwrap();
            let sound = claim.id == identity().id && claim.proves(&identity(), PURPOSE).is_ok();
            assert!(!sound, "bit {at}");
        }
    }

    #[test]
    fn golden_mac_of_a_claim() {
        // Computed with Python's hmac module from the drawing above.
        let claim = Claim::new(&identity(), PURPOSE, PLACES);
        let hex: String = claim.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "472924209989f493467a609b3a24dfe7516678b10c53dadd03e3634a90903964");
    }

    #[test]
    fn bodies_of_any_other_length_are_refused() {
        let claim = Claim::new(&identity(), PURPOSE, PLACES).encode();
        let welcome = welcome(1, &identity());
        for len in 0..200 {
            let cut = |bytes: &Bytes| bytes.iter().copied().chain([0; 200]).take(len).collect::<Vec<_>>();
            assert_eq!(Claim::decode(Kind::Attach, &cut(&claim)).is_ok(), len == CLAIM_LEN, "{len}");
            assert_eq!(welcomed(&cut(&welcome)).is_ok(), len == 50, "{len}");
            assert_eq!(common_version(&cut(&hello())).is_ok(), len == 4, "{len}");
            assert_eq!(ResetReason::decode(&cut(&ResetReason::Gap.encode())).is_ok(), len == 1, "{len}");
        }
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let range = |oldest: u16, newest: u16| [oldest.to_le_bytes(), newest.to_le_bytes()].concat();
        for (name, oldest, newest, expected) in [
            ("ours", 1, 1, Ok(Some(1))),
            ("a newer peer that still speaks ours", 1, 9, Ok(Some(1))),
            ("an older one that speaks ours", 0, 1, Ok(Some(1))),
            ("too new", 2, 9, Ok(None)),
            ("too old", 0, 0, Ok(None)),
            ("no range", 2, 1, Err(ProtocolError::Body { kind: Kind::Hello as u8, len: 4 })),
        ] {
            assert_eq!(common_version(&range(oldest, newest)), expected, "{name}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", identity());
        assert_eq!(printed, "Identity { id: 11111111111111111111111111111111, secret: Secret }");
    }
}
