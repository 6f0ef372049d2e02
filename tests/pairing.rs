//! First contact, and the end of trust, between the two programs as people run them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{Host, Program, Seat};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The exit code of a remote that is refused.
const REFUSED: Option<i32> = Some(3);

/// A host and a desk, each with a folder of its own.
struct World {
    folder: tempfile::TempDir,
    host: Host,
}

impl World {
    /// One VM, `a`, which nobody may have yet, unless `extra` says otherwise.
    async fn start(extra: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("desk"))?;
        let extra = format!("# no remotes\n{extra}\n");
        let seat = Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra };
        let host = Host::start_with(folder.path(), vec![seat]).await?;
        Ok(Self { folder, host })
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("host.toml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("host.state.json")
    }

    fn desk(&self) -> PathBuf {
        self.folder.path().join("desk")
    }

    /// Runs `farbus-host` with these arguments and this host's configuration.
    fn host(&self, arguments: &[&str]) -> Result<Program> {
        let config = self.config().to_string_lossy().into_owned();
        let all = words(&[arguments, &["--json", "--config", &config]].concat());
        Program::start(arguments[0], "farbus-host", &all, self.folder.path())
    }

    /// Runs `farbus-remote` with these arguments and the desk's key.
    fn remote(&self, arguments: &[&str]) -> Result<Program> {
        let key = self.desk().join("remote.key").to_string_lossy().into_owned();
        let all = words(&[arguments, &["--key-file", &key]].concat());
        Program::start(arguments[0], "farbus-remote", &all, &self.desk())
    }

    fn connect(&self) -> Result<Program> {
        self.remote(&["connect", &self.host.address, "--events", "json"])
    }

    /// Makes a code; the program that shows it waits for what becomes of it.
    async fn code(&self) -> Result<(Program, String)> {
        let mut showing = self.host(&["pair", "a"])?;
        let code = showing.wait_for("code").await?;
        let text = code["code"].as_str().context("a code")?.to_owned();
        ensure!(code["address"] == self.host.address.as_str(), "{code}");
        Ok((showing, text))
    }

    /// Pairs the desk; its key.
    async fn pair(&self) -> Result<String> {
        let (mut showing, code) = self.code().await?;
        let mut remote = self.remote(&["pair", &self.host.address, "--json"])?;
        remote.say(&code).await?;
        let paired = remote.wait_for("paired").await?;
        ensure!(paired["vm"] == "a" && paired["host_key"] == self.host.key.as_str(), "{paired}");
        ensure!(remote.ended().await?.success());
        let paired = showing.wait_for("paired").await?;
        ensure!(showing.ended().await?.success());
        Ok(paired["key"].as_str().context("a key")?.to_owned())
    }
}

#[tokio::test]
async fn a_paired_remote_connects_without_naming_a_key_and_still_does_after_the_hosts_restart() -> Result<()>
{
    let mut world = World::start("").await?;
    let config = fs::read(world.config())?;
    let mut stranger =
        world.remote(&["connect", &world.host.address, "--host-key", &world.host.key, "--events", "json"])?;
    let refused = stranger.wait_for("refused").await?;
    ensure!(refused["text"].as_str().is_some_and(|text| text.contains("farbus-host pair")), "{refused}");
    ensure!(stranger.ended().await?.code() == REFUSED);

    let key = world.pair().await?;
    let paired = world.host.program.wait_for("paired").await?;
    ensure!(paired["remote"] == key.as_str(), "{paired}");
    let mut remote = world.connect()?;
    remote.wait_for("connected").await?;
    ensure!(remote.stop().await?.success());
    for file in [world.state(), world.desk().join("known-hosts")] {
        ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "{}", file.display());
    }
    ensure!(fs::read(world.config())? == config, "the user's configuration was written to");

    // The same address, as a restarted host has it.
    let text = String::from_utf8(config)?;
    fs::write(world.config(), text.replace("127.0.0.1:0", &world.host.address))?;
    ensure!(world.host.program.stop().await?.success());
    let mut again = world.host(&["serve"])?;
    again.wait_for("vm_ready").await?;
    world.connect()?.wait_for("connected").await?;
    Ok(())
}

/// Carries one connection to the host, and notes what the remote said, message by message.
async fn eavesdrop(listener: TcpListener, host: String) -> Result<Vec<Vec<u8>>> {
    let (mut remote, _) = listener.accept().await?;
    let mut host = TcpStream::connect(host).await?;
    let mut said = Vec::new();
    for _ in 0..3 {
        let message = message(&mut remote).await?;
        host.write_all(&message).await?;
        said.push(message);
        let answer = self::message(&mut host).await?;
        remote.write_all(&answer).await?;
    }
    Ok(said)
}

/// The next message, with its length before it.
async fn message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; 2 + usize::from(length)];
    message[..2].copy_from_slice(&length.to_be_bytes());
    stream.read_exact(&mut message[2..]).await?;
    Ok(message)
}

#[tokio::test]
async fn what_was_said_in_a_pairing_pairs_nobody_when_it_is_said_again() -> Result<()> {
    let world = World::start("").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let between = listener.local_addr()?.to_string();
    let heard = tokio::spawn(eavesdrop(listener, world.host.address.clone()));
    let (mut showing, code) = world.code().await?;
    let mut remote = world.remote(&["pair", &between, &code, "--json"])?;
    remote.wait_for("paired").await.context("whoever only listens disturbs nobody")?;
    showing.wait_for("paired").await?;
    let said = heard.await??;

    let replay = async || -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&world.host.address).await?;
        let mut answer = Vec::new();
        for said in &said {
            // A host that has hung up is as good as one that refuses.
            if stream.write_all(said).await.is_err() {
                break;
            }
            match message(&mut stream).await {
                Ok(message) => answer = message,
                Err(_) => break,
            }
        }
        Ok(answer)
    };
    ensure!(replay().await? == [0, 2, 1, 0], "the code is used: nobody is expected");
    let (_showing, code) = world.code().await?;
    let offer = replay().await?;
    ensure!(
        offer[2] == 0 && offer.len() > 60,
        "what was said belongs to another offer: the host hangs up after its own"
    );
    // Whoever cuts messages short spends no try either.
    for end in 0..said[0].len() {
        let mut stream = TcpStream::connect(&world.host.address).await?;
        stream.write_all(&said[0][..end]).await?;
    }
    let mut remote = world.remote(&["pair", &world.host.address, &code, "--json"])?;
    remote.wait_for("paired").await?;
    Ok(())
}

#[tokio::test]
async fn three_wrong_codes_burn_the_right_one() -> Result<()> {
    let world = World::start("").await?;
    let (mut showing, code) = world.code().await?;
    let last = if code.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &code[..code.len() - 1]);
    for (typed, says) in [
        (&wrong, "2 tries are left"),
        (&wrong, "one try is left"),
        (&wrong, "last try"),
        (&code, "no code is valid"),
    ] {
        let mut remote = world.remote(&["pair", &world.host.address, typed, "--json"])?;
        let refused = remote.wait_for("refused").await?;
        ensure!(refused["text"].as_str().is_some_and(|text| text.contains(says)), "{says}: {refused}");
        ensure!(remote.ended().await?.code() == REFUSED);
    }
    showing.wait_for("burned").await?;
    ensure!(showing.ended().await?.code() == Some(1));
    ensure!(!world.desk().join("known-hosts").exists() && !world.state().exists());
    // A new code works.
    world.pair().await?;
    Ok(())
}

#[tokio::test]
async fn a_newer_code_takes_the_place_of_an_older_one_and_a_vm_that_is_not_there_has_none() -> Result<()> {
    let world = World::start("").await?;
    let (mut older, _) = world.code().await?;
    let (_newer, _) = world.code().await?;
    older.wait_for("replaced").await?;
    let mut nowhere = world.host(&["pair", "b"])?;
    ensure!(nowhere.ended().await?.code() == Some(1));
    ensure!(nowhere.last_words().contains("no [vm.b]"), "{}", nowhere.last_words());
    Ok(())
}

#[tokio::test]
async fn revoking_a_key_ends_its_session_at_once_and_keeps_it_out_until_it_is_paired_again() -> Result<()> {
    let mut world = World::start("").await?;
    let key = world.pair().await?;
    let mut remote = world.connect()?;
    remote.wait_for("connected").await?;
    world.host.program.wait_for("linked").await?;

    let mut revoke = world.host(&["revoke", &key])?;
    ensure!(revoke.ended().await?.success(), "{}", revoke.last_words());
    ensure!(remote.ended().await?.code() == REFUSED, "{}", remote.last_words());
    let refused = remote.wait_for("refused").await?;
    ensure!(refused["text"].as_str().is_some_and(|text| text.contains("revoked")), "{refused}");
    world.host.program.wait_for("link_lost").await?;
    let mut again = world.connect()?;
    let refused = again.wait_for("refused").await?;
    ensure!(refused["text"].as_str().is_some_and(|text| text.contains("revoked")), "{refused}");
    ensure!(again.ended().await?.code() == REFUSED);

    world.pair().await?;
    world.connect()?.wait_for("connected").await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_the_configuration_lists_is_refused_once_revoked_until_it_is_allowed_again() -> Result<()>
{
    let world = World::start("remotes = [\"any\"]").await?;
    let connect =
        || world.remote(&["connect", &world.host.address, "--host-key", &world.host.key, "--events", "json"]);
    let mut remote = connect()?;
    remote.wait_for("connected").await?;
    let key = printed(&["farbus-remote", "key", "--key-file"], &world.desk().join("remote.key"))?;
    let mut revoke = world.host(&["revoke", &key])?;
    ensure!(revoke.ended().await?.success(), "{}", revoke.last_words());
    ensure!(remote.ended().await?.code() == REFUSED, "{}", remote.last_words());
    ensure!(connect()?.ended().await?.code() == REFUSED);
    let mut allow = world.host(&["allow", &key])?;
    ensure!(allow.ended().await?.success());
    connect()?.wait_for("connected").await?;
    Ok(())
}

#[tokio::test]
async fn taking_a_remote_out_of_the_state_by_hand_ends_its_session() -> Result<()> {
    let world = World::start("").await?;
    world.pair().await?;
    let mut remote = world.connect()?;
    remote.wait_for("connected").await?;
    fs::write(world.state(), "{ \"version\": 1 }\n")?;
    ensure!(remote.ended().await?.code() == REFUSED, "{}", remote.last_words());
    Ok(())
}

#[tokio::test]
async fn a_host_with_another_key_than_the_pinned_one_is_refused_with_both_fingerprints() -> Result<()> {
    let world = World::start("").await?;
    world.pair().await?;
    // The desk remembers another key for this address.
    let known = world.desk().join("known-hosts");
    let other = printed(&["farbus-remote", "key", "--key-file"], &world.desk().join("other.key"))?;
    fs::write(&known, format!("{} {other}\n", world.host.address))?;
    let fingerprint = printed(
        &["farbus-host", "key", "--fingerprint", "--key-file"],
        &world.folder.path().join("host.key"),
    )?;
    let pinned =
        printed(&["farbus-host", "key", "--fingerprint", "--key-file"], &world.desk().join("other.key"))?;
    let (_showing, code) = world.code().await?;
    for arguments in [
        &["connect", &*world.host.address, "--events", "json"][..],
        &["pair", &*world.host.address, &*code, "--json"],
    ] {
        let mut remote = world.remote(arguments)?;
        let refused = remote.wait_for("refused").await?;
        let text = refused["text"].as_str().unwrap_or_default();
        ensure!(text.contains(&fingerprint) && text.contains(&pinned), "{refused}");
        ensure!(remote.ended().await?.code() == REFUSED);
    }
    // What the user says wins over what is remembered.
    let mut remote =
        world.remote(&["connect", &world.host.address, "--host-key", &world.host.key, "--events", "json"])?;
    remote.wait_for("connected").await?;
    drop(remote);
    ensure!(world.remote(&["forget", &world.host.address])?.ended().await?.success());
    world.pair().await?;
    Ok(())
}

#[tokio::test]
async fn no_log_however_chatty_has_a_code_or_a_secret_key_in_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desk = folder.path().join("desk");
    fs::create_dir(&desk)?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let config = format!(
        "listen = \"127.0.0.1:0\"\nkey_file = {:?}\n[vm.a]\nsocket_dir = {:?}\n",
        path("host.key"),
        path("a")
    );
    fs::write(path("host.toml"), config)?;
    let host = path("host.toml");
    let mut serve = Program::start_tracing(
        "serve",
        "farbus-host",
        &words(&["serve", "--json", "--config", &host]),
        folder.path(),
    )?;
    let address = serve.wait_for("listening").await?["address"].as_str().unwrap_or_default().to_owned();
    serve.wait_for("vm_ready").await?;
    let pair = words(&["pair", "a", "--json", "--config", &host]);
    let mut showing = Program::start_tracing("showing", "farbus-host", &pair, folder.path())?;
    let code = showing.wait_for("code").await?["code"].as_str().unwrap_or_default().to_owned();
    let key = path("desk/remote.key");
    for (typed, exit) in [("0000-0000", 3), (&*code, 0)] {
        let mut remote = Program::start_tracing(
            &format!("pair-{exit}"),
            "farbus-remote",
            &words(&["pair", &address, "--key-file", &key]),
            &desk,
        )?;
        remote.say(typed).await?;
        ensure!(remote.ended().await?.code() == Some(exit), "{}", remote.last_words());
    }
    let connect = words(&["connect", &address, "--key-file", &key, "--events", "json"]);
    let mut remote = Program::start_tracing("connect", "farbus-remote", &connect, &desk)?;
    remote.wait_for("connected").await?;
    ensure!(remote.stop().await?.success() && serve.stop().await?.success());

    let secret = |file: &str| -> Result<String> {
        let text = fs::read_to_string(file)?;
        Ok(text.trim().rsplit(':').next().unwrap_or_default().to_owned())
    };
    let secrets = [code.replace('-', ""), code, secret(&path("host.key"))?, secret(&key)?];
    let mut seen = 0;
    for place in [folder.path(), &*desk] {
        for log in fs::read_dir(place)?.flatten().map(|entry| entry.path()) {
            if log.extension().is_some_and(|extension| extension == "log") {
                let text = fs::read_to_string(&log)?;
                seen += text.len();
                for secret in &secrets {
                    ensure!(
                        !secret.is_empty() && !text.contains(&**secret),
                        "{} has a secret in it",
                        log.display()
                    );
                }
            }
        }
    }
    ensure!(seen > 1000, "the logs were not chatty at all");
    Ok(())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What a command prints about a key file.
fn printed(command: &[&str], file: &Path) -> Result<String> {
    let output = std::process::Command::new(lab::farbus::binary(command[0])?)
        .args(&command[1..])
        .arg(file)
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
