use std::cell::RefCell;

use wire::usb::{DeviceId, PacketEnd, Setup};

use super::*;
use crate::usb::carrier::Finished;

/// Carries nothing: transfers end when a test says so.
#[derive(Debug, Default)]
struct Hand {
    last: u64,
    flying: Vec<(u64, Order)>,
    cancelled: RefCell<Vec<u64>>,
    ended: VecDeque<Finished>,
    refuses: Option<SubmitError>,
}

impl Carrier for Hand {
    fn submit(&mut self, order: Order) -> Result<u64, SubmitError> {
        if let Some(error) = self.refuses {
            return Err(error);
        }
        self.last += 1;
        self.flying.push((self.last, order));
        Ok(self.last)
    }

    fn cancel(&self, number: u64) {
        self.cancelled.borrow_mut().push(number);
    }

    fn next_finished(&mut self) -> Option<Finished> {
        self.ended.pop_front()
    }

    /// Nothing ever ends while anybody waits.
    fn wait(&self, _: Instant) -> bool {
        false
    }
}

impl Hand {
    /// The transfer with this number ends well: everything moved.
    fn end(&mut self, number: u64) {
        let at = self.flying.iter().position(|(flying, _)| *flying == number).expect("it flies");
        let (number, Order { endpoint, buffer, .. }) = self.flying.remove(at);
        let (actual, packets) = (buffer.len(), Vec::<PacketEnd>::new());
        self.ended.push_back(Finished { number, endpoint, result: Ok(()), actual, buffer, packets });
    }

    fn end_all(&mut self) {
        let numbers: Vec<u64> = self.flying.iter().map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.end(number));
    }
}

fn queue(credit: &Arc<Credit>) -> Queue<Hand> {
    Queue::new(Hand::default(), Arc::clone(credit))
}

fn plenty() -> Arc<Credit> {
    Credit::new(1 << 30)
}

fn endpoint(address: u8) -> Endpoint {
    Endpoint::from_address(address).unwrap()
}

fn request(id: u64, address: u8, payload: Payload) -> Request {
    let (id, endpoint) = (RequestId(id), endpoint(address));
    Request { id, device: DeviceId(1), endpoint, transfer: Transfer::Bulk { stream: 0 }, payload }
}

fn read(id: u64, address: u8, max: u32) -> Request {
    request(id, address, Payload::In { max })
}

fn write(id: u64, address: u8, length: usize) -> Request {
    request(id, address, Payload::Out(vec![0; length].into()))
}

/// Starts what can go, and hears what has ended.
fn turn(queue: &mut Queue<Hand>) -> Vec<(u64, Result<(), Failure>)> {
    queue.collect();
    assert!(queue.start(Duration::ZERO).is_none());
    let mut heard = Vec::new();
    for lane in LANES {
        heard.extend(std::iter::from_fn(|| queue.next_end(lane)).map(|end| (end.id.0, end.result)));
    }
    heard
}

#[test]
fn an_id_that_flies_already_is_another_request_with_an_end_of_its_own() {
    let mut queue = queue(&plenty());
    queue.submit(read(7, 0x81, 512));
    queue.submit(read(7, 0x81, 512));
    assert_eq!(turn(&mut queue), []);
    let numbers: Vec<_> = queue.carrier.flying.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2]);
    queue.cancel(endpoint(0x81), RequestId(7));
    assert_eq!(*queue.carrier.cancelled.borrow(), [2, 1], "newest first");
    queue.carrier.end_all();
    assert_eq!(turn(&mut queue), [(7, Ok(())), (7, Ok(()))]);
}

#[test]
fn what_flies_for_a_host_that_is_gone_ends_unheard_and_gives_its_credit_back() {
    let credit = Credit::new(4096);
    let mut queue = queue(&credit);
    queue.submit(read(1, 0x81, 2000));
    turn(&mut queue);
    queue.drain_all(None);
    queue.forget();
    // The next host counts anew.
    queue.submit(read(1, 0x81, 1000));
    turn(&mut queue);
    queue.carrier.end(1);
    assert_eq!(turn(&mut queue), [], "the old one's end is nobody's");
    queue.carrier.end(2);
    assert_eq!(turn(&mut queue), [(1, Ok(()))]);
    assert!(credit.take(4000, 1).is_err() && credit.take(2000, 1).is_ok(), "all of it is back");
}

#[test]
fn a_queue_that_is_dropped_gives_its_credit_back() {
    let credit = Credit::new(4096);
    let mut queue = queue(&credit);
    queue.submit(read(1, 0x81, 3000));
    turn(&mut queue);
    assert!(credit.take(2000, 1).is_err());
    drop(queue);
    assert!(credit.take(2000, 1).is_ok());
}

#[test]
fn a_pipe_that_others_leave_nothing_asks_again() {
    let credit = Credit::new(10_000);
    let taken = credit.take(9000, 0).unwrap();
    let mut queue = queue(&credit);
    queue.submit(read(1, 0x81, 1000));
    queue.submit(read(2, 0x81, 1000));
    queue.submit(read(3, 0x82, 1000));
    turn(&mut queue);
    assert_eq!(queue.carrier.flying.len(), 2, "one may always fly, on each pipe");
    assert_eq!(queue.deadline(), Some(AGAIN));
    drop(taken);
    turn(&mut queue);
    assert_eq!((queue.carrier.flying.len(), queue.deadline()), (3, None));
}

#[test]
fn one_idle_reader_leaves_credit_to_others_and_wakes_nobody() {
    let mut queue = queue(&Credit::new(12 << 20));
    (1..=12).for_each(|id| queue.submit(read(id, 0x81, 1 << 20)));
    turn(&mut queue);
    assert_eq!((queue.carrier.flying.len(), queue.deadline()), (5, None));
    (13..=14).for_each(|id| queue.submit(read(id, 0x82, 1 << 20)));
    turn(&mut queue);
    assert_eq!(queue.carrier.flying.len(), 7);
}

#[test]
fn what_the_kernel_has_no_memory_for_is_tried_again_and_what_it_refuses_is_not() {
    let mut queue = queue(&plenty());
    queue.carrier.refuses = Some(SubmitError::NoMemory);
    queue.submit(read(1, 0x81, 512));
    queue.submit(read(2, 0x81, 512));
    assert_eq!((turn(&mut queue), queue.deadline()), (vec![], Some(AGAIN)));
    assert!(!queue.take_touched(), "nothing has reached the device");
    queue.carrier.refuses = None;
    turn(&mut queue);
    assert!(queue.take_touched() && !queue.take_touched());
    queue.carrier.end_all();
    assert_eq!((turn(&mut queue), queue.deadline()), (vec![(1, Ok(())), (2, Ok(()))], None));
    for (error, failure) in
        [(SubmitError::Gone, Failure::Disconnected), (SubmitError::Other(-1), Failure::InvalidArgument)]
    {
        queue.carrier.refuses = Some(error);
        queue.submit(read(3, 0x81, 512));
        assert_eq!((turn(&mut queue), queue.deadline()), (vec![(3, Err(failure))], None));
    }
}

#[test]
fn nothing_starts_on_a_lane_whose_ends_nobody_takes() {
    let mut queue = queue(&plenty());
    let mut came = 0;
    for id in 1..100 {
        queue.submit(read(id, 0x81, 256 << 10));
        queue.collect();
        queue.start(Duration::ZERO);
        came += queue.carrier.flying.len();
        queue.carrier.end_all();
    }
    assert_eq!(came, MAX_UNTOLD / (256 << 10) + 1);
    // Other lanes go on.
    queue.submit(Request { transfer: Transfer::Interrupt, ..read(200, 0x82, 8) });
    queue.start(Duration::ZERO);
    assert_eq!(queue.carrier.flying.len(), 1);
    queue.carrier.end_all();
    let mut heard = 0;
    while heard < 100 {
        heard += turn(&mut queue).len();
        queue.carrier.end_all();
    }
    assert!(queue.waiting.is_empty() && queue.flying.is_empty(), "all of it went in the end");
}

#[test]
fn what_waits_is_bounded_by_number_and_by_bytes() {
    let mut queue = queue(&plenty());
    queue.carrier.refuses = Some(SubmitError::NoMemory);
    (1..=18).for_each(|id| queue.submit(write(id, 0x02, MAX_WAITING_BYTES / 16)));
    let refused = Err(Failure::Fault);
    assert_eq!(turn(&mut queue), [(17, refused), (18, refused)]);
    (0..MAX_WAITING as u64 + 7).for_each(|id| queue.submit(read(100 + id, 0x81, 1)));
    assert_eq!(turn(&mut queue).len(), 7);
    queue.drain_all(None);
    assert_eq!(queue.waiting_bytes, 0);
    assert_eq!(turn(&mut queue).len(), 16 + MAX_WAITING);
}

#[test]
fn a_cancel_hits_what_waits_and_what_comes_later_up_to_its_id() {
    let mut queue = queue(&plenty());
    queue.carrier.refuses = Some(SubmitError::NoMemory);
    (1..=3).for_each(|id| queue.submit(write(id, 0x02, 9)));
    queue.cancel(endpoint(0x02), RequestId(2));
    queue.cancel(endpoint(0x81), RequestId(5));
    queue.submit(read(4, 0x81, 9));
    let cancelled = Err(Failure::Cancelled);
    assert_eq!(turn(&mut queue), [(2, cancelled), (1, cancelled), (4, cancelled)]);
    assert_eq!(queue.waiting_bytes, 9);
}

#[test]
fn a_reset_hits_what_comes_later_on_endpoints_that_nobody_has_used_yet() {
    let mut queue = queue(&plenty());
    queue.cancel_all_later(RequestId(5));
    queue.submit(read(5, 0x81, 9));
    queue.submit(read(6, 0x81, 9));
    assert_eq!(turn(&mut queue), [(5, Err(Failure::Cancelled))]);
    assert_eq!(queue.carrier.flying.len(), 1);
}

#[test]
fn a_request_for_the_kernel_comes_after_what_its_pipe_was_asked_before() {
    let control = |id, request_type, number| {
        let setup = Setup::from_bytes([request_type, number, 1, 0, 0, 0, 0, 0]);
        let payload = Payload::Out([].as_slice().into());
        Request { transfer: Transfer::Control(setup), ..request(id, 0, payload) }
    };
    let mut queue = queue(&plenty());
    queue.submit(control(1, 0x40, 1));
    queue.submit(control(2, 0, 9));
    queue.submit(control(3, 0x40, 1));
    assert!(queue.start(Duration::ZERO).is_none());
    queue.carrier.end_all();
    queue.collect();
    let (set, way) = queue.start(Duration::ZERO).unwrap();
    assert_eq!((set.id, way, queue.carrier.flying.len()), (RequestId(2), Way::Configure(1), 0));
    queue.end_of(&set, Ok(()));
    assert_eq!(turn(&mut queue), [(1, Ok(())), (2, Ok(()))]);
    assert_eq!(queue.carrier.flying.len(), 1);
}
