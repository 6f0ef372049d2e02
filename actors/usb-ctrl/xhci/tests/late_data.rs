//! What a device has said or taken although its TD was taken away: to whom it goes, and when it is void. xHCI 1.2 §4.6.9.

mod world;

use core::time::Duration;

use wire::{
    control::Profile,
    usb::{Endpoint, Failure, Moved, Payload, Request, ToRemote},
};
use world::*;
use xhci::driver::{Host, Trb, code, normal};

const BUFFER: u64 = 0x10_0000;

/// Queues TDs of 1024 bytes, each with bytes of its own, and rings.
fn queue(world: &mut World, slot: u8, endpoint: u8, tds: u8) -> (Vec<u64>, Vec<Request>) {
    let buffer = |td: u8| BUFFER + 0x1000 * u64::from(td);
    if endpoint == BULK_OUT {
        (0..tds).for_each(|td| world.host.store(buffer(td), &[td + 1; 1024]));
    }
    let trb = |td| normal(buffer(td), 1024).with(Trb::IOC | Trb::ISP);
    let at = (0..tds).map(|td| world.queue(slot, endpoint, trb(td))).collect();
    world.ring_doorbell(slot, endpoint);
    (at, requests(world))
}

/// A stop that the remote does not answer in time.
fn stop(world: &mut World, slot: u8, endpoint: u8) {
    let command = world.endpoint_command(TRB_STOP, slot, endpoint);
    assert_eq!(world.command(command).code, code::SUCCESS);
    world.events();
    messages(world);
}

fn cancelled(world: &mut World, request: &Request, moved: Moved) {
    world.host.complete(request.id, Err(Failure::Cancelled), moved);
}

#[test]
fn out_tds_that_are_stopped_twice_before_the_remote_answers_are_still_sent_once() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_OUT, 3);
    for _ in 0..2 {
        stop(&mut world, slot, BULK_OUT);
        // The first TD alone is taken up again: the endpoint is cautious, or has no time for more.
        world.ring_doorbell(slot, BULK_OUT);
        assert!(requests(&mut world).is_empty());
    }
    cancelled(&mut world, &sent[2], Moved::Out(0));
    cancelled(&mut world, &sent[1], Moved::Out(512));
    world.host.complete(sent[0].id, Ok(()), Moved::Out(1024));
    let rest = requests(&mut world);
    assert_eq!(rest[0].payload, Payload::Out(vec![2; 512].into()), "behind what the device has");
    for request in &rest {
        world.host.complete(request.id, Ok(()), Moved::Out(request.payload.requested()));
    }
    for request in requests(&mut world) {
        world.host.complete(request.id, Ok(()), Moved::Out(request.payload.requested()));
    }
    let done: Vec<_> = at.iter().map(|at| (*at, code::SUCCESS, 0)).collect();
    assert_eq!(transfers(&mut world), done);
}

/// After an error one TD at a time is taken up again: a stop then finds it in front of those that are not.
#[test]
fn a_stop_amid_tds_that_are_taken_up_again_one_by_one_forgets_nothing_of_those_behind() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_OUT, 4);
    world.host.complete(sent[0].id, Err(Failure::Fault), Moved::Out(0));
    assert_eq!(transfers(&mut world), [(at[0], code::TRANSACTION_ERROR, 1024)]);
    let reset = world.endpoint_command(TRB_RESET, slot, BULK_OUT);
    assert_eq!(world.command(reset).code, code::SUCCESS);
    assert_eq!(world.set_dequeue(slot, BULK_OUT, Some(at[1] | 1)).code, code::SUCCESS);
    world.ring_doorbell(slot, BULK_OUT);
    stop(&mut world, slot, BULK_OUT);
    // The device had taken the second, and half of the third.
    world.host.complete(sent[1].id, Ok(()), Moved::Out(1024));
    cancelled(&mut world, &sent[3], Moved::Out(0));
    cancelled(&mut world, &sent[2], Moved::Out(512));
    world.ring_doorbell(slot, BULK_OUT);
    let rest = requests(&mut world);
    let rest: Vec<_> = rest.iter().map(|request| &request.payload).collect();
    let (half, whole) = (Payload::Out(vec![3; 512].into()), Payload::Out(vec![4; 1024].into()));
    assert!(rest == [&half, &whole], "the other half of the third, and the fourth");
}

#[test]
fn a_report_that_a_td_has_asked_for_comes_before_those_that_were_read_ahead_even_after_a_stop() {
    let mut world = world();
    let read_ahead = vec![Endpoint::from_address(0x82).unwrap()];
    let slot = configured_as(&mut world, Profile { read_ahead, ..Profile::default() });
    for td in 0..2 {
        world.queue(slot, INTERRUPT_IN, normal(BUFFER + 8 * td, 8).with(Trb::IOC));
    }
    world.ring_doorbell(slot, INTERRUPT_IN);
    let asked = requests(&mut world);
    stop(&mut world, slot, INTERRUPT_IN);
    world.host.give(asked[0].id, vec![1; 8]);
    world.host.give(asked[1].id, vec![2; 8]);
    world.ring_doorbell(slot, INTERRUPT_IN);
    world.host.wait(Duration::from_micros(125));
    assert_eq!(memory(&world, BUFFER, 16), [[1; 8], [2; 8]].concat());
}

/// Sends a control request without data, which the device carries out.
fn carried_out(world: &mut World, slot: u8, setup: [u8; 8]) {
    world.control(slot, setup, 0);
    let sent = request(world);
    world.host.complete(sent.id, Ok(()), Moved::Out(0));
    world.events();
}

#[test]
fn late_data_is_void_after_a_change_of_setting_or_configuration() {
    for (name, setup) in
        [("SET_CONFIGURATION", [0, 9, 1, 0, 0, 0, 0, 0]), ("SET_INTERFACE", [1, 11, 1, 0, 0, 0, 0, 0])]
    {
        for early in [true, false] {
            let mut world = world();
            let slot = configured(&mut world);
            let (_, sent) = queue(&mut world, slot, BULK_IN, 1);
            stop(&mut world, slot, BULK_IN);
            world.set_dequeue(slot, BULK_IN, None);
            // It comes before the change, or after it although it was sent before.
            if early {
                world.host.give(sent[0].id, vec![3; 1024]);
                carried_out(&mut world, slot, setup);
            } else {
                carried_out(&mut world, slot, setup);
                world.host.give(sent[0].id, vec![3; 1024]);
            }
            world.transfer(slot, BULK_IN, BUFFER, 1024);
            let fresh = request(&mut world);
            world.host.give(fresh.id, vec![4; 1024]);
            assert_eq!(memory(&world, BUFFER, 2), [4, 4], "{name}, early: {early}");
        }
    }
}

#[test]
fn late_data_is_void_after_a_port_reset() {
    for early in [true, false] {
        let mut world = world();
        let slot = configured(&mut world);
        let (_, sent) = queue(&mut world, slot, BULK_IN, 1);
        stop(&mut world, slot, BULK_IN);
        if early {
            world.host.give(sent[0].id, vec![3; 1024]);
        }
        assert!(world.reset_port(1));
        requests(&mut world);
        assert_eq!(world.command(Trb::command(17, slot)).code, code::SUCCESS, "Reset Device");
        if !early {
            world.host.give(sent[0].id, vec![3; 1024]);
        }
        assert_eq!(world.address_device(slot, 1, 3, false).code, code::SUCCESS);
        let endpoints = [xhci::driver::EndpointSetup::bulk(BULK_IN, 512)];
        assert_eq!(world.configure(slot, &endpoints).code, code::SUCCESS);
        world.transfer(slot, BULK_IN, BUFFER, 1024);
        let fresh = request(&mut world);
        world.host.give(fresh.id, vec![4; 1024]);
        assert_eq!(memory(&world, BUFFER, 2), [4, 4], "early: {early}");
    }
}

/// The remote ends everything on an endpoint before it clears the halt, so what is in flight is cancelled here, too.
#[test]
fn clear_halt_with_tds_in_flight_cancels_them_and_they_run_again_behind_it() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_IN, 2);
    world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    let through = sent[1].id;
    let [ToRemote::Submit(clear), ToRemote::Cancel { through: last, .. }] = &messages(&mut world)[..] else {
        panic!("the halt is cleared, and what is in flight is cancelled")
    };
    assert_eq!(*last, through);
    cancelled(&mut world, &sent[1], Moved::In(Default::default()));
    cancelled(&mut world, &sent[0], Moved::In(vec![1; 512].into()));
    assert!(requests(&mut world).is_empty(), "the halt is not cleared yet");
    world.host.complete(clear.id, Ok(()), Moved::Out(0));
    let again = requests(&mut world);
    let room: Vec<_> = again.iter().map(|request| request.payload.requested()).collect();
    assert_eq!(room, [512, 1024], "each goes on behind what it has");
    for (byte, request) in (2..).zip(&again) {
        world.host.give(request.id, vec![byte; request.payload.requested() as usize]);
    }
    world.host.wait(Duration::from_millis(1));
    let done: Vec<_> =
        transfers(&mut world).into_iter().filter(|event| at.contains(&event.0)).map(|e| (e.0, e.1)).collect();
    assert_eq!(done, [(at[0], code::SUCCESS), (at[1], code::SUCCESS)]);
    assert_eq!(memory(&world, BUFFER, 1024), [vec![1; 512], vec![2; 512]].concat());
}

/// xHCI 1.2 §4.6.10: a TD that the driver puts in the same place is another one.
#[test]
fn set_tr_dequeue_to_the_same_trb_begins_its_td_anew() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_OUT, 1);
    let command = world.endpoint_command(TRB_STOP, slot, BULK_OUT);
    world.post_command(command);
    cancelled(&mut world, &sent[0], Moved::Out(512));
    assert_eq!(transfers(&mut world), [(at[0], code::STOPPED, 512)]);
    assert_eq!(world.set_dequeue(slot, BULK_OUT, Some(at[0] | 1)).code, code::SUCCESS);
    messages(&mut world);
    world.ring_doorbell(slot, BULK_OUT);
    assert_eq!(request(&mut world).payload, Payload::Out(vec![1; 1024].into()), "from its first byte");
}
