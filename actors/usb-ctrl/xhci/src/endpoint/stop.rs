//! Stopping: the one command that may wait for the remote, a little. xHCI 1.2 §4.6.9.
//!
//! In-flight requests are cancelled, and the stop waits for their ends. TDs that are done are told in ring order; the
//! first that is not gets one Stopped event with the bytes that moved, and the dequeue pointer stays with it: never
//! with the fetch pointer, or the TDs behind a cancelled one would never run. What has not answered when time is up
//! becomes an orphan ([`crate::transfer::orphan`]).

use wire::usb::{RequestId, ToRemote};

use super::{Endpoint, Kind, State};
use crate::{
    Output,
    transfer::{
        Hands,
        bulk_only::Commands,
        orphan::Fate,
        td::{Position, Progress, Td},
    },
};

impl Endpoint {
    /// Whether nothing may be submitted at the moment.
    pub(crate) fn fenced(&self) -> bool {
        // Order matters to none of an isochronous endpoint's packets, and the end of one may be lost.
        self.cancels > 0 && self.kind != Kind::Isochronous || self.fence.is_some()
    }

    /// Asks the remote to end what is in flight.
    pub(crate) fn cancel_sent(&mut self, hands: &mut Hands<'_, '_>) {
        self.cancel_sent_through(hands, None);
    }

    /// The same, and up to this request in any case.
    pub(crate) fn cancel_sent_through(&mut self, hands: &mut Hands<'_, '_>, mut through: Option<RequestId>) {
        let unborn = self.orphans.iter_mut().map(|orphan| &mut orphan.td);
        for td in self.tds.iter_mut().chain(unborn) {
            if let Progress::Sent(sent) = &mut td.progress
                && !sent.cancelled
            {
                sent.cancelled = true;
                self.cancels += 1;
                through = through.max(Some(sent.id));
            }
        }
        if let (Some(through), Some(device)) = (through, hands.device) {
            let endpoint = self.address;
            hands.cx.emit(Output::Usb(ToRemote::Cancel { device, endpoint, through }));
        }
    }

    /// A Stop Endpoint command begins; false if it cannot. xHCI 1.2 §4.6.9.
    pub(crate) fn begin_stop(&mut self, hands: &mut Hands<'_, '_>) -> bool {
        if self.state != State::Running {
            return false;
        }
        self.state = State::Stopping;
        self.flows = false;
        // What is sent again afterwards would count twice.
        self.commands = Commands::default();
        self.cancel_sent(hands);
        for ring in self.rings_mut() {
            ring.begin_stop(hands);
        }
        true
    }

    /// Whether a stop knows everything that it waits for.
    pub(crate) fn stop_is_settled(&self) -> bool {
        let settled =
            self.tds.iter().all(|td| td.sent().is_none()) && self.rings().all(Self::stop_is_settled);
        self.state != State::Stopping || settled
    }

    /// Ends a stop with what is known: TDs that are done are told, the first that is not stands still there.
    /// Answers whether the endpoint is stopped, and not halted meanwhile; none if there is no room for events yet.
    pub(crate) fn finish_stop(&mut self, hands: &mut Hands<'_, '_>) -> Option<bool> {
        if let Some(stopped) = self.with_streams(|this, streams| this.finish_stop_streams(hands, streams)) {
            return stopped;
        }
        self.retire(hands);
        if self.state != State::Stopping {
            return Some(false);
        }
        if self.tds.front().is_some_and(|td| td.finished().is_some()) {
            return None;
        }
        self.state = State::Stopped;
        let stands = self.take_head(hands);
        let first = match &stands {
            Some(head) => self.report_stopped(hands, head),
            None => {
                self.mirror(hands.cx.dma);
                Position::START
            }
        };
        // A packet has its time, and nobody runs it again.
        let fate = if self.kind == Kind::Isochronous { Fate::Void } else { Fate::Open };
        self.orphan_behind(stands, first, fate);
        Some(true)
    }

    /// The TD that is to stand still, with all that it has received in the guest's memory.
    fn take_head(&mut self, hands: &mut Hands<'_, '_>) -> Option<Td> {
        let mut head = self.tds.pop_front()?;
        let _ = head.flush_all(hands.cx.dma);
        Some(head)
    }

    /// What is in flight of a TD that stands still here, and of those behind it, goes on as orphans.
    fn orphan_behind(&mut self, stands: Option<Td>, at: Position, fate: Fate) {
        match stands.filter(|head| head.sent().is_some()) {
            Some(head) => {
                self.tds.push_front(head);
                self.orphan_all(fate, at);
            }
            None => self.orphan_all(fate, Position::START),
        }
        self.fetch = self.dequeue;
    }

    /// The ring of a stream stands still because another one has failed. Nobody is told where.
    pub(super) fn quiesce(&mut self, hands: &mut Hands<'_, '_>, state: State) {
        self.retire_at_any_cost(hands);
        if !self.state.runs() {
            return;
        }
        self.state = state;
        self.cancel_sent(hands);
        let stands = self.take_head(hands);
        let at = stands.as_ref().map_or(Position::START, |head| self.stand_still(head));
        self.orphan_behind(stands, at, Fate::Open);
        self.mirror(hands.cx.dma);
    }

    /// A stop that is aborted has not happened: what was cancelled for it is submitted again.
    pub(crate) fn abandon_stop(&mut self) {
        if self.state == State::Stopping {
            self.state = State::Running;
        }
        // Some of its rings may have stopped already.
        for ring in self.rings_mut().filter(|ring| matches!(ring.state, State::Stopping | State::Stopped)) {
            ring.state = State::Running;
        }
    }
}
