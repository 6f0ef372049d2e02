//! A USB sound card lent from a desk: the guest's stock driver plays on it, and the desk hears what was played.

mod at_desk;

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use at_desk::Guest;
use lab::{
    Lab,
    farbus::Host,
    story::{FRAME_BYTES, Sequence, WAV_HEADER},
};

/// QEMU's usb-audio, with room for a second of sound: it drops what comes while there is none.
const DEVICE: &str = "usb-audio,bus=xhci.0,audiodev=sound,buffer=192000";
const ID: &str = "46f4:0002";
/// Ten seconds.
const FRAMES: u32 = 480_000;
/// The last packets are still under way when the guest closes the device: a quarter of a second is much.
const MOST_UNHEARD: usize = 12_000;

#[tokio::test]
async fn a_usb_sound_card_at_the_desk_plays_what_the_guest_plays_frame_by_frame() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let heard = folder.path().join("heard.wav");
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let audio = format!("wav,id=sound,out.frequency=48000,path={}", heard.display());
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(["-audiodev", &audio, "-device", DEVICE]);
    let desk = desk.boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", ID], &["snd_usb_audio"]).await?;
    guest.has("grep -q USB-Audio /proc/asound/cards").await?;

    let sequence = Sequence::new(FRAMES, 11);
    guest.vm.put(sequence.wav(), "/tmp/sequence.wav").await?;
    // The loudest is the only volume that leaves samples as they are.
    guest
        .run(
            "set -e; card=$(awk '/USB-Audio/ { print $1; exit }' /proc/asound/cards)
             amixer -q -c $card cset name='Audio Output Volume Control Playback Volume' 256
             aplay -q -D hw:$card,0 /tmp/sequence.wav",
        )
        .await?;
    guest.kernel_is_content().await?;
    drop((guest, desk));

    let (sent, heard) = (sequence.wav(), std::fs::read(&heard)?);
    let frames = |wav: &'_ [u8]| {
        wav.get(WAV_HEADER..).map(|pcm| pcm.chunks_exact(FRAME_BYTES).map(<[u8]>::to_vec).collect::<Vec<_>>())
    };
    let sent: HashMap<_, _> = frames(&sent).context("no frames")?.into_iter().zip(0..).collect();
    let heard = frames(&heard).context("the desk heard nothing")?;
    let sounding = heard.iter().filter(|frame| frame.iter().any(|byte| *byte != 0));
    let places = sounding.map(|frame| sent.get(frame).copied().context("a frame that nobody sent"));
    let places: Vec<usize> = places.collect::<Result<_>>()?;
    let gap = places.iter().enumerate().find(|(count, place)| count != *place);
    ensure!(gap.is_none(), "frames were lost, doubled or came out of order: (count, frame) is {gap:?}");
    let unheard = FRAMES as usize - places.len();
    ensure!(unheard <= MOST_UNHEARD, "{unheard} frames of {FRAMES} were not heard");
    Ok(())
}
