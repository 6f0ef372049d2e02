use std::{
    io,
    sync::{Arc, Mutex},
};

use wire::control::{Answer, Hello};

use super::*;
use crate::{FirstFrame, HandshakeError};

/// Messages in the order they are said; odd ones are the remote's.
const FRAMES: usize = 6;

struct World {
    host: SecretKey,
    remote: SecretKey,
    shown: Code,
    typed: Code,
}

/// What came of a pairing at both ends.
struct Outcome {
    remote: Result<Paired, PairError>,
    host: Result<PublicKey, PairError>,
}

fn code(text: &str) -> Code {
    text.parse().unwrap()
}

fn hello() -> Hello {
    Hello { version: wire::VERSION, vm: None, name: "desk".to_owned(), signalling: false }
}

impl World {
    fn new() -> Self {
        let (host, remote) = (SecretKey::generate(), SecretKey::generate());
        Self { host, remote, shown: code("1234-5678"), typed: code("12345678") }
    }

    /// Pairs; everything that is said goes through `way`, with its number from 1 on.
    fn pair(&self, mut way: impl FnMut(usize, Frame) -> Frame) -> Outcome {
        let mut seen = None;
        let remote = self.say_all(&mut way, &mut seen);
        Outcome { remote, host: seen.unwrap_or(Err(PairError::NoCode)) }
    }

    /// As the remote sees it; the host's view is put into `seen`.
    fn say_all(
        &self,
        way: &mut impl FnMut(usize, Frame) -> Frame,
        seen: &mut Option<Result<PublicKey, PairError>>,
    ) -> Result<Paired, PairError> {
        let mut fail = |error: PairError| {
            // The connection ends; what the host thinks of it is in `seen`.
            *seen = Some(Err(error));
            PairError::Unproved("the host hung up")
        };
        let (asking, ask) = Asking::new(&self.remote);
        let first = FirstFrame::from_bytes(way(1, ask)).map_err(HandshakeError::from);
        let first = first.map_err(PairError::Connection).map_err(&mut fail)?;
        let asked = Asked::read(&first).map_err(&mut fail)?;
        let (offered, offer) = asked.offer(&self.host, &self.shown);
        let (proving, answer) = asking.offered(&way(2, offer))?.accept(&self.typed)?;
        let (judging, answer) = offered.taken(&way(3, answer)).map_err(&mut fail)?;
        let (waiting, proof) = proving.prove(&way(4, answer), &hello())?;
        match judging.judge(&way(5, proof)) {
            Ok(guest) => {
                *seen = Some(Ok(guest.key()));
                waiting.told(&way(6, guest.tell(&Answer::Welcome { vm: "desk".to_owned() })?))
            }
            Err(error) => {
                fail(error);
                waiting.told(&Refusal::WrongCode { left: 2 }.frame())
            }
        }
    }

    fn record(&self) -> Vec<Frame> {
        let mut said = Vec::new();
        let outcome = self.pair(|_, frame| {
            said.push(frame.clone());
            frame
        });
        assert!(outcome.remote.is_ok());
        said
    }
}

#[test]
fn the_right_code_makes_each_end_know_the_others_key() {
    let world = World::new();
    let outcome = world.pair(|_, frame| frame);
    let paired = Paired { host: world.host.public(), vm: "desk".to_owned() };
    assert_eq!(outcome.remote.unwrap(), paired);
    assert_eq!(outcome.host.unwrap(), world.remote.public());
}

#[test]
fn a_wrong_code_pairs_nobody_and_says_what_is_left() {
    let world = World { typed: code("12345679"), ..World::new() };
    let outcome = world.pair(|_, frame| frame);
    assert!(matches!(outcome.host, Err(PairError::Unproved(_))));
    let error = outcome.remote.unwrap_err();
    assert!(error.to_string().contains("the code is wrong; 2 tries are left"), "{error}");
    assert!(PairError::WrongCode { left: 0 }.to_string().contains("farbus-host pair VM"));
}

#[test]
fn whoever_is_in_between_with_another_code_pairs_with_neither_end() {
    let world = World::new();
    let between = SecretKey::generate();
    for guess in ["00000000", "12345670"] {
        // He is a host to the remote, and a remote to the host.
        let host =
            World { host: between.clone(), shown: code(guess), remote: world.remote.clone(), ..World::new() };
        let remote =
            World { remote: between.clone(), typed: code(guess), host: world.host.clone(), ..World::new() };
        assert!(host.pair(|_, frame| frame).remote.is_err());
        assert!(remote.pair(|_, frame| frame).host.is_err());
    }
}

#[test]
fn a_key_that_is_swapped_on_the_way_pairs_nobody() {
    let world = World::new();
    let between = SecretKey::generate().public();
    for (number, at) in [(1, 2), (2, 2)] {
        let outcome = world.pair(|frame_number, mut frame| {
            if frame_number == number {
                frame[at..at + KEY_LEN].copy_from_slice(&between.0);
            }
            frame
        });
        assert!(outcome.remote.is_err() && outcome.host.is_err(), "message {number}");
    }
}

#[test]
fn what_was_recorded_pairs_nobody_again() {
    let world = World::new();
    let said = world.record();
    let replay = |mine: fn(usize) -> bool| {
        world.pair(|number, frame| if mine(number) { said[number - 1].clone() } else { frame })
    };
    let as_the_remote = replay(|number| number % 2 == 1);
    assert!(as_the_remote.host.is_err(), "the same code is still valid, and yet");
    let as_the_host = replay(|number| number % 2 == 0);
    assert!(as_the_host.remote.is_err());
    // The proof alone, and the last word alone.
    for number in [5, 6] {
        let outcome = world.pair(
            |frame_number, frame| if frame_number == number { said[number - 1].clone() } else { frame },
        );
        assert!(outcome.remote.is_err(), "message {number}");
    }
}

#[test]
fn no_message_that_is_cut_lengthened_or_changed_at_any_byte_pairs_anybody() {
    let world = World::new();
    let lengths: Vec<_> = world.record().iter().map(Vec::len).collect();
    assert_eq!(lengths.len(), FRAMES);
    let check = |number: usize, what: &str, at: usize, change: &mut dyn FnMut(&mut Frame)| {
        let outcome = world.pair(|frame_number, mut frame| {
            if frame_number == number {
                change(&mut frame);
            }
            frame
        });
        assert!(outcome.remote.is_err(), "message {number} {what} at {at}");
        assert!(number == FRAMES || outcome.host.is_err(), "message {number} {what} at {at}");
    };
    for number in 1..=FRAMES {
        let length = lengths[number - 1];
        assert!(length <= crate::MAX_HANDSHAKE);
        for at in 0..length {
            check(number, "cut", at, &mut |frame| frame.truncate(at));
            check(number, "changed", at, &mut |frame| frame[at] ^= 1 << (at % 8));
        }
        for more in [1, crate::MAX_HANDSHAKE - length, 70_000] {
            check(number, "lengthened", more, &mut |frame| frame.resize(length + more, 0));
        }
    }
}

#[test]
fn other_versions_and_hosts_without_a_code_are_told_apart() {
    let world = World::new();
    let (_, mut ask) = Asking::new(&world.remote);
    ask[1] += 1;
    let first = FirstFrame::from_bytes(ask).unwrap();
    assert!(Asked::is(&first));
    assert!(matches!(Asked::read(&first), Err(PairError::Version)));
    for (refusal, says) in [
        (Refusal::NoCode, "make a new one there"),
        (Refusal::Version, "same release"),
        (Refusal::WrongCode { left: 1 }, "one try is left"),
    ] {
        let error = Asking::new(&world.remote).0.offered(&refusal.frame()).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_code_is_eight_digits_however_people_write_them() {
    assert!(code("1234-5678") == code(" 1234 5678 "));
    assert_eq!(*code("00000001").text(), "0000-0001");
    let generated = Code::generate();
    assert!(generated == code(&generated.text()) && generated != Code::generate());
    for bad in ["", "1234567", "123456789", "1234567a", "１２３４５６７８"] {
        assert_eq!(bad.parse::<Code>(), Err(ParseCodeError), "{bad}");
    }
    assert_eq!(format!("{generated:?}"), "Code(..)");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_pairing_logs_nothing_of_codes_keys_and_what_is_made_of_them() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("heard");
        World::new().record();
        let wrong = World { typed: code("87654321"), ..World::new() };
        assert!(wrong.pair(|_, frame| frame).remote.is_err());
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("heard"));
}
