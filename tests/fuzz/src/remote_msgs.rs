//! Whatever comes over a link: frames into sessions of both roles, messages into the codec and on to who takes them.

use core::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use session::{Config, Event, Role, Session};
use wire::{Lane, ToHost, ToRemote};

use crate::devices::Devices;

/// Frames or messages of one run.
const MOST_ACTIONS: usize = 200;
/// Frame flags and kinds, as `session` documents them.
const FROM_HOST: u8 = 4;
const DATA: u8 = 1;
const FRAME_HEADER: u64 = 32;

/// The first byte chooses: messages, or frames to a host or to a remote.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut devices = Devices::new();
    let mut data = Unstructured::new(rest);
    match first % 4 {
        // One message as it is, so that a message of a trace is an input.
        0 => message(
            Lane::ALL[usize::from(first / 4) % Lane::ALL.len()],
            Bytes::copy_from_slice(rest),
            &mut devices,
        ),
        1 => while !data.is_empty() && one_of_many(&mut data, &mut devices).is_ok() {},
        2 => Peer::new(Role::Host).play(&mut data, &mut devices),
        _ => Peer::new(Role::Remote).play(&mut data, &mut devices),
    }
    devices.finish();
}

fn one_of_many(data: &mut Unstructured<'_>, devices: &mut Devices) -> Result<()> {
    let lane = *data.choose(&Lane::ALL)?;
    let length = data.int_in_range(0..=300)?;
    message(lane, Bytes::copy_from_slice(data.bytes(length.min(data.len()))?), devices);
    Ok(())
}

/// What is understood says the same when it is written again, and does no harm where it goes.
fn message(lane: Lane, bytes: Bytes, devices: &mut Devices) {
    if let Ok(message) = ToHost::decode(lane, bytes.clone()) {
        let again = message.clone().encode();
        assert_eq!(ToHost::decode(again.lane, whole(&again)).as_ref(), Ok(&message));
    }
    if let Ok(message) = ToRemote::decode(lane, bytes) {
        let again = message.clone().encode();
        assert_eq!(ToRemote::decode(again.lane, whole(&again)).as_ref(), Ok(&message));
        if let ToRemote::Usb(message) = message {
            devices.carry_out(message);
        }
    }
}

fn whole(message: &wire::Message) -> Bytes {
    [&message.head[..], &message.body[..]].concat().into()
}

/// A session whose other end says anything.
struct Peer {
    session: Session,
    role: Role,
    now: Duration,
    /// Where each lane is, for frames that follow each other.
    places: [u64; Lane::ALL.len()],
}

impl Peer {
    fn new(role: Role) -> Self {
        let session = Session::new(role, Config::default());
        Self { session, role, now: Duration::from_secs(1), places: [0; Lane::ALL.len()] }
    }

    fn play(&mut self, data: &mut Unstructured<'_>, devices: &mut Devices) {
        for _ in 0..MOST_ACTIONS {
            if data.is_empty() || self.act(data, devices).is_err() {
                break;
            }
            while self.session.poll_transmit(self.now).is_some() {}
        }
    }

    /// An error is the end of the link, and of this run.
    fn act(&mut self, data: &mut Unstructured<'_>, devices: &mut Devices) -> Result<()> {
        let lane = *data.choose(&Lane::ALL)?;
        match data.int_in_range(0..=7)? {
            0 => {
                let length = data.int_in_range(0..=64)?;
                let frame = Bytes::copy_from_slice(data.bytes(length)?);
                self.receive(lane, frame)?;
            }
            1..=4 => {
                let frame = self.frame(lane, data)?;
                self.receive(lane, frame)?;
            }
            5 => {
                self.now += Duration::from_millis(data.int_in_range(0..=4000)?);
                self.session.on_timeout(self.now);
            }
            6 => {
                let (head, body) =
                    (Bytes::from_static(&[1]), Bytes::from(vec![0; data.int_in_range(0..=4096)?]));
                // There may be no room.
                let _ = self.session.send(wire::Message { lane, head, body });
            }
            _ => self.session.close("enough"),
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Message(lane, bytes) => {
                    self.session.consumed(lane, bytes.len());
                    message(lane, bytes, devices);
                }
                Event::PeerQuiet | Event::PeerSilent => {}
                Event::PeerClosed(_) | Event::Expired | Event::Reset(_) => {
                    return Err(arbitrary::Error::IncorrectFormat);
                }
                Event::Attached { .. } | Event::Detached | Event::Retired(_) => {}
            }
        }
        Ok(())
    }

    fn receive(&mut self, lane: Lane, frame: Bytes) -> Result<()> {
        self.session.receive(self.now, lane, frame).map_err(|_| arbitrary::Error::IncorrectFormat)
    }

    /// A frame that goes on where its lane is, mostly.
    fn frame(&mut self, lane: Lane, data: &mut Unstructured<'_>) -> Result<Bytes> {
        let kind = if data.ratio(7, 8)? { DATA } else { data.int_in_range(0..=6)? };
        let from = if self.role == Role::Remote { FROM_HOST } else { 0 };
        let flags = data.int_in_range(0..=3_u8)? | from;
        let length = data.int_in_range(0..=200)?;
        let chunk = data.bytes(length)?;
        let place = &mut self.places[lane as usize];
        let (seq, ack, limit) = match data.ratio(7, 8)? {
            true => (*place, 0, 0),
            false => (data.arbitrary()?, data.int_in_range(0..=0x1_0000_u64)?, data.arbitrary()?),
        };
        if kind == DATA {
            *place = seq.saturating_add(FRAME_HEADER + chunk.len() as u64);
        }
        let mut frame = vec![kind, flags, 0, 0, 0, 0, 0, 0];
        for number in [seq, ack, limit] {
            frame.extend(number.to_le_bytes());
        }
        frame.extend(chunk);
        Ok(frame.into())
    }
}
