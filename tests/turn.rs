//! Links through a STUN and TURN server that is not ours.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab,
    farbus::{Host, PATIENCE, Seat},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::UdpSocket,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// The first bytes of a Binding request and of its answer, and the magic cookie of both (RFC 8489 §5, §18.2).
const BINDING: [u8; 2] = [0x00, 0x01];
const BOUND: [u8; 2] = [0x01, 0x01];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A server on loopback; it ends with this.
struct Turn {
    child: Child,
    log: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Turn {
    /// With one user, `desk`.
    async fn start(folder: &Path) -> Result<Self> {
        Self::knowing(folder, &["--lt-cred-mech", "--user", "desk:secret"]).await
    }

    /// With the users that these arguments say.
    async fn knowing(folder: &Path, users: &[&str]) -> Result<Self> {
        let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::from(Lab::open().await?.coturn().await?);
        command.args([
            "-n",
            "--listening-ip",
            "127.0.0.1",
            "--relay-ip",
            "127.0.0.1",
            "--allow-loopback-peers",
        ]);
        command.args(["--listening-port", &port.to_string(), "--no-tls", "--no-dtls", "--no-cli"]);
        command.args(["--realm", "farbus.test", "--verbose"]).args(users);
        command.args(["--log-file", "stdout", "--simple-log", "--pidfile"]).arg(folder.join("turn.pid"));
        command.arg("--userdb").arg(folder.join("turn.db"));
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let log = BufReader::new(child.stdout.take().context("its log")?).lines();
        let mut turn = Self { child, log, port };
        turn.says("UDP listener opened").await?;
        Ok(turn)
    }

    /// Waits for a line with these words in it.
    async fn says(&mut self, words: &str) -> Result<String> {
        let line = async {
            while let Some(line) = self.log.next_line().await? {
                if line.contains(words) {
                    return Ok(line);
                }
            }
            anyhow::bail!("the server ended")
        };
        timeout(PATIENCE, line).await.with_context(|| format!("the server never said {words:?}"))?
    }
}

#[tokio::test]
async fn a_remote_that_may_only_be_relayed_has_its_link_through_the_turn_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut turn = Turn::start(folder.path()).await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let server = format!("turn:desk:secret@127.0.0.1:{}", turn.port);
    let arguments = ["--keyboard", "--transport", "webrtc", "--ice-server", &server, "--relay-only"];
    let mut remote = host.remote("remote", "a", &arguments)?;
    let connected = remote.wait_for("connected").await?;
    ensure!(connected["transport"] == "webrtc", "{connected}");
    turn.says("ALLOCATE processed, success").await?;
    turn.says("CREATE_PERMISSION processed, success").await?;
    // Nothing else carries the link.
    turn.child.kill().await?;
    remote.wait_for("disconnected").await?;
    remote.stop().await?;
    host.program.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_shares_a_secret_with_the_turn_server_is_relayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let users = ["--use-auth-secret", "--static-auth-secret", "north"];
    let mut turn = Turn::knowing(folder.path(), &users).await?;
    let server =
        format!("{{ urls = [\"turn:127.0.0.1:{}\"], username = \"desk\", secret = \"north\" }}", turn.port);
    let seat = Seat {
        name: "a".to_owned(),
        folder: folder.path().join("a"),
        extra: format!("[webrtc]\nrelay_only = true\nice_servers = [{server}]\n"),
    };
    let mut host = Host::start_with(folder.path(), vec![seat]).await?;
    let mut remote = host.remote("remote", "a", &["--keyboard", "--transport", "webrtc"])?;
    let connected = remote.wait_for("connected").await?;
    ensure!(connected["transport"] == "webrtc", "{connected}");
    let allocated = turn.says("ALLOCATE processed, success").await?;
    ensure!(allocated.contains(":desk>"), "{allocated}");
    remote.stop().await?;
    host.program.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_remote_asks_the_stun_server_for_its_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let turn = Turn::start(folder.path()).await?;
    let (ear, server) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    server.connect(("127.0.0.1", turn.port)).await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let name = format!("stun:{}", ear.local_addr()?);
    let mut remote =
        host.remote("remote", "a", &["--keyboard", "--transport", "webrtc", "--ice-server", &name])?;

    let asked = async {
        let mut packet = [0; 1500];
        let (len, asker) = ear.recv_from(&mut packet).await?;
        ensure!(packet[..2] == BINDING && packet[4..8] == COOKIE, "{:?}", &packet[..len]);
        server.send(&packet[..len]).await?;
        let len = server.recv(&mut packet).await?;
        ensure!(packet[..2] == BOUND, "the server refuses: {:?}", &packet[..len]);
        ear.send_to(&packet[..len], asker).await?;
        Ok(())
    };
    timeout(PATIENCE, asked).await.context("it never asked")??;
    remote.wait_for("connected").await?;
    remote.stop().await?;
    host.program.stop().await?;
    Ok(())
}
