//! What goes out on a channel: no more at a time than its path takes.

use std::{sync::Arc, time::Duration};

use async_rtc::{data_channel::DataChannel, error::Result};
use bytes::BytesMut;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use wire::Lane;

use crate::{
    Config,
    line::Event,
    message::{MAX_FRAME, NUDGE, Outgoing, PIECE},
    window::Window,
};

/// Frames of a lane that may lose which wait to be sent; older ones are late.
const FRESH: usize = 32;
/// A message that is the last one for so long is nudged, this often and in this time from one to the next: apart, as what
/// comes together is acknowledged together.
const NUDGE_AFTER: Duration = Duration::from_millis(20);
const NUDGES: usize = 4;
const NUDGE_EVERY: Duration = Duration::from_millis(5);
/// Progress of SCTP that nobody tells of is looked for this often.
const LOOK: Duration = Duration::from_millis(50);

/// Sends what is handed over to the channel of a lane, or of the link.
pub(crate) struct Writer {
    lane: Option<Lane>,
    channel: Arc<dyn DataChannel>,
    iso: Arc<dyn DataChannel>,
    /// Told when a piece of what is on its way was acknowledged.
    progress: Arc<Notify>,
    window: Window,
    start: Instant,
    sent: u64,
    /// The bound that the channel's threshold was set for.
    told: usize,
}

impl Writer {
    pub(crate) fn new(
        lane: Option<Lane>,
        channel: Arc<dyn DataChannel>,
        iso: Arc<dyn DataChannel>,
        progress: Arc<Notify>,
        config: &Config,
    ) -> Self {
        let wide = matches!(lane, Some(Lane::Iso | Lane::Bulk));
        let most = if wide { config.in_flight_max } else { 0 };
        let window = Window::new(config.in_flight, most);
        Self { lane, channel, iso, progress, window, start: Instant::now(), sent: 0, told: 0 }
    }

    /// Sends as fast as the path takes it, until nothing more can come or go.
    pub(crate) async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Outgoing>,
        tell: mpsc::UnboundedSender<Event>,
    ) {
        let max = if self.lane == Some(Lane::Bulk) { PIECE } else { 1 + MAX_FRAME };
        let may_lose = self.lane.is_some_and(Lane::may_lose);
        let mut lone = false;
        loop {
            let message = tokio::select! {
                biased;
                message = messages.recv() => message,
                () = self.nudge(), if lone => {
                    lone = false;
                    continue;
                }
            };
            let Some(message) = message else { return };
            let len = message.frame_len();
            let late = may_lose && messages.len() >= FRESH;
            for piece in message.messages(max).take_while(|_| !late) {
                if let Err(error) = self.send(piece).await {
                    tracing::debug!(lane = ?self.lane, %error, "a channel takes nothing more");
                    return;
                }
            }
            lone = self.lane.is_some() && !may_lose;
            if let (Some(lane), Some(len)) = (self.lane, len) {
                let _ = tell.send(Event::Sent(lane, len));
            }
        }
    }

    async fn send(&mut self, message: BytesMut) -> Result<()> {
        loop {
            let outstanding = self.channel.outstanding_bytes().await?;
            self.window.observe(self.start.elapsed(), self.sent, outstanding);
            if outstanding < self.window.limit() {
                break;
            }
            if self.told != self.window.limit() {
                self.told = self.window.limit();
                // One piece of room is enough to go on: to wait for more would leave the path idle.
                let low = u32::try_from(self.told.saturating_sub(PIECE)).unwrap_or(u32::MAX);
                self.channel.set_buffered_amount_low_threshold(low).await?;
            }
            let _ = tokio::time::timeout(LOOK, self.progress.notified()).await;
        }
        self.sent += message.len() as u64;
        self.window.sent(self.start.elapsed(), self.sent);
        self.channel.send(message).await
    }

    /// Follows the last message of a burst with messages that say nothing, while it is not acknowledged: if it was lost,
    /// each of them lets the peer tell so, and the third time it is sent again. Otherwise it would wait for a timer of a
    /// second.
    async fn nudge(&self) {
        tokio::time::sleep(NUDGE_AFTER).await;
        for _ in 0..NUDGES {
            if self.channel.outstanding_bytes().await.unwrap_or_default() == 0 {
                return;
            }
            let _ = self.iso.send(BytesMut::from(&[NUDGE][..])).await;
            tokio::time::sleep(NUDGE_EVERY).await;
        }
    }
}
