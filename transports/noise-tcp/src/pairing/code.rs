//! The code that people carry from one end to the other.

use std::{fmt, str::FromStr};

use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::{Zeroize, Zeroizing};

/// Digits of a code: 26 bits, of which three guesses find one in 33 million.
const DIGITS: usize = 8;
const COUNT: u64 = 10u64.pow(DIGITS as u32);

/// A pairing code: eight digits, good for one pairing. Wiped when dropped; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Code(Zeroizing<[u8; DIGITS]>);

/// A text is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code is {DIGITS} digits, as `farbus-host pair VM` prints them")]
pub struct ParseCodeError;

impl Code {
    /// A new one from the system's randomness.
    ///
    /// # Panics
    /// The system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        let mut random = DefaultResolver.resolve_rng().expect("the default resolver has randomness");
        let mut bytes = [0; 8];
        random.try_fill_bytes(&mut bytes).expect("the system gives randomness");
        // Of 2^64 numbers no remainder is more likely than another by more than 1 in 10^11.
        let mut number = u64::from_be_bytes(bytes) % COUNT;
        bytes.zeroize();
        let mut digits = Zeroizing::new([0; DIGITS]);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Self(digits)
    }

    /// As people read it: `1234-5678`.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(DIGITS + 1));
        for (at, digit) in self.0.iter().enumerate() {
            if at == DIGITS / 2 {
                text.push('-');
            }
            text.push(char::from(*digit));
        }
        text
    }

    pub(super) fn digits(&self) -> &[u8] {
        &self.0[..]
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

impl FromStr for Code {
    type Err = ParseCodeError;

    /// Hyphens and spaces are as people like them.
    fn from_str(text: &str) -> Result<Self, ParseCodeError> {
        let mut digits = Zeroizing::new([0; DIGITS]);
        let mut places = digits.iter_mut();
        for letter in text.bytes().filter(|letter| !matches!(letter, b'-' | b' ')) {
            let place = places.next().filter(|_| letter.is_ascii_digit()).ok_or(ParseCodeError)?;
            *place = letter;
        }
        if places.next().is_some() { Err(ParseCodeError) } else { Ok(Self(digits)) }
    }
}
