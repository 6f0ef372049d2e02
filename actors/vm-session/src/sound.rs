//! Sound between the HD Audio controller and the remote: what must outlive either of them, and what may be lost.

use std::{collections::BTreeMap, time::Duration};

use hda_ctrl::Jacks;
use tokio::sync::{broadcast, watch};
use wire::audio::{Coded, StreamId, ToHost, ToRemote};

/// Reports on their way into the controller: packets of 5 ms are late long before so many wait.
const REPORTS: usize = 64;
/// The longest packet of a microphone, bytes: 40 ms of the widest stereo. A guest waits while it is copied.
const PACKET: usize = 64 << 10;

/// What the session knows of sound.
pub(crate) struct Sound {
    /// A channel that drops its oldest: data never waits for the controller, nor fills its mailbox.
    reports: broadcast::Sender<ToHost>,
    /// Survives the controller's actor: the next one finds what is plugged in.
    jacks: watch::Sender<Jacks>,
    /// How long a message to the remote and its answer take, as far as it is known.
    round_trip: watch::Sender<Option<Duration>>,
    /// What the remote was asked to record.
    recordings: BTreeMap<StreamId, u32>,
}

impl Default for Sound {
    fn default() -> Self {
        let (jacks, round_trip) = (watch::Sender::default(), watch::Sender::default());
        Self { reports: broadcast::Sender::new(REPORTS), jacks, round_trip, recordings: BTreeMap::new() }
    }
}

impl Sound {
    /// Reports from now on, for a new controller.
    pub(crate) fn reports(&self) -> broadcast::Receiver<ToHost> {
        self.reports.subscribe()
    }

    /// What is plugged in, for a new controller.
    pub(crate) fn jacks(&self) -> watch::Receiver<Jacks> {
        self.jacks.subscribe()
    }

    /// The round trip, for a new controller.
    pub(crate) fn round_trip(&self) -> watch::Receiver<Option<Duration>> {
        self.round_trip.subscribe()
    }

    /// The round trip is this from now on.
    pub(crate) fn set_round_trip(&self, round_trip: Option<Duration>) {
        self.round_trip.send_replace(round_trip);
    }

    /// Takes what the remote says. Without a controller only the jacks are remembered.
    pub(crate) fn hear(&self, report: ToHost) {
        match report {
            ToHost::Jack { jack, present } => {
                self.jacks.send_if_modified(|jacks| jacks.set(jack, present));
            }
            ToHost::RecordedCoded(coded) if weight(&coded) > PACKET => {
                tracing::debug!(?coded, "a packet that is too long");
            }
            // Nobody may be there to hear it.
            ToHost::RecordedCoded(_) | ToHost::Reception(_) | ToHost::Missing(_) => {
                drop(self.reports.send(report))
            }
        }
    }

    /// The remote is gone, and with it what was plugged in.
    pub(crate) fn unplug(&mut self) {
        self.recordings.clear();
        self.jacks.send_if_modified(|jacks| std::mem::take(jacks) != Jacks::default());
    }

    /// Remembers what goes to the remote. The frames of sound in it.
    pub(crate) fn note(&mut self, messages: &[ToRemote]) -> u64 {
        let mut frames = 0;
        for message in messages {
            match message {
                ToRemote::PlayCoded(coded) => frames += u64::from(coded.block.frames),
                ToRemote::Record { stream, run, .. } => drop(self.recordings.insert(*stream, *run)),
                ToRemote::StopRecord { stream, .. } => drop(self.recordings.remove(stream)),
                ToRemote::Pause { .. }
                | ToRemote::Reception(_)
                | ToRemote::Missing(_)
                | ToRemote::Volume(_)
                | ToRemote::Apart { .. } => {}
            }
        }
        frames
    }

    /// The controller is gone: what ends its recordings.
    pub(crate) fn stop_recordings(&mut self) -> impl Iterator<Item = ToRemote> + use<> {
        let recordings = std::mem::take(&mut self.recordings).into_iter();
        recordings.map(|(stream, run)| ToRemote::StopRecord { stream, run })
    }
}

/// The bytes that a packet brings.
fn weight(coded: &Coded) -> usize {
    coded.copies.iter().chain([&coded.block]).map(|block| block.payload.len()).sum()
}

#[cfg(test)]
mod tests {
    use wire::audio::{Block, Codec, Encoding, Format, Jack};

    use super::*;

    fn recorded(position: u64, length: usize) -> ToHost {
        let format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
        let block = Block { position, frames: 1, codec: Codec::Pcm, payload: vec![0; length].into() };
        let (stream, run, again, copies) = (StreamId(0), 1, false, Vec::new());
        ToHost::RecordedCoded(Coded { stream, run, again, format, block, copies })
    }

    #[test]
    fn of_reports_that_find_no_room_the_oldest_are_lost() {
        let sound = Sound::default();
        let mut reports = sound.reports();
        (0..REPORTS as u64 + 3).for_each(|n| sound.hear(recorded(n, 4)));
        assert!(matches!(reports.try_recv(), Err(broadcast::error::TryRecvError::Lagged(3))));
        assert_eq!(reports.try_recv(), Ok(recorded(3, 4)));
    }

    #[test]
    fn a_packet_that_would_keep_the_guest_waiting_is_lost() {
        let sound = Sound::default();
        let mut reports = sound.reports();
        sound.hear(recorded(0, PACKET + 4));
        sound.hear(recorded(1, PACKET));
        assert_eq!(reports.try_recv(), Ok(recorded(1, PACKET)));
    }

    #[test]
    fn a_new_controller_finds_what_is_plugged_in_and_after_a_lost_link_nothing() {
        let mut sound = Sound::default();
        sound.hear(ToHost::Jack { jack: Jack::Microphone, present: true });
        let jacks = sound.jacks();
        assert_eq!(*jacks.borrow(), Jacks { microphone: true, headphone: false });
        sound.unplug();
        assert!(jacks.has_changed().unwrap());
        assert_eq!(*jacks.borrow(), Jacks::default());
    }

    #[test]
    fn recordings_of_a_controller_that_is_gone_are_stopped_once() {
        let format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
        let record = |stream, run| ToRemote::Record { stream: StreamId(stream), run, format };
        let stop = |stream, run| ToRemote::StopRecord { stream: StreamId(stream), run };
        let mut sound = Sound::default();
        sound.note(&[record(0, 1), record(1, 2), stop(0, 1)]);
        assert_eq!(sound.stop_recordings().collect::<Vec<_>>(), [stop(1, 2)]);
        assert_eq!(sound.stop_recordings().count(), 0);
    }
}
