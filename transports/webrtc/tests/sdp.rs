//! Descriptions of strangers: what cannot be used is named, and nothing panics.

use common::config;
use proptest::prelude::*;
use webrtc::{Answerer, Error, MAX_SDP, Offerer, SdpError};

mod common;

async fn offer() -> String {
    Offerer::new(&config()).await.unwrap().offer().to_owned()
}

async fn refused(offer: &str) -> Error {
    Answerer::new(&config(), offer).await.err().expect("an offer that cannot be used")
}

#[tokio::test]
async fn an_offer_that_cannot_be_used_is_refused_with_the_reason() {
    let good = offer().await;
    assert!(Answerer::new(&config(), &good).await.is_ok());
    let without = |word: &str| -> String {
        good.lines().filter(|line| !line.contains(word)).map(|line| format!("{line}\r\n")).collect()
    };
    let sha1 = good.replace("sha-256", "sha-1");
    let short = good.replace("a=max-message-size:65536", "a=max-message-size:1200");
    let more = format!("{good}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(9));
    let candidates = format!("{good}{}", "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n".repeat(300));
    let cases = [
        ("nothing", String::new(), SdpError::NoFingerprint),
        ("prose", "hello\r\n".repeat(10), SdpError::NoFingerprint),
        ("too long", "a".repeat(MAX_SDP + 1), SdpError::TooLong(MAX_SDP + 1)),
        ("no fingerprint", without("fingerprint"), SdpError::NoFingerprint),
        ("a fingerprint of another hash", sha1, SdpError::NoFingerprint),
        ("no data channels", without("m=application"), SdpError::NoDataChannels),
        ("short messages", short, SdpError::ShortMessages(1200)),
        ("many sections", more, SdpError::TooMany("m=")),
        ("many candidates", candidates, SdpError::TooMany("a=candidate:")),
    ];
    for (name, offer, reason) in cases {
        match refused(&offer).await {
            Error::Sdp(told) => assert_eq!(told, reason, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, offer) in [
        ("no version", without("v=0")),
        ("no ICE user", without("ice-ufrag")),
        ("no ICE password", without("ice-pwd")),
        ("a torn line", good.replace("c=IN IP4", "c=IN")),
    ] {
        let told = refused(&offer).await;
        assert!(matches!(told, Error::Sdp(SdpError::Malformed(_))), "{name}: {told:?}");
    }
}

#[tokio::test]
async fn an_answer_or_a_candidate_that_cannot_be_used_is_refused() {
    let offerer = Offerer::new(&config()).await.unwrap();
    let answerer = Answerer::new(&config(), offerer.offer()).await.unwrap();
    let answer = answerer.answer();
    for answer in ["", "v=0\r\n", &answer.replace("fingerprint", "finger"), &answer.replace("ice-pwd", "pwd")]
    {
        assert!(matches!(offerer.take_answer(answer).await, Err(Error::Sdp(_))), "{answer}");
    }
    offerer.take_answer(answer).await.unwrap();
    for candidate in ["candidate:1", "candidate:1 1 udp", "nonsense \u{0} here", &"candidate:1 ".repeat(200)]
    {
        assert!(matches!(offerer.add_candidate(candidate).await, Err(Error::Sdp(_))), "{candidate}");
    }
    offerer.add_candidate("a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host").await.unwrap();
}

#[test]
fn no_offer_makes_a_host_panic() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let good = runtime.block_on(offer());
    let lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let mutation = (0..lines.len(), 0..5u8, any::<(u16, char)>());
    proptest!(ProptestConfig::with_cases(256), |(mutations in prop::collection::vec(mutation, 1..6))| {
        let mut lines = lines.clone();
        for (at, how, (place, what)) in mutations {
            let at = at % lines.len();
            let line = lines[at].clone();
            let place = line.floor_char_boundary(usize::from(place) % (line.len() + 1));
            match how {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(at, line),
                2 => lines[at].truncate(place),
                3 => lines[at].insert(place, what),
                _ => lines[at] = format!("{}99999999999999999999{}", &line[..place], &line[place..]),
            }
        }
        let offer = lines.join("\r\n") + "\r\n";
        // Used or refused, and told so.
        let _ = runtime.block_on(Answerer::new(&config(), &offer)).map(|_| ());
    });
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_done_without_and_one_that_is_none_is_named() {
    let on = |url: &str| webrtc::Config {
        ice_servers: vec![webrtc::IceServer { urls: vec![url.to_owned()], ..Default::default() }],
        ..config()
    };
    // Bound, and read by nobody.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("stun:{}", silent.local_addr().unwrap());
    let offerer = Offerer::new(&on(&url)).await.unwrap();
    assert!(offerer.offer().contains("typ host"), "{}", offerer.offer());
    for url in ["", "stun", "http://example.org", "turn:127.0.0.1:1"] {
        assert!(matches!(Offerer::new(&on(url)).await.err(), Some(Error::SetUp(_))), "{url}");
    }
    let hidden = webrtc::Config { relay_only: true, ..config() };
    assert!(matches!(Offerer::new(&hidden).await.err(), Some(Error::SetUp(_))), "no relay to hide behind");
}
