//! A voice and a card that comes and goes, in virtual time.

use std::{cell::RefCell, ops::Range, rc::Rc};

use wire::audio::{Block, Encoding};

use super::*;
use crate::cli;

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S32, channels: 1 };
const MS: Duration = Duration::from_millis(1);

/// A card that is there or not, whether it was told of another clock, and what it has heard.
#[derive(Default)]
struct Desk {
    gone: bool,
    adapted: Option<i32>,
    heard: Vec<i32>,
}

struct Plugged(Rc<RefCell<Desk>>, Paced);

impl Sink for Plugged {
    fn period(&self) -> Duration {
        self.1.period()
    }

    fn wants(&mut self, now: Duration) -> Result<usize> {
        self.check()?;
        self.1.wants(now)
    }

    fn take(&mut self, samples: &[i32], _: &[Range<usize>]) -> Result<()> {
        self.0.borrow_mut().heard.extend(samples);
        Ok(())
    }

    fn keeps_all(&self) -> bool {
        false
    }

    fn drain(&mut self) {}

    fn waiting(&self) -> u64 {
        0
    }

    fn check(&self) -> Result<()> {
        anyhow::ensure!(!self.0.borrow().gone, "unplugged");
        Ok(())
    }

    fn xruns(&self) -> u64 {
        0
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn file(&self) -> Option<String> {
        None
    }

    fn adapt(&mut self, parts_per_billion: i32) {
        self.0.borrow_mut().adapted = Some(parts_per_billion);
        self.1.adapt(parts_per_billion);
    }
}

/// Frames that are their own numbers, from 1 on.
fn packet(number: u64) -> Coded {
    let first = number * 240;
    let payload: Vec<u8> = (first + 1..=first + 240).flat_map(|n| (n as i32).to_le_bytes()).collect();
    let block = Block { position: first, frames: 240, codec: Codec::Pcm, payload: payload.into() };
    let (stream, run, again, copies) = (StreamId(4), 1, false, Vec::new());
    Coded { stream, run, again, format: FORMAT, block, copies }
}

#[test]
fn the_card_after_this_one_hears_of_the_other_clock_at_once() {
    let desk = Rc::new(RefCell::new(Desk::default()));
    let plug = || -> Result<Box<dyn Sink>> {
        Ok(Box::new(Plugged(Rc::clone(&desk), Paced::new(FORMAT, "ppm=-500".parse().unwrap(), None))))
    };
    let mut voice = Voice::new(&packet(0), plug(), None, Events(cli::Format::Json)).unwrap();
    voice.adapt(2);
    for n in 0..30_000u32 {
        if n.is_multiple_of(5) {
            voice.play(MS * n, &packet(u64::from(n / 5)));
        }
        voice.look_after(MS * n);
        if n == 2_000 {
            assert_eq!(desk.borrow().adapted, None, "that was about another run");
            voice.adapt(1);
        }
    }
    let ratio = desk.borrow_mut().adapted.take().unwrap();
    assert!((100_000..700_000).contains(&ratio), "{ratio}");
    voice.go_on(plug());
    assert_eq!(desk.borrow().adapted, Some(ratio));
}

#[test]
fn a_card_that_vanishes_in_the_middle_of_a_run_and_comes_back_hears_what_is_due_then() {
    let desk = Rc::new(RefCell::new(Desk::default()));
    let plug = || -> Result<Box<dyn Sink>> {
        Ok(Box::new(Plugged(Rc::clone(&desk), Paced::new(FORMAT, Pace::default(), None))))
    };
    let mut voice = Voice::new(&packet(0), plug(), None, Events(cli::Format::Json)).unwrap();
    for n in 0..3_000u32 {
        if n.is_multiple_of(5) {
            voice.play(MS * n, &packet(u64::from(n / 5)));
        }
        if n == 1_000 || n == 2_000 {
            desk.borrow_mut().gone = n == 1_000;
        }
        // It is tried again each second: not before it is there.
        if n == 2_200 {
            assert!(voice.lost_its_card());
            voice.go_on(plug());
            assert!(!voice.lost_its_card());
        }
        voice.look_after(MS * n);
    }
    let heard: Vec<i32> = desk.borrow().heard.iter().copied().filter(|sample| *sample != 0).collect();
    let jumps: Vec<[i32; 2]> =
        heard.windows(2).filter(|pair| pair[1] != pair[0] + 1).map(|p| [p[0], p[1]]).collect();
    let [[before, after]] = jumps[..] else { panic!("{jumps:?}") };
    // Half a buffer behind what is sent at most, before and after: nothing has waited meanwhile.
    assert!((48 * 950..48 * 1_001).contains(&before), "{before}");
    assert!((48 * 2_150..48 * 2_201).contains(&after), "{after}");
    assert_eq!(heard.first(), Some(&1), "the run itself went on from its beginning");
}
