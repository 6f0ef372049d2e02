//! Recording beside a data path.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
};

use bytes::Bytes;
use capture::{Tap, Totals, record, record_into};
use wire::{
    Lane,
    usb::{Completion, DeviceId, Endpoint, Failure, Moved, Payload, Request, RequestId, Transfer},
};

/// A file that stands still until it is told to go on.
struct Slow {
    go: Option<Receiver<()>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Slow {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        // The beginning of the file is written at once.
        if bytes.len() > 80
            && let Some(go) = self.go.take()
        {
            let _ = go.recv();
        }
        bytes.extend(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn out(id: u64, length: usize) -> Request {
    let data = Bytes::from(vec![0; length]);
    let endpoint = Endpoint::from_address(2).unwrap();
    let transfer = Transfer::Bulk { stream: 0 };
    Request { id: RequestId(id), device: DeviceId(1), endpoint, transfer, payload: Payload::Out(data) }
}

fn ended(id: u64) -> Completion {
    let (result, moved) = (Err(Failure::Cancelled), Moved::Out(0));
    Completion { id: RequestId(id), result, moved, packets: Vec::new(), lane: Lane::Bulk }
}

fn pair(tap: &mut Tap, id: u64) {
    tap.submitted(&out(id, 10));
    tap.ended(&ended(id));
}

#[test]
fn a_request_and_its_end_are_two_records_and_what_nobody_asked_for_is_none() {
    let bytes = Arc::default();
    let (mut tap, writer) = record(Slow { go: None, bytes: Arc::clone(&bytes) }, "x").unwrap();
    pair(&mut tap, 1);
    tap.ended(&ended(1));
    tap.ended(&ended(99));
    tap.submitted(&out(2, 10));
    tap.renew();
    tap.ended(&ended(2));
    assert_eq!(writer.finish().unwrap(), Totals { records: 3, dropped: 0 });
    let letters: Vec<u8> = records(&bytes.lock().unwrap()).iter().map(|record| record[8]).collect();
    assert_eq!(letters, *b"SCS");
}

#[test]
fn a_file_that_stands_still_never_holds_the_data_path_up_and_what_is_dropped_is_counted() {
    for (length, most) in [(10, 4096 + 1), (1 << 20, 16 + 1)] {
        let (go, wait) = channel();
        let (mut tap, writer) = record(Slow { go: Some(wait), bytes: Arc::default() }, "x").unwrap();
        // Nobody writes, and this ends all the same.
        (0..6000).for_each(|id| tap.submitted(&out(id, length)));
        go.send(()).unwrap();
        let Totals { records, dropped } = writer.finish().unwrap();
        assert_eq!(records + dropped, 6000);
        // What fits into the buffer before the file may have gone already.
        assert!((16..=most + 200).contains(&records), "{records} of {length} bytes");
    }
}

#[test]
fn a_file_that_cannot_be_written_ends_the_capture_not_the_data_path() {
    struct Full(u32);
    impl Write for Full {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 1 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(data.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut tap, writer) = record(Full(0), "x").unwrap();
    (0..20_000).for_each(|id| pair(&mut tap, id));
    assert_eq!(writer.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    pair(&mut tap, 20_000);
}

#[test]
fn a_capture_is_whole_while_nothing_happens_and_the_one_before_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pcapng");
    std::fs::write(&path, "before").unwrap();
    let (mut tap, writer) = record_into(&path, "x").unwrap();
    assert_eq!(std::fs::read(path.with_added_extension("old")).unwrap(), b"before");
    pair(&mut tap, 1);
    while records(&std::fs::read(&path).unwrap()).len() < 2 {
        std::thread::yield_now();
    }
    writer.finish().unwrap();
}

/// The packets of a capture, as long as there are whole ones.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while bytes.len() >= 12 {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let length = word(4);
        if bytes.len() < length {
            break;
        }
        if word(0) == 6 {
            packets.push(bytes[28..28 + word(20)].to_vec());
        }
        bytes = &bytes[length..];
    }
    packets
}
