//! A link over WebRTC data channels: for peers behind NAT, and for browsers.
//!
//! One negotiated data channel per lane, so that no lane waits for another one's losses, and one for the link itself. The
//! certificates of DTLS are made for one connection and prove nothing by themselves; the keys of both ends are proved by
//! the same Noise handshake as over TCP, which runs over the channel of the link before any frame, and has the
//! fingerprints of both certificates in its prologue. So whoever carries offer and answer (a web server, a TURN server, another link) need not be trusted.
//!
//! ```text
//!  remote: Offerer::new() ────── offer, SDP text ─────► Answerer::new()                   host
//!          Offerer::connect() ◄── answer, SDP text ──── Answerer::answer()
//!                 └─ ICE, DTLS, SCTP: all channels open ─┘
//!                 ── suite u8 | e, es, s, ss, Hello ──► Answerer::caller() ─► Incoming::caller(), decides
//!                 ◄────────── e, ee, se, Answer ─────── Incoming::accept() or refuse()
//!                 ── first transport message ─────────► authenticated
//!
//!  then on each lane:   kind u8 | bytes
//! ```
//!
//! | lane | channel | delivery |
//! |---|---|---|
//! | CTL, INT | 0, 1 | unordered, reliable: the session puts frames in order |
//! | AUDIO, ISO | 2, 3 | unordered, never sent again |
//! | BULK | 4 | ordered, reliable, in pieces of at most 16.25 KiB |
//! | (the link) | 5 | ordered, reliable: READY, HEARD, the handshake, CLOSE, CLOSED |
//!
//! - **Urgency.** SCTP sends what is unordered before what is ordered, message by message. BULK has a queue of its own
//!   here, longer than the credit of a session, so [`link::Link::poll_ready`] does not wait for BULK while a session
//!   keeps to its credit, and no other lane ever queues behind it. What SCTP holds of each lane is bounded by
//!   [`Config::in_flight`]; of ISO and BULK it may be more where the path holds more.
//! - **The end.** The notice of a close says how many frames were sent on the reliable lanes, as it may overtake them.
//!   A link that is dropped aborts its connection, and the peer notices at once; one that vanishes is missed after
//!   [`Config::lost_after`].
//! - Numbers are big-endian, as in Noise.
//!
//! The rules that the crate below asks for, and its defects, are in the README.
#![forbid(unsafe_code)]

mod answerer;
mod config;
mod control;
mod error;
mod handshake;
mod line;
mod message;
mod offerer;
mod opus;
mod peer;
mod runtime;
mod sdp;
mod webrtc;
mod window;
mod writer;

pub use answerer::{Answerer, Incoming};
pub use async_rtc::runtime::Runtime;
pub use config::{Config, IceServer};
pub use control::Control;
pub use error::{Error, SdpError};
pub use handshake::{CONNECT_DEADLINE, DEADLINE};
pub use noise::{Caller, PublicKey, SecretKey};
pub use offerer::Offerer;
pub use opus::OpusTrack;
pub use runtime::{UDP_BUFFER, udp_buffer};
pub use sdp::MAX_SDP;
pub use webrtc::{PROFILE, WebRtc};
