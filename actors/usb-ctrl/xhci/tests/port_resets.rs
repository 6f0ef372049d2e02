//! Port resets that fail, and ports that are away when they do. xHCI 1.2 §4.19.1, §4.19.5.

mod world;

use core::time::Duration;

use wire::usb::{Failure, Moved, RequestId, Speed, ToRemote};
use world::*;
use xhci::driver::{Host, Trb, code};

const BUFFER: u64 = 0x80_0000;
const CCS: u32 = 1;
const PED: u32 = 1 << 1;
const PR: u32 = 1 << 4;
const PP: u32 = 1 << 9;
const LWS: u32 = 1 << 16;
const PEC: u32 = 1 << 18;
const PRC: u32 = 1 << 21;
const PLC: u32 = 1 << 22;
const WPR: u32 = 1 << 31;
/// All change bits, to be cleared.
const CHANGES: u32 = 0x7f << 17;
const POLLING: u32 = 7;
const INACTIVE: u32 = 6;
const DISABLED: u32 = 4;

fn link(status: u32) -> u32 {
    status >> 5 & 0xf
}

/// The reset that the remote was asked for.
fn reset(world: &mut World) -> RequestId {
    let resets = messages(world).into_iter().filter_map(|message| match message {
        ToRemote::Reset { id, .. } => Some(id),
        _ => None,
    });
    let resets: Vec<_> = resets.collect();
    assert_eq!(resets.len(), 1);
    resets[0]
}

fn fail(world: &mut World, id: RequestId) {
    world.host.complete(id, Err(Failure::Disconnected), Moved::Out(0));
}

fn reset_port(world: &mut World, port: u8, bits: u32) -> u32 {
    world.write_port(port, PP | bits);
    world.host.wait(Duration::from_millis(10));
    let status = world.port_status(port);
    world.write_port(port, PP | CHANGES);
    world.events();
    status
}

#[test]
fn a_usb_2_port_whose_reset_fails_is_disabled_with_pec_until_another_reset() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    assert_eq!(reset_port(&mut world, port, PR) & (PED | PRC), PED | PRC);
    let id = reset(&mut world);
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, port, 3, false).code, code::SUCCESS);
    let [_, data, _] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
    fail(&mut world, id);
    let status = world.port_status(port);
    assert_eq!((status & (CCS | PED | PEC | PLC), link(status)), (CCS | PEC, POLLING));
    let events = world.events();
    assert_eq!(events.iter().filter_map(|e| e.port()).collect::<Vec<_>>(), [port]);
    let failed: Vec<_> = events.iter().filter(|e| e.is_transfer()).map(|e| (e.pointer, e.code)).collect();
    assert_eq!(failed, [(data, code::TRANSACTION_ERROR)], "what waited for the reset");
    world.write_port(port, PP | CHANGES);
    assert_eq!(reset_port(&mut world, port, PR) & PED, PED);
    let id = reset(&mut world);
    world.host.complete(id, Ok(()), Moved::Out(0));
    world.disable_slot(slot);
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, port, 3, false).code, code::SUCCESS);
    world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
    assert_eq!(requests(&mut world).len(), 1);
}

#[test]
fn a_usb_3_port_whose_reset_fails_is_inactive_with_plc_until_a_warm_reset() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::Super).unwrap().0;
    reset_port(&mut world, port, PR);
    let id = reset(&mut world);
    fail(&mut world, id);
    let status = world.port_status(port);
    assert_eq!((status & (PED | PEC | PLC), link(status)), (PLC, INACTIVE), "no PEC on USB 3");
    assert_eq!(world.events().iter().filter_map(|e| e.port()).collect::<Vec<_>>(), [port]);
    world.write_port(port, PP | CHANGES);
    let status = reset_port(&mut world, port, WPR);
    assert_eq!((status & (CCS | PED | PRC), link(status)), (CCS | PED | PRC, 0));
    let id = reset(&mut world);
    world.host.complete(id, Ok(()), Moved::Out(0));
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, port, 4, false).code, code::SUCCESS);
    world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
    assert_eq!(requests(&mut world).len(), 1);
}

/// The remote may be faster than the 10 ms that a reset takes here.
#[test]
fn a_reset_that_fails_before_its_time_is_over_ends_at_once() {
    for (speed, changes) in [(Speed::High, PRC | PEC), (Speed::Super, PRC | PLC)] {
        let mut world = world();
        let port = world.host.attach(DEVICE, speed).unwrap().0;
        world.write_port(port, PP | CHANGES);
        world.events();
        world.write_port(port, PP | PR);
        let id = reset(&mut world);
        fail(&mut world, id);
        let status = world.port_status(port);
        assert_eq!(status & (PR | PED | PRC | PEC | PLC), changes, "{speed:?}");
        world.host.wait(Duration::from_millis(20));
        assert_eq!(world.port_status(port), status, "{speed:?}: nothing more comes");
        assert_eq!(world.events().len(), 1, "{speed:?}");
    }
}

#[test]
fn a_reset_that_fails_when_its_port_is_off_or_disabled_changes_nothing_that_is_shown() {
    let cases = [
        ("USB 2, off", Speed::High, 0),
        ("USB 3, off", Speed::Super, 0),
        ("USB 3, Disabled", Speed::Super, PP | LWS | DISABLED << 5),
    ];
    for (name, speed, written) in cases {
        let mut world = world();
        let port = world.host.attach(DEVICE, speed).unwrap().0;
        reset_port(&mut world, port, PR);
        let id = reset(&mut world);
        world.write_port(port, written);
        world.events();
        let status = world.port_status(port);
        assert_eq!((status & (CCS | PED), link(status)), (0, DISABLED), "{name}");
        fail(&mut world, id);
        assert_eq!(world.port_status(port), status, "{name}");
        assert!(world.events().is_empty(), "{name}");
    }
}

/// xHCI 1.2 §4.19.1.2: Disabled is left by RxDetect, or by a reset that wakes the link.
#[test]
fn a_reset_of_a_disabled_usb_3_port_presents_its_device_again() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::Super).unwrap().0;
    world.write_port(port, PP | CHANGES);
    world.write_port(port, PP | PED);
    assert_eq!((world.port_status(port) & (CCS | PED), link(world.port_status(port))), (0, DISABLED));
    let status = reset_port(&mut world, port, WPR);
    assert_eq!((status & (CCS | PED | PR | PRC), link(status)), (CCS | PED | PRC, 0));
    let id = reset(&mut world);
    world.host.complete(id, Ok(()), Moved::Out(0));
    assert_eq!(status >> 10 & 0xf, 4, "its speed is shown");
}

/// xHCI 1.2 §5.4.8: PEC is USB 2's.
#[test]
fn a_usb_3_port_never_shows_pec() {
    for (name, lose) in [("unplugged", true), ("disabled", false)] {
        let mut world = world();
        let port = world.host.attach(DEVICE, Speed::Super).unwrap().0;
        reset_port(&mut world, port, WPR);
        requests(&mut world);
        if lose {
            world.host.detach(DEVICE);
        } else {
            world.write_port(port, PP | PED);
        }
        assert_eq!(world.port_status(port) & (PEC | PED | CCS), 0, "{name}");
        assert!(world.events().iter().all(|event| event.port() == Some(port)), "{name}");
    }
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    world.reset_port(port);
    world.write_port(port, PP | PED);
    assert_eq!(world.port_status(port) & PEC, 0, "who disables it knows");
    assert_eq!(world.command(Trb::command(23, 0)).code, code::SUCCESS);
}
