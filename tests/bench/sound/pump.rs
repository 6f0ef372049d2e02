//! One end of a link: what is said goes into a session and out, what comes in is handed on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use link::Link;
use session::{Config, Event, Role, Session};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use wire::{Lane, Message};

/// How often a session is looked after if nothing happens.
const LOOK: Duration = Duration::from_millis(10);

/// Runs until nobody says anything any more, or the link ends. `heard` is told each message, and how long a round trip takes.
pub(crate) async fn pump(
    link: Box<dyn Link>,
    role: Role,
    mut said: UnboundedReceiver<Message>,
    mut heard: impl FnMut(Lane, Bytes, Option<Duration>),
) {
    let (outbound, to_link) = mpsc::channel(4);
    let (from_link, mut inbound) = mpsc::channel(64);
    tokio::spawn(link::drive(link, to_link, from_link));
    let (mut session, start, mut frames) = (Session::new(role, Config::default()), Instant::now(), vec![]);
    loop {
        while let Ok(permit) = outbound.try_reserve() {
            let Some(frame) = session.poll_transmit(start.elapsed()) else { break };
            permit.send(frame);
        }
        tokio::select! {
            message = said.recv() => match message {
                // What finds no room is late, and lost.
                Some(message) => drop(session.send_at(start.elapsed(), message)),
                None => return,
            },
            _ = outbound.reserve(), if outbound.capacity() == 0 => {}
            count = inbound.recv_many(&mut frames, 16) => if count == 0 { return },
            () = tokio::time::sleep(LOOK) => session.on_timeout(start.elapsed()),
        }
        for (lane, bytes) in frames.drain(..) {
            session.receive(start.elapsed(), lane, bytes).expect("the peer keeps the protocol");
        }
        while let Some(event) = session.poll_event() {
            if let Event::Message(lane, bytes) = event {
                session.consumed(lane, bytes.len());
                heard(lane, bytes, session.stats().round_trip);
            }
        }
    }
}
