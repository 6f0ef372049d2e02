//! Port state machines. xHCI 1.2 §4.15, §4.19.

mod world;

use core::time::Duration;

use wire::usb::{DeviceId, Moved, Speed, ToRemote};
use world::*;
use xhci::driver::{Host, code};

const CCS: u32 = 1;
const PED: u32 = 1 << 1;
const PR: u32 = 1 << 4;
const PP: u32 = 1 << 9;
const LWS: u32 = 1 << 16;
const CSC: u32 = 1 << 17;
const PEC: u32 = 1 << 18;
const WRC: u32 = 1 << 19;
const PRC: u32 = 1 << 21;
const PLC: u32 = 1 << 22;
const WPR: u32 = 1 << 31;

fn link(status: u32) -> u32 {
    status >> 5 & 0xf
}

fn set_link(world: &mut World, port: u8, state: u32) {
    world.write_port(port, PP | LWS | state << 5);
}

fn plugged(world: &mut World, speed: Speed) -> u8 {
    let port = world.host.attach(DEVICE, speed).unwrap().0;
    world.reset_port(port);
    world.host.take_requests();
    world.events();
    port
}

#[test]
fn each_speed_has_its_kind_of_port_and_its_speed_id() {
    for (speed, ports, id) in
        [(Speed::Low, 1..=8, 2), (Speed::Full, 1..=8, 1), (Speed::High, 1..=8, 3), (Speed::Super, 9..=16, 4)]
    {
        let mut world = world();
        let port = world.host.attach(DEVICE, speed).unwrap().0;
        assert!(ports.contains(&port), "{speed:?} on port {port}");
        assert_eq!(world.port_status(port) >> 10 & 0xf, id, "{speed:?}");
    }
}

#[test]
fn the_ninth_device_of_a_kind_finds_no_port() {
    let mut world = world();
    for id in 0..8 {
        assert!(world.host.attach(DeviceId(id), Speed::High).is_ok());
    }
    assert_eq!(world.host.attach(DeviceId(8), Speed::Full).unwrap_err().0, Speed::Full);
    assert!(world.host.attach(DeviceId(8), Speed::Super).is_ok());
    world.host.detach(DeviceId(3));
    assert_eq!(world.host.attach(DeviceId(10), Speed::Low).unwrap().0, 4);
}

/// USB 2.0 §7.1.7.3: who sees a plugging waits until the port has been stable for 100 ms. Linux gives up a port that was
/// not for 2 s, and does not look at it again before its next change.
#[test]
fn a_port_that_has_lost_its_device_shows_the_next_one_when_an_operating_system_has_seen_that() {
    let mut world = world();
    for id in 0..8 {
        world.host.attach(DeviceId(id), Speed::High).unwrap();
    }
    world.host.detach(DeviceId(3));
    world.write_port(4, PP | CSC);
    world.events();
    let mut changes = 0;
    for id in 10..40 {
        assert_eq!(world.host.attach(DeviceId(id), Speed::High).unwrap().0, 4);
        world.host.wait(Duration::from_millis(20));
        world.host.detach(DeviceId(id));
        world.host.wait(Duration::from_millis(20));
        changes += world.events().len();
        world.write_port(4, PP | CSC);
    }
    assert!((2..=8).contains(&changes), "{changes} changes in 1.2 s");
    world.host.attach(DEVICE, Speed::High).unwrap();
    world.host.wait(Duration::from_millis(300));
    assert_eq!(world.port_status(4) & (CCS | CSC), CCS | CSC, "the last one stays, and is shown");
    assert_eq!(world.events().len(), 1);
}

#[test]
fn a_port_that_settles_has_nothing_to_reset_and_a_reset_controller_shows_it_at_once() {
    let mut world = world();
    for id in 0..8 {
        world.host.attach(DeviceId(id), Speed::High).unwrap();
    }
    world.host.detach(DeviceId(0));
    world.host.attach(DEVICE, Speed::High).unwrap();
    world.write_port(1, PP | PR);
    assert_eq!(world.port_status(1) & (CCS | PR), 0);
    let usbcmd = world.operational();
    world.host.write(usbcmd, pci::Width::Dword, 2);
    assert_eq!(world.port_status(1) & (CCS | CSC), CCS | CSC);
}

/// A device that is unplugged and plugged in at the only port that was left.
fn replugged(speed: Speed) -> (World, u8) {
    let mut world = world();
    let ports = (0..8).map(|id| world.host.attach(DeviceId(id), speed).unwrap().0).collect::<Vec<_>>();
    world.host.detach(DeviceId(7));
    world.write_port(ports[7], PP | CSC);
    world.host.wait(Duration::from_millis(200));
    assert_eq!(world.host.attach(DEVICE, speed).unwrap().0, ports[7]);
    (world, ports[7])
}

#[test]
fn no_write_of_the_guest_shows_a_device_before_its_port_has_settled() {
    for speed in [Speed::High, Speed::Super] {
        for how in ["power", "link", "nothing"] {
            let (mut world, port) = replugged(speed);
            match how {
                "power" => {
                    world.write_port(port, 0);
                    world.write_port(port, PP);
                }
                "link" => {
                    set_link(&mut world, port, 4);
                    set_link(&mut world, port, 5);
                }
                _ => {}
            }
            assert_eq!(world.port_status(port) & CCS, 0, "{speed:?}, {how}");
            world.host.wait(Duration::from_millis(100));
            assert_eq!(world.port_status(port) & (CCS | CSC), CCS | CSC, "{speed:?}, {how}");
        }
    }
}

#[test]
fn a_port_that_the_guest_has_disabled_or_switched_off_stays_so_when_it_settles() {
    let (mut world, port) = replugged(Speed::Super);
    set_link(&mut world, port, 4);
    world.host.wait(Duration::from_millis(200));
    assert_eq!((world.port_status(port) & CCS, link(world.port_status(port))), (0, 4));
    set_link(&mut world, port, 5);
    assert_eq!(world.port_status(port) & CCS, CCS);
    let (mut world, port) = replugged(Speed::High);
    world.write_port(port, 0);
    world.host.wait(Duration::from_millis(200));
    assert_eq!(world.port_status(port) & (CCS | PP), 0);
    world.write_port(port, PP);
    assert_eq!(world.port_status(port) & CCS, CCS);
}

#[test]
fn a_port_whose_unplugging_is_acknowledged_is_better_than_one_that_has_been_empty_for_longer() {
    let mut world = world();
    for id in 0..8 {
        world.host.attach(DeviceId(id), Speed::High).unwrap();
    }
    for (id, after) in [(2, 350), (6, 50), (4, 0)] {
        world.host.detach(DeviceId(id));
        if id != 2 {
            world.write_port(id as u8 + 1, PP | CSC);
        }
        world.host.wait(Duration::from_millis(after));
    }
    assert_eq!(world.host.attach(DeviceId(20), Speed::High).unwrap().0, 7, "soon, and the guest knows");
    assert_eq!(world.host.attach(DeviceId(21), Speed::High).unwrap().0, 5);
    assert_eq!(world.host.attach(DeviceId(22), Speed::High).unwrap().0, 3);
}

#[test]
fn the_next_device_goes_to_a_port_that_has_been_empty_for_long() {
    let mut world = world();
    for expected in [1, 2, 3, 4, 5, 6, 7, 8, 1] {
        assert_eq!(world.host.attach(DEVICE, Speed::High).unwrap().0, expected);
        world.write_port(expected, PP | CSC);
        assert_eq!(world.port_status(expected) & CCS, CCS);
        world.host.detach(DEVICE);
        world.write_port(expected, PP | CSC);
        world.host.wait(Duration::from_millis(40));
    }
}

/// xHCI 1.2 §4.19.2: an event when the first change bit is set, none while another is.
#[test]
fn one_event_tells_of_changes_until_they_are_acknowledged() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    world.write_port(port, PP | PR);
    world.host.wait(Duration::from_millis(20));
    assert_eq!(world.events().len(), 1, "CSC is still there when PRC comes");
    assert_eq!(world.port_status(port) & (CSC | PRC), CSC | PRC);
    world.write_port(port, PP | CSC);
    assert_eq!(world.port_status(port) & (CSC | PRC), PRC);
    world.write_port(port, PP | PRC);
    world.host.detach(DEVICE);
    assert_eq!(world.events().len(), 1);
    assert_eq!(world.port_status(port) & (CSC | PEC), CSC | PEC);
}

#[test]
fn a_warm_reset_is_for_usb_3_ports_and_shows_wrc() {
    let mut world = world();
    let port = plugged(&mut world, Speed::Super);
    world.write_port(port, PP | WPR);
    assert_eq!(world.port_status(port) & (PR | PED | WPR), PR, "WPR reads 0");
    world.host.wait(Duration::from_millis(20));
    assert_eq!(world.port_status(port) & (PR | PED | PRC | WRC), PED | PRC | WRC);
    assert!(matches!(messages(&mut world)[..], [ToRemote::Reset { device: DEVICE, .. }]));

    let mut world = self::world();
    let port = plugged(&mut world, Speed::High);
    world.write_port(port, PP | WPR);
    assert_eq!(world.port_status(port) & (PR | PED), PED);
}

#[test]
fn a_reset_of_an_empty_port_does_nothing() {
    let mut world = world();
    world.write_port(2, PP | PR);
    world.host.wait(Duration::from_millis(50));
    assert_eq!(world.port_status(2), 0x2a0);
    assert!(world.events().is_empty() && messages(&mut world).is_empty());
}

#[test]
fn writing_one_to_ped_disables_the_port_and_cuts_the_device_off() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = world.transfer(slot, BULK_IN, 0x10_0000, 8);
    let sent = request(&mut world);
    world.write_port(1, PP | PED);
    assert_eq!((world.port_status(1) & PED, link(world.port_status(1))), (0, 7));
    assert!(matches!(messages(&mut world)[..], [ToRemote::Cancel { through, .. }] if through == sent.id));
    assert_eq!(transfers(&mut world), [(at, code::TRANSACTION_ERROR, 8)]);
    assert!(world.reset_port(1), "a reset enables it again");
}

#[test]
fn a_usb_3_port_that_was_disabled_comes_back_by_rx_detect() {
    let mut world = world();
    let port = plugged(&mut world, Speed::Super);
    world.write_port(port, PP | PED);
    assert_eq!(world.port_status(port), 0x1280, "Disabled, not connected");
    set_link(&mut world, port, 5);
    assert_eq!(world.port_status(port), 0x1203 | CSC);
    set_link(&mut world, port, 4);
    assert_eq!(link(world.port_status(port)), 4);
}

#[test]
fn a_port_without_power_shows_nothing_until_it_has_power_again() {
    let mut world = world();
    let port = plugged(&mut world, Speed::High);
    world.write_port(port, 0);
    assert_eq!(world.port_status(port) & (PP | PED | 1), 0);
    assert_eq!(link(world.port_status(port)), 4);
    world.write_port(port, PR);
    world.host.wait(Duration::from_millis(20));
    assert_eq!(world.port_status(port) & PED, 0);
    world.write_port(port, PP);
    assert_eq!(world.port_status(port), 0x0002_0ee1);
}

/// xHCI 1.2 §4.15.1, §4.15.2.
#[test]
fn suspend_and_resume_are_stored_and_resume_shows_plc() {
    let mut world = world();
    let usb2 = plugged(&mut world, Speed::High);
    set_link(&mut world, usb2, 3);
    assert_eq!((link(world.port_status(usb2)), world.port_status(usb2) & PLC), (3, 0));
    set_link(&mut world, usb2, 15);
    assert_eq!((link(world.port_status(usb2)), world.port_status(usb2) & PLC), (15, 0));
    set_link(&mut world, usb2, 0);
    assert_eq!((link(world.port_status(usb2)), world.port_status(usb2) & PLC), (0, PLC));
    assert_eq!(world.events().len(), 1);

    let usb3 = world.host.attach(DeviceId(8), Speed::Super).unwrap().0;
    set_link(&mut world, usb3, 3);
    assert_eq!(link(world.port_status(usb3)), 3);
    set_link(&mut world, usb3, 15);
    assert_eq!(link(world.port_status(usb3)), 3, "Resume is USB 2's");
    set_link(&mut world, usb3, 0);
    assert_eq!((link(world.port_status(usb3)), world.port_status(usb3) & PLC), (0, PLC));
    assert!(messages(&mut world).is_empty(), "the real device is not suspended");
}

#[test]
fn without_the_strobe_the_link_state_is_not_written() {
    let mut world = world();
    let port = plugged(&mut world, Speed::High);
    world.write_port(port, PP | 3 << 5);
    assert_eq!(link(world.port_status(port)), 0);
}

/// Firmware to operating system: slots are never disabled, the controller is just reset.
#[test]
fn a_controller_reset_cancels_everything_and_presents_the_devices_anew() {
    let mut world = world();
    let slot = configured(&mut world);
    world.host.attach(DeviceId(8), Speed::Super).unwrap();
    world.transfer(slot, BULK_IN, 0x10_0000, 8);
    let sent = request(&mut world);
    let usbcmd = world.operational();
    world.host.write(usbcmd, pci::Width::Dword, 2);
    assert!(matches!(messages(&mut world)[..], [ToRemote::Cancel { through, .. }] if through == sent.id));
    assert_eq!(world.host.read(usbcmd, pci::Width::Qword), 1 << 32, "halted");
    assert_eq!(world.port_status(1), 0x0002_0ee1);
    assert_eq!(world.port_status(9), 0x0002_1203);
    assert_eq!(world.host.xhci.stats().in_flight, 1, "it is cancelled, and not over");
    world.host.give(sent.id, vec![0; 8]);
    assert_eq!(world.host.xhci.stats().in_flight, 0);
    assert_eq!(world.host.xhci.stats().slots, 0);
    world.host.write(usbcmd, pci::Width::Dword, 1);
    world.host.write(usbcmd, pci::Width::Dword, 0);
}

/// xHCI 1.2 §5.4.1: HCRST also resets USB 3 links.
#[test]
fn a_controller_reset_resets_a_super_speed_device_that_was_in_use() {
    let mut world = world();
    addressed(&mut world, Speed::Super);
    let usbcmd = world.operational();
    world.host.write(usbcmd, pci::Width::Dword, 2);
    assert!(matches!(messages(&mut world)[..], [ToRemote::Reset { device: DEVICE, .. }]));
    world.host.write(usbcmd, pci::Width::Dword, 2);
    assert!(messages(&mut world).is_empty(), "it has not been used since");
}

#[test]
fn port_resets_that_follow_each_other_are_one_at_the_remote_until_it_is_done() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    world.reset_port(port);
    world.reset_port(port);
    let [ToRemote::Reset { id, .. }] = messages(&mut world)[..] else { panic!("not one reset") };
    let slot = world.enable_slot();
    world.address_device(slot, port, 3, false);
    world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], 0x10_0000);
    assert!(messages(&mut world).is_empty(), "nothing is sent to a device that is being reset");
    world.host.complete(id, Ok(()), Moved::Out(0));
    assert_eq!(requests(&mut world).len(), 1);
    world.reset_port(port);
    assert!(messages(&mut world).iter().any(|message| matches!(message, ToRemote::Reset { .. })));
}

#[test]
fn a_device_that_comes_back_at_once_prefers_a_port_whose_unplugging_was_seen() {
    let mut world = world();
    let first = plugged(&mut world, Speed::High);
    world.host.detach(DEVICE);
    let second = world.host.attach(DEVICE, Speed::High).unwrap().0;
    assert_ne!(first, second);
    let ports: Vec<_> = world.events().iter().filter_map(|event| event.port()).collect();
    assert_eq!(ports, [first, second], "both changes are told");
}
