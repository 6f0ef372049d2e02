//! A page in Chromium as the remote: it shares no code with ours, and whatever is said on the wire it has from the
//! documentation. The guest is a driver without a VM, for both controllers.

use std::{fs::File, os::unix::fs::FileExt, path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use hda::driver::{Buffer, Driver as Sounding};
use pci::{Dma, DmaError, Width};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use wire::audio::{Encoding, Format};
use xhci::driver::{Driver, EndpointSetup, Host as _, Plan, Trb, code};

use crate::{
    https::{Server, World},
    vmm::Vmm,
};

/// The page's files.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html", include_str!("page/index.html")),
    ("/main.js", "text/javascript", include_str!("page/main.js")),
    ("/noise.js", "text/javascript", include_str!("page/noise.js")),
    ("/session.js", "text/javascript", include_str!("page/session.js")),
];
/// The longest that the page may take for a step; a pass is quick.
const PATIENCE: Duration = lab::farbus::PATIENCE;

/// The page's own server, which is a proxy to the host's endpoint as well.
struct Site {
    host: Server,
    asked: Value,
    reports: mpsc::UnboundedSender<Value>,
}

impl Site {
    async fn serve(self, listener: TcpListener) {
        let this = Arc::new(self);
        while let Ok((stream, _)) = listener.accept().await {
            let this = Arc::clone(&this);
            tokio::spawn(async move { this.answer(stream).await });
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut request = Vec::new();
        let (head, length) = loop {
            ensure!(stream.read_buf(&mut request).await? > 0, "a request that ends early");
            let text = String::from_utf8_lossy(&request);
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            break (head.to_owned(), head.len() + 4 + length.unwrap_or(0usize));
        };
        while request.len() < length {
            ensure!(stream.read_buf(&mut request).await? > 0, "a body that ends early");
        }
        let path = head.split(' ').nth(1).context("a path")?;
        let file = FILES.iter().find(|(name, ..)| *name == path);
        let answer = match (path, file) {
            (_, Some((_, media, text))) => page(media, text),
            ("/asked", _) => page("application/json", &self.asked.to_string()),
            ("/report", _) => {
                self.reports.send(serde_json::from_slice(&request[head.len() + 4..])?)?;
                page("application/json", "{}")
            }
            _ if path.starts_with("/api/") => self.host.say(&request).await?.raw,
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
        };
        stream.write_all(&answer).await?;
        Ok(stream.shutdown().await?)
    }
}

fn page(media: &str, text: &str) -> Vec<u8> {
    let length = text.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
        .into_bytes()
}

/// Opens the page in Chromium; it ends with what is returned.
fn browse(address: &str, folder: &Path) -> Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new("chromium");
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
        .args(["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"])
        .args(["--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", folder.join("chromium").display()))
        .arg(address)
        .env("HOME", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("chromium.log"))?)
        .kill_on_drop(true);
    command.spawn().context("starting chromium: `.ci/setup` installs it")
}

/// What the page has said.
struct Reports(mpsc::UnboundedReceiver<Value>);

impl Reports {
    async fn wait_for(&mut self, event: &str) -> Result<Value> {
        let report = timeout(PATIENCE, self.0.recv()).await;
        let report = report.with_context(|| format!("the page never said `{event}`"))?.context("the site")?;
        if report["event"] != event {
            bail!("the page said {report} before `{event}`");
        }
        Ok(report)
    }
}

const BULK_OUT: u8 = 2;
const BULK_IN: u8 = 3;
const ISO_IN: u8 = 5;
/// Protocol speed id of high speed. xHCI 1.2 §7.2.2.1.1.
const HIGH: u8 = 3;

/// The guest's USB: finds the page's device, and moves something by each kind of transfer.
fn drive_usb(socket: &Path) -> Result<()> {
    let mut driver = Driver::start(Vmm::connect(socket)?, Plan::at(0, 8 << 20));
    let ports = (driver.host.read(4, Width::Dword) >> 24) as u8;
    let port = (1..=ports).find(|port| driver.port_status(*port) & 1 != 0).context("no device on a port")?;
    driver.reset_port(port);
    let slot = driver.enable_slot();
    ensure!(driver.address_device(slot, port, HIGH, false).code == code::SUCCESS, "Address Device");
    let buffer = driver.allocate(64 << 10);
    let end = |driver: &mut Driver<Vmm>, at: u64| {
        let event = driver.await_event(PATIENCE, |event| event.is_transfer() && event.pointer == at);
        let event = event.context("a transfer does not end")?;
        ensure!(matches!(event.code, code::SUCCESS | code::SHORT_PACKET), "{event:?}");
        Ok(())
    };
    let [.., status] = driver.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0], buffer);
    end(&mut driver, status)?;
    let mut descriptor = [0; 18];
    driver.host.load(buffer, &mut descriptor);
    ensure!(descriptor[..2] == [18, 1] && descriptor[8..12] == [9, 0x12, 1, 0], "{descriptor:?}");
    let [.., status] = driver.control(slot, [0, 9, 1, 0, 0, 0, 0, 0], buffer);
    end(&mut driver, status)?;
    let isochronous = EndpointSetup { index: ISO_IN, kind: 5, max_packet: 192 };
    let endpoints = [EndpointSetup::bulk(BULK_OUT, 512), EndpointSetup::bulk(BULK_IN, 512), isochronous];
    ensure!(driver.configure(slot, &endpoints).code == code::SUCCESS, "Configure Endpoint");

    let sent: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    driver.host.store(buffer, &sent);
    let at = driver.transfer(slot, BULK_OUT, buffer, sent.len() as u32);
    end(&mut driver, at)?;
    let back = buffer + (16 << 10);
    let at = driver.transfer(slot, BULK_IN, back, sent.len() as u32);
    end(&mut driver, at)?;
    let mut came = vec![0; sent.len()];
    driver.host.load(back, &mut came);
    ensure!(came.iter().zip(&sent).all(|(came, sent)| *came == !*sent), "bulk data came back otherwise");

    // Sound of a kind; a TD that finds no time is missed, and the next one comes. xHCI 1.2 §6.4.1.3: SIA, IOC.
    for _ in 0..200 {
        let packet = Trb { parameter: back, status: 192, control: 1 << 31 | 5 << 10 | Trb::IOC };
        driver.queue(slot, ISO_IN, packet);
        driver.ring_doorbell(slot, ISO_IN);
        let wanted = |event: &xhci::driver::Event| event.is_transfer() && event.pointer != 0;
        let event = driver.await_event(PATIENCE, wanted).context("no end of an isochronous transfer")?;
        if event.code == code::SUCCESS {
            let mut came = [0; 192];
            driver.host.load(back, &mut came);
            ensure!(came == [0x5a; 192], "isochronous data came otherwise");
            return Ok(());
        }
    }
    bail!("no isochronous packet came in time")
}

/// The guest's memory and registers, as the sound driver wants them.
struct Machine(Vmm, Memory);

struct Memory(File);

impl Dma for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.0.read_exact_at(data, address).map_err(|_| DmaError::Unmapped)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.0.write_all_at(data, address).map_err(|_| DmaError::Unmapped)
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        let mut dword = [0; 4];
        self.read(address, &mut dword)?;
        Ok(u32::from_le_bytes(dword))
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.write(address, &value.to_le_bytes())
    }
}

impl hda::driver::Host for Machine {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.0.read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.0.write(offset, width, value);
    }

    fn memory(&self) -> &dyn Dma {
        &self.1
    }
}

/// The guest's sound: a tone, for ever.
fn play(socket: &Path) -> Result<(Sounding<Machine>, u8)> {
    const TONE: u64 = 1 << 20;
    const PERIOD: u32 = 48_000;
    let vmm = Vmm::connect(socket)?;
    let memory = Memory(vmm.memory.try_clone()?);
    let tone: Vec<u8> = (0..PERIOD / 2)
        .flat_map(|n| {
            let sample = (f64::from(n) * 440.0 / 48_000.0 * std::f64::consts::TAU).sin() * 12_000.0;
            [(sample as i16).to_le_bytes(); 2].concat()
        })
        .collect();
    memory.write(TONE, &tone)?;
    let mut driver = Sounding::start(Machine(vmm, memory), 0)?;
    let speaker = driver.speaker()?;
    let format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
    let half = PERIOD;
    let buffer = |n: u32| Buffer { address: TONE + u64::from(n * half), length: half, interrupt: false };
    let stream = driver.output(0);
    driver.set_up(stream, 1, format, &[buffer(0), buffer(1)], 2 * half)?;
    driver.connect(speaker.converter, 1, format)?;
    driver.run(stream, true);
    Ok((driver, stream))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_a_browser_proves_its_key_lends_a_device_and_hears_the_guest() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let mut world = World::start("audio_codec = \"pcm\"", &format!("origins = [\"{origin}\"]")).await?;
    let host: webrtc::PublicKey = world.host.key.parse()?;
    let host: String = host.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let asked = json!({ "vm": "a", "token": world.token().await?, "host": host, "version": wire::VERSION });
    let (reports, said) = mpsc::unbounded_channel();
    let site = tokio::spawn(Site { host: world.server.clone(), asked, reports }.serve(listener));
    let mut page = Reports(said);
    let mut browser = browse(&format!("{origin}/"), world.folder.path())?;

    let trickled = page.wait_for("candidates").await?;
    ensure!(trickled["status"] == 204 && trickled["count"].as_u64() > Some(0), "{trickled}");
    let welcome = page.wait_for("welcome").await?;
    ensure!(welcome["version"] == 1 && welcome["bytes"] == 50, "{welcome}");
    let linked = world.host.program.wait_for("linked").await?;
    ensure!(linked["transport"] == "webrtc", "{linked}");
    let attached = world.host.program.wait_for("attached").await?;
    ensure!(attached["id"] == "1209:0001" && attached["name"] == "page", "{attached}");

    let (usb, sound) = (world.host.seat("a").usb_socket(), world.host.seat("a").hda_socket());
    tokio::task::spawn_blocking(move || drive_usb(&usb)).await??;
    let (mut driver, stream) = tokio::task::spawn_blocking(move || play(&sound)).await??;
    let heard = page.wait_for("heard").await?;
    ensure!(heard["packets"].as_u64() >= Some(100) && heard["codec"] == "audio/opus", "{heard}");
    ensure!(heard["energy"].as_f64() > Some(0.0), "nothing but silence was heard: {heard}");
    driver.run(stream, false);

    let lanes = page.wait_for("lanes").await?;
    for way in ["sent", "received"] {
        let counts = lanes[way].as_array().context("lanes")?;
        ensure!(counts.len() == 5 && counts.iter().all(|count| count.as_u64() > Some(0)), "{lanes}");
    }
    let restarted = page.wait_for("restarted").await?;
    ensure!(
        restarted["status"] == 200 && restarted["tag"] == "\"1\"" && restarted["stale"] == 412,
        "{restarted}"
    );
    ensure!(world.host.program.seen("detached").is_empty(), "the session was on no link meanwhile");
    ensure!(page.wait_for("ended").await?["status"] == 200);
    let lost = world.host.program.wait_for("link_lost").await?;
    ensure!(lost["reason"] == "the remote hung up", "{lost}");
    ensure!(world.host.program.seen("detached").is_empty(), "nobody is waited for");
    println!("the page says: {heard} {lanes}");
    browser.kill().await?;
    site.abort();
    Ok(())
}
