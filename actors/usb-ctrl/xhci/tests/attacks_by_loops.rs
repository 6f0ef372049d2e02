//! Case 18 of the attack table: what leaks when a guest asks, takes back and asks again, and the remote never answers.
//!
//! A request that is taken back is booked until the remote has ended it, so what is in flight is bounded for the
//! controller as a whole, and with it what is emitted.

mod world;

use pci::Width;
use wire::usb::{Failure, Moved, Payload, RequestId, Speed, ToRemote};
use world::{
    streamed::{LINEAR, PRIMARY, Streamed, configure},
    *,
};
use xhci::driver::{Bare, Driver, EndpointSetup, Host, Plan, Trb, code, normal};

const BUFFER: u64 = 0x300_0000;
/// What may be in flight at all, bytes, and what a message counts beside its payload: `src/requests.rs`.
const MOST: usize = 2 * (64 << 20);
const MESSAGE: usize = 4096;

fn large() -> World {
    Driver::start(Bare::new(Default::default(), 64 << 20), Plan::at(0x1000, 44 << 20))
}

/// A remote that says nothing but that devices have been reset.
#[derive(Default)]
struct Silent {
    messages: usize,
    in_flight: Vec<RequestId>,
}

impl Silent {
    fn listen(&mut self, world: &mut World) {
        for message in messages(world) {
            self.messages += 1;
            match message {
                ToRemote::Reset { id, .. } => world.host.complete(id, Ok(()), Moved::Out(0)),
                message => self.in_flight.extend(message.id()),
            }
        }
        world.events();
    }

    /// It has heard no more than the bound lets through, in requests of so many bytes and a cancel for each.
    fn is_bounded(&self, world: &World, bytes: usize, name: &str) {
        let bound = MOST / (MESSAGE + bytes) + 2;
        assert!(self.in_flight.len() <= bound, "{name}: {} requests, {bound} allowed", self.in_flight.len());
        assert!(self.messages <= 2 * bound, "{name}: {} messages", self.messages);
        assert!(world.host.xhci.stats().in_flight <= bound, "{name}");
    }

    /// It answers at last.
    fn answer(&mut self, world: &mut World) {
        while !self.in_flight.is_empty() {
            for id in core::mem::take(&mut self.in_flight) {
                world.host.complete(id, Err(Failure::Cancelled), Moved::Out(0));
            }
            world.host.write(0x40, Width::Dword, 2);
            self.listen(world);
        }
        assert_eq!(world.host.xhci.stats().in_flight, 0);
    }
}

#[test]
fn an_endpoint_that_is_dropped_and_added_again_and_again_fills_no_more_than_the_bound() {
    let mut world = large();
    let slot = configured(&mut world);
    let mut silent = Silent::default();
    for _ in 0..4000 {
        let flag = 1 << BULK_OUT;
        let again = [EndpointSetup::bulk(BULK_OUT, 512)];
        assert_eq!(world.configure_with(slot, flag, 1 | flag, &again).code, code::SUCCESS);
        world.transfer(slot, BULK_OUT, BUFFER, 0x1_0000);
        silent.listen(&mut world);
    }
    assert!(silent.in_flight.len() > 1900, "it was reached");
    silent.is_bounded(&world, 0x1_0000, "drop and add");
    silent.answer(&mut world);
}

#[test]
fn a_halt_that_is_cleared_again_and_again_fills_no_more_than_the_bound() {
    let mut world = large();
    let slot = configured(&mut world);
    let mut silent = Silent::default();
    for round in 0..50_000 {
        world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
        if round % 50 == 0 {
            silent.listen(&mut world);
        }
    }
    silent.listen(&mut world);
    assert!(silent.in_flight.len() > 32_000, "it was reached: {}", silent.in_flight.len());
    silent.is_bounded(&world, 0, "clear halt");
    silent.answer(&mut world);
}

#[test]
fn a_port_that_is_reset_again_and_again_is_one_request_at_the_remote() {
    for speed in [Speed::High, Speed::Super] {
        let mut world = world();
        let port = world.host.attach(DEVICE, speed).unwrap().0;
        let mut sent = 0;
        for _ in 0..1000 {
            assert!(world.reset_port(port));
            let slot = world.enable_slot();
            assert_eq!(world.host.xhci.stats().slots, 1);
            world.command(Trb::command(10, slot));
            sent += messages(&mut world).len();
            world.events();
        }
        assert_eq!((sent, world.host.xhci.stats().in_flight), (1, 1), "{speed:?}");
    }
}

#[test]
fn a_controller_that_is_reset_again_and_again_fills_no_more_than_the_bound() {
    for (speed, id) in [(Speed::High, 3), (Speed::Super, 4)] {
        let mut world = large();
        world.host.attach(DEVICE, speed).unwrap();
        let mut silent = Silent::default();
        let port = if speed == Speed::Super { 9 } else { 1 };
        for _ in 0..400 {
            world = Driver::start(world.host, Plan::at(0x1000, 44 << 20));
            silent.listen(&mut world);
            assert!(world.reset_port(port));
            silent.listen(&mut world);
            let slot = world.enable_slot();
            assert_eq!(world.address_device(slot, port, id, false).code, code::SUCCESS);
            assert_eq!(world.configure(slot, &[EndpointSetup::bulk(BULK_OUT, 512)]).code, code::SUCCESS);
            for _ in 0..10 {
                world.queue(slot, BULK_OUT, normal(BUFFER, 0x1_0000).with(Trb::IOC));
            }
            world.ring_doorbell(slot, BULK_OUT);
            silent.listen(&mut world);
        }
        assert!(silent.in_flight.len() > 1000, "{speed:?}: it was nearly reached");
        let resets = 2 * 400;
        silent.messages -= resets.min(silent.messages);
        silent.is_bounded(&world, 0x1_0000, "controller reset");
        silent.answer(&mut world);
    }
}

/// A device that never says whether it has its streams.
#[test]
fn streams_that_are_asked_for_again_and_again_fill_no_more_than_the_bound() {
    let mut at = Streamed::new();
    let mut silent = Silent::default();
    let mut refused = 0;
    for round in 0..20_000 {
        let first = PRIMARY << 10 | LINEAR;
        match configure(&mut at.world, at.slot, first) {
            code::SUCCESS => {}
            7 => refused += 1,
            code => panic!("{code}"),
        }
        if round % 50 == 0 {
            silent.listen(&mut at.world);
        }
    }
    silent.listen(&mut at.world);
    assert!(refused > 0, "Resource Error, at last");
    silent.is_bounded(&at.world, 0, "streams");
    silent.answer(&mut at.world);
}

/// Stops that nobody answers, on endpoints that wait for their cancels and on one that does not.
#[test]
fn an_endpoint_that_is_stopped_again_and_again_fills_no_more_than_the_bound() {
    const ISOCH_OUT: u8 = 8;
    let mut world = large();
    let slot = configured(&mut world);
    let isochronous = EndpointSetup { index: ISOCH_OUT, kind: 1, max_packet: 1024 };
    assert_eq!(world.configure(slot, &[isochronous]).code, code::SUCCESS);
    for endpoint in [BULK_OUT, BULK_IN, INTERRUPT_IN, ISOCH_OUT] {
        let mut silent = Silent::default();
        for _ in 0..3000 {
            let kind = if endpoint == ISOCH_OUT { 1 << 31 | 5 << 10 } else { 1 << 10 };
            let trb = Trb { parameter: BUFFER, status: 1024, control: kind | Trb::IOC };
            world.queue(slot, endpoint, trb);
            world.ring_doorbell(slot, endpoint);
            let stop = world.endpoint_command(TRB_STOP, slot, endpoint);
            assert_eq!(world.command(stop).code, code::SUCCESS);
            assert_eq!(world.set_dequeue(slot, endpoint, None).code, code::SUCCESS);
            silent.listen(&mut world);
        }
        silent.is_bounded(&world, 1024, &format!("endpoint {endpoint}"));
        if endpoint != ISOCH_OUT {
            assert!(silent.in_flight.len() <= 256, "nothing passes a cancel that is not answered");
        }
        for id in silent.in_flight {
            world.host.complete(id, Err(Failure::Cancelled), Moved::Out(0));
        }
        assert_eq!(world.host.xhci.stats().in_flight, 0, "endpoint {endpoint}");
    }
}

/// Fences, late data, orphans, streams, forgotten requests: the device goes, and all of it.
#[test]
fn a_device_that_goes_takes_everything_with_it_that_was_in_flight_for_it() {
    let shown = |world: &World| format!("{:?}", world.host.xhci).len();
    let mut world = large();
    world = Driver::start(world.host, Plan::at(0x1000, 44 << 20));
    let empty = shown(&world);
    for round in 0..20 {
        let slot = configured(&mut world);
        let many: Vec<_> = (6..32).map(|index| EndpointSetup::bulk(index, 512)).collect();
        assert_eq!(world.configure(slot, &many).code, code::SUCCESS);
        for endpoint in 6..32 {
            for _ in 0..8 {
                world.queue(slot, endpoint, normal(BUFFER, 2048).with(Trb::IOC));
            }
            world.ring_doorbell(slot, endpoint);
        }
        // Late data: the remote answers after the stop.
        let late = requests(&mut world);
        for endpoint in [7, 8, 9] {
            let stop = world.endpoint_command(TRB_STOP, slot, endpoint);
            assert_eq!(world.command(stop).code, code::SUCCESS);
        }
        for request in late.iter().filter(|request| request.endpoint.number() == 3) {
            if let Payload::In { max } = request.payload {
                world.host.give(request.id, vec![1; max as usize]);
            }
        }
        // Fences, one replaced by the next; and requests that nobody waits for.
        for address in [0x84, 0x84, 0x05, 0x85] {
            world.control(slot, [0x02, 1, 0, 0, address, 0, 0, 0], 0);
        }
        let drop = 0b1111 << 20;
        assert_eq!(world.configure_with(slot, drop, 1, &[]).code, code::SUCCESS);
        assert!(world.host.xhci.stats().in_flight > 100, "round {round}");
        world.events();
        world.host.detach(DEVICE);
        assert_eq!(world.host.xhci.stats().in_flight, 0, "round {round}: of a device that is gone");
        let unknown = world.host.xhci.stats().unknown_completions;
        for request in &late {
            world.host.complete(request.id, Err(Failure::Disconnected), Moved::Out(0));
        }
        assert!(world.host.xhci.stats().unknown_completions > unknown);
        world = Driver::start(world.host, Plan::at(0x1000, 44 << 20));
        messages(&mut world);
        let now = shown(&world);
        assert!(now < empty + 200, "round {round}: {now} characters, {empty} at first");
    }

    let mut at = Streamed::new();
    for stream in [1, 2, 3, 1, 2] {
        at.transfer(stream, 512);
    }
    assert_eq!(configure(&mut at.world, at.slot, PRIMARY << 10 | LINEAR), code::SUCCESS);
    at.transfer(1, 512);
    assert!(at.world.host.xhci.stats().in_flight >= 7, "five transfers, streams taken and given");
    at.world.host.detach(DEVICE);
    assert_eq!(at.world.host.xhci.stats().in_flight, 0);
}
