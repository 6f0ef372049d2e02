//! What the host tells of its VMs: `farbus-host status`, and the metrics for Prometheus.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{Cable, Cut, Host, PATIENCE, Program, Seat, binary};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Runs `farbus-host status --json` until it says what is waited for.
async fn status(config: &Path, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut seen = Value::Null;
    let asked = timeout(PATIENCE, async {
        while !wanted(&seen) {
            let mut command = tokio::process::Command::new(binary("farbus-host")?);
            command.args(["status", "--json", "--config"]).arg(config).stderr(Stdio::inherit());
            let output = command.output().await?;
            ensure!(output.status.success(), "{output:?}");
            seen = serde_json::from_slice(&output.stdout)?;
        }
        anyhow::Ok(())
    });
    let outcome = asked.await;
    ensure!(outcome.is_ok(), "the status never said it: {seen}");
    outcome??;
    Ok(seen)
}

/// What the metrics endpoint says.
async fn metrics(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.context("the metrics endpoint")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: farbus\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A port that was free a moment ago.
fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[tokio::test]
async fn status_and_metrics_tell_who_has_a_vm_and_how_the_way_there_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let endpoint = free_port()?;
    let config = path("host.toml");
    let vm = |name: &str| format!("[vm.{name}]\nsocket_dir = {:?}\nremotes = [\"any\"]\n", path(name));
    let text = format!(
        "listen = \"127.0.0.1:0\"\nkey_file = {:?}\ncontrol = {:?}\nmetrics = \"{endpoint}\"\n{}{}",
        path("host.key"),
        path("control.sock"),
        vm("a"),
        vm("b")
    );
    std::fs::write(&config, text)?;
    let serve = ["serve", "--json", "--config", &config.to_string_lossy()].map(str::to_owned);
    let mut host = Program::start("host", "farbus-host", &serve, folder.path())?;
    let listening = host.wait_for("listening").await?;
    let text = |field: &str| listening[field].as_str().unwrap_or_default().to_owned();
    for _ in ["a", "b"] {
        host.wait_for("vm_ready").await?;
    }
    let connect = ["connect", &text("address"), "--host-key", &text("host_key"), "--vm", "a", "--keyboard"];
    let key = path("remote.key").to_string_lossy().into_owned();
    let connect: Vec<_> =
        connect.into_iter().chain(["--events", "json", "--key-file", &key]).map(str::to_owned).collect();
    let mut remote = Program::start("remote", "farbus-remote", &connect, folder.path())?;
    remote.wait_for("connected").await?;

    let known = |status: &Value| {
        let vm = &status["vms"][0];
        vm["round_trip_us"].is_u64() && vm["devices"] == 1 && vm["lent"][0]["port"].is_u64()
    };
    let seen = status(&config, known).await?;
    ensure!(seen["address"] == text("address").as_str(), "{seen}");
    let (a, b) = (&seen["vms"][0], &seen["vms"][1]);
    ensure!(a["vm"] == "a" && a["links"] == 1 && a["remote"]["transport"] == "noise-tcp", "{a}");
    let from = a["remote"]["address"].as_str().unwrap_or_default();
    ensure!(from.starts_with("127.0.0.1:"), "{a}");
    ensure!(a["remote"]["key"].as_str().is_some_and(|key| key.len() == 52), "{a}");
    let lanes = a["lanes"].as_array().context("lanes")?;
    let names: Vec<_> = lanes.iter().map(|lane| lane["lane"].as_str().unwrap_or_default()).collect();
    ensure!(names == ["ctl", "int", "audio", "iso", "bulk"], "{a}");
    ensure!(lanes[0]["received_bytes"].as_u64() > Some(0), "the attachment came by this lane: {a}");
    let lent = &a["lent"][0];
    let keyboard = lent["name"] == "keyboard" && lent["id"].as_str().is_some_and(|id| id.len() == 9);
    ensure!(keyboard && lent["device"] == 1 && lent["port"].is_u64() && lent["speed"].is_string(), "{a}");
    ensure!(
        b["vm"] == "b"
            && b["lent"].as_array().is_some_and(Vec::is_empty)
            && b["remote"].is_null()
            && b["worker"].is_u64(),
        "{b}"
    );

    let exported = metrics(endpoint).await?;
    for line in [
        "farbus_linked{vm=\"a\"} 1",
        "farbus_links_total{vm=\"a\"} 1",
        "farbus_devices{vm=\"a\"} 1",
        "farbus_round_trip_seconds{vm=\"a\"} ",
        "farbus_lane_received_bytes_total{vm=\"a\",lane=\"ctl\"} ",
        "farbus_lane_queued_bytes{vm=\"a\",lane=\"bulk\"} 0",
    ] {
        ensure!(exported.contains(line), "{line} is not in\n{exported}");
    }

    // What workers measure themselves comes once a second.
    let measured = timeout(PATIENCE, async {
        while !metrics(endpoint).await?.contains("farbus_worker_start_seconds{vm=\"b\"}") {}
        anyhow::Ok(())
    });
    measured.await.context("the workers' own measures never came")??;

    ensure!(remote.stop().await?.success());
    host.wait_for("link_lost").await?;
    status(&config, |status| status["vms"].is_array() && status["vms"][0]["remote"].is_null()).await?;
    ensure!(metrics(endpoint).await?.contains("farbus_linked{vm=\"a\"} 0"));
    Ok(())
}

/// What `farbus-remote` answers by its socket.
async fn asked(control: &str, words: &[&str]) -> Result<Vec<u8>> {
    let mut command = tokio::process::Command::new(binary("farbus-remote")?);
    let output = command.args(words).args(["--control", control]).output().await?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(output.stdout)
}

#[tokio::test]
async fn a_session_that_goes_on_from_another_network_is_the_same_and_the_host_says_where_it_is() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let config = folder.path().join("host.toml");
    let cable = Cable::to(&host.address).await?;
    let mut remote = host.remote_by(&cable, "remote", "a", &["--keyboard"])?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    for source in [Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::LOCALHOST] {
        cable.move_to(source);
        cable.set(Cut::Reset);
        remote.wait_for("disconnected").await?;
        cable.set(Cut::Whole);
        remote.wait_for("resumed").await.context("the session does not go on")?;
        let from = format!("{source}:");
        let at = |status: &Value| status["vms"][0]["remote"]["address"].as_str().map(str::to_owned);
        status(&config, |status| at(status).is_some_and(|at| at.starts_with(&from))).await?;
    }
    for noticed in ["link_lost", "attached"] {
        ensure!(host.program.seen(noticed).is_empty(), "the VM noticed: {noticed}");
    }
    ensure!(remote.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn both_ends_tell_of_an_outage_and_of_a_move() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let endpoint = free_port()?;
    let control = folder.path().join("remote.sock").display().to_string();
    let seat = Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra: String::new() };
    let host =
        Host::start_configured(folder.path(), &format!("metrics = \"{endpoint}\"\n"), vec![seat]).await?;
    let cable = Cable::to(&host.address).await?;
    let mut remote = host.remote_by(&cable, "remote", "a", &["--keyboard", "--control", &control])?;
    remote.wait_for("connected").await?;

    cable.set(Cut::Reset);
    remote.wait_for("disconnected").await?;
    cable.set(Cut::Whole);
    let resumed = remote.wait_for("resumed").await?;
    ensure!(resumed["after_ms"].is_u64(), "{resumed}");
    asked(&control, &["switch", "webrtc"]).await?;
    let moved = remote.wait_for("resumed").await?;
    ensure!(moved["transport"] == "webrtc" && moved["after_ms"].is_null(), "{moved}");

    let some = |value: &Value| value.as_u64() > Some(0);
    let tells = |of: &Value| {
        some(&of["resumes"])
            && some(&of["hand_overs"])
            && some(&of["held_ms"])
            && of["round_trip_us"].is_u64()
            && of["jitter_us"].is_u64()
            && of["loss_ppm"].is_u64()
            && of["lanes"].as_array().is_some_and(|lanes| {
                lanes.len() == 5
                    && lanes.iter().all(|l| l["retransmitted_frames"].is_u64() && l["queued_bytes"].is_u64())
            })
    };
    status(&folder.path().join("host.toml"), |status| tells(&status["vms"][0])).await?;
    let mut said: Value = serde_json::from_slice(&asked(&control, &["status", "--json"]).await?)?;
    let session = said["status"]["session"].take();
    ensure!(tells(&session) && session["transport"] == "webrtc", "{session}, {said}");
    let words = String::from_utf8(asked(&control, &["status"]).await?)?;
    ensure!(words.contains("link: webrtc") && words.contains(" %; 1 outages of "), "{words}");

    let exported = metrics(endpoint).await?;
    let value = |name: &str| {
        let line = exported.lines().find(|line| line.starts_with(&format!("{name}{{vm=\"a\"")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .with_context(|| format!("{name} is not in\n{exported}"))
    };
    for name in ["farbus_resumes_total", "farbus_hand_overs_total", "farbus_held_milliseconds_total"] {
        ensure!(value(name)? > 0.0, "{name}\n{exported}");
    }
    for name in [
        "farbus_round_trip_seconds",
        "farbus_jitter_seconds",
        "farbus_loss_ratio",
        "farbus_lane_retransmitted_frames_total",
    ] {
        ensure!(value(name)? >= 0.0, "{name}\n{exported}");
    }
    ensure!(remote.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn without_a_running_host_status_says_what_to_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("host.toml");
    std::fs::write(&config, format!("key_file = {:?}\n", folder.path().join("host.key")))?;
    let output = std::process::Command::new(binary("farbus-host")?)
        .args(["status", "--config"])
        .arg(&config)
        .output()?;
    ensure!(output.status.code() == Some(1));
    ensure!(String::from_utf8_lossy(&output.stderr).contains("farbus-host serve"), "{output:?}");
    ensure!(!folder.path().join("host.key").exists(), "asking made a key");
    Ok(())
}
