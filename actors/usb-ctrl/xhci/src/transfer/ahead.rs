//! Requests that no TD has asked for yet, because it is certain that one will, or because it does no harm:
//!
//! - Reports of an interrupt IN endpoint that mean the same a little later ([`wire::control::Profile::read_ahead`]): while
//!   the guest listens, the remote has some to spare, and none is lost while the guest's next TD is on its way.
//! - The data and the status that a command of Bulk-Only Transport is answered with ([`super::bulk_only`]): a command
//!   costs one round trip instead of three. The guest hears of nothing before the device has said it.
//!
//! They are born as orphans ([`super::orphan`]): what comes is late data for the next TDs, and void when theirs would be.
//! That one fails means nothing: the next TD asks again, and finds out.

use wire::{
    MAX_BODY,
    usb::{Direction, Follow, Payload, Request, RequestId, ToRemote, Transfer},
};

use super::{
    Hands,
    bulk_only::{Next, STATUS},
    orphan::Orphan,
    td::{Progress, Sent, Td},
};
use crate::{
    Output,
    endpoint::{Endpoint, Kind, State},
    requests::Owner,
};

/// Reports that are asked for, or here and not wanted yet.
const REPORTS: usize = 64;
/// The longest report, bytes.
const MAX_REPORT: u32 = 4096;

impl Endpoint {
    /// Whether bytes may come that no TD has asked for.
    pub(crate) fn expects_more(&self) -> bool {
        let mut orphans = self.orphans.iter();
        orphans.any(|orphan| orphan.sent().is_some_and(|sent| !sent.cancelled))
    }

    /// Whether anything may be asked for beyond the TDs.
    fn may_ask_ahead(&self, hands: &Hands<'_, '_>) -> bool {
        let sound = self.state == State::Running && !self.ahead_failed && !self.cautious;
        let free = !self.fenced() && !hands.gated && self.streams.is_none() && self.stream.is_none();
        sound && free && hands.device.is_some() && self.address.direction() == Direction::In
    }

    /// Whether reports of this endpoint may be read ahead.
    pub(crate) fn reads_reports_ahead(&self, hands: &Hands<'_, '_>) -> bool {
        let welcome = hands.profile.is_some_and(|profile| profile.read_ahead.contains(&self.address));
        welcome && self.kind == Kind::Interrupt
    }

    /// Asks for reports ahead, if that does no harm and the guest listens.
    pub(crate) fn read_reports_ahead(&mut self, hands: &mut Hands<'_, '_>) {
        if !self.reads_reports_ahead(hands) || !self.may_ask_ahead(hands) {
            return;
        }
        let Some(length) = self.tds.back().map(|td| td.length).filter(|length| *length > 0) else { return };
        let room = self.whole_packets(length);
        let in_turn = self.submitted == self.tds.len() || self.expects_more();
        if room > MAX_REPORT || !in_turn {
            return;
        }
        while self.orphans.len() + self.stash.len() < REPORTS && hands.requests.has_credit() {
            self.ask_ahead(hands, room, None);
        }
    }

    /// Asks for what is certain to be asked for next, behind this request of another endpoint.
    pub(crate) fn expect(&mut self, hands: &mut Hands<'_, '_>, after: RequestId, next: Next) {
        let idle = self.tds.is_empty() && self.partial.is_none();
        let clean = self.orphans.is_empty() && self.stash.is_empty();
        let room = hands.requests.has_credit();
        if self.kind != Kind::Bulk || !idle || !clean || !room || !self.may_ask_ahead(hands) {
            return;
        }
        let after = match next {
            Next::Status => Some(after),
            Next::Data(length) if length > self.part_limit() => None,
            Next::Data(length) => self.ask_ahead(hands, length, Some(after)),
        };
        if let Some(after) = after {
            self.ask_ahead(hands, STATUS, Some(after));
        }
    }

    /// Whether it speaks Bulk-Only Transport, as far as is known beforehand.
    pub(crate) fn is_bulk_only(&self, hands: &Hands<'_, '_>) -> bool {
        let mut pairs = hands.profile.iter().flat_map(|profile| &profile.bulk_only);
        let single = self.kind == Kind::Bulk && self.streams.is_none() && self.stream.is_none();
        single && pairs.any(|pair| pair.input == self.address || pair.out == self.address)
    }

    /// How many bytes to ask for where so many are wanted: as many in Bulk-Only Transport, where some disks fill whatever
    /// they are asked for; else whole packets.
    pub(crate) fn room(&self, hands: &Hands<'_, '_>, length: u32) -> u32 {
        if self.is_bulk_only(hands) { length.min(self.part_limit()) } else { self.whole_packets(length) }
    }

    /// So many bytes in whole packets, as far as a message carries them: a packet that is longer than what is left would
    /// babble.
    pub(crate) fn whole_packets(&self, length: u32) -> u32 {
        let packet = u32::from(self.max_packet.max(1));
        length.max(1).checked_next_multiple_of(packet).unwrap_or(u32::MAX).min(self.part_limit())
    }

    /// The longest part of a TD: whole packets, at most what a message carries.
    pub(crate) fn part_limit(&self) -> u32 {
        let packet = u32::from(self.max_packet.max(1));
        MAX_BODY as u32 / packet * packet
    }

    fn ask_ahead(
        &mut self,
        hands: &mut Hands<'_, '_>,
        max: u32,
        after: Option<RequestId>,
    ) -> Option<RequestId> {
        let (device, endpoint) = (hands.device?, self.address);
        let id = hands.requests.allocate(Owner::Endpoint(self.slot, self.dci), device, max);
        let payload = Payload::In { max };
        let message = match after {
            Some(after) => ToRemote::Follow(Follow { after, id, device, endpoint, max }),
            None => {
                let transfer = Transfer::Interrupt;
                ToRemote::Submit(Request { id, device, endpoint, transfer, payload: payload.clone() })
            }
        };
        hands.cx.emit(Output::Usb(message));
        let sent = Progress::Sent(Sent { id, payload, cancelled: false });
        self.orphans.push_back(Orphan::unborn(Td::unasked(self.fetch, max, sent)));
        Some(id)
    }
}
