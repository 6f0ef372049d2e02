//! The Lender between a bus that tests make and a Remote with its host.

use std::{rc::Rc, time::Duration};

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc};
use wire::{ToHost, control, usb::DeviceId};

use super::{
    host::Host,
    world::{World, attachment, probe, usb_device},
};
use crate::{
    cli::Format,
    control::{Outcome, Reply, Request, Target},
    events::Events,
    lender::{Lender, Parts, Stop},
    lent::Lent,
    port::{Do, PortId, What},
    sound::{
        Ask,
        status::{Microphone, Status},
    },
    usb::{
        bus::Seen,
        which::{Device, Input},
    },
};

/// How a device opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    Well,
    /// When the gate is opened.
    Later,
    Busy,
    Broken,
}

/// Who would be the sound.
struct Silent;

impl Actor for Silent {
    type Context = Context<Self>;
}

impl Handler<Ask> for Silent {
    type Result = MessageResult<Ask>;

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> Self::Result {
        let microphone = Microphone { muted: matches!(ask, Ask::Mute(true)), ..Microphone::default() };
        MessageResult(Status { microphone, ..Status::default() })
    }
}

struct Desk {
    world: World,
    lender: Addr<Lender<Opens>>,
    /// What the ports of devices that were opened are told.
    ports: mpsc::UnboundedReceiver<mpsc::UnboundedReceiver<Do>>,
    gate: Rc<Notify>,
    /// Every time that a device was opened.
    tries: mpsc::UnboundedReceiver<Opens>,
}

impl Desk {
    async fn new(asked: &[&str]) -> Self {
        let world = World::new().await;
        let (opened, ports) = mpsc::unbounded_channel();
        let (tried, tries) = mpsc::unbounded_channel();
        let gate = Rc::new(Notify::new());
        let open = {
            let gate = Rc::clone(&gate);
            let last = std::cell::Cell::new(100);
            Box::new(move |device: &Device, opens| {
                let (gate, opened, name) = (Rc::clone(&gate), opened.clone(), device.title());
                let _ = tried.send(opens);
                last.set(last.get() + 1);
                let id = PortId(last.get());
                async move {
                    match opens {
                        Opens::Well => {}
                        Opens::Later => gate.notified().await,
                        Opens::Busy => return Err(rusb::Error::Busy.into()),
                        Opens::Broken => return Err(rusb::Error::Io.into()),
                    }
                    let (port, told) = probe();
                    let _ = opened.send(told);
                    Ok(Lent::new(id, port.recipient(), attachment(&name)))
                }
                .boxed_local()
            })
        };
        let asked = asked.iter().map(|text| text.parse().unwrap()).collect();
        let (remote, sound, events) =
            (world.remote.clone(), Silent.start().recipient(), Events(Format::Json));
        let parts = Parts { asked, open, remote, sound, events };
        Self { world, lender: Lender::new(parts).start(), ports, gate, tries }
    }

    /// With a host that has the two devices that are always there.
    async fn connected(asked: &[&str]) -> (Self, Host) {
        let desk = Self::new(asked).await;
        let mut host = desk.world.accept();
        host.attached().await;
        (desk, host)
    }

    async fn plug(&self, device: &Device, opens: Opens) {
        self.lender.send(Seen::Arrived(device.clone(), opens)).await.unwrap();
    }

    async fn pull(&self, place: &str) {
        self.lender.send(Seen::Left(place.to_owned())).await.unwrap();
    }

    async fn ask(&self, request: Request) -> Reply {
        self.lender.send(request).await.unwrap()
    }

    async fn lend(&self, usb: &str) -> Vec<Outcome> {
        let Reply::Lend(outcomes) = self.ask(Request::Lend { usb: usb.parse().unwrap() }).await else {
            panic!("not lent")
        };
        outcomes
    }

    async fn take_back(&self, what: &str) -> Reply {
        self.ask(Request::Return { what: what.parse().unwrap() }).await
    }

    async fn kept(&self) -> Vec<(String, String)> {
        let Reply::Status { kept, .. } = self.ask(Request::Status).await else { panic!("no status") };
        kept.into_iter().map(|kept| (kept.bus_port.unwrap(), kept.reason)).collect()
    }
}

impl Host {
    async fn hears_that_it_is_gone(&mut self, device: DeviceId) {
        assert_eq!(self.hear().await, ToHost::Control(control::ToHost::Detached { device }));
    }

    async fn hears_nothing(&mut self) {
        let heard = tokio::time::timeout(Duration::from_secs(1), self.hear()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

const STORAGE: u8 = 8;

fn stick() -> Device {
    Device { name: Some("stick".into()), ..usb_device("1-2", STORAGE) }
}

#[actix::test]
async fn what_is_asked_for_is_lent_when_it_comes_and_detached_when_it_goes() {
    tokio::time::pause();
    let (mut desk, mut host) = Desk::connected(&["class=storage"]).await;
    desk.plug(&stick(), Opens::Well).await;
    let device = host.hears_of("stick").await;
    let mut told = desk.ports.recv().await.unwrap();
    assert!(matches!(told.recv().await.unwrap().what, What::Renew { session: 1 }));
    desk.pull("1-2").await;
    host.hears_that_it_is_gone(device).await;
    assert!(matches!(told.recv().await.unwrap().what, What::Unplug));
    desk.plug(&stick(), Opens::Well).await;
    assert_ne!(host.hears_of("stick").await, device, "it comes back under another id");
}

#[actix::test]
async fn what_is_not_asked_for_stays_and_status_says_why() {
    tokio::time::pause();
    let (mut desk, mut host) = Desk::connected(&["class=storage"]).await;
    desk.plug(&usb_device("1-3", 7), Opens::Well).await;
    desk.plug(&usb_device("1-4", 9), Opens::Well).await;
    host.hears_nothing().await;
    assert!(desk.tries.try_recv().is_err(), "nothing is opened");
    let kept = desk.kept().await;
    assert_eq!(kept.len(), 1, "a hub is nothing to lend: {kept:?}");
    assert!(kept[0].0 == "1-3" && kept[0].1.contains("not asked for"), "{kept:?}");
}

#[actix::test]
async fn a_device_that_is_pulled_or_taken_back_while_it_opens_is_closed() {
    tokio::time::pause();
    for pulled in [true, false] {
        let (mut desk, mut host) = Desk::connected(&["all"]).await;
        desk.plug(&stick(), Opens::Later).await;
        assert_eq!(desk.tries.recv().await, Some(Opens::Later));
        if pulled {
            desk.pull("1-2").await;
        } else {
            assert!(matches!(desk.take_back("1-2").await, Reply::Return(_)));
        }
        desk.gate.notify_one();
        let mut told = desk.ports.recv().await.unwrap();
        assert!(matches!(told.recv().await.unwrap().what, What::Unplug), "pulled: {pulled}");
        host.hears_nothing().await;
    }
}

#[actix::test]
async fn a_busy_device_is_tried_again_for_a_while_and_a_broken_one_is_not() {
    tokio::time::pause();
    for (opens, tries) in [(Opens::Busy, 6), (Opens::Broken, 1)] {
        let mut desk = Desk::new(&[]).await;
        desk.plug(&stick(), opens).await;
        let outcomes = desk.lend("1-2").await;
        assert!(!outcomes[0].lent && outcomes[0].reason.contains("farbus-remote lend 1-2") == (tries > 1));
        let mut tried = 0;
        while desk.tries.try_recv().is_ok() {
            tried += 1;
        }
        assert_eq!(tried, tries, "{opens:?}");
        assert_eq!(desk.kept().await[0].1, outcomes[0].reason);
        desk.pull("1-2").await;
        desk.plug(&stick(), Opens::Well).await;
        assert!(desk.ports.recv().await.is_some(), "plugged again, it is opened again");
    }
}

#[actix::test]
async fn what_was_taken_back_stays_wherever_it_is_plugged_in_until_it_is_lent_again() {
    tokio::time::pause();
    let (desk, mut host) = Desk::connected(&["all"]).await;
    let stick = Device { serial: Some("S1".into()), ..stick() };
    desk.plug(&stick, Opens::Well).await;
    let device = host.hears_of("stick").await;
    assert!(matches!(desk.take_back(&device.0.to_string()).await, Reply::Return(_)));
    host.hears_that_it_is_gone(device).await;
    desk.pull("1-2").await;
    let elsewhere = Device { ports: vec![5], ..stick.clone() };
    desk.plug(&elsewhere, Opens::Well).await;
    host.hears_nothing().await;
    assert!(desk.kept().await[0].1.contains("farbus-remote lend 1-5"));
    let another = Device { serial: Some("S2".into()), name: Some("another".into()), ..stick };
    desk.plug(&another, Opens::Well).await;
    host.hears_of("another").await;
    let outcomes = desk.lend("1-5").await;
    assert!(outcomes.len() == 1 && outcomes[0].lent, "{outcomes:?}");
    host.hears_of("stick").await;
}

#[actix::test]
async fn lending_at_run_time_is_for_now_and_for_later_and_keeps_the_rules() {
    tokio::time::pause();
    let (desk, mut host) = Desk::connected(&[]).await;
    let keyboard = Device { input: Input::Yes, name: Some("keyboard".into()), ..usb_device("1-1", 3) };
    desk.plug(&keyboard, Opens::Well).await;
    desk.plug(&stick(), Opens::Well).await;
    let outcomes = desk.lend("all").await;
    let lent: Vec<_> = outcomes.iter().map(|outcome| (&*outcome.name, outcome.lent)).collect();
    assert_eq!(lent, [("keyboard", false), ("stick", true)]);
    host.hears_of("stick").await;
    assert_eq!(desk.lend("1-2").await[0].reason, "lent already");
    desk.plug(&Device { name: Some("later".into()), ..usb_device("1-7", STORAGE) }, Opens::Well).await;
    host.hears_of("later").await;
    assert!(desk.lend("1-9").await.is_empty(), "nothing is there yet");
    desk.plug(&Device { name: Some("named".into()), ..usb_device("1-9", 3) }, Opens::Well).await;
    host.hears_of("named").await;
}

#[actix::test]
async fn taking_back_what_was_asked_for_ends_the_asking() {
    tokio::time::pause();
    let (desk, mut host) = Desk::connected(&["class=storage"]).await;
    desk.plug(&stick(), Opens::Well).await;
    let device = host.hears_of("stick").await;
    assert!(matches!(desk.take_back("class=storage").await, Reply::Return(all) if all.len() == 1));
    host.hears_that_it_is_gone(device).await;
    desk.plug(&usb_device("1-3", STORAGE), Opens::Well).await;
    host.hears_nothing().await;
}

#[actix::test]
async fn a_software_device_is_taken_back_by_its_number_and_a_wrong_number_is_an_error() {
    tokio::time::pause();
    let mut desk = Desk::new(&[]).await;
    let mut host = desk.world.accept();
    let [a, _] = host.attached().await;
    desk.world.told(0).await;
    let reply = desk.ask(Request::Return { what: Target::Device(a.0) }).await;
    assert!(matches!(reply, Reply::Return(outcomes) if outcomes[0].name == "a"));
    host.hears_that_it_is_gone(a).await;
    assert!(matches!(desk.world.told(0).await.0, What::Unplug));
    for wrong in ["99", "1-2", "all"] {
        let Reply::Error(error) = desk.take_back(wrong).await else { panic!("{wrong} was there") };
        assert!(error.contains("farbus-remote status"), "{error}");
    }
}

#[actix::test]
async fn what_is_being_opened_when_the_remote_ends_is_given_back_first() {
    tokio::time::pause();
    let mut desk = Desk::new(&["all"]).await;
    desk.plug(&stick(), Opens::Later).await;
    assert_eq!(desk.tries.recv().await, Some(Opens::Later));
    let mut stopped = desk.lender.send(Stop).boxed_local();
    let early = tokio::time::timeout(Duration::from_secs(1), &mut stopped).await;
    assert!(early.is_err(), "it waits");
    desk.gate.notify_one();
    stopped.await.unwrap();
    let mut told = desk.ports.recv().await.unwrap();
    assert!(matches!(told.try_recv().unwrap().what, What::Unplug), "before the answer came");
    desk.plug(&Device { ports: vec![7], ..stick() }, Opens::Well).await;
    desk.lender.send(Stop).await.unwrap();
    assert!(desk.tries.try_recv().is_err(), "nothing is opened any more");
}

#[actix::test]
async fn what_was_asked_for_and_never_came_can_be_taken_back() {
    tokio::time::pause();
    let (desk, mut host) = Desk::connected(&["1-2"]).await;
    assert_eq!(desk.take_back("1-2").await, Reply::Return(vec![]));
    desk.plug(&stick(), Opens::Well).await;
    host.hears_nothing().await;
}

#[actix::test]
async fn who_asks_in_vain_says_nothing_to_those_who_wait_for_the_same_device() {
    tokio::time::pause();
    let (desk, _host) = Desk::connected(&[]).await;
    desk.plug(&usb_device("1-2", 1), Opens::Later).await;
    let waits = desk.lender.send(Request::Lend { usb: "class=audio".parse().unwrap() });
    let in_vain = async {
        let outcomes = desk.lend("all").await;
        assert!(!outcomes[0].lent && outcomes[0].reason.contains("class=audio"), "{outcomes:?}");
        desk.gate.notify_one();
    };
    let (waited, ()) = tokio::join!(biased; waits, in_vain);
    let Reply::Lend(outcomes) = waited.unwrap() else { panic!("not lent") };
    assert!(outcomes[0].lent, "{outcomes:?}");
}

#[actix::test]
async fn what_is_asked_of_the_sound_is_answered_by_it() {
    let desk = Desk::new(&[]).await;
    let Reply::Sound(sound) = desk.ask(Request::Mute { muted: true }).await else { panic!("no answer") };
    assert!(sound.microphone.muted);
    let Reply::Status { sound, .. } = desk.ask(Request::Status).await else { panic!("no status") };
    assert!(!sound.microphone.muted);
}
