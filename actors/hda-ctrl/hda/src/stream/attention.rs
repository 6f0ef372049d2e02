//! Whether anybody still attends to a playback ring.
//!
//! A guest that hangs, or that its VMM has paused, leaves a ring that is played again and again. No bus says so; but its
//! interrupts stay unacknowledged, and its sound stays the same. When a lap passes without any acknowledgement and the
//! next one sounds the same, that is the last one that is heard, until either changes. Rings that do not interrupt are
//! left alone.

/// Watches one run.
#[derive(Debug)]
pub(crate) struct Attention {
    /// The bytes of a lap, at least 1.
    lap: u64,
    /// Bytes of this lap so far, and what they were if anybody needs to know.
    bytes: u64,
    sound: Hash,
    /// What the lap before sounded like, if it was not acknowledged either.
    before: Option<Hash>,
    /// A completion has waited for its acknowledgement since this lap began, or before.
    unacknowledged: bool,
    lost: bool,
}

/// FNV-1a: no guest gains anything by a collision but its own silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hash(u64);

impl Hash {
    const START: Self = Self(0xcbf2_9ce4_8422_2325);

    fn with(self, sound: &[u8]) -> Self {
        Self(sound.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
    }
}

impl Attention {
    pub(crate) fn new(lap: u64) -> Self {
        Self {
            lap: lap.max(1),
            bytes: 0,
            sound: Hash::START,
            before: None,
            unacknowledged: false,
            lost: false,
        }
    }

    /// Nobody attends to the ring any more.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }

    /// The guest has acknowledged a completion.
    pub(crate) fn acknowledged(&mut self) {
        (self.unacknowledged, self.before, self.lost) = (false, None, false);
    }

    /// The next bytes of the ring, as they are in memory. `waiting`: a completion that interrupts is not acknowledged.
    pub(crate) fn hear(&mut self, mut sound: &[u8], waiting: bool) {
        while !sound.is_empty() {
            let left = usize::try_from(self.lap - self.bytes).unwrap_or(usize::MAX);
            let (now, later) = sound.split_at(sound.len().min(left));
            if self.unacknowledged {
                self.sound = self.sound.with(now);
            }
            self.bytes += now.len() as u64;
            if self.bytes == self.lap {
                self.end_lap(waiting);
            }
            sound = later;
        }
    }

    fn end_lap(&mut self, waiting: bool) {
        let sound = self.unacknowledged.then_some(self.sound);
        self.lost = sound.is_some() && sound == self.before;
        self.before = sound;
        self.unacknowledged = waiting;
        (self.bytes, self.sound) = (0, Hash::START);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAP: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];

    /// Hears a lap, cut in pieces.
    fn lap(attention: &mut Attention, sound: &[u8], waiting: bool) {
        for piece in sound.chunks(3) {
            attention.hear(piece, waiting);
        }
    }

    #[test]
    fn a_lap_that_is_unacknowledged_and_unchanged_is_the_last() {
        let mut attention = Attention::new(8);
        lap(&mut attention, LAP, true);
        assert!(!attention.lost(), "it began before the completion");
        lap(&mut attention, LAP, true);
        assert!(!attention.lost(), "it may have been refilled before");
        lap(&mut attention, LAP, true);
        assert!(attention.lost());
        lap(&mut attention, LAP, true);
        assert!(attention.lost());
        attention.acknowledged();
        assert!(!attention.lost());
    }

    #[test]
    fn an_acknowledgement_a_change_or_no_interrupts_at_all_keep_it() {
        let mut attention = Attention::new(8);
        for _ in 0..5 {
            lap(&mut attention, LAP, false);
            assert!(!attention.lost(), "a ring without interrupts");
        }
        for n in 0..5 {
            lap(&mut attention, &[n; 8], true);
            assert!(!attention.lost(), "a guest that refills without acknowledging");
        }
        for _ in 0..5 {
            attention.acknowledged();
            lap(&mut attention, &[9; 8], true);
            assert!(!attention.lost(), "a guest that loops on purpose");
        }
    }

    #[test]
    fn a_change_is_heard_again() {
        let mut attention = Attention::new(8);
        (0..3).for_each(|_| lap(&mut attention, LAP, true));
        assert!(attention.lost());
        lap(&mut attention, &[0; 8], true);
        assert!(!attention.lost());
    }
}
