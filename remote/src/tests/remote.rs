//! The Remote between a host and its devices.

use std::time::Duration;

use tokio::time::Instant;
use wire::{
    Lane, ToHost, ToRemote, audio,
    control::{self, Refusal},
    usb::{self, Completion, DeviceId, Endpoint, Failure, Moved, Payload, RequestId, Transfer},
};

use super::{host::request, world::World};
use crate::{
    lent::Traffic,
    port::{Ended, PortId, What},
    ports::{Status, Whom},
    remote::Leave,
    sound::{Heard, Report},
};

fn end(id: u64, lane: Lane) -> Completion {
    Completion { id: RequestId(id), result: Ok(()), moved: Moved::Out(0), packets: Vec::new(), lane }
}

fn usb(message: usb::ToRemote) -> ToRemote {
    ToRemote::Usb(message)
}

#[actix::test]
async fn messages_reach_the_device_they_are_for_in_order_and_ends_come_back() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, b] = host.attached().await;
    assert_ne!(a, b);
    for device in 0..2 {
        assert!(matches!(world.told(device).await.0, What::Renew { session: 1 }));
    }
    host.say(usb(usb::ToRemote::Submit(request(b, 7)))).await;
    host.say(usb(usb::ToRemote::Submit(request(a, 8)))).await;
    host.say(usb(usb::ToRemote::Submit(request(b, 9)))).await;
    for (device, id) in [(1, 7), (1, 9), (0, 8)] {
        let (what, (lane, bytes)) = world.told(device).await;
        assert!(matches!(what, What::Submit(r) if r.id == RequestId(id)), "request {id}");
        assert!(lane == Lane::Int && bytes > 0, "its credit comes with it");
    }
    let completions = vec![end(7, Lane::Int), end(9, Lane::Int)];
    world.say(Lane::Int, Ended { session: 1, port: PortId(1), completions, ..Ended::default() }).await;
    for id in [7, 9] {
        assert_eq!(host.hear().await, ToHost::Completed(end(id, Lane::Int)));
    }
    let through = RequestId(11);
    host.say(usb(usb::ToRemote::Cancel { device: a, endpoint: Endpoint::CONTROL, through })).await;
    host.say(usb(usb::ToRemote::Reset { device: a, id: RequestId(12) })).await;
    assert!(matches!(world.told(0).await.0, What::Cancel { through, .. } if through == RequestId(11)));
    assert!(matches!(world.told(0).await.0, What::Reset { id } if id == RequestId(12)));
}

#[actix::test]
async fn a_request_for_a_device_that_is_not_lent_ends_as_disconnected() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    host.say(usb(usb::ToRemote::Submit(request(DeviceId(99), 1)))).await;
    host.say(usb(usb::ToRemote::Reset { device: DeviceId(99), id: RequestId(2) })).await;
    let mut ends = Vec::new();
    for _ in 0..2 {
        let ToHost::Completed(end) = host.hear().await else { panic!("no end") };
        ends.push((end.id.0, end.result, end.lane));
    }
    ends.sort_by_key(|end| end.0);
    let gone = Err(Failure::Disconnected);
    assert_eq!(ends, [(1, gone, Lane::Int), (2, gone, Lane::Ctl)]);
}

#[actix::test]
async fn sound_goes_to_the_sound_and_silence_follows_a_lost_session() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    let pause = audio::ToRemote::Pause { stream: audio::StreamId(1), run: 2, position: 3 };
    assert!(matches!(world.heard.recv().await, Some(Heard::Linked)));
    host.say(ToRemote::Audio(pause.clone())).await;
    assert!(matches!(world.heard.recv().await, Some(Heard::Audio(heard)) if heard == pause));
    drop(host);
    world.forget().await;
    assert!(matches!(world.heard.recv().await, Some(Heard::Silence)));
}

#[actix::test]
async fn sound_that_would_wait_too_long_for_the_link_is_lost_and_never_late() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    // Two seconds and a half, while nobody reads from the link.
    let format = audio::Format { rate: 48_000, encoding: audio::Encoding::S16, channels: 2 };
    let coded = |n: u64| {
        let payload = vec![0; 480 * format.frame_bytes() as usize].into();
        let block = audio::Block { position: 480 * n, frames: 480, codec: audio::Codec::Pcm, payload };
        audio::Coded { stream: audio::StreamId(0), run: 1, again: false, format, block, copies: Vec::new() }
    };
    for n in 0..250 {
        let report = Report(audio::ToHost::RecordedCoded(coded(n)));
        world.remote.send(report).await.unwrap();
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let mut heard = 0;
    while let Ok(message) = tokio::time::timeout(Duration::from_millis(500), host.hear()).await {
        heard += u64::from(matches!(message, ToHost::Audio(audio::ToHost::RecordedCoded(_))));
    }
    assert!((1..100).contains(&heard), "{heard} packets of 10 ms were on their way");
}

#[actix::test]
async fn a_host_that_forgot_the_session_gets_everything_anew_and_nothing_of_the_old_one() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let old = host.attached().await;
    drop(host);
    world.forget().await;
    let mut host = world.accept();
    let new = host.attached().await;
    assert!(new.iter().all(|id| !old.contains(id)));
    for session in [1, 2] {
        assert!(matches!(world.told(0).await.0, What::Renew { session: s } if s == session));
    }
    let late = Ended { session: 1, completions: vec![end(1, Lane::Int)], ..Ended::default() };
    world.say(Lane::Int, late).await;
    let fresh = Ended { session: 2, completions: vec![end(2, Lane::Int)], ..Ended::default() };
    world.say(Lane::Int, fresh).await;
    assert_eq!(host.hear().await, ToHost::Completed(end(2, Lane::Int)), "nothing of the old session");
}

#[actix::test]
async fn a_host_that_is_busy_is_tried_again_later_and_later() {
    tokio::time::pause();
    let world = World::new().await;
    let start = Instant::now();
    for _ in 0..4 {
        world.refuse(Refusal::Busy);
    }
    let mut host = world.accept();
    host.attached().await;
    let waited = start.elapsed();
    let (least, most) = (Duration::from_millis(2400), Duration::from_millis(3100));
    assert!(least <= waited && waited <= most, "0.2 + 0.4 + 0.8 + 1.6 s, less the jitter: {waited:?}");
}

#[actix::test]
async fn a_refusal_for_good_ends_with_its_own_exit_code() {
    for reason in [Refusal::NotAllowed, Refusal::Version, Refusal::Ambiguous] {
        let mut world = World::new().await;
        world.refuse(reason);
        assert_eq!(world.exit_code().await, format!("{:?}", std::process::ExitCode::from(3)), "{reason:?}");
    }
}

#[actix::test]
async fn a_goodbye_of_the_host_says_whether_to_come_back() {
    tokio::time::pause();
    let mut world = World::new().await;
    let bye = |retry| ToRemote::Control(control::ToRemote::Bye { text: "bye".into(), retry });
    let mut host = world.accept();
    host.attached().await;
    host.say(bye(true)).await;
    let mut host = world.accept();
    host.attached().await;
    host.say(bye(false)).await;
    assert_eq!(world.exit_code().await, format!("{:?}", std::process::ExitCode::from(3)));
}

#[actix::test]
async fn leaving_is_said_to_the_host_and_is_a_success() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    world.remote.do_send(Leave);
    host.until_gone().await;
    assert_eq!(host.left.as_deref(), Some("the remote ends"));
    assert_eq!(world.exit_code().await, format!("{:?}", std::process::ExitCode::SUCCESS));
}

#[actix::test]
async fn a_device_that_fails_is_detached_and_comes_back_as_another() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, b] = host.attached().await;
    for device in 0..2 {
        world.told(device).await;
    }
    world.say(Lane::Ctl, Ended { session: 1, port: PortId(0), gone: true, ..Ended::default() }).await;
    assert_eq!(host.hear().await, ToHost::Control(control::ToHost::Detached { device: a }));
    let ToHost::Control(control::ToHost::Attached(again)) = host.hear().await else { panic!("not attached") };
    assert_eq!(again.name, "a");
    assert!(again.device != a && again.device != b);
    assert!(matches!(world.told(0).await.0, What::Renew { session: 1 }));
    assert!(world.devices[1].try_recv().is_err(), "the other device does not notice");
}

#[actix::test]
async fn a_host_that_takes_no_bulk_stops_bulk_and_nothing_else() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    host.withholds = true;
    // A device offers bulk for as long as anybody listens.
    let bulk = world.ends[crate::port::place(Lane::Bulk)].clone();
    let offered = tokio::spawn(async move {
        let mut offered = 0u64;
        loop {
            let moved = Moved::In(vec![0; 1 << 20].into());
            let end = Completion { moved, ..end(offered, Lane::Bulk) };
            let batch = Ended { session: 1, completions: vec![end], ..Ended::default() };
            let wait = tokio::time::timeout(Duration::from_secs(2), bulk.send(batch));
            if wait.await.is_err() {
                return offered;
            }
            offered += 1;
        }
    });
    let mut bulk_ends = 0;
    tokio::pin!(offered);
    let offered = loop {
        tokio::select! {
            offered = &mut offered => break offered.unwrap(),
            message = host.hear() => bulk_ends += usize::from(matches!(message, ToHost::Completed(_))),
        }
    };
    assert!(offered < 16, "{offered} MiB were taken from the device, {bulk_ends} arrived");
    let key =
        Ended { session: 1, port: PortId(1), completions: vec![end(1000, Lane::Int)], ..Ended::default() };
    world.say(Lane::Int, key).await;
    assert_eq!(host.hear().await, ToHost::Completed(end(1000, Lane::Int)));
}

#[actix::test]
async fn what_a_device_has_not_taken_keeps_the_hosts_credit() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, _] = host.attached().await;
    world.told(0).await;
    // More than the window of the lane; the device takes nothing.
    let mut sent = 0;
    for id in 0..6 {
        let write = usb::Request {
            endpoint: Endpoint::from_address(2).unwrap(),
            transfer: Transfer::Bulk { stream: 0 },
            payload: Payload::Out(vec![0; 1 << 20].into()),
            ..request(a, id)
        };
        if host.offer(usb(usb::ToRemote::Submit(write))).await {
            sent += 1;
        }
    }
    host.settle(Duration::from_secs(2)).await;
    let mut taken = Vec::new();
    while let Ok(told) = world.devices[0].try_recv() {
        taken.push(told.credit);
    }
    assert!(taken.len() < 6 && sent < 10, "the window is smaller than what was offered: {}", taken.len());
    // The device takes them, and the rest follows.
    let bytes = taken.iter().map(|(_, bytes)| bytes).sum();
    world.say(Lane::Bulk, Ended { session: 1, taken: bytes, ..Ended::default() }).await;
    host.settle(Duration::from_secs(2)).await;
    assert!(world.devices[0].try_recv().is_ok());
}

#[actix::test]
async fn a_device_lent_while_connected_is_attached_and_one_lent_before_waits_for_a_host() {
    tokio::time::pause();
    let world = World::new().await;
    let mut early = world.lend(2, "early").await;
    let mut host = world.accept();
    let [a, b] = host.attached().await;
    let first = host.hears_of("early").await;
    let mut late = world.lend(3, "late").await;
    let second = host.hears_of("late").await;
    let ids = [a, b, first, second];
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
    for told in [&mut early, &mut late] {
        assert!(matches!(told.recv().await.unwrap().what, What::Renew { session: 1 }));
    }
    host.say(usb(usb::ToRemote::Submit(request(second, 7)))).await;
    assert!(matches!(late.recv().await.unwrap().what, What::Submit(r) if r.id == RequestId(7)));
}

#[actix::test]
async fn a_device_that_is_lent_no_longer_is_detached_at_once_and_unplugged() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, b] = host.attached().await;
    host.say(usb(usb::ToRemote::Submit(request(a, 7)))).await;
    for expected in ["Renew", "Submit"] {
        assert!(format!("{:?}", world.told(0).await.0).starts_with(expected));
    }
    let unlent = world.unlend(Whom::Port(PortId(0))).await;
    assert_eq!(unlent, Some((PortId(0), "a".to_owned())));
    assert_eq!(host.hear().await, ToHost::Control(control::ToHost::Detached { device: a }));
    assert!(matches!(world.told(0).await.0, What::Unplug));
    // Its port still gives the end of what it had, and the credit for it.
    let gone = Completion { result: Err(Failure::Disconnected), ..end(7, Lane::Int) };
    let completions = vec![gone.clone()];
    world.say(Lane::Int, Ended { session: 1, taken: 1, completions, ..Ended::default() }).await;
    assert_eq!(host.hear().await, ToHost::Completed(gone));
    host.say(usb(usb::ToRemote::Submit(request(a, 8)))).await;
    let ToHost::Completed(end) = host.hear().await else { panic!("no end") };
    assert_eq!((end.id, end.result), (RequestId(8), Err(Failure::Disconnected)));
    assert_eq!(world.unlend(Whom::Device(a)).await, None, "it is gone already");
    assert!(world.unlend(Whom::Device(b)).await.is_some());
}

#[actix::test]
async fn a_device_that_left_while_it_waited_to_come_back_stays_away() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, _] = host.attached().await;
    world.told(0).await;
    world.say(Lane::Ctl, Ended { session: 1, port: PortId(0), gone: true, ..Ended::default() }).await;
    assert_eq!(host.hear().await, ToHost::Control(control::ToHost::Detached { device: a }));
    world.unlend(Whom::Port(PortId(0))).await;
    assert!(matches!(world.told(0).await.0, What::Unplug));
    world.lend(9, "another").await;
    host.hears_of("another").await;
    let quiet = tokio::time::timeout(Duration::from_secs(1), host.hear()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[actix::test]
async fn status_tells_what_is_lent_and_what_it_has_moved() {
    tokio::time::pause();
    let mut world = World::new().await;
    let before = world.remote.send(Status).await.unwrap();
    assert_eq!((before.vm, before.lent.len(), before.lent[0].device), (None, 2, None));
    let mut host = world.accept();
    let [a, _] = host.attached().await;
    world.told(0).await;
    let moved = Moved::In(vec![0; 100].into());
    let completions = vec![Completion { moved, ..end(1, Lane::Int) }, end(2, Lane::Int)];
    world.say(Lane::Int, Ended { session: 1, port: PortId(0), completions, ..Ended::default() }).await;
    for _ in 0..2 {
        host.hear().await;
    }
    let report = world.remote.send(Status).await.unwrap();
    assert_eq!(report.vm.as_deref(), Some("vm"));
    let row = &report.lent[0];
    assert_eq!((row.device, &*row.name, &*row.id, &*row.speed), (Some(a.0), "a", "0001:0002", "high"));
    assert_eq!(row.traffic, Traffic { requests: 2, bytes_in: 100, bytes_out: 0 });
    assert_eq!(report.lent[1].traffic, Traffic::default());
}

#[actix::test]
async fn leaving_gives_every_device_back_and_takes_no_more() {
    tokio::time::pause();
    let mut world = World::new().await;
    world.accept().attached().await;
    world.remote.do_send(Leave);
    let mut late = world.lend(5, "late").await;
    world.exit_code().await;
    for device in 0..2 {
        assert!(matches!(world.told(device).await.0, What::Renew { .. }));
        assert!(matches!(world.told(device).await.0, What::Unplug), "device {device}");
    }
    assert!(matches!(late.recv().await.unwrap().what, What::Unplug));
}
