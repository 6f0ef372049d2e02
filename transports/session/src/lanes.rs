//! One of something for each lane.

use wire::Lane;

#[derive(Debug, Default)]
pub(crate) struct Lanes<T> {
    ctl: T,
    int: T,
    audio: T,
    iso: T,
    bulk: T,
}

/// The lanes that must not lose, most urgent first.
pub(crate) const RELIABLE: [Lane; 3] = [Lane::Ctl, Lane::Int, Lane::Bulk];

impl<T> Lanes<T> {
    pub(crate) fn new(mut make: impl FnMut(Lane) -> T) -> Self {
        Self {
            ctl: make(Lane::Ctl),
            int: make(Lane::Int),
            audio: make(Lane::Audio),
            iso: make(Lane::Iso),
            bulk: make(Lane::Bulk),
        }
    }

    pub(crate) fn of(&self, lane: Lane) -> &T {
        match lane {
            Lane::Ctl => &self.ctl,
            Lane::Int => &self.int,
            Lane::Audio => &self.audio,
            Lane::Iso => &self.iso,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(crate) fn of_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Ctl => &mut self.ctl,
            Lane::Int => &mut self.int,
            Lane::Audio => &mut self.audio,
            Lane::Iso => &mut self.iso,
            Lane::Bulk => &mut self.bulk,
        }
    }
}
