//! A timer finer than tokio's wheel: interrupt moderation counts in 250 ns, the wheel in milliseconds.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// An alarm that its owner sets, and that rings as an item of a stream.
#[derive(Clone)]
pub(crate) struct Alarm {
    timer: Rc<AsyncFd<OwnedFd>>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// The system has no descriptors left, or this is not a tokio runtime.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; the descriptor is owned here and never closed early"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: Rc::new(AsyncFd::with_interest(timer, Interest::READABLE)?) })
    }

    /// Rings once after this time, at once for zero, and forgets what was set before; `None` is silence.
    pub(crate) fn set(&self, after: Option<Duration>) {
        // All zeros would disarm it.
        let after = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let tv_sec = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        let it_value = Timespec { tv_sec, tv_nsec: i64::from(after.subsec_nanos()) };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        if let Err(error) = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec) {
            tracing::error!(%error, "the alarm cannot be set");
        }
    }
}

/// The alarm rang.
pub(crate) struct Rang;

impl Stream for Alarm {
    type Item = Rang;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Rang>> {
        loop {
            let Ok(mut ready) = ready!(self.timer.poll_read_ready(cx)) else { return Poll::Ready(None) };
            let mut expirations = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(Ok(_)) => return Poll::Ready(Some(Rang)),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return Poll::Ready(None),
                Err(_would_block) => {}
            }
        }
    }
}
