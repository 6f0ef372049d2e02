//! What a guest sees when links break and come back: nothing, until a device's time is over.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use link::{Link, PeerKey};
use tokio::time;
use vm_session::{Event, HangUp, SendAway};
use wire::{
    Lane, Message, ToRemote,
    control::{self, Descriptor, Profile},
    usb::DeviceId,
};

use crate::{
    supervision::{connected, operational, until_connected},
    world::{World, until},
};

/// A device with one interface of this class. USB 2.0 §9.6.3, §9.6.5.
pub(crate) fn of_class(class: u8) -> Profile {
    let data = [[9, 2, 18, 0, 1, 1, 0, 0x80, 50], [9, 4, 0, 0, 0, class, 0, 0, 0]].concat();
    let descriptor = Descriptor { request_type: 0x80, value: 0x0200, index: 0, data: data.into() };
    Profile { descriptors: vec![descriptor], ..Profile::default() }
}

pub(crate) const HID: u8 = 3;
pub(crate) const STORAGE: u8 = 8;

fn resumes(world: &World) -> usize {
    world.events().iter().filter(|event| matches!(event, Event::Resumed { .. })).count()
}

/// Time passes while the actors have all the turns that they want.
async fn pass(seconds: u64) {
    until(time::Instant::now() + Duration::from_secs(seconds)).await;
}

#[actix::test]
async fn a_link_that_breaks_and_comes_back_is_nothing_to_the_guest() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend_as(1, of_class(HID)).await;
    until_connected(&world, base, 1).await;
    for outage in 1..=3 {
        remote.cut();
        pass(9).await;
        assert_eq!(connected(&world, base).await, 1, "outage {outage}");
        remote.join(&world).await;
    }
    // What is said now comes over the third link of the same session.
    remote.lend(2).await;
    until_connected(&world, base, 2).await;
    let events = world.events();
    let ends = events.iter().filter(|event| matches!(event, Event::Linked { .. } | Event::LinkLost { .. }));
    assert_eq!((ends.count(), resumes(&world)), (1, 3), "{events:?}");
}

#[actix::test]
async fn each_device_is_unplugged_when_its_time_is_over_and_the_remote_hears_which() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend_as(7, of_class(HID)).await;
    remote.lend_as(8, of_class(STORAGE)).await;
    until_connected(&world, base, 2).await;
    remote.cut();
    pass(11).await;
    assert_eq!(connected(&world, base).await, 1, "the keyboard's 10 s are over");
    remote.join(&world).await;
    let unplugged = control::ToRemote::Unplugged { device: DeviceId(7) };
    assert_eq!(remote.hear().await, ToRemote::Control(unplugged));
    remote.lend_as(9, of_class(HID)).await;
    until_connected(&world, base, 2).await;
}

#[actix::test]
async fn a_session_without_a_link_ends_when_nothing_is_held_any_more() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend_as(1, of_class(STORAGE)).await;
    until_connected(&world, base, 1).await;
    remote.cut();
    pass(24).await;
    assert_eq!(connected(&world, base).await, 1);
    pass(2).await;
    assert_eq!(connected(&world, base).await, 0);
    let mut happened = world.events();
    happened.retain(|event| !matches!(event, Event::Counted(_) | Event::Lent(_)));
    assert!(matches!(happened.last(), Some(Event::LinkLost { .. })), "{happened:?}");
}

#[actix::test]
async fn a_new_session_ends_the_one_that_waits_for_its_remote() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut first = world.remote().await;
    first.lend(1).await;
    first.lend(2).await;
    until_connected(&world, base, 2).await;
    first.cut();
    let mut second = world.remote().await;
    until_connected(&world, base, 0).await;
    second.lend(1).await;
    until_connected(&world, base, 1).await;
}

#[actix::test]
async fn a_session_moves_to_a_second_link_and_lets_the_first_go() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    remote.join(&world).await;
    let moved = |event: &Event| matches!(event, Event::Resumed { after: None, .. });
    world.until(moved).await;
    remote.lend(2).await;
    until_connected(&world, base, 2).await;
    assert!(!world.events().iter().any(|event| matches!(event, Event::Detached { .. })));
}

#[actix::test]
async fn a_remote_that_is_silent_is_detached_and_then_gone() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend_as(1, of_class(HID)).await;
    until_connected(&world, base, 1).await;
    // Nothing is read or written from here on.
    pass(5).await;
    let detached = |event: &Event| matches!(event, Event::Detached { .. });
    assert!(world.events().iter().any(detached), "3 s of silence are the end of a link");
    assert_eq!(connected(&world, base).await, 1);
    pass(10).await;
    assert_eq!(connected(&world, base).await, 0);
}

#[actix::test]
async fn strangers_that_say_nothing_or_nonsense_are_closed_and_disturb_nobody() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    let mut links = Vec::new();
    for _ in 0..20 {
        links.push(world.link().await);
    }
    let mut nonsense = world.link().await;
    let body = Bytes::from_static(&[0xff; 80]);
    nonsense.send(Message { lane: Lane::Ctl, head: Bytes::new(), body }).unwrap();
    links.push(nonsense);
    pass(2).await;
    remote.hear_nothing().await;
    pass(2).await;
    remote.hear_nothing().await;
    pass(2).await;
    for (at, mut link) in links.into_iter().enumerate() {
        let received = std::future::poll_fn(|cx| link.poll_receive(cx)).now_or_never();
        assert!(matches!(received, Some(Err(_))), "link {at}: {received:?}");
    }
    assert_eq!((connected(&world, base).await, resumes(&world)), (1, 0));
}

#[actix::test]
async fn a_session_that_the_host_does_not_know_is_refused_and_the_own_one_lives() {
    time::pause();
    let (world, other) = (World::new(), World::new());
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    let mut stray = other.remote().await;
    stray.cut();
    assert_eq!(stray.refused(&world).await, session::ResetReason::Unknown);
    remote.lend(2).await;
    until_connected(&world, base, 2).await;
}

#[actix::test]
async fn another_remote_that_comes_too_late_does_not_end_a_session() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    let other = PeerKey([7; 32]);
    let mut late = world.stranger();
    late.ask(&world, other).await;
    pass(1).await;
    assert!(late.closed());
    world.session.send(SendAway { remote: other, text: "no".into() }).await.unwrap();
    remote.lend(2).await;
    until_connected(&world, base, 2).await;
}

#[actix::test]
async fn a_goodbye_is_heard_over_a_link_that_was_full_when_it_was_said() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote_by(1).await;
    // Each of these is answered with a frame of credit, and nobody reads them.
    for device in 1..=12 {
        remote.lend(device).await;
        time::sleep(Duration::from_millis(50)).await;
    }
    world.session.send(SendAway { remote: remote.key(), text: "go".into() }).await.unwrap();
    until_connected(&world, base, 0).await;
    let bye = control::ToRemote::Bye { text: "go".into(), retry: false };
    assert_eq!(remote.hear().await, ToRemote::Control(bye));
}

#[actix::test]
async fn a_remote_that_hangs_up_is_not_waited_for() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    let before = remote.binding();
    remote.join(&world).await;
    world.session.send(HangUp { binding: before }).await.unwrap();
    remote.lend(2).await;
    until_connected(&world, base, 2).await;
    let started = time::Instant::now();
    world.session.send(HangUp { binding: remote.binding() }).await.unwrap();
    until_connected(&world, base, 0).await;
    assert!(started.elapsed() < Duration::from_millis(100), "held for {:?}", started.elapsed());
    let hung_up = Event::LinkLost { reason: "the remote hung up".into() };
    world.until(|event| *event == hung_up).await;
}
