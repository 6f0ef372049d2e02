//! What is played, to the packets: the coder's are waited for.

use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use wire::audio::Encoding;

use super::*;

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const STREAM: StreamId = StreamId(4);

/// A playback to a remote that is too far away for packets of less than 5 ms, and what its coder says.
fn playback(wish: Wish) -> (Playback, Receiver<Vec<ToRemote>>) {
    let (said, heard) = channel();
    let mut playback = Playback::new(wish, Arc::new(move |messages| drop(said.send(messages))));
    playback.set_round_trip(Some(Duration::from_millis(22)));
    (playback, heard)
}

fn play(playback: &mut Playback, run: u32, position: u64, frames: usize) -> Vec<ToRemote> {
    let pcm: Vec<u8> = (0..4 * frames).map(|n| n as u8).collect();
    let packet = Packet { stream: STREAM, run, position, format: FORMAT, pcm: pcm.into() };
    let mut out = Vec::new();
    playback.play(Duration::from_millis(position / 48), packet, &mut out);
    out
}

fn blocks(messages: &[ToRemote]) -> Vec<(u32, u64, u16, Codec)> {
    let block = |message: &ToRemote| match message {
        ToRemote::PlayCoded(coded) => {
            Some((coded.run, coded.block.position, coded.block.frames, coded.block.codec))
        }
        _ => None,
    };
    messages.iter().filter_map(block).collect()
}

fn reception(loss: u32) -> Reception {
    Reception {
        stream: STREAM,
        run: 1,
        position: 0,
        at: Duration::ZERO,
        level: Duration::from_millis(20),
        target: Duration::from_millis(20),
        jitter: Duration::ZERO,
        loss,
        burst: 100,
        concealed: 0,
        slipped: 0,
        late: 0,
        duplicate: 0,
        xruns: 0,
    }
}

#[test]
fn a_packet_of_pcm_leaves_at_once_and_as_it_is() {
    let (mut playback, _) = playback(Wish::Auto);
    let sent = play(&mut playback, 1, 0, 240);
    assert_eq!(blocks(&sent), [(1, 0, 240, Codec::Pcm)]);
    let ToRemote::PlayCoded(coded) = &sent[0] else { panic!("{sent:?}") };
    assert!(coded.block.payload.iter().enumerate().all(|(n, byte)| *byte == n as u8));
}

#[test]
fn an_operator_sees_of_each_stream_how_it_is_sent_and_heard() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let seen = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let (mut playback, _) = playback(Wish::Pcm);
        playback.set_round_trip(Some(Duration::from_millis(4)));
        play(&mut playback, 1, 0, 240);
        let jitter = Duration::from_millis(3);
        let report = Reception { jitter, concealed: 7, slipped: 8, xruns: 9, ..reception(50_000) };
        assert!(playback.observe(Duration::ZERO, &report, Some(-1_500)));
    });
    let seen = seen.render();
    for (name, value) in [
        ("rate_hz", "48000"),
        ("bits", "16"),
        ("channels", "2"),
        ("opus", "0"),
        ("latency_ms", "22"),
        ("round_trip_ms", "4"),
        ("jitter_ms", "3"),
        ("loss_ppm", "50000"),
        ("concealed_frames", "7"),
        ("slipped_frames", "8"),
        ("xruns", "9"),
        ("drift_ppb", "-1500"),
    ] {
        let line = format!("farbus_play_{name}{{stream=\"{}\"}} {value}\n", STREAM.0);
        assert!(seen.contains(&line), "no {line} in\n{seen}");
    }
}

#[test]
fn a_remote_that_is_near_gets_packets_of_half_the_length_unless_the_link_loses_some() {
    let (mut playback, _) = playback(Wish::Pcm);
    playback.set_round_trip(Some(Duration::from_millis(1)));
    let sent = play(&mut playback, 1, 0, 240);
    assert_eq!(blocks(&sent), [(1, 0, 120, Codec::Pcm), (1, 120, 120, Codec::Pcm)]);
    for n in 0..100 {
        playback.observe(Duration::from_millis(100 * n), &reception(50_000), Some(0));
    }
    assert_eq!(blocks(&play(&mut playback, 1, 240, 240)), [(1, 240, 240, Codec::Pcm)]);
}

#[test]
fn a_pause_comes_behind_everything_that_was_played() {
    let pause = ToRemote::Pause { stream: STREAM, run: 1, position: 100 };
    for wish in [Wish::Pcm, Wish::Opus] {
        let (mut playback, heard) = playback(wish);
        assert!(play(&mut playback, 1, 0, 100).is_empty());
        let mut out = Vec::new();
        playback.send(Duration::ZERO, pause.clone(), &mut out);
        if wish == Wish::Opus {
            assert!(out.is_empty());
            out = heard.recv().unwrap();
        }
        assert_eq!((blocks(&out), out.last()), (vec![(1, 0, 100, Codec::Pcm)], Some(&pause)), "{wish:?}");
    }
}

#[test]
fn frames_that_nobody_was_to_hear_leave_their_place_and_another_run_begins_anew() {
    let (mut playback, _) = playback(Wish::Pcm);
    play(&mut playback, 1, 0, 100);
    let sent = play(&mut playback, 1, 1_000, 240);
    assert_eq!(blocks(&sent), [(1, 0, 100, Codec::Pcm), (1, 1_000, 240, Codec::Pcm)]);
    assert_eq!(blocks(&play(&mut playback, 2, 0, 240)), [(2, 0, 240, Codec::Pcm)]);
}

#[test]
fn a_link_that_loses_gets_opus_unless_the_user_wants_otherwise_and_the_next_run_knows() {
    for wish in [Wish::Auto, Wish::Pcm] {
        let (mut playback, heard) = playback(wish);
        let lossy = |playback: &mut Playback| {
            for n in 0..100 {
                assert!(playback.observe(Duration::from_millis(100 * n), &reception(50_000), Some(0)));
            }
        };
        // In the middle of a packet: the run goes on where it is, elsewhere.
        assert_eq!(play(&mut playback, 1, 0, 340).len(), 1);
        lossy(&mut playback);
        for (run, position, frames) in [(1, 340, 140), (2, 0, 240)] {
            let sent = play(&mut playback, run, position, frames);
            let (sent, codec) = if wish == Wish::Auto {
                assert!(sent.is_empty());
                (heard.recv().unwrap(), Codec::Opus)
            } else {
                (sent, Codec::Pcm)
            };
            assert_eq!(blocks(&sent), [(run, position / 240 * 240, 240, codec)], "{wish:?}");
        }
        assert!(!playback.observe(Duration::ZERO, &reception(0), None), "of a run that is over");
        assert_eq!(playback.begin_anew(), []);
        assert_eq!(blocks(&play(&mut playback, 3, 0, 240))[0].3, Codec::Pcm);
    }
}

#[test]
fn a_remote_that_comes_later_hears_how_loud_it_is() {
    let (mut playback, _) = playback(Wish::Auto);
    let volume = |gain| ToRemote::Volume(Volume { stream: STREAM, gain, mute: false });
    let mut out = Vec::new();
    [-256, -512].into_iter().for_each(|gain| playback.send(Duration::ZERO, volume(gain), &mut out));
    assert_eq!((out, playback.begin_anew()), (vec![volume(-256), volume(-512)], vec![volume(-512)]));
}

#[test]
fn what_is_missing_is_sent_once_more() {
    for wish in [Wish::Pcm, Wish::Opus] {
        let (mut playback, heard) = playback(wish);
        let first = [play(&mut playback, 1, 0, 240), play(&mut playback, 1, 240, 240)].concat();
        let missing = Missing { stream: STREAM, run: 1, gaps: vec![(240, 240)] };
        let mut out = Vec::new();
        playback.answer(missing.clone(), &mut out);
        playback.answer(missing.clone(), &mut out);
        playback.answer(Missing { stream: StreamId(200), ..missing }, &mut out);
        let all =
            if wish == Wish::Pcm { [first, out].concat() } else { heard.iter().take(3).flatten().collect() };
        let all: Vec<u64> = blocks(&all).into_iter().map(|(_, position, ..)| position).collect();
        assert_eq!(all, [0, 240, 240], "{wish:?}");
    }
}
