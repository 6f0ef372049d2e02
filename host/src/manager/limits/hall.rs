//! The places for connections that have not shown who they are.

use super::Source;

/// Places in all.
pub(in crate::manager) const PLACES: usize = 32;
/// Places that connections of one source may have.
const PLACES_PER_SOURCE: usize = 16;

/// The number of a place; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manager) struct PlaceId(u64);

#[derive(Debug)]
struct Place<T> {
    id: PlaceId,
    source: Source,
    trusted: bool,
    connection: T,
}

/// The places that are taken, in the order of arrival.
#[derive(Debug)]
pub(super) struct Hall<T> {
    last: u64,
    places: Vec<Place<T>>,
}

impl<T> Default for Hall<T> {
    fn default() -> Self {
        Self { last: 0, places: Vec::with_capacity(PLACES) }
    }
}

impl<T> Hall<T> {
    pub(super) fn number(&mut self) -> PlaceId {
        self.last += 1;
        PlaceId(self.last)
    }

    pub(super) fn enter(&mut self, id: PlaceId, source: Source, trusted: bool, connection: T) -> Option<T> {
        let leaves = if self.count(source) >= PLACES_PER_SOURCE {
            self.places.iter().position(|place| place.source == source)
        } else if self.places.len() >= PLACES {
            self.noisiest()
        } else {
            None
        };
        let left = leaves.map(|at| self.places.remove(at).connection);
        self.places.push(Place { id, source, trusted, connection });
        left
    }

    pub(super) fn leave(&mut self, id: PlaceId) {
        self.places.retain(|place| place.id != id);
    }

    fn count(&self, source: Source) -> usize {
        self.places.iter().filter(|place| place.source == source).count()
    }

    /// Of the sources that have most places, first of those that nobody trusts: the connection that waits longest.
    fn noisiest(&self) -> Option<usize> {
        let rank = |(at, place): &(usize, &Place<T>)| {
            (!place.trusted, self.count(place.source), std::cmp::Reverse(*at))
        };
        self.places.iter().enumerate().max_by_key(rank).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    /// Connections are numbered as they come.
    struct World {
        hall: Hall<u32>,
        come: u32,
    }

    impl World {
        fn new() -> Self {
            Self { hall: Hall::default(), come: 0 }
        }

        fn enter(&mut self, from: u8, trusted: bool) -> (u32, Option<u32>) {
            self.come += 1;
            let id = self.hall.number();
            (self.come, self.hall.enter(id, source(from), trusted, self.come))
        }

        fn has(&self, connection: u32) -> bool {
            self.hall.places.iter().any(|place| place.connection == connection)
        }
    }

    #[test]
    fn a_source_that_floods_pushes_out_its_own_oldest_connection() {
        let mut world = World::new();
        let (quiet, _) = world.enter(1, false);
        for n in 0..10_000 {
            let (_, left) = world.enter(2, false);
            let expected = (n >= PLACES_PER_SOURCE as u32).then(|| n - PLACES_PER_SOURCE as u32 + 2);
            assert_eq!(left, expected);
        }
        assert!(world.has(quiet));
        assert_eq!(world.hall.places.len(), 1 + PLACES_PER_SOURCE);
    }

    #[test]
    fn a_newcomer_of_a_flooding_source_is_there_until_all_places_of_its_source_were_taken_once() {
        let mut world = World::new();
        for _ in 0..100 {
            world.enter(2, false);
        }
        let (newcomer, _) = world.enter(2, false);
        for _ in 1..PLACES_PER_SOURCE {
            world.enter(2, false);
            assert!(world.has(newcomer));
        }
        assert_eq!(world.enter(2, false).1, Some(newcomer));
    }

    #[test]
    fn when_all_is_full_the_oldest_connection_of_the_noisiest_source_leaves() {
        let mut world = World::new();
        let first = world.enter(9, false).0;
        let noisy: Vec<_> = (0..3).map(|_| world.enter(8, false).0).collect();
        for n in 0..(PLACES - 4) as u8 / 2 {
            world.enter(20 + n, false);
            world.enter(20 + n, false);
        }
        assert_eq!(world.hall.places.len(), PLACES);
        assert_eq!(world.enter(7, false).1, Some(noisy[0]));
        assert!(world.has(first), "it waits longest, but its source has one place only");
    }

    #[test]
    fn who_is_trusted_stays_while_there_is_anybody_else() {
        let mut world = World::new();
        let trusted = world.enter(1, true).0;
        for n in 0..200 {
            world.enter(2 + n, false);
            assert!(world.has(trusted));
        }
        assert_eq!(world.hall.places.len(), PLACES);
    }

    #[test]
    fn who_leaves_gives_the_place_back() {
        let mut world = World::new();
        let ids: Vec<_> = (0..PLACES)
            .map(|n| {
                let id = world.hall.number();
                assert_eq!(world.hall.enter(id, source(n as u8), false, 0), None);
                id
            })
            .collect();
        world.hall.leave(ids[3]);
        world.hall.leave(ids[3]);
        assert_eq!(world.enter(200, false).1, None);
        assert_eq!(world.enter(201, false).1, Some(0));
    }
}
