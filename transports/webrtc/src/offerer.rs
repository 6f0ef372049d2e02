//! The remote's side of signalling.

use noise::{PublicKey, SecretKey};
use wire::control::{Answer, Hello};

use crate::{Config, Error, WebRtc, handshake, line::Line};

/// A connection that was offered. Dropped, it is gone.
pub struct Offerer {
    line: Line,
    offer: String,
}

impl Offerer {
    /// Binds sockets, gathers candidates and writes an offer. The link lives on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// [`Error::SetUp`]: an address cannot be bound, or a server cannot be used.
    pub async fn new(config: &Config) -> Result<Self, Error> {
        let line = Line::new(config, false, false).await?;
        let offer = line.peer.offer(false).await?;
        Ok(Self { line, offer })
    }

    /// The offer, for the host: SDP text with all candidates in it.
    #[must_use]
    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// Takes a candidate of the host that its answer did not have, as `candidate:...`. Only after the answer.
    ///
    /// # Errors
    /// [`Error::Sdp`]: it cannot be read.
    pub async fn add_candidate(&self, candidate: &str) -> Result<(), Error> {
        self.line.peer.add_candidate(candidate).await
    }

    /// Takes the host's answer, SDP text. The connection begins to come about.
    ///
    /// # Errors
    /// [`Error::Sdp`]: it cannot be used.
    pub async fn take_answer(&self, answer: &str) -> Result<(), Error> {
        self.line.peer.take_answer(answer).await
    }

    /// Waits for the connection and proves who is who: the host owns this key, and we are `me`. Returns the link and the
    /// host's [`Answer::Welcome`]. To be called when the answer was taken.
    ///
    /// # Errors
    /// No connection comes about ([`Error::Unreachable`], [`Error::Deadline`]), the host does not own its key or has seen
    /// another certificate ([`Error::Unreachable`]: it hangs up, or [`Error::Handshake`]), or it refuses.
    pub async fn connect(
        mut self,
        host: PublicKey,
        me: &SecretKey,
        hello: &Hello,
    ) -> Result<(WebRtc, Answer), Error> {
        handshake::opened(&mut self.line).await?;
        let (answer, met) = handshake::initiate(&mut self.line, host, me, hello).await?;
        Ok((WebRtc::new(self.line, met), answer))
    }
}
