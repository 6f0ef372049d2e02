//! What happens to a VM when a part of it dies, floods or leaves, as the guest and the remote observe it.

use std::time::Duration;

use crate::world::{World, until};
use bytes::Bytes;
use pci::Region;
use tokio::time::{self, Instant};
use vm_session::Event;
use wire::{
    Lane, ToHost, ToRemote,
    usb::{self, Completion, Moved, RequestId},
};

/// xHCI 1.2 §5.3.1: CAPLENGTH and HCIVERSION.
const CAPLENGTH: u64 = 0;
/// xHCI 1.2 §5.4.2, from the operational base.
const USBSTS: u64 = 0x04;
/// xHCI 1.2 §5.4.2: Host Controller Error.
const HCE: u32 = 1 << 12;
/// xHCI 1.2 §5.4.8, from the operational base.
const PORTSC_1: u64 = 0x400;
/// xHCI 1.2 §5.4.8: Current Connect Status.
const CCS: u32 = 1;
/// HDA 1.0a §3.3.7: GCTL, and its CRST.
const GCTL: u64 = 0x08;

pub(crate) async fn operational(world: &World) -> u64 {
    u64::from(world.usb.read(CAPLENGTH).await.expect("a live controller") & 0xff)
}

/// Counts the ports with a device, as the guest sees them.
pub(crate) async fn connected(world: &World, base: u64) -> usize {
    let ports = world.usb.read(4).await.expect("a live controller") >> 24;
    let mut count = 0;
    for port in 0..u64::from(ports) {
        let portsc = world.usb.read(base + PORTSC_1 + 0x10 * port).await.expect("a live controller");
        count += usize::from(portsc & CCS != 0);
    }
    count
}

pub(crate) async fn until_connected(world: &World, base: u64, wanted: usize) {
    while connected(world, base).await != wanted {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn a_lent_device_is_on_a_port_until_its_remote_has_gone() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    remote.lend(2).await;
    until_connected(&world, base, 2).await;
    remote.leave().await;
    until(Instant::now() + Duration::from_millis(100)).await;
    assert_eq!(connected(&world, base).await, 0, "nobody is waited for");
    assert!(matches!(world.events().last(), Some(Event::LinkLost { .. })), "{:?}", world.events());

    let mut again = world.remote().await;
    again.lend(1).await;
    until_connected(&world, base, 1).await;
}

#[actix::test]
async fn a_second_remote_replaces_the_first_and_its_devices() {
    let world = World::new();
    let base = operational(&world).await;
    let mut first = world.remote().await;
    first.lend(1).await;
    first.lend(2).await;
    until_connected(&world, base, 2).await;
    let mut second = world.remote().await;
    second.lend(1).await;
    until_connected(&world, base, 1).await;
    while !first.closed() {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn a_model_that_panics_is_a_failed_controller_then_a_new_one_with_the_same_devices() {
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;

    // The event ring's segment table is read when it is written: memory that panics takes the model with it.
    world.usb.enable().await;
    world.usb.broken.set(true);
    let runtime = u64::from(world.usb.read(0x18).await.expect("a live controller") & !0x1f);
    world.usb.write(runtime + 0x28, 1).await.expect("the actor survives");
    world.usb.write(runtime + 0x30, 0x1000).await.expect("the actor survives");
    world.usb.write(runtime + 0x34, 0).await.expect("the actor survives");
    world.usb.write(base, 1).await.expect("the actor survives");
    let status = world.usb.read(base + USBSTS).await.expect("the actor survives");
    assert_ne!(status & HCE, 0, "the guest must see a host controller error, USBSTS {status:#x}");
    let hda = world.hda.read(GCTL).await;
    assert!(hda.is_some(), "the sibling is not disturbed");

    world.usb.broken.set(false);
    world.usb.until(base + USBSTS, |status| status & HCE == 0).await;
    until_connected(&world, base, 1).await;
    // The remote is told to forget what the old model had asked for.
    let told = remote.hear().await;
    assert!(matches!(told, ToRemote::Usb(usb::ToRemote::Reset { .. })), "{told:?}");
}

#[actix::test]
async fn an_actor_that_dies_is_started_again_on_the_same_bus() {
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;

    let died = world.usb.access(|_| panic!("crash injection")).await;
    assert!(died.is_none());
    // No new bus, no new connection: the next generation takes the next transaction.
    until_connected(&world, base, 1).await;
    assert!(world.hda.read(GCTL).await.is_some(), "the sibling is not disturbed");
}

#[actix::test]
async fn a_child_that_dies_too_often_is_given_up_and_the_other_goes_on() {
    let world = World::new();
    while !world.events().iter().any(|event| matches!(event, Event::GaveUp { .. })) {
        let died = world.hda.access(|_| panic!("crash injection"));
        tokio::select! {
            _ = died => {}
            () = async { while !world.events().iter().any(|e| matches!(e, Event::GaveUp { .. })) { tokio::task::yield_now().await } } => {}
        }
    }
    assert!(world.usb.read(CAPLENGTH).await.is_some());
}

#[actix::test]
async fn a_remote_that_floods_completions_does_not_keep_the_guest_waiting() {
    const FLOOD: u64 = 2_000;
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    let flood = async {
        for id in 0..FLOOD {
            let moved = Moved::In(Bytes::from(vec![0; 512]));
            remote
                .say(ToHost::Completed(Completion {
                    id: RequestId(1_000_000 + id),
                    result: Ok(()),
                    moved,
                    packets: Vec::new(),
                    lane: Lane::Bulk,
                }))
                .await;
        }
    };
    // Reads are answered in between: at least one for every sixteen completions, whatever the machine's speed.
    let reads = async {
        let mut reads = 0u64;
        loop {
            world.usb.read(base + USBSTS).await.expect("a live controller");
            reads += 1;
            tokio::task::yield_now().await;
            if reads >= FLOOD / 16 {
                return reads;
            }
        }
    };
    let ((), reads) = tokio::join!(flood, reads);
    assert!(reads >= FLOOD / 16);
    assert_eq!(connected(&world, base).await, 1, "unknown completions change nothing");
}

#[actix::test]
async fn a_remote_that_breaks_the_protocol_loses_its_link_and_nothing_else() {
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend(1).await;
    until_connected(&world, base, 1).await;
    remote.say_raw(Lane::Bulk, Bytes::from_static(&[0xff; 40])).await;
    until_connected(&world, base, 0).await;
    let vendor = world.usb.access(|function| {
        let mut data = [0; 2];
        function.read(Region::Config, 0, &mut data);
        u16::from_le_bytes(data)
    });
    assert_ne!(vendor.await, Some(0xffff));
}
