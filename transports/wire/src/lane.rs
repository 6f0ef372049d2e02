//! Lanes: what may overtake what.

/// One of the five lanes of a session, most urgent first. Order is kept within a lane, never across lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Control messages: attach, detach, cancel, reset.
    Ctl = 0,
    /// Control and interrupt transfers.
    Int = 1,
    /// Sound. May lose: late is lost.
    Audio = 2,
    /// Isochronous data and device state. May lose.
    Iso = 3,
    /// Bulk transfers.
    Bulk = 4,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 5] = [Self::Ctl, Self::Int, Self::Audio, Self::Iso, Self::Bulk];

    /// The lane with this number, if there is one.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| *lane as u8 == number)
    }

    /// Whether a message of this lane may be lost on the way.
    #[must_use]
    pub fn may_lose(self) -> bool {
        matches!(self, Self::Audio | Self::Iso)
    }
}
