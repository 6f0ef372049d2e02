//! Messages in and out of the session: queued by lane, written when the link has room, credited when accepted.

use std::{collections::VecDeque, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use link::Filled;
use session::{Event as SessionEvent, LinkId};
use tokio::sync::mpsc::{OwnedPermit, error::TrySendError};
use wire::{
    Lane, Message, ToHost, ToRemote,
    audio::{self, StreamId},
    control,
    usb::{self, Completion},
};

use crate::{Event, VmSession, live::Live};

/// Bytes of completions that the controller copies at a stretch: a guest's register access waits that long.
const BATCH_BYTES: u32 = 64 << 10;

/// Messages that the session has no room for yet. What USB may have in flight is bounded by the controller's credit, of
/// how the sound is only the latest waits, and sound itself drops its oldest inside the session: so this is bounded, too.
#[derive(Default)]
pub(crate) struct Backlog {
    lanes: [VecDeque<Message>; Lane::ALL.len()],
    /// How streams of sound are, the latest of each kind: a guest may change it as often as it likes.
    sound: VecDeque<(About, Message)>,
    /// Completions for which the controller's stream had no room, and the bytes to credit with them.
    completions: Vec<Completion>,
    credit: Vec<(Lane, usize)>,
    waiting: bool,
}

/// What a message says of a stream of sound.
type About = (Says, StreamId);

/// Of two messages that say the same of a stream the later one is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Playing,
    Recording,
    Volume,
    Clock,
}

/// What this message says, if a later one of its kind takes its place.
fn about(message: &ToRemote) -> Option<About> {
    match message {
        ToRemote::Audio(audio::ToRemote::Pause { stream, .. }) => Some((Says::Playing, *stream)),
        ToRemote::Audio(
            audio::ToRemote::Record { stream, .. } | audio::ToRemote::StopRecord { stream, .. },
        ) => Some((Says::Recording, *stream)),
        ToRemote::Audio(audio::ToRemote::Volume(volume)) => Some((Says::Volume, volume.stream)),
        ToRemote::Audio(audio::ToRemote::Apart { stream, .. }) => Some((Says::Clock, *stream)),
        _ => None,
    }
}

impl Backlog {
    /// Queues a message that says how a stream of sound is.
    fn say(&mut self, about: About, message: Message) {
        self.sound.retain(|(before, _)| *before != about);
        self.sound.push_back((about, message));
    }

    /// Bytes that wait for room on this lane of the session.
    pub(crate) fn waiting(&self, lane: Lane) -> usize {
        let sound = self.sound.iter().map(|(_, message)| message).filter(|message| message.lane == lane);
        self.lanes[lane as usize].iter().chain(sound).map(Message::len).sum()
    }

    /// Whether completions wait, and nothing waits for room for them.
    fn has_completions(&self) -> bool {
        !self.completions.is_empty() && !self.waiting
    }

    /// Ends of requests that the remote has not sent: there is no credit for them.
    pub(crate) fn make_up(&mut self, ends: Vec<Completion>) {
        self.credit.extend(ends.iter().map(|end| (end.lane, 0)));
        self.completions.extend(ends);
    }
}

impl VmSession {
    /// Records requests that go to the remote.
    pub(crate) fn record(&mut self, messages: &[usb::ToRemote]) {
        let Some(tap) = self.tap.as_mut().filter(|_| self.live.is_some()) else { return };
        for message in messages {
            if let Some(request) = message.request() {
                tap.submitted(&request);
            }
        }
    }

    /// Sends messages to the remote, now or when it has a link again; without a session they are dropped: nothing is
    /// lent then, and sound plays into silence.
    pub(crate) fn send(&mut self, messages: Vec<ToRemote>, ctx: &mut Context<Self>) {
        self.queue(messages);
        self.transmit(ctx);
    }

    /// Sends them at the next occasion.
    pub(crate) fn queue(&mut self, messages: Vec<ToRemote>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        for message in messages {
            let about = about(&message);
            let message = message.encode();
            if let Some(about) = about.filter(|_| !message.lane.may_lose()) {
                live.backlog.say(about, message);
            } else if message.lane.may_lose() {
                // Late is lost, never queued: the session drops what it cannot send in time.
                live.give(now, message);
            } else {
                live.backlog.lanes[message.lane as usize].push_back(message);
            }
        }
    }

    /// Moves messages into the session and frames out of it, until one of them has no more.
    pub(crate) fn transmit(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let links: Vec<_> = live.lines.iter().filter(|(_, line)| !line.waiting).map(|(id, _)| *id).collect();
        live.fill(now);
        for link in links {
            self.transmit_on(link, now, ctx);
        }
        self.set_timer(self.next_timeout(), ctx);
    }

    fn transmit_on(&mut self, link: LinkId, now: Duration, ctx: &mut Context<Self>) {
        let Some(live) = &mut self.live else { return };
        let Some(outbound) = live.lines.get(&link).map(|line| line.outbound.clone()) else { return };
        let filled = outbound.fill(|| {
            let frame = live.session.poll_transmit_on(now, link)?;
            live.fill(now);
            Some(frame)
        });
        if filled == Filled::Full {
            live.lines.get_mut(&link).iter_mut().for_each(|line| line.waiting = true);
            ctx.spawn(outbound.room().into_actor(self).map(move |(), act, ctx| {
                let lines = act.live.as_mut().map(|live| &mut live.lines);
                if let Some(line) = lines.and_then(|lines| lines.get_mut(&link)) {
                    line.waiting = false;
                    act.transmit(ctx);
                }
            }));
        }
    }

    /// Takes frames from a link. A remote that breaks the protocol of the session loses it.
    pub(crate) fn receive(&mut self, link: LinkId, frames: Vec<(Lane, Bytes)>, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = self.live.as_mut().filter(|live| live.lines.contains_key(&link)) else { return };
        let taken =
            frames.into_iter().try_for_each(|(lane, frame)| live.session.receive_on(now, link, lane, frame));
        let Err(error) = taken else { return self.go_on(ctx) };
        let reason = format!("the remote broke the protocol: {error}");
        if live.session.link() == Some(link) {
            self.end(&reason, ctx);
        } else {
            self.link_lost(link, &reason, ctx);
        }
    }

    /// Something has happened to the session: everybody is told, and what can go goes.
    pub(crate) fn go_on(&mut self, ctx: &mut Context<Self>) {
        let end = self.route_events(ctx).err();
        self.hand_over(ctx);
        match end {
            Some(reason) => self.end(&reason, ctx),
            None => self.transmit(ctx),
        }
    }

    fn route_events(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        while let Some(event) = self.live.as_mut().and_then(|live| live.session.poll_event()) {
            match event {
                SessionEvent::Message(lane, bytes) => {
                    let size = bytes.len();
                    let message =
                        ToHost::decode(lane, bytes).map_err(|e| format!("the remote sent nonsense: {e}"))?;
                    self.route(lane, size, message);
                }
                SessionEvent::Attached { link, resumed, .. } => self.attached(link, resumed),
                SessionEvent::Detached => self.detached(),
                SessionEvent::Retired(link) => self.retire(link, ctx),
                // The remote looks for another link.
                SessionEvent::PeerQuiet => {}
                SessionEvent::PeerSilent => self.silent(ctx),
                SessionEvent::PeerClosed(reason) => return Err(format!("the remote left: {reason}")),
                SessionEvent::Expired => return Err("no link for too long".to_owned()),
                SessionEvent::Reset(reason) => {
                    return Err(format!("the remote has no such session: {reason:?}"));
                }
            }
        }
        Ok(())
    }

    /// Nothing was heard for too long on the link of the moment.
    fn silent(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = self.live.as_ref().and_then(|live| live.session.link()) {
            self.link_lost(link, "the remote has fallen silent", ctx);
        }
    }

    fn route(&mut self, lane: Lane, size: usize, message: ToHost) {
        match message {
            // Credited when the controller has accepted it.
            ToHost::Completed(completion) => {
                if let Some(tap) = &mut self.tap {
                    tap.ended(&completion);
                }
                let Some(live) = &mut self.live else { return };
                live.holds.ended(completion.id);
                if let Some(completion) = live.keys.inwards(completion) {
                    live.backlog.completions.push(completion);
                    return live.backlog.credit.push((lane, size));
                }
            }
            ToHost::Audio(report) => self.hda.sound.hear(report),
            ToHost::Control(control::ToHost::Attached(attachment)) => self.attach(attachment),
            ToHost::Control(control::ToHost::Detached { device }) => {
                if let Some(device) = self.ports.detach(device) {
                    self.forget(device);
                }
            }
        }
        self.live.iter_mut().for_each(|live| live.session.consumed(lane, size));
    }

    fn attach(&mut self, attachment: control::Attachment) {
        let Some(attach) = self.ports.attach(&attachment) else {
            return tracing::warn!(vm = %self.name, device = attachment.device.0, "one device too many, or lent twice");
        };
        self.live.iter_mut().for_each(|live| live.keys.attach(attach.device, &attach.profile));
        self.to_usb(attach);
        let id = (attachment.vendor, attachment.product);
        self.tell(Event::Attached { name: attachment.name, id });
    }

    /// Hands completions to the controller's stream, now or when it has room; with them goes their credit.
    pub(crate) fn hand_over(&mut self, ctx: &mut Context<Self>) {
        let more = |act: &Self| act.live.as_ref().is_some_and(|live| live.backlog.has_completions());
        while more(self) {
            self.hand_over_batch(ctx);
        }
    }

    fn hand_over_batch(&mut self, ctx: &mut Context<Self>) {
        let Some(live) = &mut self.live else { return };
        let Some(stream) = self.usb.completions.clone() else { return live.accept_completions(None) };
        match stream.clone().try_reserve_owned() {
            Ok(permit) => live.accept_completions(Some(permit)),
            Err(TrySendError::Closed(_)) => live.accept_completions(None),
            Err(TrySendError::Full(_)) => {
                let number = live.number;
                live.backlog.waiting = true;
                let room = async move { drop(stream.reserve_owned().await) };
                ctx.spawn(room.into_actor(self).map(move |(), act, ctx| {
                    if let Some(live) = act.live.as_mut().filter(|live| live.number == number) {
                        live.backlog.waiting = false;
                        act.hand_over(ctx);
                        act.transmit(ctx);
                    }
                }));
            }
        }
    }

    pub(crate) fn set_timer(&mut self, at: Option<Duration>, ctx: &mut Context<Self>) {
        // A timer that rings too early does no harm, and a new one for every frame would cost more.
        let rings_in_time = |at| self.timer.is_some_and(|(armed, _)| armed <= at);
        if at.map_or(self.timer.is_none(), rings_in_time) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.start.elapsed();
        let arm = |at: Duration| (at, ctx.run_later(at.saturating_sub(now), Self::timeout));
        self.timer = at.map(arm);
    }

    fn timeout(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        let now = self.start.elapsed();
        self.live.iter_mut().for_each(|live| live.session.on_timeout(now));
        self.release();
        self.go_on(ctx);
    }
}

impl Live {
    pub(crate) fn fill(&mut self, now: Duration) {
        for lane in Lane::ALL {
            let at = lane as usize;
            while self.backlog.lanes[at].front().is_some_and(|m| self.session.room(lane) >= m.len()) {
                let Some(message) = self.backlog.lanes[at].pop_front() else { break };
                self.give(now, message);
            }
        }
        while self.backlog.sound.front().is_some_and(|(_, m)| self.session.room(m.lane) >= m.len()) {
            let Some((_, message)) = self.backlog.sound.pop_front() else { break };
            self.give(now, message);
        }
    }

    fn give(&mut self, now: Duration, message: Message) {
        if let Err(error) = self.session.send_at(now, message) {
            tracing::error!(%error, "the session refused a message that it had room for");
        }
    }

    /// The completions are the controller's, or nobody's if there is none; either way their room is free again.
    fn accept_completions(&mut self, permit: Option<OwnedPermit<Vec<Completion>>>) {
        let mut bytes = 0u32;
        let mut fits = |completion: &Completion| {
            bytes = completion.moved.len().saturating_add(bytes);
            bytes <= BATCH_BYTES
        };
        // At least one, however long it is.
        let count = self.backlog.completions.iter().take_while(|completion| fits(completion)).count().max(1);
        let count = count.min(self.backlog.completions.len());
        let completions = self.backlog.completions.drain(..count).collect();
        if let Some(permit) = permit {
            permit.send(completions);
        }
        for (lane, size) in self.backlog.credit.drain(..count).filter(|(_, size)| *size > 0) {
            self.session.consumed(lane, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Volume;

    use super::*;

    #[test]
    fn of_how_a_stream_of_sound_is_only_the_latest_waits() {
        let volume = |stream, gain| {
            ToRemote::Audio(audio::ToRemote::Volume(Volume { stream: StreamId(stream), gain, mute: false }))
        };
        let stop = |run| ToRemote::Audio(audio::ToRemote::StopRecord { stream: StreamId(1), run });
        let mut backlog = Backlog::default();
        let apart = |run| ToRemote::Audio(audio::ToRemote::Apart { stream: StreamId(1), run });
        for message in (0..1000).flat_map(|n| [volume(1, n), volume(2, n), stop(n as u32), apart(n as u32)]) {
            backlog.say(about(&message).unwrap(), message.encode());
        }
        let counted: usize = Lane::ALL.map(|lane| backlog.waiting(lane)).into_iter().sum();
        let waiting: Vec<_> = backlog.sound.into_iter().map(|(_, message)| message).collect();
        let latest = [volume(1, 999), volume(2, 999), stop(999), apart(999)].map(|message| message.encode());
        assert_eq!(waiting, latest);
        assert_eq!(counted, latest.iter().map(Message::len).sum::<usize>());
    }
}
