//! Keys that are held down when the link breaks: the guest must not repeat them for as long as it is gone.
//!
//! Half a second after the link went, a keyboard with a key down gets one report made up that says: all released. It
//! ends the oldest read of the guest, while the remote still has that read. From then on the two queues are out of step
//! by one, and reads are matched by their places:
//! ```text
//!   the guest's reads      41 42        42        42 43       a made-up end for 41; 43 is not sent on
//!   the remote's reads     41 42     41 42     41 42          the remote's end of 41 becomes the guest's of 42
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use wire::{
    Lane,
    control::Profile,
    usb::{Completion, DeviceId, Endpoint, Moved, RequestId, ToRemote, Transfer},
};

use crate::descriptors::interfaces;

/// How long a key stays down without a link. Linux repeats it every 33 ms, for the first time after 250 ms.
const PATIENCE: Duration = Duration::from_millis(500);
/// A keyboard that a firmware can use, and the length of its report. HID 1.11 §4.2, §4.3, appendix B.1.
const BOOT_KEYBOARD: (u8, u8, u8) = (3, 1, 1);
const REPORT: usize = 8;

/// The reads of one keyboard.
#[derive(Debug, Default)]
struct Reads {
    /// What the controller waits for, in order.
    guest: VecDeque<RequestId>,
    /// What the remote has, in order: as many, or one more for each report that was made up.
    remote: VecDeque<RequestId>,
    /// Ends of reads that the controller has yet to ask for, in order.
    early: VecDeque<Completion>,
    /// A key is down, as far as the guest knows.
    pressed: bool,
}

/// The keyboards among the lent devices.
#[derive(Debug, Default)]
pub(crate) struct Keys(BTreeMap<(DeviceId, Endpoint), Reads>);

impl Keys {
    /// A device is lent; it may have keyboards.
    pub(crate) fn attach(&mut self, device: DeviceId, profile: &Profile) {
        for interface in interfaces(profile).into_iter().filter(|interface| interface.class == BOOT_KEYBOARD)
        {
            for endpoint in interface.interrupt_in {
                self.0.insert((device, endpoint), Reads::default());
            }
        }
    }

    /// A device is gone.
    pub(crate) fn forget(&mut self, device: DeviceId) {
        self.0.retain(|(of, _), _| *of != device);
    }

    /// The controller starts anew: what it waited for is nothing any more.
    pub(crate) fn restart(&mut self) {
        self.0.values_mut().for_each(|reads| *reads = Reads::default());
    }

    /// The controller has a message for the remote; none if it is not to be sent. Ends that it has caused go to `ends`.
    pub(crate) fn outwards(&mut self, message: ToRemote, ends: &mut Vec<Completion>) -> Option<ToRemote> {
        match message {
            ToRemote::Submit(request) if request.transfer == Transfer::Interrupt => {
                let Some(reads) = self.0.get_mut(&(request.device, request.endpoint)) else {
                    return Some(ToRemote::Submit(request));
                };
                if let Some(end) = reads.early.pop_front() {
                    reads.note(&end);
                    ends.push(Completion { id: request.id, ..end });
                    return None;
                }
                reads.guest.push_back(request.id);
                if reads.guest.len() <= reads.remote.len() {
                    return None;
                }
                reads.remote.push_back(request.id);
                Some(ToRemote::Submit(request))
            }
            ToRemote::Cancel { device, endpoint, through } => {
                let through = match self.0.get_mut(&(device, endpoint)) {
                    Some(reads) => reads.cancel(through),
                    None => through,
                };
                Some(ToRemote::Cancel { device, endpoint, through })
            }
            other => Some(other),
        }
    }

    /// The remote has ended a request; what it is the end of for the controller, none if that is yet to come.
    pub(crate) fn inwards(&mut self, end: Completion) -> Option<Completion> {
        let found = self.0.values_mut().find_map(|reads| {
            let at = reads.remote.iter().position(|id| *id == end.id)?;
            Some((reads, at))
        });
        let Some((reads, at)) = found else { return Some(end) };
        reads.remote.remove(at);
        match reads.guest.remove(at) {
            Some(id) => {
                reads.note(&end);
                Some(Completion { id, ..end })
            }
            None => {
                reads.early.push_back(end);
                None
            }
        }
    }

    /// When keys are to be released, if there has been no link since then.
    pub(crate) fn due(&self, since: Duration) -> Option<Duration> {
        self.0.values().any(Reads::held).then_some(since + PATIENCE)
    }

    /// Releases every key that is down; these ends tell the guest.
    pub(crate) fn release(&mut self) -> Vec<Completion> {
        let held = self.0.values_mut().filter(|reads| reads.held());
        let released = held.filter_map(|reads| {
            reads.pressed = false;
            let (id, moved) = (reads.guest.pop_front()?, Moved::In(Bytes::from_static(&[0; REPORT])));
            Some(Completion { id, result: Ok(()), moved, packets: Vec::new(), lane: Lane::Int })
        });
        released.collect()
    }
}

impl Reads {
    /// A key is down, and the guest waits to hear that it is not.
    fn held(&self) -> bool {
        self.pressed && !self.guest.is_empty()
    }

    /// The guest hears of this.
    fn note(&mut self, end: &Completion) {
        if let Moved::In(report) = &end.moved
            && report.len() == REPORT
        {
            self.pressed = report.iter().any(|byte| *byte != 0);
        }
    }

    /// The guest takes its reads up to this one back; the last of the remote's reads that goes with them.
    fn cancel(&mut self, through: RequestId) -> RequestId {
        let cancelled = self.guest.iter().take_while(|id| **id <= through).count();
        if cancelled < self.guest.len() {
            let last = cancelled.checked_sub(1).and_then(|last| self.remote.get(last));
            // None of them: what comes before all that the remote has.
            let before = self.remote.front().map_or(0, |first| first.0.saturating_sub(1));
            return last.copied().unwrap_or(RequestId(before));
        }
        // All of them, and with them what the remote has beyond.
        let last = self.remote.back().copied();
        self.remote.truncate(self.guest.len());
        self.early.clear();
        last.unwrap_or(through)
    }
}

#[cfg(test)]
mod tests {
    use wire::usb::{Payload, Request};

    use super::*;
    use crate::descriptors::tests::profile;

    const DEVICE: DeviceId = DeviceId(1);

    /// A keyboard, and what went which way.
    struct World {
        keys: Keys,
        /// What the remote has been asked for.
        sent: Vec<u64>,
        /// What the guest was told: of which read, and the first byte of the report.
        told: Vec<(u64, u8)>,
    }

    impl World {
        fn new() -> Self {
            let mut keys = Keys::default();
            keys.attach(DEVICE, &profile(&[BOOT_KEYBOARD]));
            Self { keys, sent: Vec::new(), told: Vec::new() }
        }

        fn read(&mut self, id: u64) {
            let endpoint = Endpoint::from_address(0x81).unwrap();
            let request = Request {
                id: RequestId(id),
                device: DEVICE,
                endpoint,
                transfer: Transfer::Interrupt,
                payload: Payload::In { max: 8 },
            };
            let mut ends = Vec::new();
            let sent = self.keys.outwards(ToRemote::Submit(request), &mut ends);
            self.sent.extend(sent.and_then(|message| message.id()).map(|id| id.0));
            self.tell(ends);
        }

        fn cancel(&mut self, through: u64) -> u64 {
            let (endpoint, through) = (Endpoint::from_address(0x81).unwrap(), RequestId(through));
            let cancel = ToRemote::Cancel { device: DEVICE, endpoint, through };
            match self.keys.outwards(cancel, &mut Vec::new()) {
                Some(ToRemote::Cancel { through, .. }) => through.0,
                other => panic!("{other:?}"),
            }
        }

        /// The remote ends a read with a report that has this first byte.
        fn report(&mut self, id: u64, first: u8) {
            let moved = Moved::In(vec![first, 0, 0, 0, 0, 0, 0, 0].into());
            let end =
                Completion { id: RequestId(id), result: Ok(()), moved, packets: Vec::new(), lane: Lane::Int };
            let end = self.keys.inwards(end);
            self.tell(end.into_iter().collect());
        }

        fn release(&mut self) {
            let ends = self.keys.release();
            self.tell(ends);
        }

        fn tell(&mut self, ends: Vec<Completion>) {
            for end in ends {
                let Moved::In(report) = &end.moved else { panic!("{end:?}") };
                assert_eq!(report.len(), REPORT);
                self.told.push((end.id.0, report[0]));
            }
        }
    }

    #[test]
    fn while_nothing_is_made_up_reads_and_reports_pass_as_they_are() {
        let mut world = World::new();
        world.read(1);
        world.read(2);
        world.report(1, 7);
        world.report(2, 0);
        world.release();
        assert_eq!((world.sent, world.told), (vec![1, 2], vec![(1, 7), (2, 0)]));
    }

    #[test]
    fn a_key_that_is_down_is_released_once_and_no_report_is_lost_or_doubled() {
        for ahead in 1..=3 {
            let mut world = World::new();
            let mut next = 1;
            let mut read = |world: &mut World| {
                world.read(next);
                next += 1;
            };
            (0..ahead).for_each(|_| read(&mut world));
            world.report(1, 7);
            read(&mut world);
            world.release();
            world.release();
            assert_eq!(world.told.drain(..).collect::<Vec<_>>(), [(1, 7), (2, 0)]);
            read(&mut world);
            // The link is back: each report ends the guest's next read, in order.
            for (report, at) in (1..=5).zip(2..) {
                let asked = world.sent[at - 1];
                world.report(asked, report);
                read(&mut world);
            }
            assert_eq!(world.told, [(3, 1), (4, 2), (5, 3), (6, 4), (7, 5)], "{ahead} ahead");
            assert_eq!(world.sent.len() as u64, next - 2, "one read less than the guest's");
        }
    }

    #[test]
    fn a_report_that_comes_before_the_guest_asks_again_waits_for_it() {
        let mut world = World::new();
        world.read(1);
        world.report(1, 7);
        world.read(2);
        world.release();
        world.report(2, 9);
        assert_eq!(world.told, [(1, 7), (2, 0)]);
        world.read(3);
        assert_eq!(world.told, [(1, 7), (2, 0), (3, 9)]);
        assert_eq!(world.sent, [1, 2]);
        world.read(4);
        assert_eq!(world.sent, [1, 2, 4], "in step again");
    }

    #[test]
    fn what_the_guest_takes_back_is_taken_back_at_the_remote() {
        let mut world = World::new();
        world.read(1);
        world.report(1, 7);
        world.read(2);
        assert_eq!(world.cancel(2), 2, "in step");
        let mut world = World::new();
        world.read(1);
        world.read(2);
        world.report(1, 7);
        world.read(3);
        // The guest's: 2, 3; the remote's: 2, 3. Then 3, 4 against 2, 3.
        world.release();
        world.read(4);
        assert_eq!(world.cancel(3), 2);
        assert_eq!(world.cancel(4), 3);
        assert_eq!(world.cancel(2), 1, "nothing of what the remote has");
    }

    #[test]
    fn a_read_of_the_remote_that_stands_for_none_of_the_guests_goes_with_all_of_them() {
        let mut world = World::new();
        world.read(1);
        world.report(1, 7);
        world.read(2);
        world.release();
        assert_eq!(world.cancel(2), 2);
        world.read(3);
        assert_eq!(world.sent, [1, 2, 3], "in step again");
    }

    #[test]
    fn a_key_that_is_down_is_due_half_a_second_after_the_link_went_and_one_that_is_up_never() {
        let (went, due) = (Duration::from_secs(3), Duration::from_millis(3500));
        let mut world = World::new();
        world.read(1);
        assert_eq!(world.keys.due(went), None);
        world.report(1, 7);
        assert_eq!(world.keys.due(went), None, "the guest listens no more");
        world.read(2);
        assert_eq!(world.keys.due(went), Some(due));
        world.read(3);
        world.report(2, 0);
        assert_eq!(world.keys.due(went), None);
        world.report(3, 7);
        world.read(4);
        world.release();
        assert_eq!(world.keys.due(went), None, "it was released already");
    }

    #[test]
    fn only_keyboards_of_the_boot_protocol_are_known() {
        let mut keys = Keys::default();
        keys.attach(DEVICE, &profile(&[(3, 1, 2), (3, 0, 0), (8, 6, 80)]));
        assert!(keys.0.is_empty());
        keys.attach(DEVICE, &profile(&[(3, 1, 2), BOOT_KEYBOARD]));
        assert_eq!(keys.0.len(), 1);
        keys.forget(DEVICE);
        assert!(keys.0.is_empty());
    }
}
