//! UsbPort around a function that does what a test tells it to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
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

use super::world::request;
use crate::port::{self, Do, Ended, Ends, Parts, UsbPort, What, place};

/// Every request ends at once; number 666 is bad luck.
#[derive(Default)]
struct Echo {
    ended: Vec<Completion>,
    bytes: usize,
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

    fn reset(&mut self, _: RequestId) {}

    fn replug(&mut self) {
        self.ended.clear();
    }

    fn poll(&mut self, _: Duration, lane: Lane) -> Option<Completion> {
        if lane == Lane::Int { self.ended.pop() } else { None }
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }
}

const BAD_LUCK: RequestId = RequestId(666);

struct World {
    port: Addr<UsbPort<Echo>>,
    ends: Ends<mpsc::Receiver<Ended>>,
    /// How often the device was made.
    made: Arc<AtomicU32>,
}

fn world(bytes: usize) -> World {
    let (said, ends) = port::ends();
    let made = Arc::new(AtomicU32::new(1));
    let again = Arc::clone(&made);
    let make = Box::new(move || {
        anyhow::ensure!(again.fetch_add(1, Relaxed) < 2, "it is broken for good");
        Ok(Echo { bytes, ..Echo::default() })
    });
    let parts = Parts { port: 5, make, watch: Box::new(|_| ()), ends: said };
    World { port: UsbPort::new(Echo { bytes, ..Echo::default() }, parts).start(), ends, made }
}

impl World {
    async fn tell(&self, what: What) {
        self.port.send(Do { what, credit: (Lane::Int, 10) }).await.unwrap();
    }

    async fn submit(&self, id: u64) {
        self.tell(What::Submit(request(DeviceId(1), id))).await;
    }

    fn said(&mut self, lane: Lane) -> Option<Ended> {
        self.ends[place(lane)].try_recv().ok()
    }
}

#[actix::test]
async fn an_end_comes_with_the_credit_of_what_was_taken_and_its_session() {
    let mut world = world(0);
    world.tell(What::Renew { session: 3 }).await;
    world.submit(1).await;
    let said = world.said(Lane::Int).unwrap();
    assert_eq!((said.session, said.port, said.taken, said.gone), (3, 5, 10, false));
    assert_eq!(said.completions.iter().map(|end| end.id.0).collect::<Vec<_>>(), [1]);
    world.port.send(Do { what: What::Reset { id: RequestId(2) }, credit: (Lane::Ctl, 7) }).await.unwrap();
    let said = world.said(Lane::Ctl).unwrap();
    assert_eq!((said.taken, said.completions[0].id, said.completions[0].lane), (7, RequestId(2), Lane::Ctl));
}

#[actix::test]
async fn what_nobody_listens_to_stays_in_the_function_and_comes_in_order_later() {
    const MIB: usize = 1 << 20;
    let mut world = world(MIB);
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
async fn a_panic_is_the_end_of_the_device_until_it_is_renewed() {
    let mut world = world(0);
    world.submit(BAD_LUCK.0).await;
    let said = world.said(Lane::Ctl).unwrap();
    assert!(said.gone && said.port == 5);
    world.submit(14).await;
    while let Some(said) = world.said(Lane::Int) {
        assert!(said.completions.is_empty(), "nobody is there");
    }
    world.tell(What::Renew { session: 1 }).await;
    world.submit(15).await;
    assert_eq!(world.made.load(Relaxed), 2, "it was made again");
    assert_eq!(world.said(Lane::Int).unwrap().completions[0].id, RequestId(15));
}

#[actix::test]
async fn a_device_that_cannot_be_made_again_is_gone_again() {
    let mut world = world(0);
    for _ in 0..2 {
        world.submit(BAD_LUCK.0).await;
        assert!(world.said(Lane::Ctl).unwrap().gone);
        world.tell(What::Renew { session: 1 }).await;
    }
    assert!(world.said(Lane::Ctl).unwrap().gone);
}
