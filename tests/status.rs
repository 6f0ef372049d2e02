//! What the host tells of its VMs: `farbus-host status`, and the metrics for Prometheus.

use std::{net::SocketAddr, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{PATIENCE, Program, binary};
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
