//! A short name of a key, for people to compare.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::PublicKey;

const LEN: usize = 20;
/// What a message begins with that says whose key the host has. No Noise message is as short as this one.
const LEAD: u8 = b'F';

/// 160 bits of the hash of a public key. It tells keys apart and does not tell the key: who knows a host's key and is
/// let in because of it does not have it from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; LEN]);

impl PublicKey {
    /// Its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = Sha256::new().chain_update(b"farbus key ").chain_update(self.0).finalize();
        let mut short = [0; LEN];
        short.copy_from_slice(&hash[..LEN]);
        Fingerprint(short)
    }
}

impl Fingerprint {
    /// The message for a remote that expects another key.
    #[must_use]
    pub fn message(self) -> Vec<u8> {
        [&[LEAD], &self.0[..]].concat()
    }

    /// The fingerprint that a message says, if it is one that does. Anybody on the way may have said it.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let (lead, rest) = message.split_first()?;
        rest.try_into().ok().filter(|_| *lead == LEAD).map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&self.0).to_ascii_lowercase();
        let groups: Vec<_> = text.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
        f.pad(&groups.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_eight_groups_of_four_and_survives_its_message() {
        let fingerprint = PublicKey([7; 32]).fingerprint();
        assert_eq!(fingerprint.to_string().split('-').map(str::len).collect::<Vec<_>>(), [4; 8]);
        assert_ne!(fingerprint, PublicKey([8; 32]).fingerprint());
        assert_eq!(Fingerprint::read(&fingerprint.message()), Some(fingerprint));
        let message = fingerprint.message();
        for cut in 0..message.len() {
            assert_eq!(Fingerprint::read(&message[..cut]), None);
        }
        assert_eq!(Fingerprint::read(&[&message[..], &[0]].concat()), None);
    }
}
