//! What strangers get before they have shown who they are: a place for a moment, and a little work. A value; time
//! comes in, connections are whatever stands for them.
//!
//! - **Places.** At most [`hall::PLACES`] connections are half open. One more takes the place of the connection that has
//!   waited longest among those of the source that has most: who floods pushes out himself, and a remote that speaks
//!   as soon as it is connected, as all do, is heard before its place is taken.
//! - **Work.** To read who somebody is costs two Diffie-Hellman operations, and a pairing more. Each source may cause so
//!   much of it, and all together so much; who has no more is not read.
//! - **Trust.** A source from which a remote has proved its key keeps its place while there is anybody else to push
//!   out, and does not pay into what all together may cause: a flood from everywhere does not keep it out. Every door
//!   trusts whom one trusts: a page that comes by the web endpoint has proved its key as any remote has.
//!
//! Not done: a remote behind the same address as a flood of well-formed first messages shares its source's work, and
//! has to try again until it is lucky; a flood of connections that say nothing does not touch it.

mod buckets;
mod hall;
mod source;

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use buckets::Buckets;
use hall::Hall;
pub(super) use hall::PlaceId;
pub(super) use source::Source;

/// The sources that are trusted at the same time.
const TRUSTED: usize = 256;

/// The sources from which remotes have proved their keys last; all doors have the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Trusted(
    /// The one that proved a key last is at the end.
    Rc<RefCell<VecDeque<Source>>>,
);

impl Trusted {
    /// A remote has proved its key from there.
    pub(super) fn trust(&self, source: Source) {
        let mut trusted = self.0.borrow_mut();
        trusted.retain(|known| *known != source);
        if trusted.len() == TRUSTED {
            trusted.pop_front();
        }
        trusted.push_back(source);
    }

    fn trusts(&self, source: Source) -> bool {
        self.0.borrow().contains(&source)
    }
}

/// All limits of a door; `T` stands for a connection.
#[derive(Debug)]
pub(super) struct Limits<T> {
    hall: Hall<T>,
    buckets: Buckets,
    trusted: Trusted,
}

impl<T> Limits<T> {
    /// Those of a door at which nobody has been yet.
    pub(super) fn new(trusted: &Trusted) -> Self {
        Self { hall: Hall::default(), buckets: Buckets::default(), trusted: trusted.clone() }
    }

    /// A number for a connection that is about to enter.
    pub(super) fn number(&mut self) -> PlaceId {
        self.hall.number()
    }

    /// A connection enters; the one that has to leave for it.
    pub(super) fn enter(&mut self, id: PlaceId, source: Source, connection: T) -> Option<T> {
        let trusted = self.trusted.trusts(source);
        self.hall.enter(id, source, trusted, connection)
    }

    /// A connection has shown who it is, or is gone.
    pub(super) fn leave(&mut self, id: PlaceId) {
        self.hall.leave(id);
    }

    /// Whether somebody from there may cause the work of being read.
    pub(super) fn afford(&mut self, source: Source, now: Duration) -> bool {
        let trusted = self.trusted.trusts(source);
        self.buckets.take(source, trusted, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn trust_is_for_the_sources_that_proved_a_key_last() {
        let trusted = Trusted::default();
        let many = |n: usize| Source::of([10, 0, (n >> 8) as u8, n as u8].into());
        (0..TRUSTED).for_each(|n| trusted.trust(many(n)));
        trusted.trust(many(0));
        trusted.trust(source(1));
        assert!(trusted.trusts(many(0)) && trusted.trusts(source(1)));
        assert!(!trusted.trusts(many(1)), "the one that proved a key longest ago");
    }

    #[test]
    fn a_flood_from_everywhere_does_not_use_up_what_a_trusted_source_may_cause_at_any_door() {
        let trusted = Trusted::default();
        let mut doors = [Limits::<usize>::new(&trusted), Limits::new(&trusted)];
        // Whichever of them it came by.
        trusted.trust(source(1));
        for limits in &mut doors {
            let place = limits.number();
            assert_eq!(limits.enter(place, source(1), usize::MAX), None);
            let strangers = (0..10_000usize).map(|n| Source::of([10, 0, (n >> 8) as u8, n as u8].into()));
            let read = strangers.enumerate().filter(|(n, stranger)| {
                let place = limits.number();
                assert_ne!(limits.enter(place, *stranger, *n), Some(usize::MAX), "who is trusted stays");
                limits.afford(*stranger, Duration::ZERO)
            });
            let read = read.count();
            assert!(read < 1000, "{read} strangers were read at once");
            assert!(!limits.afford(source(2), Duration::ZERO));
            assert!(limits.afford(source(1), Duration::ZERO));
        }
    }
}
