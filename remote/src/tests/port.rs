//! UsbPort around a function that does what a test tells it to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::prelude::*;
use functions::Function;
use tokio::sync::mpsc;
use wire::{
    Lane,
    control::Profile,
    usb::{Completion, DeviceId, Endpoint, Failure, Moved, Request, RequestId, Speed},
};

use super::host::request;
use crate::port::{self, Do, Ended, Ends, Open, Parts, PortId, UsbPort, What, place};

/// Every request ends at once, but number 777 never; number 666 is bad luck. Reset number 555 fails.
#[derive(Default)]
struct Echo {
    ended: Vec<Completion>,
    bytes: usize,
    /// A request that ends when this says so.
    later: Arc<AtomicU64>,
}

impl Function for Echo {
    fn id(&self) -> (u16, u16) {
        (1, 2)
    }

    fn speed(&self) -> Speed {
        Speed::High
    }

    fn profile(&self) -> Profile {
        Profile::default()
    }

    fn streams(&mut self, id: RequestId, _: &[Endpoint], _: u16) {
        self.cancel(Endpoint::CONTROL, id);
    }

    fn submit(&mut self, request: Request) {
        assert_ne!(request.id, BAD_LUCK, "bad luck");
        if request.id == NEVER {
            return;
        }
        let moved = Moved::In(vec![0; self.bytes].into());
        self.ended.insert(
            0,
            Completion { id: request.id, result: Ok(()), moved, packets: Vec::new(), lane: Lane::Int },
        );
    }

    fn cancel(&mut self, _: Endpoint, through: RequestId) {
        let end = Completion {
            id: through,
            result: Err(Failure::Cancelled),
            moved: Moved::Out(0),
            packets: Vec::new(),
            lane: Lane::Int,
        };
        self.ended.insert(0, end);
    }

    fn reset(&mut self, through: RequestId) -> Result<(), Failure> {
        if through == FATAL { Err(Failure::Fault) } else { Ok(()) }
    }

    fn replug(&mut self) {
        self.ended.clear();
    }

    fn poll(&mut self, _: Duration, lane: Lane) -> Option<Completion> {
        if lane != Lane::Int {
            return None;
        }
        let later = RequestId(self.later.swap(0, Relaxed));
        if later.0 > 0 {
            self.cancel(Endpoint::CONTROL, later);
        }
        self.ended.pop()
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }
}

const NEVER: RequestId = RequestId(777);
const BAD_LUCK: RequestId = RequestId(666);
const FATAL: RequestId = RequestId(555);

struct World {
    port: Addr<UsbPort<Echo>>,
    ends: Ends<mpsc::Receiver<Ended>>,
    /// How often the device was made.
    made: Arc<AtomicU32>,
    /// What wakes the port.
    wakes: std::sync::mpsc::Receiver<port::Wake>,
    later: Arc<AtomicU64>,
}

async fn world(bytes: usize) -> World {
    let (said, ends) = port::ends();
    let made = Arc::new(AtomicU32::new(0));
    let again = Arc::clone(&made);
    let later: Arc<AtomicU64> = Arc::default();
    let ends_later = Arc::clone(&later);
    let (wake, wakes) = std::sync::mpsc::channel();
    let make = Box::new(move |waker| {
        anyhow::ensure!(again.fetch_add(1, Relaxed) < 2, "it is broken for good");
        let _ = wake.send(waker);
        Ok(Echo { bytes, later: Arc::clone(&ends_later), ..Echo::default() })
    });
    let parts = Parts { port: PortId(5), make, watch: Box::new(|_| ()), ends: said, thread: None };
    let port = UsbPort::launch(parts);
    let opened = port.send(Open { name: "echo".to_owned() }).await.unwrap().unwrap();
    assert_eq!((opened.vendor, opened.product, &*opened.name), (1, 2, "echo"));
    World { port, ends, made, wakes, later }
}

impl World {
    async fn tell(&self, what: What) {
        self.port.send(Do { what, credit: (Lane::Int, 10) }).await.unwrap();
    }

    async fn submit(&self, id: u64) {
        self.tell(What::Submit(request(DeviceId(1), id))).await;
    }

    /// The ends of this lane so far.
    fn ends_of(&mut self, lane: Lane) -> Vec<(u64, Result<(), Failure>)> {
        let mut ends = Vec::new();
        while let Some(said) = self.said(lane) {
            ends.extend(said.completions.into_iter().map(|end| (end.id.0, end.result)));
        }
        ends
    }

    fn said(&mut self, lane: Lane) -> Option<Ended> {
        self.ends[place(lane)].try_recv().ok()
    }
}

#[actix::test]
async fn an_end_comes_with_the_credit_of_what_was_taken_and_its_session() {
    let mut world = world(0).await;
    world.tell(What::Renew { session: 3 }).await;
    world.submit(1).await;
    let said = world.said(Lane::Int).unwrap();
    assert_eq!((said.session, said.port, said.taken, said.gone), (3, PortId(5), 10, false));
    assert_eq!(said.completions.iter().map(|end| end.id.0).collect::<Vec<_>>(), [1]);
    world.port.send(Do { what: What::Reset { id: RequestId(2) }, credit: (Lane::Ctl, 7) }).await.unwrap();
    let said = world.said(Lane::Ctl).unwrap();
    assert_eq!((said.taken, said.completions[0].id, said.completions[0].lane), (7, RequestId(2), Lane::Ctl));
}

#[actix::test]
async fn a_reset_that_failed_is_told_as_failed_and_nothing_follows_it() {
    let mut world = world(0).await;
    for (id, result, follows) in
        [(FATAL, Err(Failure::Fault), Err(Failure::Cancelled)), (RequestId(556), Ok(()), Ok(()))]
    {
        world.tell(What::Reset { id }).await;
        assert_eq!(world.ends_of(Lane::Ctl), [(id.0, result)]);
        world.tell(What::Follow { after: id, request: request(DeviceId(1), 600) }).await;
        assert_eq!(world.ends_of(Lane::Int), [(600, follows)], "{id:?}");
    }
}

#[actix::test]
async fn what_nobody_listens_to_stays_in_the_function_and_comes_in_order_later() {
    const MIB: usize = 1 << 20;
    let mut world = world(MIB).await;
    for id in 0..50 {
        world.submit(id).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let said = world.ends[place(Lane::Int)].recv().await.unwrap();
        assert!(said.completions.len() <= 1, "a MiB fills a batch");
        seen.extend(said.completions.iter().map(|end| end.id.0));
    }
    assert!(seen.into_iter().eq(0..50));
}

#[actix::test]
async fn a_follower_begins_when_the_one_before_has_ended_well_and_is_cancelled_otherwise() {
    let mut world = world(0).await;
    let follow = |after, id| What::Follow { after, request: request(DeviceId(1), id) };
    world.submit(NEVER.0).await;
    world.tell(follow(NEVER, 800)).await;
    world.tell(follow(RequestId(800), 801)).await;
    assert_eq!(world.ends_of(Lane::Int), []);
    // It ends as cancelled.
    world.later.store(NEVER.0, Relaxed);
    world.wakes.recv().unwrap()();
    world.submit(900).await;
    world.tell(follow(RequestId(900), 901)).await;
    world.tell(follow(RequestId(901), 902)).await;
    let cancelled = Err(Failure::Cancelled);
    let mut ends = world.ends_of(Lane::Int);
    ends.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(
        ends,
        [
            (NEVER.0, cancelled),
            (800, cancelled),
            (801, cancelled),
            (900, Ok(())),
            (901, Ok(())),
            (902, Ok(()))
        ]
    );
}

#[actix::test]
async fn a_follower_whose_endpoint_is_cancelled_or_whose_device_is_reset_never_begins() {
    let mut world = world(0).await;
    let follow = |id| What::Follow { after: NEVER, request: request(DeviceId(1), id) };
    world.submit(NEVER.0).await;
    world.tell(follow(800)).await;
    let endpoint = request(DeviceId(1), 800).endpoint;
    world.tell(What::Cancel { endpoint, through: RequestId(800) }).await;
    assert!(world.ends_of(Lane::Int).contains(&(800, Err(Failure::Cancelled))));
    world.tell(follow(801)).await;
    world.tell(What::Reset { id: RequestId(802) }).await;
    assert_eq!(world.ends_of(Lane::Int), [(801, Err(Failure::Cancelled))]);
}

#[actix::test]
async fn a_panic_is_the_end_of_the_device_until_it_is_renewed() {
    let mut world = world(0).await;
    world.submit(BAD_LUCK.0).await;
    let said = world.said(Lane::Ctl).unwrap();
    assert!(said.gone && said.port == PortId(5));
    world.submit(14).await;
    let mut ends = Vec::new();
    while let Some(said) = world.said(Lane::Int) {
        ends.extend(said.completions.into_iter().map(|end| (end.id, end.result)));
    }
    let gone = Err(Failure::Disconnected);
    assert_eq!(ends, [(BAD_LUCK, gone), (RequestId(14), gone)], "every request has an end");
    world.tell(What::Renew { session: 1 }).await;
    world.submit(15).await;
    assert_eq!(world.made.load(Relaxed), 2, "it was made again");
    assert_eq!(world.said(Lane::Int).unwrap().completions[0].id, RequestId(15));
}

#[actix::test]
async fn a_device_that_cannot_be_made_again_is_gone_again() {
    let mut world = world(0).await;
    for _ in 0..2 {
        world.submit(BAD_LUCK.0).await;
        assert!(world.said(Lane::Ctl).unwrap().gone);
        world.tell(What::Renew { session: 1 }).await;
    }
    assert!(world.said(Lane::Ctl).unwrap().gone);
}

#[actix::test]
async fn what_an_unplugged_device_had_ends_as_disconnected_and_the_port_ends() {
    let mut world = world(0).await;
    world.tell(What::Renew { session: 1 }).await;
    world.submit(NEVER.0).await;
    world.tell(What::Reset { id: RequestId(3) }).await;
    world.tell(What::Unplug).await;
    let (mut ends, mut taken) = (Vec::new(), 0);
    for lane in [Lane::Int, Lane::Ctl] {
        while let Some(said) = world.said(lane) {
            ends.extend(said.completions.into_iter().map(|end| (end.id, end.result)));
            taken += said.taken;
        }
    }
    assert_eq!(ends, [(NEVER, Err(Failure::Disconnected)), (RequestId(3), Ok(()))]);
    assert_eq!(taken, 30, "the credit of everything it was told comes back");
    assert!(world.port.send(Open { name: String::new() }).await.is_err(), "the port has ended");
}

#[actix::test]
async fn a_port_that_nobody_listens_to_ends_when_somebody_does() {
    const MIB: usize = 1 << 20;
    let mut world = world(MIB).await;
    for id in 0..20 {
        world.submit(id).await;
    }
    world.tell(What::Unplug).await;
    let mut seen = 0;
    while seen < 20 {
        seen += world.ends[place(Lane::Int)].recv().await.unwrap().completions.len();
    }
    // Every sender is the port's own: their end is its end.
    while world.ends[place(Lane::Int)].recv().await.is_some() {}
    assert!(!world.port.connected());
}

#[actix::test]
async fn a_port_on_its_own_thread_ends_the_thread() {
    let (said, _ends) = port::ends();
    let thread = Arbiter::new();
    let (dropped, mut gone) = mpsc::channel::<()>(1);
    let make = Box::new(|_| Ok(Echo::default()));
    let watch = Box::new(move |_: &Echo| drop(dropped.clone()));
    let parts = Parts { port: PortId(1), make, watch, ends: said, thread: Some(thread.handle()) };
    let port = UsbPort::launch(parts);
    port.send(Open { name: String::new() }).await.unwrap().unwrap();
    port.send(Do { what: What::Unplug, credit: (Lane::Ctl, 0) }).await.unwrap();
    assert!(gone.recv().await.is_none(), "everything of the port is gone");
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
}

#[actix::test]
async fn a_device_that_does_not_open_ends_its_thread_and_says_why() {
    let (said, _ends) = port::ends();
    let thread = Arbiter::new();
    let make = Box::new(|_| -> anyhow::Result<Echo> { panic!("no luck at all") });
    let parts =
        Parts { port: PortId(1), make, watch: Box::new(|_| ()), ends: said, thread: Some(thread.handle()) };
    let port = UsbPort::launch(parts);
    let error = port.send(Open { name: String::new() }).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("panicked"));
    drop(port);
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
}

#[actix::test]
async fn a_device_that_wakes_its_port_is_polled() {
    let mut world = world(0).await;
    let wake = world.wakes.try_recv().unwrap();
    // From a thread that knows nothing of actors, as often as it likes.
    let wake = std::thread::spawn(move || {
        (0..100).for_each(|_| wake());
        wake
    });
    let wake = wake.join().unwrap();
    world.later.store(9, Relaxed);
    wake();
    let said = world.ends[place(Lane::Int)].recv().await.unwrap();
    assert_eq!(said.completions[0].id, RequestId(9));
}
