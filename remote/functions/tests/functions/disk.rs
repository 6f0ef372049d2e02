//! The disk's SCSI commands.

use functions::Disk;

use crate::{
    bot::{READ_1, WRITE_1, cbw, disk, read, status, write},
    host::{Host, Memory},
};

const FLUSH: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn with(medium: Memory) -> Host<Disk<Memory>> {
    Host::new(Disk::new(medium, "S1"))
}

#[test]
fn what_was_written_is_read_back_with_every_length_of_command() {
    let (read_6, write_6) = ([0x08, 0, 0, 9, 2, 0], [0x0a, 0, 0, 9, 2, 0]);
    let (read_10, write_10) = ([0x28, 0, 0, 0, 0, 9, 0, 0, 2, 0], [0x2a, 0, 0, 0, 0, 9, 0, 0, 2, 0]);
    let twelve = |operation| [operation, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0];
    let sixteen = |operation| [operation, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0];
    let (read_12, write_12) = (twelve(0xa8), twelve(0xaa));
    let (read_16, write_16) = (sixteen(0x88), sixteen(0x8a));
    let reads: [&[u8]; 4] = [&read_6, &read_10, &read_12, &read_16];
    let writes: [&[u8]; 4] = [&write_6, &write_10, &write_12, &write_16];
    for (n, (reader, writer)) in reads.into_iter().zip(writes).enumerate() {
        let mut host = disk();
        let bytes = vec![n as u8 + 1; 1024];
        assert_eq!(write(&mut host, writer, bytes.clone()), (0, 0), "{writer:x?}");
        assert_eq!(read(&mut host, 1024, reader), (bytes, 0, 0), "{reader:x?}");
    }
}

#[test]
fn a_flush_or_a_write_that_asks_for_it_reaches_the_medium_before_its_status() {
    let medium = Memory::new(64);
    let flushes = medium.flushes.clone();
    let mut host = with(medium);
    write(&mut host, &WRITE_1, vec![1; 512]);
    assert_eq!(flushes.get(), 0);
    host.output(cbw(0, false, &FLUSH));
    assert_eq!((status(&mut host), flushes.get()), ((0, 0), 1));
    let mut force_unit_access = WRITE_1;
    force_unit_access[1] = 0x08;
    assert_eq!((write(&mut host, &force_unit_access, vec![2; 512]), flushes.get()), ((0, 0), 2));
}

#[test]
fn a_command_that_fails_says_why_when_asked() {
    const FAR: [u8; 16] = [0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0];
    const TOO_FAR_IN_BYTES: [u8; 16] = [0x88, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const CASES: [(&str, &[u8], (u8, u8)); 9] = [
        ("unknown command", &[0xff; 6], (5, 0x20)),
        ("beyond the end", &[0x28, 0, 0, 0, 0, 64, 0, 0, 1, 0], (5, 0x21)),
        ("far beyond the end", &FAR, (5, 0x21)),
        ("a sector whose byte has no number", &TOO_FAR_IN_BYTES, (5, 0x21)),
        ("verify beyond the end", &[0x2f, 0, 0, 0, 0, 64, 0, 0, 1, 0], (5, 0x21)),
        ("a vital page that is not there", &[0x12, 1, 0xb0, 0, 64, 0], (5, 0x24)),
        ("a mode page that is not there", &[0x1a, 0, 0x1c, 0, 64, 0], (5, 0x24)),
        ("a broken sector", &[0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0], (3, 0x11)),
        ("verify of a broken sector", &[0x2f, 0, 0, 0, 0, 4, 0, 0, 8, 0], (3, 0x11)),
    ];
    for (name, block, sense) in CASES {
        let mut host = with(Memory { broken_sector: Some(5), ..Memory::new(64) });
        let (data, _, code) = read(&mut host, 512, block);
        assert_eq!((data.len(), code), (0, 1), "{name}");
        let (told, ..) = read(&mut host, 18, &[0x03, 0, 0, 0, 18, 0]);
        assert_eq!((told[2], told[12]), sense, "{name}");
        let (told, ..) = read(&mut host, 18, &[0x03, 0, 0, 0, 18, 0]);
        assert_eq!(told[2], 0, "{name}: told once");
    }
}

#[test]
fn a_write_that_fails_takes_the_data_and_fails_in_its_status() {
    let mut host = with(Memory { broken_sector: Some(2), ..Memory::new(64) });
    assert_eq!(write(&mut host, &WRITE_1, vec![1; 512]), (512, 1));
    let (told, ..) = read(&mut host, 18, &[0x03, 0, 0, 0, 18, 0]);
    assert_eq!((told[2], told[12]), (3, 0x0c));
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    for (read_only, protection, status) in [(true, 0x90, (512, 1)), (false, 0x10, (0, 0))] {
        let mut host = with(Memory { read_only, ..Memory::new(64) });
        let (six, ..) = read(&mut host, 192, &[0x1a, 0, 0x3f, 0, 192, 0]);
        let (ten, ..) = read(&mut host, 192, &[0x5a, 0, 0x08, 0, 0, 0, 0, 0, 192, 0]);
        assert_eq!((six[2], ten[3]), (protection, protection));
        assert_eq!((usize::from(six[0]) + 1, usize::from(ten[1]) + 2), (six.len(), ten.len()));
        assert_eq!(write(&mut host, &WRITE_1, vec![0; 512]), status);
    }
}

#[test]
fn the_capacity_is_the_mediums_in_whole_sectors() {
    let mut memory = Memory::new(64);
    memory.bytes.extend([0; 100]);
    let mut host = with(memory);
    let (ten, ..) = read(&mut host, 8, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ten, [0, 0, 0, 63, 0, 0, 2, 0]);
    let (sixteen, ..) = read(&mut host, 32, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
    assert_eq!(sixteen[..12], [0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 2, 0]);
}

#[test]
fn an_inquiry_names_the_disk_and_its_serial_number() {
    let mut host = with(Memory::new(64));
    let (standard, residue, _) = read(&mut host, 255, &[0x12, 0, 0, 0, 255, 0]);
    assert_eq!((standard.len(), residue), (36, 219));
    assert_eq!(&standard[8..32], b"Farbus  Disk            ");
    let (serial, ..) = read(&mut host, 255, &[0x12, 1, 0x80, 0, 255, 0]);
    assert_eq!(serial, b"\0\x80\0\x02S1");
    let (id, ..) = read(&mut host, 255, &[0x12, 1, 0x83, 0, 255, 0]);
    assert_eq!(id, b"\0\x83\0\x0e\x02\x01\0\x0aFarbus  S1");
}

#[test]
fn a_medium_that_gives_too_little_has_failed() {
    let mut host = with(Memory { short: true, ..Memory::new(64) });
    let (data, _, code) = read(&mut host, 512, &READ_1);
    assert_eq!((data.len(), code), (0, 1));
}
