//! What the web endpoint does to those who may not, or do not know how to, ask; and to those who may.

use anyhow::{Context as _, Result, ensure};
use link::{Frame, Link as _};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use webrtc::{Config, Error, Offerer, SecretKey};
use wire::{
    Lane,
    control::{Hello, Refusal},
};

use crate::https::{Answer, World, fingerprint, read, request};

const RTC: &str = "/api/v1/vms/a/rtc";
const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");

type Headers<'a> = &'a [(&'a str, &'a str)];

/// A remote that has this crate's kind of connection, and asks by HTTP.
async fn offer() -> Result<Offerer> {
    let config = Config { bind: vec![([127, 0, 0, 1], 0).into()], ..Config::default() };
    Ok(Offerer::new(&config).await?)
}

fn hello(vm: Option<&str>) -> Hello {
    Hello { version: wire::VERSION, vm: vm.map(str::to_owned), name: "page".to_owned(), signalling: false }
}

/// Posts an offer with a token.
async fn post(world: &World, token: &str, sdp: &str) -> Result<Answer> {
    world.server.ask("POST", RTC, &[("Authorization", &format!("Bearer {token}")), SDP], sdp).await
}

/// Nobody has the VM.
async fn untouched(world: &World) -> Result<()> {
    let status = world.command(&["status"]).await?;
    ensure!(status["vms"][0]["remote"].is_null() && status["vms"][0]["links"] == 0, "{status}");
    ensure!(status["web"]["fingerprint"] == world.server.fingerprint.as_str(), "{status}");
    Ok(())
}

#[tokio::test]
async fn whoever_asks_in_the_wrong_way_is_told_how_by_the_status() -> Result<()> {
    // The other VM's worker never comes up: its folder cannot be made.
    let other = "[vm.b]\nsocket_dir = \"/proc/farbus\"";
    let world = World::start("", &format!("origins = [\"https://proxy.example\"]\n{other}")).await?;
    let token = world.token().await?;
    let bearer = ("Authorization", &*format!("Bearer {token}"));
    let long = "v".repeat(64 * 1024 + 1);
    let call = "/api/v1/vms/a/rtc/nobody";
    // What, how, where, with which headers and body, and the status.
    let cases: &[(&str, &str, &str, Headers<'_>, &str, u16)] = &[
        ("no token", "POST", RTC, &[SDP], "", 401),
        ("another scheme", "POST", RTC, &[("Authorization", "Basic eDp5"), SDP], "", 401),
        ("a token that was never made", "POST", RTC, &[("Authorization", "Bearer x"), SDP], "", 401),
        ("no token, for a VM that is not there", "POST", "/api/v1/vms/zz/rtc", &[SDP], "", 401),
        ("another VM's token", "POST", "/api/v1/vms/b/rtc", &[bearer, SDP], "", 403),
        ("a token for what is not there", "POST", "/api/v1/vms/zz/rtc", &[bearer, SDP], "", 403),
        ("a page of elsewhere", "POST", RTC, &[bearer, SDP, ("Origin", "https://evil.example")], "", 403),
        ("no page at all", "POST", RTC, &[bearer, SDP, ("Origin", "null")], "", 403),
        ("a page of the endpoint", "POST", RTC, &[bearer, SDP, ("Origin", "https://farbus")], "x", 400),
        ("a page of the proxy", "POST", RTC, &[bearer, SDP, ("Origin", "https://proxy.example")], "x", 400),
        ("nothing there", "GET", "/", &[], "", 404),
        ("nothing there, with a token", "POST", "/api/v1/vms/a", &[bearer, SDP], "", 404),
        ("a question", "GET", RTC, &[bearer], "", 405),
        ("a browser's question beforehand", "OPTIONS", RTC, &[("Origin", "https://evil.example")], "", 405),
        ("an offer to a call", "POST", call, &[bearer, SDP], "", 405),
        ("another form", "POST", RTC, &[bearer, ("Content-Type", "text/plain")], "x", 415),
        ("no form", "POST", RTC, &[bearer], "x", 415),
        ("another answer", "POST", RTC, &[bearer, SDP, ("Accept", "text/html")], "x", 406),
        ("any answer", "POST", RTC, &[bearer, SDP, ("Accept", "text/html, */*;q=0.1")], "x", 400),
        ("garbage", "POST", RTC, &[bearer, SDP], "hello", 400),
        ("too long", "POST", RTC, &[bearer, SDP], &long, 413),
        ("a call that is not there", "PATCH", call, &[bearer, FRAGMENT, ("If-Match", "*")], "x", 404),
        ("the end of what is not there", "DELETE", call, &[bearer], "", 404),
    ];
    for &(name, method, path, headers, body, status) in cases {
        // What is too long need not be sent to be refused.
        let all = request(method, path, headers, body);
        let said = &all[..all.len() - if body.len() > 1000 { body.len() } else { 0 }];
        let answer = world.server.say(said).await.context(name)?;
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.body);
        ensure!(answer.header("access-control-allow-origin").is_none(), "{name}");
        ensure!(status != 401 || answer.header("www-authenticate") == Some("Bearer"), "{name}");
        ensure!(status != 405 || answer.header("allow").is_some(), "{name}");
    }
    let made = world.command(&["web-token", "b"]).await?;
    let lonely = format!("Bearer {}", made["web_token"]["token"].as_str().context("a token")?);
    let answer =
        world.server.ask("POST", "/api/v1/vms/b/rtc", &[("Authorization", &lonely), SDP], "x").await?;
    ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
    // As long, but the length is not announced.
    let head = format!(
        "POST {RTC} HTTP/1.1\r\nHost: farbus\r\nAuthorization: Bearer {token}\r\n{}: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}",
        SDP.0,
        SDP.1,
        long.len()
    );
    ensure!(world.server.say(head.as_bytes()).await?.status == 413);
    let mut binary = request("POST", RTC, &[bearer, SDP], "xx");
    let end = binary.len();
    binary[end - 2..].copy_from_slice(&[0xff, 0xfe]);
    ensure!(world.server.say(&binary).await?.status == 400, "what is no text");
    ensure!(world.server.say(b"hello\r\n\r\n").await?.status == 400, "what is no HTTP");
    untouched(&world).await
}

#[tokio::test]
async fn a_body_that_never_ends_costs_its_sender_a_connection_and_the_others_nothing() -> Result<()> {
    let world = World::start("", "").await?;
    let token = world.token().await?;
    let bearer = ("Authorization", &*format!("Bearer {token}"));
    let mut slow = world.server.connect().await?;
    let all = request("POST", RTC, &[bearer, SDP], "v=0 and so on");
    slow.write_all(&all[..all.len() - 1]).await?;
    slow.flush().await?;
    ensure!(post(&world, &token, "hello").await?.status == 400, "somebody else is answered meanwhile");
    ensure!(read(&mut slow).await?.status == 408);
    Ok(())
}

#[tokio::test]
async fn connections_that_say_nothing_push_each_other_out_and_keep_nobody_from_asking() -> Result<()> {
    let world = World::start("", "").await?;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(world.server.address).await?);
    }
    let answer = world.server.ask("POST", RTC, &[SDP], "").await?;
    ensure!(answer.status == 401, "{answer:?}");
    // The first of them had to go for those that came later.
    ensure!(silent[0].read(&mut [0]).await.unwrap_or(0) == 0);
    Ok(())
}

#[tokio::test]
async fn another_certificate_than_the_printed_one_is_noticed_and_the_printed_one_stays() -> Result<()> {
    let world = World::start("", "").await?;
    let mut other = world.server.clone();
    other.fingerprint = other.fingerprint.replace('A', "B").replace('0', "1");
    ensure!(other.connect().await.is_err());
    let text = std::fs::read_to_string(world.folder.path().join("host.web.pem"))?;
    ensure!(text.contains("BEGIN CERTIFICATE") && text.contains("PRIVATE KEY"));
    Ok(())
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_the_one_that_is_shown_and_no_other_is_made() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let own = rcgen::generate_simple_self_signed(["farbus.example".to_owned()])?;
    let (certificate, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    std::fs::write(&certificate, own.cert.pem())?;
    std::fs::write(&key, own.signing_key.serialize_pem())?;
    let world = World::start_in(folder, "", &format!("certificate = {certificate:?}\nkey = {key:?}")).await?;
    ensure!(world.server.fingerprint == fingerprint(own.cert.der()), "another one is printed");
    let stream = world.server.connect().await?;
    let shown = stream.get_ref().1.peer_certificates().context("a certificate")?;
    ensure!(shown == [own.cert.der().clone()], "another one is shown");
    ensure!(!world.folder.path().join("host.web.pem").exists());
    Ok(())
}

#[tokio::test]
async fn a_call_becomes_a_link_is_amended_and_ends_by_delete() -> Result<()> {
    let mut world = World::start("", "").await?;
    let token = world.token().await?;
    let bearer = ("Authorization", &*format!("Bearer {token}"));
    let offerer = offer().await?;
    let answer = post(&world, &token, offerer.offer()).await?;
    ensure!(answer.status == 201 && answer.header("content-type") == Some("application/sdp"), "{answer:?}");
    let (call, etag) =
        (answer.header("location").context("a location")?, answer.header("etag").context("a tag")?);
    offerer.take_answer(&answer.body).await?;
    let key = SecretKey::generate();
    let (link, welcome) = offerer.connect(world.host.key.parse()?, &key, &hello(None)).await?;
    ensure!(welcome == wire::control::Answer::Welcome { vm: "a".to_owned() }, "{welcome:?}");

    // Candidates, before and after they belong to nobody any more.
    let password = "a=ice-pwd:0123456789abcdefghijklmn";
    let more = "a=candidate:9 1 udp 1 127.0.0.1 9 typ host\r\n";
    let patch = async |tag: &str, body: &str| {
        let headers = [bearer, FRAGMENT, ("If-Match", tag)];
        let headers = if tag.is_empty() { &headers[..2] } else { &headers[..] };
        world.server.ask("PATCH", call, headers, body).await
    };
    ensure!(patch("", more).await?.status == 428, "without a tag");
    ensure!(patch("\"7\"", more).await?.status == 412, "with another tag");
    ensure!(patch(etag, "hello").await?.status == 400, "garbage");
    ensure!(patch(etag, more).await?.status == 204);
    ensure!(patch("*", more).await?.status == 400, "a restart without credentials");
    let strange = format!("a=ice-ufrag:strange\r\n{password}\r\n{more}");
    ensure!(patch(etag, &strange).await?.status == 400, "of another connection");
    let restarted = patch("*", &strange).await?;
    ensure!(restarted.status == 200 && restarted.body.contains("a=ice-ufrag:"), "{restarted:?}");
    ensure!(patch(etag, more).await?.status == 412, "the tag of before the restart");

    let elsewhere = format!("Bearer {}", world.token().await?);
    let gone = world.server.ask("DELETE", call, &[("Authorization", &elsewhere)], "").await?;
    ensure!(gone.status == 404, "by another token");
    ensure!(world.server.ask("DELETE", call, &[bearer], "").await?.status == 200);
    ensure!(world.server.ask("DELETE", call, &[bearer], "").await?.status == 404);
    ensure!(world.host.program.seen("refused").is_empty());
    drop(link);
    Ok(())
}

fn line_of(sdp: &str, name: &str) -> Result<String> {
    let line = sdp.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("no such line")?.trim_end().to_owned())
}

#[tokio::test]
async fn a_token_has_so_many_calls_and_a_dropped_token_none() -> Result<()> {
    let world = World::start("", "").await?;
    let token = world.token().await?;
    // Offers that nobody follows up: each is a call until its time is over.
    let offerer = offer().await?;
    let mut first = None;
    for _ in 0..4 {
        let answer = post(&world, &token, offerer.offer()).await?;
        ensure!(answer.status == 201, "{answer:?}");
        first.get_or_insert(answer.header("location").context("a location")?.to_owned());
    }
    ensure!(post(&world, &token, offerer.offer()).await?.status == 429);
    let other = world.token().await?;
    ensure!(post(&world, &other, offerer.offer()).await?.status == 201, "another token has its own");
    let bearer = format!("Bearer {token}");
    let ended =
        world.server.ask("DELETE", &first.context("a call")?, &[("Authorization", &bearer)], "").await?;
    ensure!(ended.status == 200);
    ensure!(post(&world, &token, offerer.offer()).await?.status == 201);
    let dropped = world.command(&["web-token", "a", "--drop"]).await?;
    ensure!(dropped["web_tokens_dropped"]["dropped"] == 2, "{dropped}");
    ensure!(post(&world, &token, offerer.offer()).await?.status == 401);
    untouched(&world).await
}

#[tokio::test]
async fn a_token_without_a_key_that_is_allowed_gets_no_vm_and_one_that_is_revoked_loses_it() -> Result<()> {
    let own = SecretKey::generate();
    let mut world = World::start(&format!("remotes = [\"{}\"]", own.public()), "").await?;
    let (token, key) = (world.token().await?, world.host.key.parse()?);
    for (secret, vm, expected) in [
        (&SecretKey::generate(), None, Some(Refusal::NotAllowed)),
        (&own, Some("b"), Some(Refusal::NotAllowed)),
        (&own, Some("a"), None),
    ] {
        let offerer = offer().await?;
        let answer = post(&world, &token, offerer.offer()).await?;
        ensure!(answer.status == 201, "leave to ask: {answer:?}");
        offerer.take_answer(&answer.body).await?;
        let outcome = offerer.connect(key, secret, &hello(vm)).await;
        match (outcome, expected) {
            (Err(Error::Refused { reason, .. }), Some(expected)) if reason == expected => {
                world.host.program.wait_for("refused").await?;
                untouched(&world).await?;
            }
            (Ok((link, _)), None) => revoked(&mut world, link, &own).await?,
            (other, _) => anyhow::bail!("{vm:?}: {:?}", other.err()),
        }
    }
    Ok(())
}

/// Begins a session on the link.
async fn begin(world: &mut World, link: &mut webrtc::WebRtc) -> Result<()> {
    // HELLO: kind 16, and the versions 1 to 1.
    let mut hello = vec![0; 32];
    hello[0] = 16;
    hello.extend([1, 0, 1, 0]);
    link.send(Frame { lane: Lane::Ctl, head: hello.into(), body: Default::default() })?;
    world.host.program.wait_for("linked").await?;
    Ok(())
}

#[tokio::test]
async fn a_session_ends_with_the_call_that_it_is_on_and_nobody_is_waited_for() -> Result<()> {
    let mut world = World::start("", "").await?;
    let (token, offerer) = (world.token().await?, offer().await?);
    let answer = post(&world, &token, offerer.offer()).await?;
    offerer.take_answer(&answer.body).await?;
    let (mut link, _) =
        offerer.connect(world.host.key.parse()?, &SecretKey::generate(), &hello(None)).await?;
    begin(&mut world, &mut link).await?;
    let bearer = format!("Bearer {token}");
    let call = answer.header("location").context("a location")?;
    ensure!(world.server.ask("DELETE", call, &[("Authorization", &bearer)], "").await?.status == 200);
    let lost = world.host.program.wait_for("link_lost").await?;
    ensure!(lost["reason"] == "the remote hung up", "{lost}");
    ensure!(world.host.program.seen("detached").is_empty());
    Ok(())
}

/// Begins a session on the link; its key is revoked then, and the session ends.
async fn revoked(world: &mut World, mut link: webrtc::WebRtc, own: &SecretKey) -> Result<()> {
    begin(world, &mut link).await?;
    let revoked = world.command(&["revoke", &own.public().to_string()]).await?;
    ensure!(revoked["revoked"]["ended"][0] == "a", "{revoked}");
    world.host.program.wait_for("sent_away").await?;
    world.host.program.wait_for("link_lost").await?;
    Ok(())
}

#[tokio::test]
async fn another_host_key_or_a_certificate_that_was_swapped_on_the_way_ends_in_nothing() -> Result<()> {
    let mut world = World::start("", "").await?;
    let (token, me) = (world.token().await?, SecretKey::generate());
    // Somebody else than the host answers: it cannot read what is written for the host's key.
    let offerer = offer().await?;
    let answer = post(&world, &token, offerer.offer()).await?;
    offerer.take_answer(&answer.body).await?;
    ensure!(offerer.connect(SecretKey::generate().public(), &me, &hello(None)).await.is_err());
    // Whoever carries the offer, or the answer, puts his own certificate's fingerprint into it.
    let swap = |sdp: &str| -> Result<String> {
        let theirs = line_of(sdp, "a=fingerprint:sha-256 ")?;
        let swapped = theirs.chars().rev().collect::<String>();
        Ok(sdp.replace(&theirs, &swapped))
    };
    for (in_offer, in_answer) in [(true, false), (false, true)] {
        let offerer = offer().await?;
        let offered = if in_offer { swap(offerer.offer())? } else { offerer.offer().to_owned() };
        let answer = post(&world, &token, &offered).await?;
        ensure!(answer.status == 201);
        let answered = if in_answer { swap(&answer.body)? } else { answer.body };
        offerer.take_answer(&answered).await?;
        ensure!(offerer.connect(world.host.key.parse()?, &me, &hello(None)).await.is_err());
    }
    ensure!(world.host.program.seen("linked").is_empty());
    untouched(&world).await
}
