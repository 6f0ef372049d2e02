//! The runs of the streams that play, on their way to packets.

use std::{collections::BTreeMap, time::Duration};

use hda::Packet;
use sound::{Sender, choice::Plan};
use wire::audio::{Coded, Format, Missing, StreamId, ToRemote};

/// A sender for each stream's run.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<StreamId, Run>);

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    run: u32,
    format: Format,
    sender: Sender,
}

impl Run {
    /// Frames that are less than a packet.
    pub(super) fn waiting(&self) -> usize {
        self.sender.waiting()
    }
}

impl Runs {
    /// Takes frames, and appends the packets that are complete.
    pub(super) fn play(&mut self, now: Duration, packet: &Packet, plan: Plan, out: &mut Vec<ToRemote>) {
        let mut coded = Vec::new();
        let Packet { stream, run, position, format, ref pcm } = *packet;
        let begin = || Run { run, format, sender: Sender::new(stream, run, format, position, plan) };
        let current = self.0.entry(stream).or_insert_with(begin);
        // Frames that were not heard, as no way led to a speaker, are in no packet.
        if (current.run, current.format, current.sender.position()) != (run, format, position) {
            current.sender.flush(now, &mut coded);
            *current = begin();
        }
        current.sender.set_plan(plan);
        current.sender.push(now, pcm, &mut coded);
        send(coded, out);
    }

    /// No more frames follow for now: appends what is left of them.
    pub(super) fn flush(&mut self, now: Duration, stream: StreamId, run: u32, out: &mut Vec<ToRemote>) {
        let mut coded = Vec::new();
        if let Some(current) = self.0.get_mut(&stream).filter(|current| current.run == run) {
            current.sender.flush(now, &mut coded);
        }
        send(coded, out);
    }

    /// Appends once more what the remote lacks, as far as that makes sense.
    pub(super) fn answer(&mut self, missing: &Missing, out: &mut Vec<ToRemote>) {
        let mut coded = Vec::new();
        if let Some(current) = self.0.get_mut(&missing.stream) {
            current.sender.answer(missing, &mut coded);
        }
        send(coded, out);
    }

    /// Gives a stream's run away.
    pub(super) fn take(&mut self, stream: StreamId) -> Option<Run> {
        self.0.remove(&stream)
    }

    /// Goes on with a run from elsewhere.
    pub(super) fn adopt(&mut self, stream: StreamId, run: Run) {
        self.0.insert(stream, run);
    }

    /// Nothing plays any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn send(coded: Vec<Coded>, out: &mut Vec<ToRemote>) {
    out.extend(coded.into_iter().map(ToRemote::PlayCoded));
}
