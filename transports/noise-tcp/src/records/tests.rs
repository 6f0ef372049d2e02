//! Records, by the bytes.

use proptest::prelude::*;
use snow::Builder;

use super::*;

const NEVER: RekeyAfter = RekeyAfter { records: u64::MAX, bytes: u64::MAX };

/// The two ends of a finished handshake.
fn states() -> (TransportState, TransportState) {
    let suite: snow::params::NoiseParams = "Noise_NN_25519_ChaChaPoly_BLAKE2s".parse().unwrap();
    let mut a = Builder::new(suite.clone()).build_initiator().unwrap();
    let mut b = Builder::new(suite).build_responder().unwrap();
    let (mut message, mut payload) = ([0; 100], [0; 100]);
    let len = a.write_message(&[], &mut message).unwrap();
    b.read_message(&message[..len], &mut payload).unwrap();
    let len = b.write_message(&[], &mut message).unwrap();
    a.read_message(&message[..len], &mut payload).unwrap();
    (a.into_transport_mode().unwrap(), b.into_transport_mode().unwrap())
}

fn frame(lane: Lane, size: usize) -> Frame {
    Frame { lane, head: Bytes::new(), body: vec![size as u8; size].into() }
}

/// The next record, taken off the sealer.
fn record(sealer: &mut Sealer, noise: &mut TransportState) -> Vec<u8> {
    sealer.seal(noise).unwrap();
    let record = sealer.unwritten().to_vec();
    sealer.written(record.len());
    record
}

/// A record with this plaintext.
fn raw(plain: &[u8], noise: &mut TransportState) -> Vec<u8> {
    let mut sealer = Sealer::new(NEVER);
    sealer.plain.extend_from_slice(plain);
    record(&mut sealer, noise)
}

/// Everything that can be read of these bytes.
fn read(opener: &mut Opener, bytes: &[u8], noise: &mut TransportState) -> Result<Vec<Item>, LinkError> {
    let mut items = Vec::new();
    let mut bytes = bytes;
    loop {
        while let Some(item) = opener.next(noise)? {
            items.push(item);
        }
        if opener.open(noise)? {
            continue;
        }
        if bytes.is_empty() {
            return Ok(items);
        }
        let room = opener.room();
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        opener.filled(len);
        bytes = &bytes[len..];
    }
}

#[test]
fn small_frames_share_a_record_and_large_ones_fill_one() {
    let (mut a, mut b) = states();
    let mut sealer = Sealer::new(NEVER);
    for size in [0, 5, 100] {
        sealer.push(&frame(Lane::Int, size), &mut a).unwrap();
    }
    sealer.push(&frame(Lane::Bulk, MAX_FRAME), &mut a).unwrap();
    let small = sealer.unwritten().to_vec();
    sealer.written(small.len());
    assert_eq!(
        small.len(),
        PREFIX + 3 * FRAME_PREFIX + 105 + TAG,
        "one record, sealed when the large one came"
    );
    let large = record(&mut sealer, &mut a);
    let items = read(&mut Opener::new(), &[small, large].concat(), &mut b).unwrap();
    let expected = [(Lane::Int, 0), (Lane::Int, 5), (Lane::Int, 100), (Lane::Bulk, MAX_FRAME)];
    assert_eq!(items, expected.map(|(lane, size)| Item::Frame(lane, frame(lane, size).body)));
}

#[test]
fn each_direction_changes_its_key_on_the_same_record() {
    let (mut a, mut b) = states();
    let mut sealer = Sealer::new(RekeyAfter { records: 3, bytes: u64::MAX });
    let mut opener = Opener::new();
    for at in 0..20 {
        sealer.push(&frame(Lane::Bulk, MAX_FRAME - at), &mut a).unwrap();
        let record = record(&mut sealer, &mut a);
        let items = read(&mut opener, &record, &mut b).unwrap();
        assert_eq!(items.len(), 1, "record {at}");
    }
    assert_eq!(
        (a.sending_nonce(), b.receiving_nonce()),
        (20, 20),
        "a new key does not start the count again"
    );
}

#[test]
fn the_key_does_change() {
    let (mut a, mut b) = states();
    let mut sealer = Sealer::new(RekeyAfter { records: 1, bytes: u64::MAX });
    sealer.push(&frame(Lane::Ctl, 1), &mut a).unwrap();
    let first = record(&mut sealer, &mut a);
    sealer.push(&frame(Lane::Ctl, 2), &mut a).unwrap();
    let second = record(&mut sealer, &mut a);
    // A reader that ignores the switch: it opens the first record, and cannot open the second.
    let mut plain = [0; 100];
    b.read_message(&first[PREFIX..], &mut plain).unwrap();
    assert!(b.read_message(&second[PREFIX..], &mut plain).is_err());
    b.rekey_incoming();
    b.read_message(&second[PREFIX..], &mut plain).unwrap();
}

#[test]
fn a_rekey_by_bytes_comes_in_time() {
    let (mut a, mut b) = states();
    let mut sealer = Sealer::new(RekeyAfter { records: u64::MAX, bytes: 100_000 });
    let (mut opener, mut plain_before) = (Opener::new(), Vec::new());
    for _ in 0..8 {
        sealer.push(&frame(Lane::Bulk, 30_000), &mut a).unwrap();
        let record = record(&mut sealer, &mut a);
        plain_before.push(record.len());
        assert_eq!(read(&mut opener, &record, &mut b).unwrap().len(), 1);
    }
    let longer = plain_before.iter().filter(|len| **len == PREFIX + 2 * FRAME_PREFIX + 30_000 + TAG).count();
    assert_eq!(longer, 2, "the fourth and the eighth record carry the switch");
}

#[test]
fn a_record_that_breaks_the_rules_ends_the_link() {
    let cases: [(&str, &[u8]); 6] = [
        ("half a frame prefix", &[0, 0]),
        ("a frame longer than its record", &[0, 0, 5, 1, 2]),
        ("an unknown lane", &[5, 0, 0]),
        ("a rekey that is not last", &[REKEY, 0, 0, 0, 0, 0]),
        ("a rekey with bytes", &[REKEY, 0, 1, 7]),
        ("bytes after a frame", &[0, 0, 1, 9, 9]),
    ];
    for (name, plain) in cases {
        let (mut a, mut b) = states();
        let record = raw(plain, &mut a);
        let end = read(&mut Opener::new(), &record, &mut b);
        assert!(matches!(end, Err(LinkError::Misbehaved(_))), "{name}: {end:?}");
    }
}

#[test]
fn a_replayed_swapped_or_shortened_record_ends_the_link() {
    for [first, second] in [[0, 0], [1, 0], [0, 2]] {
        let (mut a, mut b) = states();
        let records: Vec<_> = (0..3).map(|at| raw(&[0, 0, 1, at], &mut a)).collect();
        let end = read(&mut Opener::new(), &[&records[first][..], &records[second]].concat(), &mut b);
        assert!(matches!(end, Err(LinkError::Misbehaved(_))), "{first}, then {second}: {end:?}");
    }
    for len in 0..TAG {
        let (_, mut b) = states();
        let short = [&(len as u16).to_be_bytes()[..], &vec![0; len]].concat();
        let end = read(&mut Opener::new(), &short, &mut b);
        assert!(matches!(end, Err(LinkError::Misbehaved(_))), "{len}: {end:?}");
    }
}

#[test]
fn a_small_frame_does_not_keep_its_record_in_memory() {
    let (mut a, mut b) = states();
    let mut sealer = Sealer::new(NEVER);
    sealer.push(&frame(Lane::Ctl, 10), &mut a).unwrap();
    sealer.push(&frame(Lane::Bulk, 10_000), &mut a).unwrap();
    let record = record(&mut sealer, &mut a);
    let mut items = read(&mut Opener::new(), &record, &mut b).unwrap();
    items.truncate(1);
    let Some(Item::Frame(_, small)) = items.pop() else { panic!("no frame") };
    assert!(small.try_into_mut().is_ok_and(|alone| alone.capacity() < 1_000));
}

proptest! {
    #[test]
    fn frames_arrive_whatever_pieces_the_network_makes(
        sizes in proptest::collection::vec(prop_oneof![0usize..50, 0usize..MAX_FRAME], 1..30),
        pieces in proptest::collection::vec(1usize..70_000, 1..20),
        rekey in 1u64..5,
    ) {
        let (mut a, mut b) = states();
        let mut sealer = Sealer::new(RekeyAfter { records: rekey, bytes: u64::MAX });
        let mut bytes = Vec::new();
        for size in &sizes {
            sealer.push(&frame(Lane::Bulk, *size), &mut a).unwrap();
            bytes.extend_from_slice(sealer.unwritten());
            sealer.written(sealer.unwritten().len());
            if sealer.full() {
                bytes.extend(record(&mut sealer, &mut a));
            }
        }
        bytes.extend(record(&mut sealer, &mut a));
        let (mut opener, mut items, mut rest) = (Opener::new(), Vec::new(), &bytes[..]);
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            items.extend(read(&mut opener, now, &mut b).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(items.len(), sizes.len());
        for (item, size) in items.iter().zip(&sizes) {
            prop_assert_eq!(item, &Item::Frame(Lane::Bulk, frame(Lane::Bulk, *size).body));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        plain in proptest::collection::vec(any::<u8>(), 0..200),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mut a, mut b) = states();
        let _ = read(&mut Opener::new(), &raw(&plain, &mut a), &mut b);
        prop_assert!(read(&mut Opener::new(), &noise, &mut b).is_ok_and(|items| items.is_empty())
            || noise.len() >= PREFIX);
    }
}
