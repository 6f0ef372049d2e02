//! What becomes of requests that a guest's driver waits for when the link breaks.

use std::{rc::Rc, time::Duration};

use pci::{Dma, Function, Region, Width};
use tokio::time::{self, Instant};
use wire::{
    ToRemote,
    control::{self, Descriptor, Profile},
    usb::{DeviceId, Moved, Speed, Transfer},
};
use xhci::driver::{Driver, EndpointSetup, Host, Plan, code};

use crate::{
    resume::{HID, STORAGE, of_class},
    supervision::{connected, operational, until_connected},
    world::{Guest, Memories, World, until},
};

/// Protocol speed id of super speed: such a port is enabled without a reset. xHCI 1.2 §4.3, §7.2.2.1.1.
const SUPER: u8 = 4;
/// The device context index of the IN endpoint 1. xHCI 1.2 §4.5.1.
const INTERRUPT_IN: u8 = 3;
/// GET_DESCRIPTOR of the device descriptor. USB 2.0 §9.4.3.
const DEVICE_DESCRIPTOR: [u8; 8] = [0x80, 6, 0, 1, 0, 0, 18, 0];

/// A keyboard that a firmware can use, with its endpoint. HID 1.11 appendix B.1; USB 2.0 §9.6.3, §9.6.5, §9.6.6.
fn boot_keyboard() -> Profile {
    let interface = [[9, 2, 25, 0, 1, 1, 0, 0x80, 50], [9, 4, 0, 0, 1, HID, 1, 1, 0]].concat();
    let data = [&interface[..], &[7, 5, 0x81, 3, 8, 0, 10]].concat();
    let descriptor = Descriptor { request_type: 0x80, value: 0x0200, index: 0, data: data.into() };
    Profile { descriptors: vec![descriptor], ..Profile::default() }
}

/// The function and memory as the driver wants them. All happens in one transaction, so no time passes in it.
struct Machine<'a>(&'a mut dyn Function, Rc<Memories>);

impl Host for Machine<'_> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut data = [0; 8];
        self.0.read(Region::Bar(0), offset, &mut data[..width.bytes()]);
        u64::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.0.write(Region::Bar(0), offset, &value.to_le_bytes()[..width.bytes()]);
    }

    fn load(&mut self, address: u64, data: &mut [u8]) {
        self.1.read(address, data).expect("memory that exists");
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        self.1.write(address, data).expect("memory that exists");
    }

    fn wait(&mut self, _: Duration) {}
}

/// The guest's driver starts, and does this with the slot of each device.
async fn drive<R: 'static>(
    guest: &Guest,
    mut each: impl FnMut(&mut Driver<Machine<'_>>, u8) -> R + 'static,
) -> Vec<R> {
    guest.enable().await;
    let memory = Rc::clone(&guest.memory);
    let access = guest.access(move |function| {
        let mut driver = Driver::start(Machine(function, memory), Plan::at(0, 1 << 20));
        let ports = (driver.host.read(4, Width::Dword) >> 24) as u8;
        let with_device: Vec<_> = (1..=ports).filter(|port| driver.port_status(*port) & 1 != 0).collect();
        let slot = |port| {
            let slot = driver.enable_slot();
            assert_eq!(driver.address_device(slot, port, SUPER, false).code, code::SUCCESS, "port {port}");
            each(&mut driver, slot)
        };
        with_device.into_iter().map(slot).collect()
    });
    access.await.expect("a live controller")
}

#[actix::test]
async fn a_device_that_owes_a_control_transfer_is_gone_before_the_guest_gives_up_and_no_other() {
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend_at(Speed::Super, 7, of_class(STORAGE)).await;
    remote.lend_at(Speed::Super, 8, of_class(HID)).await;
    until_connected(&world, base, 2).await;
    let asked = Instant::now();
    drive(&world.usb, |driver, slot| {
        let buffer = driver.allocate(64);
        driver.control(slot, DEVICE_DESCRIPTOR, buffer);
    })
    .await;
    for _ in 0..2 {
        let request = remote.asked_for(|transfer| matches!(transfer, Transfer::Control(_))).await;
        // The keyboard answers, the disk does not.
        if request.device == DeviceId(8) {
            remote.end(request.id, Moved::In(vec![18; 18].into())).await;
        }
    }
    until(asked + Duration::from_secs(2)).await;
    let cut = Instant::now();
    remote.cut();
    until(asked + Duration::from_millis(4400)).await;
    assert_eq!(connected(&world, base).await, 2, "4.5 s are not over");
    until(asked + Duration::from_millis(4600)).await;
    assert_eq!(connected(&world, base).await, 1, "the disk owes an answer for 4.5 s");
    until(cut + Duration::from_millis(9900)).await;
    assert_eq!(connected(&world, base).await, 1, "the keyboard has answered, and has its 10 s");
    remote.join(&world).await;
    let unplugged = control::ToRemote::Unplugged { device: DeviceId(7) };
    assert_eq!(remote.hear().await, ToRemote::Control(unplugged));
    assert_eq!(connected(&world, base).await, 1);
}

#[actix::test]
async fn a_key_that_is_down_is_released_half_a_second_after_the_link_went() {
    const UNTOUCHED: [u8; 8] = [0xff; 8];
    const KEY_DOWN: [u8; 8] = [0, 0, 4, 0, 0, 0, 0, 0];
    time::pause();
    let world = World::new();
    let base = operational(&world).await;
    let mut remote = world.remote().await;
    remote.lend_at(Speed::Super, 1, boot_keyboard()).await;
    until_connected(&world, base, 1).await;
    let reads = drive(&world.usb, |driver, slot| {
        let keys = EndpointSetup::interrupt(INTERRUPT_IN, 8);
        assert_eq!(driver.configure(slot, &[keys]).code, code::SUCCESS);
        [(); 2].map(|()| {
            let buffer = driver.allocate(8);
            driver.host.store(buffer, &UNTOUCHED);
            driver.transfer(slot, INTERRUPT_IN, buffer, 8);
            buffer
        })
    })
    .await;
    let came = || {
        reads[0].map(|at| {
            let mut report = [0; 8];
            world.usb.memory.read(at, &mut report).expect("memory that exists");
            report
        })
    };
    let read = remote.asked_for(|transfer| *transfer == Transfer::Interrupt).await;
    remote.end(read.id, Moved::In(KEY_DOWN.to_vec().into())).await;
    until(Instant::now() + Duration::from_millis(100)).await;
    assert_eq!(came(), [KEY_DOWN, UNTOUCHED]);
    let cut = Instant::now();
    remote.cut();
    until(cut + Duration::from_millis(400)).await;
    assert_eq!(came(), [KEY_DOWN, UNTOUCHED], "the link may come back");
    until(cut + Duration::from_millis(600)).await;
    assert_eq!(came(), [KEY_DOWN, [0; 8]]);
    assert_eq!(connected(&world, base).await, 1);
}
