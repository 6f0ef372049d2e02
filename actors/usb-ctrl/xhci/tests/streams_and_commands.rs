//! Streams through stops, halts, fences and new configurations. xHCI 1.2 §4.12, §4.6.

mod world;

use core::time::Duration;

use pci::{Dma, Width};
use wire::usb::{Failure, Moved, RequestId, ToRemote};
use world::{
    BULK_IN, BULK_OUT, TRB_RESET, TRB_STOP, messages,
    streamed::{ARRAY, BUFFER, INPUT, LINEAR, PRIMARY, SET_DEQUEUE, Streamed, configure, stream},
    transfers,
};
use xhci::driver::{Host, Trb, code, normal};

/// The stream contexts of the bulk OUT endpoint.
const OUT_ARRAY: u64 = 0x32_0000;

fn nothing() -> Moved {
    Moved::In(Default::default())
}

/// Configure Endpoint with these flags and, for each endpoint, its index and first dword.
fn configure_two(at: &mut Streamed, drop: u32, endpoints: &[(u8, u32)]) -> u8 {
    let store = |place: u64, dwords: &[u32]| {
        let bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
        at.world.host.ram.write(place, &bytes).unwrap();
    };
    let add = endpoints.iter().fold(1, |flags, (index, _)| flags | 1 << index);
    store(INPUT, &[drop, add]);
    store(INPUT + 0x20, &[4 << 27, 0, 0, 0]);
    for (index, first) in endpoints {
        let (kind, array) = if *index == BULK_OUT { (2, OUT_ARRAY) } else { (6, ARRAY) };
        let context = INPUT + 0x20 * (u64::from(*index) + 1);
        store(context, &[*first, 1024 << 16 | kind << 3 | 3 << 1, array as u32, 0, 0]);
    }
    at.world.command(Trb { parameter: INPUT, ..Trb::command(12, at.slot) }).code
}

/// What the remote is told of streams: the endpoints, how many, and under which id it answers.
fn told(at: &mut Streamed) -> Vec<(Vec<u8>, u16, RequestId)> {
    let streams = messages(&mut at.world).into_iter().filter_map(|message| match message {
        ToRemote::Streams { endpoints, count, id, .. } => {
            Some((endpoints.iter().map(|endpoint| endpoint.address()).collect(), count, id))
        }
        _ => None,
    });
    streams.collect()
}

fn array(log: u32) -> u32 {
    log << 10 | LINEAR
}

#[test]
fn two_endpoints_get_their_streams_together_as_many_as_the_larger_wants() {
    let mut at = Streamed::new();
    let both = [(BULK_OUT, array(1)), (BULK_IN, array(4))];
    assert_eq!(configure_two(&mut at, 1 << BULK_IN, &both), code::SUCCESS);
    let told = told(&mut at);
    let asked: Vec<_> = told.iter().map(|(endpoints, count, _)| (&endpoints[..], *count)).collect();
    assert_eq!(asked, [(&[0x81][..], 0), (&[0x01, 0x81][..], 31)], "first those there were are taken");
    let ring = at.world.ring();
    at.world.host.store(OUT_ARRAY + 16, &(ring.base() | 1 << 1 | 1).to_le_bytes());
    let mut ring = ring;
    ring.push(&mut at.world.host, normal(BUFFER, 8).with(Trb::IOC));
    let doorbell = 0x2000 + 4 * u64::from(at.slot);
    at.world.host.write(doorbell, Width::Dword, 1 << 16 | u64::from(BULK_OUT));
    at.rings[0] = at.world.ring();
    let base = at.rings[0].base();
    at.world.host.store(ARRAY + 16, &(base | 1 << 1 | 1).to_le_bytes());
    at.transfer(1, 8);
    assert!(messages(&mut at.world).is_empty(), "both wait");
    at.world.host.complete(told[0].2, Ok(()), Moved::Out(0));
    assert!(messages(&mut at.world).is_empty(), "that was about the old ones");
    at.world.host.complete(told[1].2, Ok(()), Moved::Out(31));
    let sent = at.requests();
    assert_eq!(
        sent.iter().map(|r| (r.endpoint.address(), stream(r))).collect::<Vec<_>>(),
        [(1, 1), (0x81, 1)]
    );
}

#[test]
fn another_count_takes_the_streams_away_and_gives_them_anew() {
    let mut at = Streamed::new();
    assert_eq!(configure(&mut at.world, at.slot, array(2)), code::SUCCESS);
    let counts: Vec<_> = told(&mut at).into_iter().map(|(_, count, _)| count).collect();
    assert_eq!(counts, [0, 7]);
}

#[test]
fn a_device_that_is_deconfigured_loses_its_streams() {
    let mut at = Streamed::new();
    assert_eq!(at.world.command(Trb::command(12, at.slot).with(1 << 9)).code, code::SUCCESS);
    let told = told(&mut at);
    assert_eq!(told.iter().map(|(of, count, _)| (&of[..], *count)).collect::<Vec<_>>(), [(&[0x81][..], 0)]);
}

#[test]
fn an_endpoint_that_is_made_anew_waits_for_its_own_streams_and_not_for_those_before() {
    let mut at = Streamed::new();
    assert_eq!(configure(&mut at.world, at.slot, array(PRIMARY)), code::SUCCESS);
    let first = told(&mut at);
    assert_eq!(configure(&mut at.world, at.slot, array(PRIMARY)), code::SUCCESS);
    let second = told(&mut at);
    at.rings[0] = at.world.ring();
    let base = at.rings[0].base();
    at.world.host.store(ARRAY + 16, &(base | 1 << 1 | 1).to_le_bytes());
    at.transfer(1, 8);
    for (_, count, id) in first.iter().chain(&second[..1]) {
        at.world.host.complete(*id, Ok(()), Moved::Out((*count).into()));
        assert!(messages(&mut at.world).is_empty(), "{id:?} is not what it waits for");
    }
    at.world.host.complete(second[1].2, Ok(()), Moved::Out(15));
    assert_eq!(at.requests().len(), 1);
    assert_eq!(at.world.host.xhci.stats().in_flight, 1);
}

#[test]
fn a_stream_that_the_device_was_not_given_fails_and_the_others_work() {
    let mut at = Streamed::new();
    assert_eq!(configure(&mut at.world, at.slot, array(PRIMARY)), code::SUCCESS);
    let told = told(&mut at);
    for number in 0..3 {
        at.rings[number] = at.world.ring();
        let base = at.rings[number].base();
        at.world.host.store(ARRAY + 16 * (number as u64 + 1), &(base | 1 << 1 | 1).to_le_bytes());
    }
    at.world.host.complete(told[0].2, Ok(()), Moved::Out(0));
    at.world.host.complete(told[1].2, Ok(()), Moved::Out(2));
    at.transfer(1, 8);
    at.transfer(2, 8);
    assert_eq!(at.requests().len(), 2);
    let third = at.transfer(3, 8);
    assert!(at.requests().is_empty());
    let failed = transfers(&mut at.world);
    assert_eq!(failed, [(third, code::TRANSACTION_ERROR, 8)]);
}

#[test]
fn a_stop_past_its_deadline_leaves_orphans_on_every_stream_and_each_finds_its_td() {
    let mut at = Streamed::new();
    let (one, two) = (at.transfer(1, 8), at.transfer(2, 8));
    let sent = at.requests();
    assert_eq!(at.command(TRB_STOP, 0, 0), code::SUCCESS);
    let stopped: Vec<_> = transfers(&mut at.world).iter().map(|e| (e.0, e.1)).collect();
    assert_eq!(stopped, [(one, code::STOPPED), (two, code::STOPPED)], "as if before the first byte");
    messages(&mut at.world);
    at.doorbell(2);
    at.doorbell(1);
    assert!(at.requests().is_empty(), "each waits for its own cancel");
    at.world.host.give(sent[1].id, &b"zweitens"[..]);
    at.world.host.complete(sent[0].id, Err(Failure::Cancelled), nothing());
    let again = at.requests();
    assert_eq!(again.iter().map(stream).collect::<Vec<_>>(), [1], "the second stream has its data");
    at.world.host.give(again[0].id, &b"erstens!"[..]);
    assert_eq!(transfers(&mut at.world), [(two, code::SUCCESS, 0), (one, code::SUCCESS, 0)]);
}

#[test]
fn a_stop_of_streams_that_is_aborted_has_not_happened() {
    let mut at = Streamed::new();
    let (one, two) = (at.transfer(1, 8), at.transfer(2, 8));
    let sent = at.requests();
    let stop = at.world.post_command(Trb::command(TRB_STOP, at.slot).with(u32::from(BULK_IN) << 16));
    at.world.host.complete(sent[1].id, Err(Failure::Cancelled), nothing());
    at.world.host.write(at.world.operational() + 0x18, Width::Dword, 4);
    let codes: Vec<_> = at.world.events().iter().map(|e| (e.pointer, e.code)).collect();
    assert_eq!(codes, [(stop, 25), (stop + 16, 24)], "Command Aborted, Command Ring Stopped");
    at.world.host.complete(sent[0].id, Err(Failure::Cancelled), nothing());
    let again = at.requests();
    assert_eq!(again.iter().map(stream).collect::<Vec<_>>(), [2, 1]);
    for request in &again {
        at.world.host.give(request.id, vec![1; 8]);
    }
    assert_eq!(transfers(&mut at.world), [(two, code::SUCCESS, 0), (one, code::SUCCESS, 0)]);
}

/// Clearing the halt ends what is in flight on every stream: it is cancelled here, so that its end is no error.
#[test]
fn clear_halt_cancels_the_tds_of_all_streams_and_they_run_again_behind_it() {
    let mut at = Streamed::new();
    let (one, two) = (at.transfer(1, 8), at.transfer(2, 8));
    let sent = at.requests();
    at.world.control(at.slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    let Some(ToRemote::Submit(clear)) = messages(&mut at.world).into_iter().next() else { panic!() };
    at.world.events();
    for request in &sent {
        at.world.host.complete(request.id, Err(Failure::Cancelled), nothing());
    }
    at.transfer(3, 8);
    assert!(at.requests().is_empty(), "all streams wait for the halt to be cleared");
    at.world.host.complete(clear.id, Ok(()), Moved::Out(0));
    let again = at.requests();
    assert_eq!(again.iter().map(stream).collect::<Vec<_>>(), [1, 2, 3]);
    at.world.host.give(again[0].id, vec![1; 8]);
    at.world.host.give(again[1].id, vec![1; 8]);
    assert_eq!(transfers(&mut at.world), [(one, code::SUCCESS, 0), (two, code::SUCCESS, 0)]);
}

/// Some drivers write SCT 0, although there are no secondary arrays: what they wrote is what they find again.
#[test]
fn a_context_keeps_the_stream_context_type_that_the_driver_wrote() {
    for kind in [0_u64, 1] {
        let mut at = Streamed::new();
        let base = at.rings[0].base();
        at.world.host.store(ARRAY + 16, &(base | kind << 1 | 1).to_le_bytes());
        let one = at.transfer(1, 8);
        let sent = at.requests();
        at.world.post_command(Trb::command(TRB_STOP, at.slot).with(u32::from(BULK_IN) << 16));
        at.world.host.complete(sent[0].id, Err(Failure::Cancelled), nothing());
        assert_eq!(at.dequeue_of(1), one | kind << 1 | 1, "SCT {kind}");
    }
}

/// A stream whose ring makes no sense, told once, is no reason to stop the others for ever.
#[test]
fn after_an_error_on_one_stream_the_others_run_without_it() {
    let mut at = Streamed::new();
    let ring = &mut at.rings[0];
    let wrong = ring.push(&mut at.world.host, Trb { parameter: 0, status: 0, control: 55 << 10 });
    at.doorbell(1);
    assert_eq!(transfers(&mut at.world), [(wrong, code::TRB_ERROR, 0)]);
    // The driver looks after another stream first.
    let two = at.rings[1].base();
    assert_eq!(at.command(SET_DEQUEUE, two | 3, 2 << 16), code::SUCCESS);
    let second = at.transfer(2, 8);
    let sent = at.requests();
    assert_eq!(sent.iter().map(stream).collect::<Vec<_>>(), [2]);
    at.world.host.give(sent[0].id, vec![1; 8]);
    assert_eq!(transfers(&mut at.world), [(second, code::SUCCESS, 0)]);
    at.doorbell(1);
    assert_eq!(transfers(&mut at.world), [(wrong, code::TRB_ERROR, 0)], "it still makes no sense");
}

/// A stall on one stream while another one's ring makes no sense: both are told, and one recovery is enough.
#[test]
fn a_stall_and_a_senseless_ring_at_once_end_with_streams_that_run() {
    let mut at = Streamed::new();
    let one = at.transfer(1, 8);
    let sent = at.requests();
    at.world.host.complete(sent[0].id, Err(Failure::Stall), nothing());
    assert_eq!(transfers(&mut at.world), [(one, code::STALL, 8)]);
    let wrong = at.rings[1].push(&mut at.world.host, Trb { parameter: 0, status: 0, control: 55 << 10 });
    at.doorbell(2);
    assert_eq!(at.command(TRB_RESET, 0, 0), code::SUCCESS);
    assert_eq!(at.command(SET_DEQUEUE, (one + 16) | 3, 1 << 16), code::SUCCESS);
    at.doorbell(2);
    assert_eq!(transfers(&mut at.world), [(wrong, code::TRB_ERROR, 0)]);
    assert_eq!(at.command(SET_DEQUEUE, (wrong + 16) | 3, 2 << 16), code::SUCCESS);
    let next = at.transfer(1, 8);
    at.world.host.wait(Duration::from_millis(1));
    let sent = at.requests();
    at.world.host.give(sent[0].id, vec![1; 8]);
    assert_eq!(transfers(&mut at.world), [(next, code::SUCCESS, 0)]);
}
