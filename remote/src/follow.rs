//! Requests that begin when another one has ended well: [`wire::usb::Follow`].

use std::collections::{BTreeMap, VecDeque};

use wire::usb::{Endpoint, Request, RequestId};

/// Followers that may wait at a time: a host needs two for each Bulk-Only Transport interface.
const MOST: usize = 64;
/// Requests that failed whose followers may still come.
const REMEMBERED: usize = 64;

/// What becomes of a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits.
    Later,
    /// It begins.
    Now,
    /// The one before it did not end well: it is cancelled.
    Never,
    /// It has no place to wait.
    NoRoom,
}

/// The followers of one device.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    /// By the id of the request before.
    waiting: BTreeMap<RequestId, Vec<Request>>,
    /// The last requests that did not end well.
    failed: VecDeque<RequestId>,
}

impl Followers {
    /// A follower has come. `pending`: whether the request before it is still to end.
    pub(crate) fn add(&mut self, after: RequestId, request: &Request, pending: bool) -> Turn {
        if self.failed.contains(&after) {
            return Turn::Never;
        }
        if !pending {
            return Turn::Now;
        }
        if self.waiting.values().map(Vec::len).sum::<usize>() >= MOST {
            return Turn::NoRoom;
        }
        self.waiting.entry(after).or_default().push(request.clone());
        Turn::Later
    }

    /// A request has ended; who waited for it.
    pub(crate) fn ended(&mut self, id: RequestId, well: bool) -> Vec<Request> {
        if !well {
            self.failed.push_back(id);
            if self.failed.len() > REMEMBERED {
                self.failed.pop_front();
            }
        }
        self.waiting.remove(&id).unwrap_or_default()
    }

    /// The followers on this endpoint up to this id are cancelled; which ones those are.
    pub(crate) fn cancel(&mut self, endpoint: Endpoint, through: RequestId) -> Vec<Request> {
        let mut cancelled = Vec::new();
        for requests in self.waiting.values_mut() {
            let is_hit = |request: &mut Request| request.endpoint == endpoint && request.id <= through;
            cancelled.extend(requests.extract_if(.., is_hit));
        }
        self.waiting.retain(|_, requests| !requests.is_empty());
        cancelled
    }

    /// All of them are cancelled.
    pub(crate) fn take_all(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.waiting).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use wire::usb::{DeviceId, Follow};

    use super::*;

    fn follower(after: u64, id: u64) -> Request {
        let (after, id) = (RequestId(after), RequestId(id));
        let endpoint = Endpoint::from_address(0x81).unwrap();
        Follow { after, id, device: DeviceId(1), endpoint, max: 512 }.into()
    }

    fn ids(requests: &[Request]) -> Vec<u64> {
        requests.iter().map(|request| request.id.0).collect()
    }

    #[test]
    fn a_follower_waits_for_the_end_of_the_one_before_and_begins_once() {
        let mut followers = Followers::default();
        assert_eq!(followers.add(RequestId(1), &follower(1, 2), true), Turn::Later);
        assert_eq!(ids(&followers.ended(RequestId(9), true)), [0; 0]);
        assert_eq!(ids(&followers.ended(RequestId(1), true)), [2]);
        assert_eq!(ids(&followers.ended(RequestId(1), true)), [0; 0]);
    }

    #[test]
    fn one_that_comes_late_begins_at_once_unless_the_one_before_failed() {
        let mut followers = Followers::default();
        assert_eq!(followers.add(RequestId(1), &follower(1, 2), false), Turn::Now);
        followers.ended(RequestId(3), false);
        assert_eq!(followers.add(RequestId(3), &follower(3, 4), false), Turn::Never);
    }

    #[test]
    fn a_cancel_hits_followers_of_its_endpoint_up_to_its_id() {
        let mut followers = Followers::default();
        for (after, id) in [(1, 2), (2, 3), (3, 4)] {
            followers.add(RequestId(after), &follower(after, id), true);
        }
        let other = Endpoint::from_address(0x82).unwrap();
        assert_eq!(ids(&followers.cancel(other, RequestId(9))), [0; 0]);
        assert_eq!(ids(&followers.cancel(Endpoint::from_address(0x81).unwrap(), RequestId(3))), [2, 3]);
        assert_eq!(ids(&followers.take_all()), [4]);
    }

    #[test]
    fn what_waits_and_what_is_remembered_is_bounded_whatever_a_host_sends() {
        let mut followers = Followers::default();
        let turns: Vec<_> =
            (1..1000).map(|id| followers.add(RequestId(1), &follower(1, 1 + id), true)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Later).count(), MOST);
        (0..1000).for_each(|id| drop(followers.ended(RequestId(id), false)));
        assert!(followers.failed.len() <= REMEMBERED && followers.waiting.is_empty());
    }
}
