//! The host's side of signalling.

use noise::{Caller, Responder, SecretKey};
use wire::control::Answer;

use crate::{Config, Control, Error, WebRtc, handshake, line::Line, sdp};

/// A connection that was asked for. Dropped, it is gone.
pub struct Answerer {
    line: Line,
    answer: String,
}

impl Answerer {
    /// Reads an offer, SDP text; binds sockets, gathers candidates and writes an answer. Nothing is known of the offerer:
    /// limit how many there are. The link lives on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// [`Error::Sdp`]: the offer cannot be used. [`Error::SetUp`]: an address cannot be bound, or a server cannot be used.
    pub async fn new(config: &Config, offer: &str) -> Result<Self, Error> {
        let (offer, shape) = sdp::offer(offer)?;
        let opus = config.opus && shape.audio;
        let mut line = Line::new(config, shape.mdns, opus).await?;
        line.peer.take_offer(offer).await?;
        let added = if opus { Some(line.peer.add_opus().await?) } else { None };
        let answer = line.peer.answer().await?;
        if let Some(added) = added {
            line.opus = added.agreed().await;
        }
        Ok(Self { line, answer })
    }

    /// The answer, for the remote: SDP text with all candidates in it.
    #[must_use]
    pub fn answer(&self) -> &str {
        &self.answer
    }

    /// A handle for what is to be done while the connection comes about, and later.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { peer: self.line.peer.clone() }
    }

    /// Takes a candidate of the remote that its offer did not have, as `candidate:...`.
    ///
    /// # Errors
    /// [`Error::Sdp`]: it cannot be read.
    pub async fn add_candidate(&self, candidate: &str) -> Result<(), Error> {
        self.line.peer.add_candidate(candidate).await
    }

    /// Waits for the connection and for the remote to say who it is.
    ///
    /// # Errors
    /// No connection comes about ([`Error::Unreachable`], [`Error::Deadline`]), or what the remote says was written for
    /// another key or over other certificates ([`Error::Handshake`]): somebody may be in between.
    pub async fn caller(mut self, me: &SecretKey) -> Result<Incoming, Error> {
        handshake::opened(&mut self.line).await?;
        let (responder, caller) = handshake::identify(&mut self.line, me).await?;
        Ok(Incoming { line: self.line, responder, caller })
    }
}

/// A remote that has said who it is, and waits for a decision: 5 s long.
pub struct Incoming {
    line: Line,
    responder: Responder,
    caller: Caller,
}

impl Incoming {
    /// Who it says to be. Not proved before [`Self::accept`] returns.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Lets it in: sends `answer`, waits for the proof of its key.
    ///
    /// # Errors
    /// It does not prove its key, hangs up, or takes longer than [`crate::DEADLINE`].
    pub async fn accept(mut self, answer: &Answer) -> Result<WebRtc, Error> {
        let met = handshake::respond(&mut self.line, self.responder, answer).await?;
        Ok(WebRtc::new(self.line, met))
    }

    /// Tells it that it is not welcome, with `answer` as the reason, and hangs up.
    ///
    /// # Errors
    /// The answer is too long to be sent.
    pub async fn refuse(mut self, answer: &Answer) -> Result<(), Error> {
        handshake::refuse(&mut self.line, self.responder, answer).await
    }
}
