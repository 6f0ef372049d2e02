//! Pull the cable, and change the kind of the link, while the guest copies, plays and is typed at.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Running, Vm,
    farbus::{Cable, Cut, Host, Program},
    story::{RATE, Sequence},
};

use crate::{
    keys::{self, Keys},
    sound::in_place,
    switch::{switch, until_linked},
};

const MIB: usize = 1 << 20;
pub(crate) const LONG: Duration = Duration::from_secs(240);
/// How long each cut of a round lasts, seconds. Every other one is silent: those of even rounds begin with a silent one, the
/// others with one that resets, so that each length is both.
const CUTS: [f64; 10] = [0.1, 0.3, 0.1, 0.6, 0.2, 1.5, 0.1, 3.5, 0.4, 5.0];
const ROUNDS: usize = 5;
const TIMES: usize = ROUNDS * CUTS.len();
/// After each round the session goes over to a link of the other kind, which no cable carries, and back.
const MOVES: [&str; 2] = ["webrtc", "noise-tcp"];
/// How long the cable is whole between two cuts, seconds.
const WHOLE: f64 = 1.0;
const TYPED: usize = 2_000;
/// Letters that are typed without a pause: six events of the guest each, of which it keeps 64, and a cut adds repeats.
const AT_ONCE: usize = 5;
/// After half a second a key that is held is let go; Linux repeats it up to then.
const REPEATS_PER_CUT: usize = 16;

/// What the guest is to have before it begins.
const SETTLE: &str = r#"
n=0
until [ -e /proc/asound/card0/pcm0p ] && grep -q "Farbus Keyboard" /sys/class/input/event*/device/name &&
    grep -lxq 131072 /sys/block/sd*/size && grep -lxq 32768 /sys/block/sd*/size; do
    n=$((n+1)); [ $n -lt 6000 ] || exit 1; usleep 10000
done
amixer -q -c 0 sset Master 100% unmute
known=$(basename $(dirname $(grep -lx 131072 /sys/block/sd*/size)))
spare=$(basename $(dirname $(grep -lx 32768 /sys/block/sd*/size)))
set -e
mkdir -p /mnt; mkfs.vfat /dev/$spare >/dev/null; mount /dev/$spare /mnt
echo kept > /mnt/word; sync
echo $known
"#;

/// Copies the disk again and again until told to end; the sum of each copy.
const COPY: &str = r#"
rm -f /tmp/enough
while :; do
    dd if=/dev/$KNOWN bs=256k iflag=direct 2>/tmp/dd.log | sha256sum; cat /tmp/dd.log >&2
    [ -e /tmp/enough ] && break
done
echo COPIED
"#;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(length / 8).flatten().collect()
}

pub(crate) fn sha256(file: &Path) -> Result<String> {
    let output = std::process::Command::new("sha256sum").arg(file).output().context("running sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// The letters that are typed: none twice in a row, so that a doubled one shows.
fn letters() -> String {
    (0..TYPED).map(|n| char::from(b'a' + ((n * 7 + n / 26) % 26) as u8)).collect()
}

/// What may not be in the guest's log: everything that says that a device went or failed.
const TROUBLE: [&str; 11] = [
    "USB disconnect",
    "I/O error",
    "reset high-speed",
    "reset SuperSpeed",
    "uas_eh",
    "rejecting I/O",
    "offline",
    "HC died",
    "not responding",
    "timed out",
    "Buffer I/O",
];

pub(crate) async fn trouble(vm: &Vm) -> Result<Option<String>> {
    let log = vm.run("dmesg").await?.stdout;
    let found = log.lines().find(|line| TROUBLE.iter().any(|trouble| line.contains(trouble)));
    Ok(found.map(str::to_owned))
}

/// Copies this disk of the guest again and again.
pub(crate) async fn copy<'vm>(vm: &'vm Vm, known: &str) -> Result<Running<'vm>> {
    vm.command(&COPY.replace("$KNOWN", known)).timeout(LONG * 2).spawn().await
}

/// Lets the copy in the works be the last one, and checks them all; how many there were.
pub(crate) async fn copies(vm: &Vm, copy: &mut Running<'_>, sum: &str) -> Result<usize> {
    vm.run("touch /tmp/enough").await?.success()?;
    let mut copies = 0;
    loop {
        let line = copy.line().await?.context("the copy ended early")?;
        if line == "COPIED" {
            return Ok(copies);
        }
        ensure!(line.starts_with(sum), "copy {copies} is another: {line}");
        copies += 1;
    }
}

/// Plays `/tmp/sequence.wav` in the guest.
pub(crate) async fn play(vm: &Vm) -> Result<Running<'_>> {
    vm.command("aplay -q -D hw:0,0 /tmp/sequence.wav; echo PLAYED $?").timeout(LONG * 2).spawn().await
}

/// A VM whose remote is at the other end of a cable.
pub(crate) struct Desk {
    pub(crate) cable: Cable,
    pub(crate) host: Host,
    pub(crate) remote: Program,
    pub(crate) vm: Vm,
    /// The disk that is copied, as the guest names it.
    pub(crate) known: String,
}

impl Desk {
    pub(crate) async fn new(folder: &Path, lab: &Lab, more: &[&str]) -> Result<Self> {
        let (image, scratch) = (folder.join("known.img"), folder.join("scratch.img"));
        fs::write(&image, noise(64 * MIB))?;
        fs::write(&scratch, vec![0; 16 * MIB])?;
        let host = Host::start(folder, &["a"]).await?;
        let cable = Cable::to(&host.address).await?;
        let (known, spare) = (format!("{}:ro", image.display()), scratch.display().to_string());
        let audio = format!("wav:{}", folder.join("heard.wav").display());
        let lent = ["--keyboard", "--disk", &known, "--disk", &spare, "--audio", &audio];
        let mut remote = host.remote_by(&cable, "remote", "a", &[&lent[..], more].concat())?;
        remote.wait_for("connected").await?;
        let seat = host.seat("a");
        let vm = lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket());
        let vm = vm.modules(["vfat"]).boot().await?;
        let known = vm.run(SETTLE).await?.success().context("the guest does not find what is lent")?.stdout;
        Ok(Self { cable, host, remote, vm, known: known.trim().to_owned() })
    }

    /// Cuts the cable once for each length, silently or not by turns.
    async fn pull(&self, first: Cut) {
        let second = if first == Cut::Silent { Cut::Reset } else { Cut::Silent };
        for (time, cut) in CUTS.iter().zip([first, second].iter().cycle()) {
            self.cable.set(*cut);
            tokio::time::sleep(Duration::from_secs_f64(*time)).await;
            self.cable.set(Cut::Whole);
            tokio::time::sleep(Duration::from_secs_f64(WHOLE)).await;
        }
    }
}

#[tokio::test]
async fn fifty_cuts_and_moves_while_the_guest_copies_plays_and_is_typed_at_are_nothing_to_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let control = folder.path().join("remote.sock").display().to_string();
    let mut desk = Desk::new(folder.path(), &lab, &["--control", &control]).await?;
    let sum = sha256(&folder.path().join("known.img"))?;
    let seconds = CUTS.iter().map(|cut| cut + WHOLE).sum::<f64>() * ROUNDS as f64;
    let sequence = Sequence::new((seconds + 20.0) as u32 * RATE, 9);
    desk.vm.put(sequence.wav(), "/tmp/sequence.wav").await?;

    let mut events = desk.vm.command(keys::RECORD).timeout(LONG * 2).spawn().await?;
    events.expect("READY", LONG).await?;
    let mut copying = copy(&desk.vm, &desk.known).await?;
    let mut playing = play(&desk.vm).await?;
    desk.remote.wait_for("sound_started").await?;
    // A few letters at a time, which fit the buffer of a reader that is late, for as long as the cuts last.
    let (letters, pause) = (letters(), (seconds * 1e3) as usize * 8 / 10 / (TYPED / AT_ONCE));
    for few in letters.as_bytes().chunks(AT_ONCE) {
        desk.remote.say(&format!("type {}\nwait {pause}", String::from_utf8_lossy(few))).await?;
    }
    for round in 0..ROUNDS {
        desk.pull(if round % 2 == 0 { Cut::Silent } else { Cut::Reset }).await;
        // The last cut is a long one.
        until_linked(&control).await?;
        for to in MOVES {
            switch(&control, to).await.with_context(|| format!("round {round}, to {to}"))?;
        }
    }
    let copied = copies(&desk.vm, &mut copying, &sum).await?;
    ensure!(playing.expect("PLAYED", LONG).await? == "PLAYED 0", "the guest could not play on");
    for press in 1..=TYPED {
        desk.remote.wait_for("key_sent").await.with_context(|| format!("key {press}"))?;
    }
    ensure!(trouble(&desk.vm).await?.is_none(), "the guest noticed: {:?}", trouble(&desk.vm).await?);

    let typed = Keys::read(&desk.vm.file("/tmp/events").await?);
    let expected: Vec<_> = letters.chars().filter_map(keys::code).collect();
    ensure!(typed.dropped == 0, "events were recorded too slowly");
    let same = typed.pressed.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let around = |keys: &[u16]| keys.iter().skip(same.saturating_sub(3)).take(8).copied().collect::<Vec<_>>();
    ensure!(
        typed.pressed == expected,
        "of {TYPED} keys {} arrived, {same} as they were typed, then {:?} instead of {:?}",
        typed.pressed.len(),
        around(&typed.pressed),
        around(&expected)
    );
    ensure!(typed.down == 0 && typed.repeated <= REPEATS_PER_CUT * TIMES, "{typed:?}");

    desk.remote.wait_for("sound_stopped").await?;
    let heard = in_place(&fs::read(folder.path().join("heard.wav"))?, &sequence)?;
    let outage = CUTS.iter().sum::<f64>() * ROUNDS as f64;
    // A connection that stood still takes a while to go on, or to be replaced.
    let most = (outage + TIMES as f64 * 0.2) * f64::from(RATE);
    ensure!(
        (heard.other as f64) < most && heard.runs <= 2 * (TIMES + ROUNDS * MOVES.len()) as u64,
        "{heard:?}, at most {most} frames"
    );
    let resumed = desk.remote.seen("resumed");
    let moved = resumed.iter().filter(|resumed| resumed["after_ms"].is_null()).count();
    let resumed = resumed.len() - moved;
    // Every connection that was reset, and what stood still for more than three seconds.
    ensure!(resumed >= TIMES / 2 + 4, "only {resumed} cuts were noticed at all");
    ensure!(moved >= ROUNDS * MOVES.len(), "the session moved {moved} times only");
    ensure!(desk.remote.seen("connected").is_empty(), "the session did not go on");
    ensure!(desk.host.program.seen("link_lost").is_empty(), "the session did not go on at the host");
    println!("{copied} copies, {} repeats, {heard:?}, {resumed} resumes, {moved} moves", typed.repeated);
    Ok(())
}
