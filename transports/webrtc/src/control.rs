//! What can be done to a link while somebody else runs it.

use std::sync::Arc;

use crate::{Error, peer::Peer, sdp};

/// A handle on the connection of a link. It does not keep the link alive.
#[derive(Clone)]
pub struct Control {
    pub(crate) peer: Arc<Peer>,
}

impl Control {
    /// Begins an ICE restart: sockets are bound anew, to the interfaces of the moment. Returns an offer, SDP text, for the
    /// peer's [`Self::answer_restart`]. Frames wait meanwhile; the link lives on if this takes less than
    /// [`crate::Config::lost_after`]. One end restarts at a time: best the one that offered at first.
    ///
    /// # Errors
    /// [`Error::SetUp`]: no address can be bound.
    pub async fn restart(&self) -> Result<String, Error> {
        self.peer.offer(true).await
    }

    /// Follows the peer's restart. Returns an answer, SDP text, for the peer's [`Self::finish_restart`].
    ///
    /// # Errors
    /// [`Error::Sdp`]: the offer cannot be used.
    pub async fn answer_restart(&self, offer: &str) -> Result<String, Error> {
        self.peer.take_offer(sdp::offer(offer)?.0).await?;
        self.peer.answer().await
    }

    /// Ends a restart with the peer's answer.
    ///
    /// # Errors
    /// [`Error::Sdp`]: the answer cannot be used.
    pub async fn finish_restart(&self, answer: &str) -> Result<(), Error> {
        self.peer.take_answer(answer).await
    }

    /// Ends the link, as if its network had gone; the peer notices at once.
    pub fn hang_up(&self) {
        self.peer.hang_up();
    }

    /// Waits until the link is gone, or what was to become one.
    pub async fn ended(&self) {
        self.peer.ended().await;
    }

    /// Takes a candidate of the peer that its description did not have, as `candidate:...`.
    ///
    /// # Errors
    /// [`Error::Sdp`]: it cannot be read.
    pub async fn add_candidate(&self, candidate: &str) -> Result<(), Error> {
        self.peer.add_candidate(candidate).await
    }
}
