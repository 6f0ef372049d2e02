//! A session: numbered messages on prioritised lanes, over links that somebody else runs, and that come and go.
//!
//! Pure: no clock, no socket, no thread, no randomness. Whoever owns a [`Session`] feeds it and drains it:
//!
//! ```text
//!            send(message)                        poll_event() ─► Message(lane, bytes) ... consumed(lane, n)
//!                 │                                     ▲                                      │
//!   queue per lane, bounded bytes           inbox per lane, bounded by credit ◄── credit goes back
//!                 │  cut into chunks                    │  put together again
//!                 ├──► ring: kept until the             │  in order, once; what overtakes waits
//!                 ▼    peer has it                      │
//!   poll_transmit_on(now, link) ─► frame ─► link ─► receive_on(now, link, lane, frame)
//! ```
//!
//! # States
//! The session, for its owner:
//! ```text
//!                 first link                    link_down, or DETACH of the peer
//!   new ──────────────────────────► attached ─────────────────────────────────► detached ──expire_after──► over: Expired
//!   (host, remote)  HELLO/WELCOME   │  ▲  ▲ │            Detached               │    │
//!                                   │  │  └─┼── ATTACH/ATTACHED: Attached{resumed} ┘ └──RESET of the peer──► over: Reset
//!                                   │  └────┘
//!                                   │   ATTACH/ATTACHED over another link: hand-over, Attached{resumed}
//!                                   ├──close()──► closing ──all has gone, CLOSE sent──► closed
//!                                   ├──CLOSE received──► events of what came before ──► over: PeerClosed
//!                                   └──nothing heard: quiet_after──► PeerQuiet, dead_after──► PeerSilent (and on,
//!                                                                                     if something is heard)
//! ```
//! A session of [`Session::new`] is born attached, and has no other link.
//!
//! Each link, of at most [`MAX_LINKS`]:
//! ```text
//!   link_up ─► awaits ──HELLO or ATTACH with proof──► current ──the session moves, or DETACH──► lingers ──1 s──► Retired
//!   link_up, opens ─► says HELLO or ATTACH ──answer with proof──►┘
//!              any of these ──5 s without an answer, RESET, or another link was faster──► Retired
//!              any of these ──link_down──► gone
//! ```
//!
//! # Rules
//! - **Order** is kept within a lane, never across lanes. CTL, INT and BULK are reliable: every message once, in order,
//!   over any number of links of any kind. AUDIO and ISO may lose: what does not fit drops the oldest, what arrives late
//!   is dropped, what waits when the session moves is dropped; they are never sent again.
//! - **Urgency** is decided frame by frame in [`Session::poll_transmit`]: CTL > INT > AUDIO > ISO, then BULK, which has
//!   a twentieth of the bytes reserved while it has something to send. A message never waits behind more than one chunk
//!   of a less urgent lane. A chunk is what the link takes in a millisecond at the rate of the moment, up to
//!   [`Config::max_chunk`]; at least 16 KiB, or on a path that is known to be slow 4 KiB.
//! - **In flight**: of BULK so much is on its way as the path holds, and about a millisecond more, because urgent frames
//!   wait behind it in queues that nobody can reorder. The bound follows rate and round trip, which are known from chunks
//!   that ask the peer to say at once what has come: a few in what is on its way.
//! - **Credit**: on a reliable lane the peer may send up to an offset that we announced; the offset counts frames with
//!   their headers, so small frames cost what they take. Memory at both ends is bounded whatever the peer does:
//!   window + one message per lane here, the queue there, and as much again for what is kept to be sent again.
//! - **Again**: over a new link everything goes again that the peer does not say to have, as it was cut. Where a link
//!   loses or reorders frames of a reliable lane ([`LinkKind`]), a frame goes again that was not acknowledged within
//!   three round trips, at least 60 ms, twice as long each time; the receiver puts up to 1024 frames in order and drops
//!   duplicates by number.
//! - **One link at a time**: the epoch counts links and attempts. An ATTACH is accepted if its epoch is greater than any
//!   that was accepted, and than any that we have asked for; of two ends that ask for the same one the remote gets it.
//!   From then on nothing new is sent over the old link. What was on its way over it is taken for the second in which it
//!   lingers, by number, if it was sent in the epoch of that link; everything else of another epoch is dropped.
//! - **Without a gap**: who has asked stays on the old link until the answer is there, and the other end tells it to leave
//!   (DETACH) only when it is known to have the answer, or after half a second. So no message takes longer, while both
//!   links live, than the slower of the two takes.
//! - **Proof**: the host chooses id and secret at random and tells them inside the first link's encryption. ATTACH and
//!   ATTACHED carry an HMAC over id, epoch, the binding of the link and the places of the lanes: a claim is good for one
//!   link and one epoch. The owner checks that the link's peer key is the one the session belongs to.
//! - **Hostile input** is a [`ProtocolError`]: drop the link. Nothing is allocated by a length that is only announced.
//!
//! Not done: no acknowledgement of single frames behind a gap, so behind one lost frame some go twice; no re-cutting of
//! what is kept, so [`MAX_CHUNK`] and its header must fit every link that the session may move to.
//!
//! # Frames
//! ```text
//! kind u8 | flags u8 | zero u16 | epoch u32 | seq u64 | ack u64 | limit u64 | bytes       (little-endian)
//!
//! HELLO              oldest version u16 | newest u16                        from the remote, in epoch 0
//! WELCOME            version u16 | id 16 | secret 32                        from the host, in epoch 0
//! ATTACH, ATTACHED   id 16 | mac 32 | for CTL, INT, BULK: next u64, base u64
//! RESET              reason u8                                              DETACH    nothing
//! ```
//! `flags`: 1 the first chunk of a message, 2 its last, 4 from the host, 8 asks for a RECEIVED at once (chunks of reliable
//! lanes). `seq` is the offset of the frame in its lane, `ack` the offset up to which the lane's other direction was accepted
//! by the application, `limit` the offset up to which the peer may send. `next` is the offset up to which everything has
//! come, `base` the one from which everything can be sent again. Frames of another epoch are dropped.
//!
//! # Example
//! ```
//! use session::{Config, Event, Identity, LinkId, LinkKind, NewLink, Secret, Session, SessionId};
//! use std::time::Duration;
//! use wire::{Lane, Message};
//!
//! /// Stands for a link: carries all frames one way.
//! fn carry(now: Duration, link: LinkId, from: &mut Session, to: &mut Session) {
//!     while let Some(Message { lane, head, body }) = from.poll_transmit_on(now, link) {
//!         to.receive_on(now, link, lane, [head, body].concat().into()).unwrap();
//!     }
//! }
//!
//! // Both from the system's source of randomness.
//! let identity = Identity { id: SessionId([1; 16]), secret: Secret::new([2; 32]) };
//! let mut host = Session::host(identity, Config::default());
//! let mut remote = Session::remote(Config::default());
//! let mut now = Duration::ZERO;
//! for id in [LinkId(1), LinkId(2)] {
//!     let link = NewLink { id, kind: LinkKind::STREAM, binding: [id.0 as u8; 32], opens: false };
//!     host.link_up(now, link).unwrap();
//!     remote.link_up(now, NewLink { opens: true, ..link }).unwrap();
//!     carry(now, id, &mut remote, &mut host); // HELLO, then ATTACH
//!     carry(now, id, &mut host, &mut remote); // the answer, and what was sent meanwhile
//!     assert_eq!(remote.link(), Some(id));
//!     // The link breaks. What is sent now comes over the next one.
//!     now += Duration::from_secs(1);
//!     host.link_down(now, id);
//!     remote.link_down(now, id);
//!     let message = Message { lane: Lane::Int, head: "a".into(), body: "key".into() };
//!     host.send(message).unwrap();
//! }
//! let came = std::iter::from_fn(|| remote.poll_event());
//! assert_eq!(came.filter(|event| matches!(event, Event::Message(..))).count(), 1);
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod attach;
mod cap;
mod claim;
mod config;
mod error;
mod frame;
mod identity;
mod lanes;
mod leave;
mod links;
mod liveness;
mod opening;
mod pace;
mod partial;
mod receive;
mod reorder;
mod ring;
mod rx;
mod session;
mod stats;
mod transmit;
mod tx;

pub use claim::{ResetReason, VERSIONS};
pub use config::{Config, LaneConfig, MAX_CHUNK, Role};
pub use error::ProtocolError;
pub use frame::HEADER_LEN;
pub use identity::{Identity, Secret, SessionId};
pub use links::{LinkId, LinkKind, LinkRefused, MAX_LINKS, NewLink};
pub use opening::{Opening, refusal};
pub use session::{Event, SendError, Session};
pub use stats::{LaneStats, Stats};

/// The longest message, bytes.
pub const MAX_MESSAGE: usize = wire::HEAD_LEN + wire::MAX_BODY;
