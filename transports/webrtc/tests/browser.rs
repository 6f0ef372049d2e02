//! A remote written without this crate, as a browser's page is: what is said on the wire, and sound on a track.

use std::future::poll_fn;

use async_rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use common::{
    config, hello,
    raw::{LINK, Raw, Seen},
    welcome,
};
use link::{Frame, Link};
use noise::{Initiator, Suite};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use webrtc::{Answerer, Config, SecretKey};
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

#[tokio::test]
async fn a_page_gets_a_link_and_hears_the_host() {
    let (host, page) = (SecretKey::generate(), SecretKey::generate());
    let mut raw = Raw::new().await;
    let init =
        RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
    raw.connection.add_transceiver_from_kind(RtpCodecKind::Audio, Some(init)).await.unwrap();
    let offer = raw.offer().await;
    let answerer = Answerer::new(&Config { opus: true, ..config() }, &offer).await.unwrap();
    let answer = answerer.answer().to_owned();
    assert!(answer.contains("a=rtpmap:111 opus/48000/2"), "{answer}");
    raw.take_answer(&answer).await;
    let serve = async { answerer.caller(&host).await?.accept(&welcome()).await };
    let call = async {
        raw.ready().await;
        let prologue = [&b"farbus/1 webrtc"[..], &fingerprint(&offer), &fingerprint(&answer)].concat();
        let (noise, first) =
            Initiator::begin(Suite::ChaChaPoly, &prologue, host.public(), &page, &hello()).unwrap();
        raw.send(LINK, &[&[4], first.as_bytes()].concat()).await;
        let second = message(&mut raw, LINK).await;
        assert_eq!(second[0], 4);
        let (told, mut finished) = noise.finish(&second[1..]).unwrap();
        assert!(matches!(told, Answer::Welcome { .. }));
        let mut proof = [4; 17];
        finished.transport.write_message(&[], &mut proof[1..]).unwrap();
        raw.send(LINK, &proof).await;
        finished.binding
    };
    let (link, binding) = tokio::join!(serve, call);
    let mut link = link.unwrap();
    assert_eq!((link.binding(), link.peer()), (binding, page.public().into()));

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
