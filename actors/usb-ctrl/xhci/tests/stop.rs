//! Stop Endpoint, cancellation, and what becomes of requests whose end nobody knew. xHCI 1.2 §4.6.9.

mod world;

use core::time::Duration;

use wire::usb::{Failure, Moved, Payload, Request, RequestId, ToRemote};
use world::*;
use xhci::driver::{Event, Host, Trb, code, normal};

const BUFFER: u64 = 0x10_0000;

fn queue(world: &mut World, slot: u8, endpoint: u8, tds: u64) -> (Vec<u64>, Vec<Request>) {
    let at = (0..tds)
        .map(|i| world.queue(slot, endpoint, normal(BUFFER + 0x1000 * i, 1024).with(Trb::IOC | Trb::ISP)))
        .collect();
    world.ring_doorbell(slot, endpoint);
    (at, requests(world))
}

/// Posts the command; the remote has not answered yet.
fn post_stop(world: &mut World, slot: u8, endpoint: u8) -> u64 {
    let command = world.endpoint_command(TRB_STOP, slot, endpoint);
    world.post_command(command)
}

fn stopped(world: &mut World, command: u64) -> Event {
    world
        .await_event(Duration::from_millis(61), |event| event.is_command() && event.pointer == command)
        .expect("Stop Endpoint is answered within 60 ms")
}

fn cancelled(world: &mut World, id: RequestId, bytes: usize) {
    world.host.complete(id, Err(Failure::Cancelled), Moved::In(vec![0xcc; bytes].into()));
}

fn dequeue(world: &mut World, slot: u8, endpoint: u8) -> u64 {
    let [_, _, low, high, _] = world.output_context(slot, endpoint);
    (u64::from(low) | u64::from(high) << 32) & !0xf
}

fn state(world: &mut World, slot: u8, endpoint: u8) -> u32 {
    world.output_context(slot, endpoint)[0] & 7
}

#[test]
fn an_idle_endpoint_stops_at_once_and_without_a_transfer_event() {
    let mut world = world();
    let slot = configured(&mut world);
    let command = post_stop(&mut world, slot, BULK_IN);
    let events = world.events();
    assert_eq!(events.iter().map(|e| (e.kind, e.pointer, e.code)).collect::<Vec<_>>(), [(33, command, 1)]);
    assert_eq!(state(&mut world, slot, BULK_IN), 3);
    let command = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    assert_eq!(world.command(command).code, code::CONTEXT_STATE, "stopped already");
}

#[test]
fn a_stop_cancels_what_is_in_flight_and_waits_for_the_remote() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_IN, 3);
    let command = post_stop(&mut world, slot, BULK_IN);
    let cancel = messages(&mut world);
    let through = sent[2].id;
    assert!(
        matches!(cancel[..], [ToRemote::Cancel { device: DEVICE, endpoint, through: t }]
            if endpoint.address() == 0x81 && t == through),
        "{cancel:?}"
    );
    assert!(world.events().is_empty(), "it waits");
    // Newest first; the first had finished already.
    cancelled(&mut world, sent[2].id, 0);
    cancelled(&mut world, sent[1].id, 512);
    assert!(world.events().is_empty());
    world.host.give(sent[0].id, vec![1; 1024]);
    let events = world.events();
    let seen: Vec<_> = events.iter().map(|e| (e.kind, e.pointer, e.code, e.length)).collect();
    assert_eq!(
        seen,
        [(32, at[0], code::SUCCESS, 0), (32, at[1], code::STOPPED, 512), (33, command, code::SUCCESS, 0),]
    );
    assert_eq!(dequeue(&mut world, slot, BULK_IN), at[1], "never the fetch pointer");
    assert_eq!(memory(&world, BUFFER + 0x1000, 513), [vec![0xcc; 512], vec![0]].concat());
}

/// usbtest 24: one of a queue is unlinked, the survivors must finish.
#[test]
fn the_tds_behind_a_cancelled_one_run_after_the_restart() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_IN, 4);
    let command = post_stop(&mut world, slot, BULK_IN);
    for request in sent.iter().rev() {
        cancelled(&mut world, request.id, 0);
    }
    assert_eq!(stopped(&mut world, command).code, code::SUCCESS);
    assert_eq!(transfers(&mut world), [(at[0], code::STOPPED, 1024)]);
    // The driver drops the first TD and turns the third into a no-op.
    assert_eq!(world.set_dequeue(slot, BULK_IN, Some(at[1] | 1)).code, code::SUCCESS);
    world.host.store(at[2] + 12, &(8_u32 << 10 | 1).to_le_bytes());
    messages(&mut world);
    world.ring_doorbell(slot, BULK_IN);
    let again = requests(&mut world);
    assert_eq!(again.len(), 2);
    for request in &again {
        world.host.give(request.id, vec![7; 1024]);
    }
    assert_eq!(transfers(&mut world), [(at[1], code::SUCCESS, 0), (at[3], code::SUCCESS, 0)]);
}

#[test]
fn a_td_that_had_moved_bytes_goes_on_behind_them() {
    let mut world = world();
    let slot = configured(&mut world);
    let first = world.queue(slot, BULK_IN, normal(BUFFER, 1024).with(Trb::CHAIN));
    let second = world.queue(slot, BULK_IN, normal(BUFFER + 0x8000, 1024).with(Trb::IOC));
    world.ring_doorbell(slot, BULK_IN);
    let sent = request(&mut world);
    let command = post_stop(&mut world, slot, BULK_IN);
    world.host.complete(sent.id, Err(Failure::Cancelled), Moved::In(vec![1; 1536].into()));
    stopped(&mut world, command);
    assert_eq!(transfers(&mut world), [(second, code::STOPPED, 512)]);
    assert_eq!(dequeue(&mut world, slot, BULK_IN), second);
    assert_ne!(first, second);
    messages(&mut world);
    world.ring_doorbell(slot, BULK_IN);
    let rest = request(&mut world);
    assert_eq!(rest.payload, Payload::In { max: 512 });
    world.host.give(rest.id, vec![2; 512]);
    assert_eq!(transfers(&mut world), [(second, code::SUCCESS, 0)]);
    let data = memory(&world, BUFFER + 0x8000, 1024);
    assert_eq!(data, [vec![1; 512], vec![2; 512]].concat());
}

#[test]
fn a_silent_remote_delays_a_stop_by_60_ms_and_no_more() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, _) = queue(&mut world, slot, BULK_IN, 2);
    let before = world.host.now;
    let command = post_stop(&mut world, slot, BULK_IN);
    world.host.wait(Duration::from_millis(59));
    assert!(world.events().is_empty());
    assert_eq!(stopped(&mut world, command).code, code::SUCCESS);
    assert!(world.host.now - before <= Duration::from_millis(61));
    assert_eq!(transfers(&mut world), [(at[0], code::STOPPED, 1024)], "as if stopped before the first");
}

fn stop_without_an_answer(world: &mut World, slot: u8, endpoint: u8) {
    let command = post_stop(world, slot, endpoint);
    assert_eq!(stopped(world, command).code, code::SUCCESS);
    world.events();
    messages(world);
}

#[test]
fn a_restarted_td_adopts_its_request_that_was_still_in_flight() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_IN, 2);
    stop_without_an_answer(&mut world, slot, BULK_IN);
    world.ring_doorbell(slot, BULK_IN);
    assert!(requests(&mut world).is_empty(), "nothing is asked for twice");
    // The device was faster than the cancel, for the first one.
    world.host.give(sent[0].id, vec![5; 1024]);
    assert_eq!(transfers(&mut world), [(at[0], code::SUCCESS, 0)]);
    cancelled(&mut world, sent[1].id, 0);
    let again = request(&mut world);
    assert!(again.id > sent[1].id);
    world.host.give(again.id, vec![6; 1024]);
    assert_eq!(transfers(&mut world), [(at[1], code::SUCCESS, 0)]);
}

#[test]
fn an_out_td_is_not_sent_again_if_its_first_run_succeeded_after_all() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_OUT, 1);
    stop_without_an_answer(&mut world, slot, BULK_OUT);
    world.host.complete(sent[0].id, Ok(()), Moved::Out(1024));
    world.ring_doorbell(slot, BULK_OUT);
    assert!(requests(&mut world).is_empty());
    assert_eq!(transfers(&mut world), [(at[0], code::SUCCESS, 0)]);
}

#[test]
fn an_out_td_with_other_bytes_in_the_same_place_is_another_one() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_OUT, 1);
    stop_without_an_answer(&mut world, slot, BULK_OUT);
    world.host.complete(sent[0].id, Ok(()), Moved::Out(1024));
    world.host.store(BUFFER, &[0x55; 1024]);
    world.ring_doorbell(slot, BULK_OUT);
    let again = request(&mut world);
    assert_eq!(again.payload, Payload::Out(vec![0x55; 1024].into()));
    world.host.complete(again.id, Ok(()), Moved::Out(1024));
    assert_eq!(transfers(&mut world), [(at[0], code::SUCCESS, 0)]);
}

#[test]
fn late_data_of_a_dropped_td_goes_to_the_next_one_with_its_packet_boundary() {
    let mut world = world();
    let slot = configured(&mut world);
    let (_, sent) = queue(&mut world, slot, BULK_IN, 1);
    stop_without_an_answer(&mut world, slot, BULK_IN);
    world.set_dequeue(slot, BULK_IN, None);
    let next = world.queue(slot, BULK_IN, normal(BUFFER + 0x5000, 2048).with(Trb::IOC | Trb::ISP));
    world.ring_doorbell(slot, BULK_IN);
    assert!(requests(&mut world).is_empty(), "order: nothing new before the cancelled request has ended");
    world.host.give(sent[0].id, vec![3; 700]);
    assert_eq!(transfers(&mut world), [(next, code::SHORT_PACKET, 2048 - 700)]);
    assert_eq!(memory(&world, BUFFER + 0x5000, 701), [vec![3; 700], vec![0]].concat());
    assert!(requests(&mut world).is_empty());
}

#[test]
fn late_data_is_void_after_clear_halt() {
    let mut world = world();
    let slot = configured(&mut world);
    let (_, sent) = queue(&mut world, slot, BULK_IN, 1);
    stop_without_an_answer(&mut world, slot, BULK_IN);
    world.set_dequeue(slot, BULK_IN, None);
    world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    let clear = request(&mut world);
    world.host.give(sent[0].id, vec![3; 1024]);
    world.host.complete(clear.id, Ok(()), Moved::Out(0));
    world.events();
    world.transfer(slot, BULK_IN, BUFFER, 1024);
    let fresh = request(&mut world);
    world.host.give(fresh.id, vec![4; 1024]);
    assert_eq!(memory(&world, BUFFER, 2), [4, 4]);
}

/// Firmware gives CLEAR_FEATURE(ENDPOINT_HALT) 10 ms.
#[test]
fn clear_halt_is_acknowledged_at_once_and_fences_its_endpoint() {
    let mut world = world();
    let slot = configured(&mut world);
    let [.., status] = world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
    let clear = request(&mut world);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    world.transfer(slot, BULK_OUT, BUFFER, 512);
    let others = request(&mut world);
    assert_eq!(others.endpoint.address(), 0x01, "only the endpoint itself waits");
    world.host.complete(clear.id, Ok(()), Moved::Out(0));
    assert_eq!(request(&mut world).endpoint.address(), 0x81);
}

#[test]
fn a_clear_halt_that_fails_later_stalls_the_next_td() {
    let mut world = world();
    let slot = configured(&mut world);
    world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    let clear = request(&mut world);
    world.events();
    let at = world.transfer(slot, BULK_IN, BUFFER, 512);
    world.host.complete(clear.id, Err(Failure::Stall), Moved::Out(0));
    assert!(requests(&mut world).is_empty());
    assert_eq!(transfers(&mut world), [(at, code::STALL, 512)]);
    assert_eq!(state(&mut world, slot, BULK_IN), 2);
}

#[test]
fn a_clear_halt_that_a_stop_of_the_control_endpoint_hit_is_sent_again() {
    let mut world = world();
    let slot = configured(&mut world);
    world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    let clear = request(&mut world);
    world.host.complete(clear.id, Err(Failure::Cancelled), Moved::Out(0));
    let again = request(&mut world);
    assert_eq!(again.transfer, clear.transfer);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    assert!(requests(&mut world).is_empty(), "still fenced");
    world.host.complete(again.id, Ok(()), Moved::Out(0));
    assert_eq!(requests(&mut world).len(), 1);
}

#[test]
fn a_stopped_control_transfer_starts_over_with_its_setup_stage() {
    let mut world = world();
    let slot = addressed(&mut world, wire::usb::Speed::High);
    let [setup, data, status] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0], BUFFER);
    let sent = request(&mut world);
    let command = post_stop(&mut world, slot, 1);
    cancelled(&mut world, sent.id, 0);
    stopped(&mut world, command);
    assert_eq!(transfers(&mut world), [(setup, code::STOPPED, 0)]);
    assert_eq!(dequeue(&mut world, slot, 1), setup);
    messages(&mut world);
    world.ring_doorbell(slot, 1);
    let again = request(&mut world);
    assert_eq!(again.transfer, sent.transfer);
    world.host.give(again.id, vec![1; 18]);
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
    assert_ne!(data, status);
}

#[test]
fn a_stop_that_finds_the_endpoint_halting_reports_context_state_error() {
    let mut world = world();
    let slot = configured(&mut world);
    let (at, sent) = queue(&mut world, slot, BULK_IN, 2);
    let command = post_stop(&mut world, slot, BULK_IN);
    cancelled(&mut world, sent[1].id, 0);
    world.host.complete(sent[0].id, Err(Failure::Stall), Moved::In(Default::default()));
    assert_eq!(stopped(&mut world, command).code, code::CONTEXT_STATE);
    assert_eq!(transfers(&mut world), [(at[0], code::STALL, 1024)]);
}

#[test]
fn command_abort_ends_a_waiting_stop_and_the_ring() {
    let mut world = world();
    let slot = configured(&mut world);
    let (_, sent) = queue(&mut world, slot, BULK_IN, 1);
    let command = post_stop(&mut world, slot, BULK_IN);
    let crcr = world.operational() + 0x18;
    assert_eq!(world.host.read(crcr, pci::Width::Dword), 8, "CRR");
    world.host.write(crcr, pci::Width::Dword, 4);
    let events = world.events();
    let seen: Vec<_> = events.iter().map(|e| (e.kind, e.pointer, e.code)).collect();
    assert_eq!(seen, [(33, command, 25), (33, command + 16, 24)], "Command Aborted, Command Ring Stopped");
    assert_eq!(world.host.read(crcr, pci::Width::Dword), 0);
    // What was cancelled for the stop runs again.
    cancelled(&mut world, sent[0].id, 0);
    assert_eq!(requests(&mut world).len(), 1);
    assert_eq!(world.command(Trb::command(23, 0)).code, code::SUCCESS, "the doorbell restarts the ring");
}

#[test]
fn other_devices_go_on_while_a_stop_waits() {
    let mut world = world();
    let slot = configured(&mut world);
    queue(&mut world, slot, BULK_IN, 1);
    post_stop(&mut world, slot, BULK_IN);
    messages(&mut world);
    let at = world.transfer(slot, BULK_OUT, BUFFER, 512);
    let sent = request(&mut world);
    world.host.complete(sent.id, Ok(()), Moved::Out(512));
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
}
