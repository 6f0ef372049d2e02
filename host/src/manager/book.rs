//! The pairing code of the moment: valid once, for a while, for a few tries. A value; time comes in.
//!
//! ```text
//!   none ──open──► valid ──spend──► valid, one try less ──succeeded──► none (paired)
//!                    │  │                    └─failed, no try left──► none (burned)
//!                    │  └──open──► another one is valid (replaced)
//!                    └──its time is over──► none (expired)
//! ```

use std::time::Duration;

use noise_tcp::pairing::Code;

/// How long a code is valid.
pub(super) const VALID: Duration = Duration::from_secs(120);
/// How often a code may be tried.
pub(super) const TRIES: u8 = 3;

/// The number of a code; none is used twice.
pub(super) type Number = u64;

/// The book: one code at a time.
#[derive(Debug, Default)]
pub(super) struct Book {
    last: Number,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    number: Number,
    vm: String,
    code: Code,
    until: Duration,
    left: u8,
}

impl Book {
    /// A new code for this VM; the one before, if there is one, is not valid any more.
    pub(super) fn open(&mut self, vm: &str, code: Code, now: Duration) -> Number {
        self.last += 1;
        self.open =
            Some(Open { number: self.last, vm: vm.to_owned(), code, until: now + VALID, left: TRIES });
        self.last
    }

    /// The code to offer to somebody who asks for a pairing.
    pub(super) fn offer(&self, now: Duration) -> Option<(Number, Code)> {
        let open = self.open.as_ref().filter(|open| open.until > now && open.left > 0)?;
        Some((open.number, open.code.clone()))
    }

    /// Spends a try of this code; how many are left. It comes before the proof is looked at, so that no number of
    /// connections at the same time gets more tries.
    pub(super) fn spend(&mut self, number: Number, now: Duration) -> Option<u8> {
        let open = self.valid(number, now).filter(|open| open.left > 0)?;
        open.left -= 1;
        Some(open.left)
    }

    /// The code was known: its VM. It is used now.
    pub(super) fn succeeded(&mut self, number: Number, now: Duration) -> Option<String> {
        self.valid(number, now)?;
        self.open.take().map(|open| open.vm)
    }

    /// The code was not known; whether it is burned now.
    pub(super) fn failed(&mut self, number: Number) -> bool {
        let burned = self.open.as_ref().is_some_and(|open| open.number == number && open.left == 0);
        if burned {
            self.open = None;
        }
        burned
    }

    /// Whether this code was still there, and its time is over now.
    pub(super) fn expire(&mut self, number: Number, now: Duration) -> bool {
        let expired = self.open.as_ref().is_some_and(|open| open.number == number && open.until <= now);
        if expired {
            self.open = None;
        }
        expired
    }

    /// Whether this is the code of the moment.
    pub(super) fn has(&self, number: Number) -> bool {
        self.open.as_ref().is_some_and(|open| open.number == number)
    }

    fn valid(&mut self, number: Number, now: Duration) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| open.number == number && open.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn opened() -> (Book, Number) {
        let mut book = Book::default();
        let number = book.open("a", Code::generate(), START);
        (book, number)
    }

    #[test]
    fn a_code_is_good_for_one_pairing() {
        let (mut book, number) = opened();
        assert_eq!(book.offer(START).unwrap().0, number);
        assert_eq!(book.spend(number, START), Some(2));
        assert_eq!(book.succeeded(number, START).as_deref(), Some("a"));
        assert!(book.offer(START).is_none() && !book.has(number));
        assert_eq!(book.spend(number, START), None, "somebody who came at the same time comes too late");
        assert_eq!(book.succeeded(number, START), None);
    }

    #[test]
    fn three_tries_burn_a_code_however_many_come_at_once() {
        let (mut book, number) = opened();
        let tries = [book.spend(number, START), book.spend(number, START), book.spend(number, START)];
        assert_eq!(tries, [Some(2), Some(1), Some(0)]);
        assert_eq!(book.spend(number, START), None, "a fourth at the same time");
        assert!(book.offer(START).is_none(), "nobody new is let try while the last try is judged");
        assert!(book.failed(number));
        assert!(!book.failed(number) && !book.has(number), "it burns once");
        assert_eq!(book.succeeded(number, START), None);
    }

    #[test]
    fn the_last_try_may_be_the_right_one() {
        let (mut book, number) = opened();
        for left in [2, 1] {
            assert_eq!(book.spend(number, START), Some(left));
            assert!(!book.failed(number));
        }
        assert_eq!(book.spend(number, START), Some(0));
        assert_eq!(book.succeeded(number, START).as_deref(), Some("a"));
    }

    #[test]
    fn a_code_expires_after_two_minutes() {
        let (mut book, number) = opened();
        let last = START + VALID - Duration::from_nanos(1);
        assert!(book.offer(last).is_some() && !book.expire(number, last));
        let over = START + VALID;
        assert!(book.offer(over).is_none());
        assert_eq!(book.spend(number, over), None);
        assert_eq!(book.succeeded(number, over), None, "its proof was on the way for too long");
        assert!(book.expire(number, over) && !book.expire(number, over));
    }

    #[test]
    fn a_newer_code_takes_the_place_of_an_older_one() {
        let (mut book, old) = opened();
        let new = book.open("b", Code::generate(), START);
        assert!(book.has(new) && !book.has(old));
        assert_eq!(book.spend(old, START), None);
        assert!(!book.expire(old, START + VALID), "the older one's end does not end the newer one");
        assert_eq!(book.spend(new, START), Some(2));
        assert_eq!(book.succeeded(new, START).as_deref(), Some("b"));
    }
}
