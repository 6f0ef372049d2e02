//! Tokens by which web pages may ask for a VM. Only their hashes are kept.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::State;

/// The most tokens that are known at the same time.
const TOKENS: usize = 256;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    vm: String,
    /// Seconds since 1970; none: until it is dropped.
    until: Option<u64>,
}

/// SHA-256 of a token, in hexadecimal. A token is random, so nothing slower is needed.
pub(crate) fn hash(token: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(token.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A new token: 256 random bits, in letters that no quoting changes.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn generate() -> Result<String, getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&secret))
}

impl State {
    /// Who has the token of this hash may ask for this VM; whether there is room for one more.
    pub(crate) fn add_token(&mut self, hash: String, vm: &str, now: u64, until: Option<u64>) -> bool {
        self.web_tokens.retain(|_, token| token.until.is_none_or(|until| until > now));
        if self.web_tokens.len() >= TOKENS {
            return false;
        }
        self.web_tokens.insert(hash, Token { vm: vm.to_owned(), until });
        true
    }

    /// The VM that the token of this hash is for, if it is one at this time.
    pub(crate) fn token_vm(&self, hash: &str, now: u64) -> Option<&str> {
        let token = self.web_tokens.get(hash)?;
        token.until.is_none_or(|until| until > now).then_some(token.vm.as_str())
    }

    /// All tokens for this VM are good for nothing any more; how many there were.
    pub(crate) fn drop_tokens(&mut self, vm: &str) -> usize {
        let before = self.web_tokens.len();
        self.web_tokens.retain(|_, token| token.vm != vm);
        before - self.web_tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_vm_until_its_time_is_over_or_it_is_dropped() {
        let mut state = State::default();
        assert!(state.add_token(hash("short"), "a", 100, Some(160)));
        assert!(state.add_token(hash("long"), "a", 100, None));
        assert!(state.add_token(hash("other"), "b", 100, None));
        assert_eq!(state.token_vm(&hash("short"), 159), Some("a"));
        assert_eq!(state.token_vm(&hash("short"), 160), None);
        assert_eq!(state.token_vm(&hash("long"), u64::MAX), Some("a"));
        assert_eq!(state.token_vm(&hash("unknown"), 100), None);
        assert!(!serde_json::to_string(&state).unwrap().contains("\"long\""), "the token itself is kept");
        assert_eq!(state.drop_tokens("a"), 2);
        assert_eq!(state.token_vm(&hash("long"), 100), None);
        assert_eq!(state.token_vm(&hash("other"), 100), Some("b"));
    }

    #[test]
    fn tokens_are_bounded_and_those_that_are_over_make_room() {
        let mut state = State::default();
        assert!((0..TOKENS).all(|n| state.add_token(n.to_string(), "a", 100, Some(200))));
        assert!(!state.add_token("one more".to_owned(), "a", 199, None));
        assert!(state.add_token("one more".to_owned(), "a", 200, None));
    }

    #[test]
    fn tokens_differ_and_are_plain_text() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert!(one.len() == 43 && one.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)));
    }
}
