//! What is played, on its way to the remote: a sender for each stream's run, and how it is sent by what the remote says.
//!
//! ```text
//!   hda ── Play, Pause ──► Sender ── PlayCoded ──► remote
//!                            ▲ plan                  │
//!                          Chooser ◄── Reception ────┤
//!                          Sender  ◄── Missing ──────┘
//! ```

use std::{collections::BTreeMap, time::Duration};

use sound::{
    Sender,
    choice::{Chooser, Link, Plan, Wish},
};
use wire::audio::{Codec, Format, Missing, Packet, Reception, StreamId, ToRemote, Volume};

/// All streams that play.
#[derive(Debug)]
pub(crate) struct Playback {
    wish: Wish,
    link: Link,
    streams: BTreeMap<StreamId, Stream>,
    /// How loud the guest has them: one who comes later has to hear it.
    volumes: BTreeMap<StreamId, Volume>,
}

/// One of them. It outlives its runs, so that the next one begins with what is known of the link.
#[derive(Debug)]
struct Stream {
    run: u32,
    format: Format,
    sender: Sender,
    chooser: Chooser,
    /// As the remote was told last.
    plan: Plan,
}

impl Playback {
    pub(crate) fn new(wish: Wish) -> Self {
        Self { wish, link: Link::default(), streams: BTreeMap::new(), volumes: BTreeMap::new() }
    }

    /// How long a message to the remote and its answer take; none: that is not known.
    pub(crate) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.link.round_trip = round_trip.unwrap_or_default();
    }

    /// Another remote has come: nothing is known of the way to it, and it has heard nothing. What to tell it.
    pub(crate) fn begin_anew(&mut self) -> Vec<ToRemote> {
        self.streams.clear();
        self.volumes.values().copied().map(ToRemote::Volume).collect()
    }

    /// Takes what the model has for the remote, and appends what goes there.
    pub(crate) fn send(&mut self, now: Duration, message: ToRemote, out: &mut Vec<ToRemote>) {
        let mut coded = Vec::new();
        match &message {
            ToRemote::Play(packet) => self.push(now, packet, &mut coded),
            ToRemote::Pause { stream, run, .. } => {
                if let Some(stream) = self.streams.get_mut(stream).filter(|stream| stream.run == *run) {
                    stream.sender.flush(now, &mut coded);
                }
            }
            ToRemote::Volume(volume) => drop(self.volumes.insert(volume.stream, *volume)),
            _ => {}
        }
        out.extend(coded.into_iter().map(ToRemote::PlayCoded));
        if !matches!(message, ToRemote::Play(_)) {
            out.push(message);
        }
    }

    fn push(&mut self, now: Duration, packet: &Packet, out: &mut Vec<wire::audio::Coded>) {
        let Packet { stream, run, position, format, ref pcm } = *packet;
        let (wish, link) = (self.wish, self.link);
        let sender = |plan| Sender::new(stream, run, format, position, plan);
        let stream = self.streams.entry(stream).or_insert_with(|| {
            let chooser = Chooser::new(wish, format);
            let plan = chooser.plan(link);
            Stream { run, format, sender: sender(plan), chooser, plan }
        });
        if stream.format != format {
            stream.chooser = Chooser::new(wish, format);
            stream.plan = stream.chooser.plan(link);
        }
        // Frames that were not heard, as no way led to a speaker, are in no packet.
        if (stream.run, stream.format, stream.sender.position()) != (run, format, position) {
            stream.sender.flush(now, out);
            (stream.run, stream.format, stream.sender) = (run, format, sender(stream.plan));
        }
        stream.sender.push(now, pcm, out);
    }

    /// What the remote says of its end; whether it is about a run that plays.
    pub(crate) fn observe(&mut self, now: Duration, reception: &Reception) -> bool {
        let Some(stream) = self.streams.get_mut(&reception.stream) else { return false };
        if stream.run != reception.run {
            return false;
        }
        let plan = stream.chooser.observe(now, reception, self.link);
        if plan != stream.plan {
            tracing::info!(stream = reception.stream.0, ?plan, "sound is sent in another way");
            (stream.plan, ()) = (plan, stream.sender.set_plan(plan));
        }
        stream.measure(reception, self.link);
        true
    }

    /// Sends once more what the remote lacks, as far as that makes sense.
    pub(crate) fn answer(&mut self, missing: &Missing, out: &mut Vec<ToRemote>) {
        let mut coded = Vec::new();
        if let Some(stream) = self.streams.get_mut(&missing.stream) {
            stream.sender.answer(missing, &mut coded);
        }
        out.extend(coded.into_iter().map(ToRemote::PlayCoded));
    }
}

impl Stream {
    /// What an operator sees. Times in milliseconds; the way there is taken for half of the way there and back.
    fn measure(&self, reception: &Reception, link: Link) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let labels = [("stream", reception.stream.0.to_string())];
        let gauge = |name: &'static str, value: f64| metrics::gauge!(name, &labels).set(value);
        let Format { rate, encoding, channels } = self.format;
        gauge("farbus_play_rate_hz", rate.into());
        gauge("farbus_play_bits", encoding.significant_bits().into());
        gauge("farbus_play_channels", channels.into());
        gauge("farbus_play_opus", if self.plan.codec == Codec::Opus { 1.0 } else { 0.0 });
        gauge("farbus_play_latency_ms", millis(reception.level + link.round_trip / 2));
        gauge("farbus_play_round_trip_ms", millis(link.round_trip));
        gauge("farbus_play_jitter_ms", millis(reception.jitter));
        gauge("farbus_play_loss_ppm", reception.loss.into());
        gauge("farbus_play_concealed_frames", reception.concealed.into());
        gauge("farbus_play_slipped_frames", reception.slipped.into());
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Encoding;

    use super::*;

    const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
    const STREAM: StreamId = StreamId(4);

    fn play(playback: &mut Playback, run: u32, position: u64, frames: usize) -> Vec<ToRemote> {
        let pcm: Vec<u8> = (0..4 * frames).map(|n| n as u8).collect();
        let packet = Packet { stream: STREAM, run, position, format: FORMAT, pcm: pcm.into() };
        let mut out = Vec::new();
        playback.send(Duration::from_millis(position / 48), ToRemote::Play(packet), &mut out);
        out
    }

    fn blocks(messages: &[ToRemote]) -> Vec<(u32, u64, u16, Codec)> {
        let block = |message: &ToRemote| match message {
            ToRemote::PlayCoded(coded) => {
                Some((coded.run, coded.block.position, coded.block.frames, coded.block.codec))
            }
            _ => None,
        };
        messages.iter().filter_map(block).collect()
    }

    fn reception(loss: u32) -> Reception {
        Reception {
            stream: STREAM,
            run: 1,
            position: 0,
            at: Duration::ZERO,
            level: Duration::from_millis(20),
            target: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss,
            burst: 100,
            concealed: 0,
            slipped: 0,
            late: 0,
            duplicate: 0,
        }
    }

    #[test]
    fn a_packet_of_pcm_leaves_at_once_and_as_it_is() {
        let mut playback = Playback::new(Wish::Auto);
        let sent = play(&mut playback, 1, 0, 240);
        assert_eq!(blocks(&sent), [(1, 0, 240, Codec::Pcm)]);
        let ToRemote::PlayCoded(coded) = &sent[0] else { panic!("{sent:?}") };
        assert!(coded.block.payload.iter().enumerate().all(|(n, byte)| *byte == n as u8));
    }

    #[test]
    fn a_pause_comes_behind_everything_that_was_played() {
        let mut playback = Playback::new(Wish::Opus);
        assert!(play(&mut playback, 1, 0, 100).is_empty());
        let mut out = Vec::new();
        let pause = ToRemote::Pause { stream: STREAM, run: 1, position: 100 };
        playback.send(Duration::ZERO, pause.clone(), &mut out);
        assert_eq!((blocks(&out), out.last()), (vec![(1, 0, 100, Codec::Pcm)], Some(&pause)));
    }

    #[test]
    fn frames_that_nobody_was_to_hear_leave_their_place_and_another_run_begins_anew() {
        let mut playback = Playback::new(Wish::Pcm);
        play(&mut playback, 1, 0, 100);
        let sent = play(&mut playback, 1, 1_000, 240);
        assert_eq!(blocks(&sent), [(1, 0, 100, Codec::Pcm), (1, 1_000, 240, Codec::Pcm)]);
        assert_eq!(blocks(&play(&mut playback, 2, 0, 240)), [(2, 0, 240, Codec::Pcm)]);
    }

    #[test]
    fn a_link_that_loses_gets_opus_unless_the_user_wants_otherwise_and_the_next_run_knows() {
        for (wish, codec) in [(Wish::Auto, Codec::Opus), (Wish::Pcm, Codec::Pcm)] {
            let mut playback = Playback::new(wish);
            play(&mut playback, 1, 0, 240);
            for n in 0..100 {
                assert!(playback.observe(Duration::from_millis(100 * n), &reception(50_000)));
            }
            assert_eq!(blocks(&play(&mut playback, 1, 240, 240))[0].3, codec, "{wish:?}");
            assert_eq!(blocks(&play(&mut playback, 2, 0, 240))[0].3, codec, "{wish:?}");
            assert!(!playback.observe(Duration::ZERO, &reception(0)), "of a run that is over");
            assert_eq!(playback.begin_anew(), []);
            assert_eq!(blocks(&play(&mut playback, 3, 0, 240))[0].3, Codec::Pcm);
        }
    }

    #[test]
    fn a_remote_that_comes_later_hears_how_loud_it_is() {
        let mut playback = Playback::new(Wish::Auto);
        let volume = |gain| ToRemote::Volume(Volume { stream: STREAM, gain, mute: false });
        let mut out = Vec::new();
        [-256, -512].into_iter().for_each(|gain| playback.send(Duration::ZERO, volume(gain), &mut out));
        assert_eq!((out, playback.begin_anew()), (vec![volume(-256), volume(-512)], vec![volume(-512)]));
    }

    #[test]
    fn what_is_missing_is_sent_once_more() {
        let mut playback = Playback::new(Wish::Pcm);
        play(&mut playback, 1, 0, 240);
        play(&mut playback, 1, 240, 240);
        let mut out = Vec::new();
        let missing = Missing { stream: STREAM, run: 1, gaps: vec![(240, 240)] };
        playback.answer(&missing, &mut out);
        assert_eq!(blocks(&out), [(1, 240, 240, Codec::Pcm)]);
        out.clear();
        playback.answer(&missing, &mut out);
        playback.answer(&Missing { stream: StreamId(200), ..missing }, &mut out);
        assert_eq!(out, []);
    }
}
