//! A session that looks after its link by itself: it moves when that gets bad and the other kind is better, and only then.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use wire::{
    Lane, ToHost,
    usb::{Completion, Moved, RequestId},
};

use super::{host::Host, world::World};
use crate::{
    port::{Ended, PortId, What},
    ways::{Way, Wish},
};

const MS: Duration = Duration::from_millis(1);
/// What a round trip takes on a link that is good.
const GOOD: Option<Duration> = Some(Duration::from_millis(10));
/// How long a link is watched that is not left.
const LONG: Duration = Duration::from_secs(120);

/// What the remote says takes so long, frame by frame.
type Delay = fn(usize) -> Duration;
const SLOW: Delay = |_| MS * 200;
const LOSSY: Delay = |frame| if frame % 3 == 0 { MS * 700 } else { MS * 10 };
const A_LITTLE_WORSE: Delay = |_| MS * 40;
const LOSES_A_LITTLE: Delay = |frame| if frame % 100 == 0 { MS * 700 } else { MS * 10 };

/// A device says so often a second that a request has ended.
struct Busy {
    world: World,
    host: Host,
    said: u64,
    heard: Vec<u64>,
}

impl Busy {
    /// On a link of this kind that is good, after the other kind was waited for.
    async fn on(wish: Wish) -> Self {
        let mut world = World::trying(wish).await;
        let mut host = world.accept_in(GOOD);
        host.delay = |_| MS * 10;
        host.attached().await;
        let renewed = world.told(0).await.0;
        assert!(matches!(renewed, What::Renew { session: 1 }));
        host.settle(Duration::from_secs(5)).await;
        Self { world, host, said: 0, heard: Vec::new() }
    }

    /// For a quarter of a second.
    async fn work(&mut self) {
        self.said += 1;
        let end = Completion {
            id: RequestId(self.said),
            result: Ok(()),
            moved: Moved::Out(0),
            packets: Vec::new(),
            lane: Lane::Int,
        };
        let ended = Ended { session: 1, port: PortId(0), completions: vec![end], ..Ended::default() };
        self.world.say(Lane::Int, ended).await;
        let until = Instant::now() + MS * 250;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, self.host.next()).await {
            if let ToHost::Completed(end) = message {
                self.heard.push(end.id.0);
            }
        }
    }

    /// Works until another attempt is made; after what time.
    async fn until_tried(&mut self) -> Duration {
        let (start, before) = (Instant::now(), self.world.tried());
        let tried = timeout(LONG, async {
            while self.world.tried() == before {
                self.work().await;
            }
        });
        tried.await.expect("another link is looked for");
        start.elapsed()
    }

    /// Works for a long time; how many attempts are made in it.
    async fn attempts_in_a_long_time(&mut self) -> usize {
        let (start, before) = (Instant::now(), self.world.tried());
        while start.elapsed() < LONG {
            self.work().await;
        }
        self.world.tried() - before
    }

    /// Everything that was said was heard once and in order, and what is lent has not noticed.
    async fn nothing_is_lost(&mut self) {
        for _ in 0..8 {
            self.work().await;
        }
        let heard = self.heard.len() as u64;
        assert!(heard + 4 >= self.said, "{heard} of {}", self.said);
        assert_eq!(self.heard, (1..=heard).collect::<Vec<_>>());
        assert!(self.world.devices[0].try_recv().is_err(), "nothing was renewed");
    }

    /// How often the session has moved.
    async fn moves(&self) -> u64 {
        let status = self.world.remote.send(crate::ports::Status).await.unwrap();
        status.session.map_or(0, |session| session.hand_overs)
    }
}

#[actix::test]
async fn a_session_leaves_a_link_that_has_become_slow_or_lossy_for_a_better_one_and_loses_nothing() {
    tokio::time::pause();
    for (name, bad, soon) in [("slow", SLOW, 6), ("lossy", LOSSY, 20)] {
        let mut busy = Busy::on(Wish::Auto).await;
        busy.work().await;
        busy.host.delay = bad;
        let after = busy.until_tried().await;
        assert!(after <= Duration::from_secs(soon), "{name}: after {after:?}");
        assert_eq!(busy.world.tries(), Some(Way::Webrtc), "{name}: the other kind");
        busy.host.delay = |_| MS * 20;
        busy.world.accept_after(&mut busy.host, Some(MS * 20));
        busy.nothing_is_lost().await;
        assert_eq!(busy.moves().await, 1, "{name}");
        assert_eq!(busy.attempts_in_a_long_time().await, 0, "{name}: it is content there");
        busy.nothing_is_lost().await;
    }
}

#[actix::test]
async fn a_session_stays_on_a_bad_link_when_the_other_kind_is_no_better() {
    tokio::time::pause();
    let mut busy = Busy::on(Wish::Auto).await;
    busy.host.delay = SLOW;
    busy.until_tried().await;
    busy.world.accept_beside(Some(MS * 180));
    busy.nothing_is_lost().await;
    assert_eq!(busy.moves().await, 0);
    let attempts = busy.attempts_in_a_long_time().await;
    assert!((2..=4).contains(&attempts), "{attempts} times, one each half minute");
    busy.nothing_is_lost().await;
}

#[actix::test]
async fn a_link_that_is_a_little_worse_than_it_was_is_not_left() {
    tokio::time::pause();
    for (name, delay) in [("slower", A_LITTLE_WORSE), ("a loss now and then", LOSES_A_LITTLE)] {
        let mut busy = Busy::on(Wish::Auto).await;
        busy.host.delay = delay;
        assert_eq!(busy.attempts_in_a_long_time().await, 0, "{name}");
        busy.nothing_is_lost().await;
    }
}

#[actix::test]
async fn without_auto_no_session_moves_by_itself_however_bad_its_link() {
    tokio::time::pause();
    for wish in [Wish::NoiseTcp, Wish::Webrtc] {
        for bad in [SLOW, LOSSY] {
            let mut busy = Busy::on(wish).await;
            busy.host.delay = bad;
            assert_eq!(busy.attempts_in_a_long_time().await, 0, "{wish:?}");
            busy.nothing_is_lost().await;
        }
    }
}
