//! A controller with a driver on it, and devices that the test answers for.
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

pub mod line;
pub mod streamed;

use pci::Dma;
use wire::{
    control::Profile,
    usb::{DeviceId, Request, Speed, ToRemote},
};
use xhci::{
    Config,
    driver::{Bare, Driver, EndpointSetup, Event, Plan, code},
};

pub const DEVICE: DeviceId = DeviceId(7);
pub const MEMORY: usize = 16 << 20;
/// A bulk OUT, a bulk IN and an interrupt IN endpoint.
pub const BULK_OUT: u8 = 2;
pub const BULK_IN: u8 = 3;
pub const INTERRUPT_IN: u8 = 5;

pub const TRB_STOP: u8 = 15;
pub const TRB_RESET: u8 = 14;

pub type World = Driver<Bare>;

/// A running controller without devices.
pub fn world() -> World {
    world_with(Config::default(), Plan::at(0x1000, 4 << 20))
}

pub fn world_with(config: Config, plan: Plan) -> World {
    Driver::start(Bare::new(config, MEMORY), plan)
}

/// Plugs the device in, resets its port, gives it a slot and an address.
pub fn addressed(world: &mut World, speed: Speed) -> u8 {
    addressed_as(world, speed, Profile::default())
}

/// The same with a device of which something is known beforehand.
pub fn addressed_as(world: &mut World, speed: Speed, profile: Profile) -> u8 {
    let port = world.host.attach_known(DEVICE, speed, profile).expect("a free port").0;
    assert!(world.reset_port(port), "the port is enabled");
    assert!(world.host.take_requests().is_empty());
    let slot = world.enable_slot();
    let id = match speed {
        Speed::Full => 1,
        Speed::Low => 2,
        Speed::High => 3,
        Speed::Super => 4,
    };
    assert_eq!(world.address_device(slot, port, id, false).code, code::SUCCESS);
    world.events();
    slot
}

/// The same with two bulk endpoints and an interrupt endpoint.
pub fn configured(world: &mut World) -> u8 {
    configured_as(world, Profile::default())
}

/// The same with a device of which something is known beforehand.
pub fn configured_as(world: &mut World, profile: Profile) -> u8 {
    let slot = addressed_as(world, Speed::High, profile);
    let endpoints = [
        EndpointSetup::bulk(BULK_OUT, 512),
        EndpointSetup::bulk(BULK_IN, 512),
        EndpointSetup::interrupt(INTERRUPT_IN, 8),
    ];
    assert_eq!(world.configure(slot, &endpoints).code, code::SUCCESS);
    slot
}

pub fn requests(world: &mut World) -> Vec<Request> {
    world.host.take_requests()
}

/// The one request that was submitted.
pub fn request(world: &mut World) -> Request {
    let mut requests = requests(world);
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

pub fn messages(world: &mut World) -> Vec<ToRemote> {
    world.host.take_messages()
}

pub fn memory(world: &World, at: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    world.host.ram.read(at, &mut data).unwrap();
    data
}

/// Pointer, code and length of the transfer events so far.
pub fn transfers(world: &mut World) -> Vec<(u64, u8, u32)> {
    world.events().iter().filter(|e| e.is_transfer()).map(|e| (e.pointer, e.code, e.length)).collect()
}

pub fn transfer_events(world: &mut World) -> Vec<Event> {
    world.events().into_iter().filter(Event::is_transfer).collect()
}
