//! A remote written without this crate, as a browser's page is: what is said on the wire, and sound on a track.

use std::future::poll_fn;

use async_rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use bytes::Bytes;
use common::{
    config, hello,
    raw::{LINK, Raw, Seen},
    welcome,
};
use link::{Frame, Link, LinkError};
use noise::{Initiator, Suite};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use webrtc::{Answerer, Config, SecretKey, WebRtc};
use wire::{Lane, control::Answer};

mod common;

/// The SHA-256 fingerprint of a description.
fn fingerprint(sdp: &str) -> Vec<u8> {
    let value = sdp.lines().find_map(|line| line.strip_prefix("a=fingerprint:sha-256 ")).unwrap();
    value.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

async fn message(raw: &mut Raw, channel: usize) -> Vec<u8> {
    loop {
        match raw.seen.recv().await.unwrap() {
            Seen::Message(at, bytes) if at == channel && bytes.first() != Some(&3) => return bytes,
            _ => {}
        }
    }
}

/// A page and the host's end of its link, and the binding that the page has.
async fn page(raw: &mut Raw, config: &Config, key: &SecretKey) -> (WebRtc, [u8; 32]) {
    let host = SecretKey::generate();
    let offer = raw.offer().await;
    let answerer = Answerer::new(config, &offer).await.unwrap();
    let answer = answerer.answer().to_owned();
    raw.take_answer(&answer).await;
    let serve = async { answerer.caller(&host).await?.accept(&welcome()).await };
    let call = async {
        raw.ready().await;
        let prologue = [&b"farbus/1 webrtc"[..], &fingerprint(&offer), &fingerprint(&answer)].concat();
        let (noise, first) =
            Initiator::begin(Suite::ChaChaPoly, &prologue, host.public(), key, &hello()).unwrap();
        raw.send(LINK, &[&[4], first.as_bytes()].concat()).await;
        let second = message(raw, LINK).await;
        assert_eq!(second[0], 4);
        let (told, mut finished) = noise.finish(&second[1..]).unwrap();
        assert!(matches!(told, Answer::Welcome { .. }));
        let mut proof = [4; 17];
        finished.transport.write_message(&[], &mut proof[1..]).unwrap();
        raw.send(LINK, &proof).await;
        finished.binding
    };
    let (link, binding) = tokio::join!(serve, call);
    (link.unwrap(), binding)
}

async fn receive(link: &mut WebRtc) -> Result<(Lane, Bytes), LinkError> {
    poll_fn(|cx| link.poll_receive(cx)).await
}

#[tokio::test]
async fn a_close_that_overtakes_frames_waits_for_them() {
    let mut raw = Raw::new().await;
    let (mut link, _) = page(&mut raw, &config(), &SecretKey::generate()).await;
    raw.send(4, b"\x01in ").await;
    raw.send(LINK, b"\x05\0\0\0\0\0\0\0\x02bye").await;
    raw.send(1, b"\0first").await;
    assert_eq!(receive(&mut link).await.unwrap(), (Lane::Int, "first".into()));
    raw.send(4, b"\x01two ").await;
    raw.send(4, b"\0pieces").await;
    assert_eq!(receive(&mut link).await.unwrap(), (Lane::Bulk, "in two pieces".into()));
    let end = receive(&mut link).await;
    assert!(matches!(&end, Err(LinkError::Closed(reason)) if reason == "bye"), "{end:?}");
    assert_eq!(message(&mut raw, LINK).await, [6], "the page is told that all has come");
}

#[tokio::test]
async fn a_page_that_breaks_the_rules_loses_its_link() {
    let cases: [(usize, Vec<Vec<u8>>); 5] = [
        (0, vec![vec![9]]),
        (1, vec![vec![1, 2, 3]]),
        (3, vec![vec![]]),
        (4, vec![vec![1; 60_000], vec![1; 60_000]]),
        (LINK, vec![vec![4, 1]; 7]),
    ];
    for (channel, messages) in cases {
        let mut raw = Raw::new().await;
        let (mut link, _) = page(&mut raw, &config(), &SecretKey::generate()).await;
        for message in messages {
            raw.send(channel, &message).await;
        }
        let end = receive(&mut link).await;
        assert!(matches!(end, Err(LinkError::Misbehaved(_))), "channel {channel}: {end:?}");
        let again = poll_fn(|cx| link.poll_ready(cx)).await;
        assert!(matches!(again, Err(LinkError::Misbehaved(_))), "channel {channel}: {again:?}");
    }
}

#[tokio::test]
async fn a_page_gets_a_link_and_hears_the_host() {
    let mut raw = Raw::new().await;
    let init =
        RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
    raw.connection.add_transceiver_from_kind(RtpCodecKind::Audio, Some(init)).await.unwrap();
    let (key, config) = (SecretKey::generate(), Config { opus: true, ..config() });
    let (mut link, binding) = page(&mut raw, &config, &key).await;
    assert_eq!((link.binding(), link.peer()), (binding, key.public().into()));

    raw.send(1, b"\0key").await;
    let (lane, frame) = poll_fn(|cx| link.poll_receive(cx)).await.unwrap();
    assert_eq!((lane, &frame[..]), (Lane::Int, &b"key"[..]));
    link.send(Frame { lane: Lane::Ctl, head: "a".into(), body: "b".into() }).unwrap();
    poll_fn(|cx| link.poll_flush(cx)).await.unwrap();
    assert_eq!(message(&mut raw, 0).await, b"\0ab");

    let mut track = link.take_opus().expect("the page takes Opus");
    assert!(link.take_opus().is_none(), "there is one");
    assert!(!track.send(0, vec![0; 1201].into()).await, "too long");
    // The first packets are what tells the page of its track; sound is lost until then.
    let mut beat = tokio::time::interval(std::time::Duration::from_millis(10));
    let mut timestamp = u32::MAX - 480;
    let (heard, payload) = loop {
        tokio::select! {
            _ = beat.tick() => {
                timestamp = timestamp.wrapping_add(480);
                assert!(track.send(timestamp, vec![0xfc, 1, 2].into()).await);
            }
            seen = raw.seen.recv() => {
                if let Seen::Sound(timestamp, payload) = seen.unwrap() {
                    break (timestamp, payload);
                }
            }
        }
    };
    assert_eq!(payload, [0xfc, 1, 2]);
    assert_eq!(heard.wrapping_sub(u32::MAX) % 480, 0, "as it was sent");
}
