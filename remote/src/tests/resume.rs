//! A Remote whose links break: its session goes on over the next one, and what is lent does not notice.

use std::time::Duration;

use tokio::time::Instant;
use wire::{
    Lane, ToHost, ToRemote,
    control::{self, Refusal},
    usb::{self, Completion, Moved, RequestId},
};

use super::{
    host::{Host, request},
    world::World,
};
use crate::{
    port::{Ended, PortId, What},
    ports::Status,
    quality::Switch,
    ways::{Way, Wish},
};

fn completed(id: u64) -> Ended {
    let end = Completion {
        id: RequestId(id),
        result: Ok(()),
        moved: Moved::Out(0),
        packets: Vec::new(),
        lane: Lane::Int,
    };
    Ended { session: 1, port: PortId(0), completions: vec![end], ..Ended::default() }
}

async fn hears_end(host: &mut Host) -> u64 {
    match host.hear().await {
        ToHost::Completed(end) => end.id.0,
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn what_was_on_its_way_when_the_link_broke_arrives_once_over_the_next() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, _] = host.attached().await;
    assert!(matches!(world.told(0).await.0, What::Renew { session: 1 }));
    host.say(ToRemote::Usb(usb::ToRemote::Submit(request(a, 1)))).await;
    assert!(matches!(world.told(0).await.0, What::Submit(r) if r.id == RequestId(1)));
    for outage in 0..3 {
        host.cut();
        // Both ends have more to say while there is no link.
        world.say(Lane::Int, completed(10 + outage)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.accept_again(&mut host);
        assert_eq!(hears_end(&mut host).await, 10 + outage);
        host.say(ToRemote::Usb(usb::ToRemote::Submit(request(a, 20 + outage)))).await;
        assert!(
            matches!(world.told(0).await.0, What::Submit(r) if r.id == RequestId(20 + outage)),
            "and nothing was renewed"
        );
    }
}

#[actix::test]
async fn a_network_that_is_back_is_found_soon_however_long_it_was_away() {
    tokio::time::pause();
    for wish in [Wish::NoiseTcp, Wish::Auto] {
        let world = World::trying(wish).await;
        let mut host = world.accept();
        host.attached().await;
        for outage in [0.4, 3.0, 20.0, 28.0] {
            host.cut();
            let gone = Instant::now();
            while gone.elapsed() < Duration::from_secs_f64(outage) {
                world.fail();
                world.until_tried().await;
            }
            let back = Instant::now();
            world.accept_again(&mut host);
            world.say(Lane::Int, completed(1)).await;
            hears_end(&mut host).await;
            assert!(back.elapsed() <= Duration::from_millis(41), "after {outage} s: {:?}", back.elapsed());
        }
    }
}

#[actix::test]
async fn of_each_kind_one_attempt_is_made_at_a_time_and_the_next_one_soon_after_it() {
    tokio::time::pause();
    for (wish, kinds) in [(Wish::NoiseTcp, 1), (Wish::Auto, 2)] {
        let world = World::trying(wish).await;
        let mut host = world.accept();
        host.attached().await;
        host.settle(Duration::from_secs(5)).await;
        let before = world.tried();
        host.cut();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(world.tried() - before, kinds, "what hangs is not multiplied");
        let start = Instant::now();
        for _ in 0..100 * kinds {
            world.fail();
        }
        world.until_tried().await;
        let each = start.elapsed() / 100;
        let soon = Duration::from_millis(32)..=Duration::from_millis(41);
        assert!(soon.contains(&each), "{each:?} from attempt to attempt");
    }
}

#[actix::test]
async fn a_host_that_has_no_place_is_asked_less_and_less_often() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    host.cut();
    let start = Instant::now();
    for _ in 0..10 {
        world.refuse(Refusal::Unavailable);
    }
    world.until_tried().await;
    let took = start.elapsed();
    // 0.2, 0.4, 0.8 and 1.6 s, and two seconds each from then on, in front of nine.
    assert!((Duration::from_secs(13)..Duration::from_secs(14)).contains(&took), "{took:?}");
    world.accept_again(&mut host);
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
}

#[actix::test]
async fn a_link_that_ends_before_it_has_taken_the_session_on_is_followed_by_another() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    host.cut();
    for _ in 0..3 {
        // For this one every other attempt is given up, and it comes to nothing.
        drop(world.accept());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.accept_again(&mut host);
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
}

#[actix::test]
async fn a_link_that_ends_before_the_session_has_begun_is_followed_by_another() {
    tokio::time::pause();
    let world = World::new().await;
    for _ in 0..3 {
        drop(world.accept());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let mut host = world.accept();
    host.attached().await;
    assert_eq!(world.remote.send(Status).await.unwrap().vm.as_deref(), Some("vm"));
}

#[actix::test]
async fn a_link_that_stands_still_is_replaced_before_it_counts_as_dead() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    let stood = Instant::now();
    // The old link stays open, but nothing passes.
    let _old = host.stand_still();
    world.accept_again(&mut host);
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
    let after = stood.elapsed();
    assert!(after > Duration::from_secs(1) && after < Duration::from_secs(2), "{after:?}");
}

#[actix::test]
async fn a_host_that_is_not_ready_yet_is_asked_again_and_the_session_lives() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    world.told(0).await;
    host.cut();
    for _ in 0..3 {
        world.refuse(Refusal::Unavailable);
    }
    world.accept_again(&mut host);
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
    assert!(world.devices[0].try_recv().is_err(), "nothing was renewed");
}

#[actix::test]
async fn a_device_that_the_host_gave_up_is_lent_anew_and_the_others_are_not() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    let [a, b] = host.attached().await;
    for device in 0..2 {
        world.told(device).await;
    }
    host.cut();
    host.say(ToRemote::Control(control::ToRemote::Unplugged { device: a })).await;
    world.accept_again(&mut host);
    let again = host.hears_of("a").await;
    assert!(again != a && again != b);
    assert!(matches!(world.told(0).await.0, What::Renew { session: 1 }));
    assert!(world.devices[1].try_recv().is_err());
}

#[actix::test]
async fn a_device_lent_without_a_link_is_attached_over_the_next() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    host.cut();
    let _told = world.lend(2, "late").await;
    world.accept_again(&mut host);
    host.hears_of("late").await;
}

#[actix::test]
async fn a_session_moves_when_somebody_says_so_and_the_answer_tells_where_it_is() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    world.told(0).await;
    let switched = world.remote.send(Switch(Way::Webrtc));
    world.accept_after(&mut host, Some(Duration::from_secs(9)));
    let (switched, ()) = tokio::join!(switched, host.settle(Duration::from_millis(100)));
    assert_eq!(switched.unwrap(), Ok("memory".to_owned()));
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
    assert!(world.devices[0].try_recv().is_err(), "nothing was renewed");
}

#[actix::test]
async fn a_move_that_comes_to_nothing_says_why_and_the_session_stays() {
    tokio::time::pause();
    let world = World::new().await;
    assert!(world.remote.send(Switch(Way::Webrtc)).await.unwrap().is_err(), "there is no session yet");
    let mut host = world.accept();
    host.attached().await;
    world.fail();
    assert_eq!(world.remote.send(Switch(Way::Webrtc)).await.unwrap(), Err("no way".to_owned()));
    let switched = world.remote.send(Switch(Way::Webrtc));
    let (switched, ()) = tokio::join!(switched, host.settle(Duration::from_secs(10)));
    assert!(switched.unwrap().unwrap_err().contains("in time"));
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
}

#[actix::test]
async fn a_link_that_dies_while_the_session_moves_to_it_is_followed_by_another_at_once() {
    tokio::time::pause();
    let world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    let switched = world.remote.send(Switch(Way::Webrtc));
    world.accept_again(&mut host);
    // It stays open, and the host believes the session there.
    let _dead = host.answers_in_vain().await;
    let told = Instant::now();
    world.accept_again(&mut host);
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
    assert!(told.elapsed() <= Duration::from_millis(41), "{:?}", told.elapsed());
    assert!(switched.await.unwrap().is_err(), "it is not where somebody wanted it");
}

#[actix::test]
async fn a_link_that_dies_before_it_has_taken_the_session_on_is_soon_followed_by_another() {
    tokio::time::pause();
    for (round_trip, patience) in [(10, 500), (400, 1_600)] {
        let round_trip = Some(Duration::from_millis(round_trip));
        let world = World::new().await;
        let mut host = world.accept();
        host.attached().await;
        host.cut();
        world.accept_after(&mut host, round_trip);
        // It stays open, but nothing passes.
        let _dead = host.stand_still();
        let begun = Instant::now();
        world.accept_again(&mut host);
        world.say(Lane::Int, completed(1)).await;
        assert_eq!(hears_end(&mut host).await, 1);
        let after = begun.elapsed();
        let soon = Duration::from_millis(patience)..=Duration::from_millis(patience + 41);
        assert!(soon.contains(&after), "{round_trip:?}: {after:?}");
    }
}

#[actix::test]
async fn of_two_kinds_of_links_the_better_one_is_kept_however_late_it_comes() {
    tokio::time::pause();
    let ms = |ms| Some(Duration::from_millis(ms));
    for (second, moves) in [(ms(40), true), (ms(95), false)] {
        let world = World::trying(Wish::Auto).await;
        let mut host = world.accept_in(ms(100));
        host.attached().await;
        host.settle(Duration::from_secs(1)).await;
        world.accept_after(&mut host, second);
        if moves {
            world.say(Lane::Int, completed(1)).await;
            assert_eq!(hears_end(&mut host).await, 1);
        } else {
            assert_eq!(host.next().await, None, "it is let go");
        }
    }
}

#[actix::test]
async fn a_remote_that_tries_both_ways_and_is_refused_waits_no_less_than_with_one() {
    tokio::time::pause();
    let world = World::trying(Wish::Auto).await;
    let start = Instant::now();
    for _ in 0..8 {
        world.refuse(Refusal::Busy);
    }
    let mut host = world.accept();
    host.attached().await;
    let waited = start.elapsed();
    let (least, most) = (Duration::from_millis(2400), Duration::from_millis(3100));
    assert!(least <= waited && waited <= most, "0.2 + 0.4 + 0.8 + 1.6 s, less the jitter: {waited:?}");
}

#[actix::test]
async fn who_says_to_be_another_host_ends_no_session() {
    tokio::time::pause();
    let mut world = World::new().await;
    let mut host = world.accept();
    host.attached().await;
    world.told(0).await;
    host.cut();
    world.pose();
    world.accept_again(&mut host);
    world.say(Lane::Int, completed(1)).await;
    assert_eq!(hears_end(&mut host).await, 1);
    assert!(world.devices[0].try_recv().is_err(), "nothing was renewed");
}
