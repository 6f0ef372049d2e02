//! What the remote says: what its microphone hears, what is plugged into its jacks.

use pci::Cx;
use wire::audio::{Jack, StreamId};

use super::Hda;
use crate::clock::Drift;
use crate::codec;
use crate::rirb::Response;
use crate::stream::Stream;
use crate::{Output, Packet};

impl Hda {
    /// Takes frames for a recording that was asked for (`Record`): in its format, paced by the host's clock as the
    /// guest's is, numbered from its beginning. What nobody has asked for is dropped; what is missing when its time
    /// has come is silence; more than 150 ms never wait.
    pub fn captured(&mut self, packet: &Packet) {
        if let Some(stream) = self.streams.get_mut(usize::from(packet.stream.0)) {
            stream.captured(packet);
        }
    }

    /// Captured frames that wait for the guest to listen; `None` if it does not listen to this stream. It is what a
    /// resampler before [`Self::captured`] keeps constant.
    #[must_use]
    pub fn waiting(&self, stream: StreamId) -> Option<u64> {
        self.streams.get(usize::from(stream.0))?.waiting()
    }

    /// From now on the sample clock, and WALCLK with it, run faster than the host's time by so many parts per billion,
    /// within a million. Neither a position nor WALCLK steps: what has passed by now has passed at the old pace.
    pub fn set_drift(&mut self, cx: &Cx<'_, Output>, ppb: i32) {
        self.clock.set_drift(cx.now, Drift::new(ppb));
    }

    /// A remote has come that has been asked for nothing yet: it is asked for what the guest listens to.
    pub fn remote_came(&mut self, cx: &mut Cx<'_, Output>) {
        self.streams.iter_mut().for_each(Stream::forget_recording);
        self.settle(cx);
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
