//! What the remote says: how far its sink is, what its microphone hears, what is plugged into its jacks.

use pci::Cx;
use wire::audio::{Jack, ToHost};

use super::Hda;
use crate::Output;
use crate::codec;
use crate::rirb::Response;

impl Hda {
    /// Takes what the remote says.
    pub fn report(&mut self, cx: &mut Cx<'_, Output>, report: ToHost) {
        match report {
            // Recorded; nothing follows from it yet.
            ToHost::Played { .. } => self.played = Some(report),
            ToHost::Recorded(_) => {}
            ToHost::Jack { jack, present } => self.set_jack(cx, jack, present),
        }
    }

    /// The last report of the remote's sink.
    #[must_use]
    pub fn last_played(&self) -> Option<&ToHost> {
        self.played.as_ref()
    }

    /// Something was plugged into a jack, or pulled out. The guest is told when that has been so for 100 ms. Jacks
    /// are empty when the model is made, and stay as they are through every reset.
    pub fn set_jack(&mut self, cx: &mut Cx<'_, Output>, jack: Jack, present: bool) {
        self.jacks.set(cx.now, jack, present);
    }

    /// Tells the guest of jacks that have changed. What streams sound like may change with it: they must have
    /// advanced to now.
    pub(super) fn look_at_jacks(&mut self, cx: &mut Cx<'_, Output>) {
        while let Some((jack, present)) = self.jacks.settled(cx.now) {
            match self.codec.plug(jack, present) {
                Some(value) if self.control.running() && self.control.accept_unsolicited() => {
                    self.rirb.store(cx.dma, Response { codec: codec::ADDRESS, value, solicited: false });
                    self.rirb.drained();
                }
                // Nobody listens: the codec wakes the link up. HDA 1.0a §3.3.9, §7.3.3.14.
                _ if !self.control.running() || self.codec.asleep() => {
                    self.state_change |= 1 << codec::ADDRESS
                }
                _ => {}
            }
        }
    }
}
