//! A timer finer than tokio's wheel, for both controllers: interrupt moderation counts in 250 ns, half a period of sound
//! may be 1.3 ms, and the wheel counts in milliseconds.
//!
//! ```text
//!   set(after) ──┬─► timerfd ───────┐ whichever is first
//!                └─► tokio's clock ─┴───────────────────► Rang
//! ```
//! Tokio's clock is first only where it is not the system's: tests that have paused it have virtual time here as well. An
//! alarm may ring too early there; its owner looks at the time in any case.
#![forbid(unsafe_code)]

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_core::Stream;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, Sleep, sleep_until},
};

/// An alarm that its owner sets, and that rings as an item of a stream: a clone of it.
#[derive(Debug, Clone)]
pub struct Alarm(Rc<RefCell<Clocks>>);

#[derive(Debug)]
struct Clocks {
    timer: AsyncFd<OwnedFd>,
    /// None while it is not set.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whoever waits for it.
    waker: Option<Waker>,
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
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self(Rc::new(RefCell::new(Clocks { timer, sleep: None, waker: None }))))
    }

    /// Rings once after this time, at once for zero, and forgets what was set before; `None` is silence.
    pub fn set(&self, after: Option<Duration>) {
        let mut clocks = self.0.borrow_mut();
        clocks.set_timer(after);
        clocks.set_sleep(after);
    }
}

impl Clocks {
    fn set_timer(&self, after: Option<Duration>) {
        // All zeros would disarm it.
        let after = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let tv_sec = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        let it_value = Timespec { tv_sec, tv_nsec: i64::from(after.subsec_nanos()) };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        if let Err(error) = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec) {
            tracing::error!(%error, "the alarm cannot be set");
        }
    }

    fn set_sleep(&mut self, after: Option<Duration>) {
        let due = after.and_then(|after| Instant::now().checked_add(after));
        match (&mut self.sleep, due) {
            (Some(sleep), Some(due)) => sleep.as_mut().reset(due),
            (sleep, due) => {
                *sleep = due.map(|due| Box::pin(sleep_until(due)));
                // A timer that was never looked at rings for nobody.
                self.waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Whether the system's timer has rung; `None`: it is broken.
    fn timer_rang(&self, cx: &mut Context<'_>) -> Option<bool> {
        loop {
            let Poll::Ready(ready) = self.timer.poll_read_ready(cx) else { return Some(false) };
            let mut expirations = [0; 8];
            match ready.ok()?.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(Ok(_)) => return Some(true),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return None,
                Err(_would_block) => {}
            }
        }
    }

    fn sleep_rang(&mut self, cx: &mut Context<'_>) -> bool {
        self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }
}

/// The alarm rang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rang;

impl Stream for Alarm {
    type Item = Rang;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Rang>> {
        let mut clocks = self.0.borrow_mut();
        let Some(timer_rang) = clocks.timer_rang(cx) else { return Poll::Ready(None) };
        if !timer_rang && !clocks.sleep_rang(cx) {
            clocks.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Once: the other one is not to ring for the same. A timer that has rung is not set any more.
        clocks.sleep = None;
        if !timer_rang {
            clocks.set_timer(None);
        }
        Poll::Ready(Some(Rang))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};
    use tokio::time::{self, timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn it_rings_once_and_not_before_its_time() {
        let mut alarm = Alarm::new().unwrap();
        for after in [0, 1, 300, 2_700].map(Duration::from_micros) {
            let set = Instant::now();
            alarm.set(Some(LONG));
            alarm.set(Some(after));
            assert_eq!(alarm.next().await, Some(Rang));
            assert!(set.elapsed() >= after, "{after:?}");
            assert_eq!(alarm.next().now_or_never(), None, "{after:?}: once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_clock_is_paused_its_time_is_virtual() {
        let mut alarm = Alarm::new().unwrap();
        let start = Instant::now();
        alarm.set(Some(LONG));
        assert_eq!(alarm.next().await, Some(Rang));
        assert_eq!(start.elapsed().as_secs(), LONG.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_heard_by_who_waits_already_and_not_if_it_was_taken_back() {
        let alarm = Alarm::new().unwrap();
        let mut ear = alarm.clone();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async move {
                let waiting = tokio::task::spawn_local(async move { ear.next().await });
                tokio::task::yield_now().await;
                alarm.set(Some(LONG));
                alarm.set(None);
                time::sleep(2 * LONG).await;
                assert!(!waiting.is_finished());
                alarm.set(Some(LONG));
                assert_eq!(timeout(2 * LONG, waiting).await.unwrap().unwrap(), Some(Rang));
            })
            .await;
    }
}
