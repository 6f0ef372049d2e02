//! The main job end to end: two VMs, two remotes, keys in, sound out. `make demo` runs it.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use lab::{
    Lab,
    farbus::Host,
    story::{Heard, Pair, Sequence},
};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let keep = std::env::args().any(|argument| argument == "--keep");
    let folder = tempfile::Builder::new().prefix("farbus-demo-").tempdir()?.keep();
    say("opening the lab (the first time it provides QEMU, a kernel and a guest: some minutes)");
    let lab = Lab::open().await?;

    say("starting farbus-host with the VMs a and b");
    let mut host = Host::start(&folder, &["a", "b"]).await?;
    say(&format!("farbus-host listens on {}", host.address));
    say("pair A: a remote connects, its VM boots");
    let mut a = Pair::start(&lab, &mut host, "a", &folder).await?;
    show(&a).await?;
    say("typing at remote A: the guest answers with a sound");
    let heard_a = a.answer_key_with(&Sequence::new(96_000, 0xa)).await.context("pair A")?;

    say("pair B: the same, while A goes on");
    let mut b = Pair::start(&lab, &mut host, "b", &folder).await?;
    show(&b).await?;
    let before = (a.frames_received()?, b.frames_received()?);
    let long = Sequence::new(240_000, 0xaa);
    let short = Sequence::new(96_000, 0xb);
    let (again_a, heard_b) = tokio::join!(a.answer_key_with(&long), b.answer_key_with(&short));
    let (again_a, heard_b) = (again_a.context("pair A, again")?, heard_b.context("pair B")?);
    // What each remote received beyond its own story is what it heard of the other.
    let stray = (a.frames_received()? - before.0, b.frames_received()? - before.1);

    println!("\n pair  key to guest  key to sound  samples sent  received  bit-exact  at the other remote");
    let rows = [("A", &heard_a, stray.1), ("A", &again_a, stray.1), ("B", &heard_b, stray.0)];
    let good =
        rows.iter().map(|(name, heard, other)| row(name, heard, *other)).fold(true, |all, row| all & row);
    if keep {
        println!("\nLeft running in {}. To look around:", folder.display());
        println!("  farbus-host doctor a --config {0}/host.toml; less {0}/*.log", folder.display());
        println!(
            "  the VMs are processes {} and {}, the host is {:?}",
            a.vm.id(),
            b.vm.id(),
            host.program.id()
        );
        println!("Ctrl-C ends it all.");
        tokio::signal::ctrl_c().await?;
    }
    a.remote.stop().await?;
    b.remote.stop().await?;
    host.program.stop().await?;
    println!("\n{}", if good { "Every promise was kept." } else { "A promise was broken." });
    Ok(ExitCode::from(u8::from(!good)))
}

fn say(text: &str) {
    println!("\x1b[1m== {text}\x1b[0m");
}

/// What the guest sees, in its own words.
async fn show(pair: &Pair) -> Result<()> {
    for command in ["lsusb -t", "aplay -l"] {
        let output = pair.vm.run(command).await?.success()?.stdout;
        println!("guest {}# {command}\n{}", pair.name, output.trim_end());
    }
    Ok(())
}

/// One row of the table; whether its promises were kept.
fn row(name: &str, heard: &Heard, at_other: u64) -> bool {
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let (guest, sound) = (ms(heard.key_to_guest), ms(heard.key_to_sound));
    let exact = if heard.bit_exact() { "yes" } else { "NO" };
    println!(
        " {name:<5} {guest:>12} {sound:>13} {:>13} {:>9} {exact:>10} {at_other:>20}",
        heard.sent, heard.received
    );
    heard.bit_exact() && at_other == 0
}
