use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;

fn memfd(pages: u64) -> File {
    let file = memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, pages * 4096).unwrap();
    file.into()
}

fn copy(file: &File) -> Option<OwnedFd> {
    Some(file.as_fd().try_clone_to_owned().unwrap())
}

fn ask(address: u64, offset: u64, pages: u64) -> DmaMap {
    DmaMap { argsz: 32, flags: READABLE | WRITABLE, offset, address, size: pages * 4096 }
}

fn memory() -> Memory {
    Memory::new(Arc::default())
}

#[test]
fn bytes_of_any_alignment_arrive_where_they_belong() {
    let (memory, file) = (memory(), memfd(4));
    memory.map(ask(0x10_0000, 0x1000, 3), copy(&file)).unwrap();
    let data: Vec<u8> = (0..64).collect();
    for (at, length) in [(0, 1), (1, 7), (3, 13), (5, 8), (8, 16), (2, 40), (7, 64)] {
        memory.write(0x10_0000 + at, &data[..length]).unwrap();
        let mut back = vec![0xaa; length];
        memory.read(0x10_0000 + at, &mut back).unwrap();
        assert_eq!(back, data[..length], "{length} at {at}");
        let mut in_file = vec![0; length];
        file.read_exact_at(&mut in_file, 0x1000 + at).unwrap();
        assert_eq!(in_file, data[..length], "{length} at {at}");
    }
}

#[test]
fn a_transfer_crosses_windows_that_touch_and_stops_at_holes() {
    let (memory, low, high) = (memory(), memfd(1), memfd(1));
    memory.map(ask(0x1000, 0, 1), copy(&low)).unwrap();
    memory.map(ask(0x2000, 0, 1), copy(&high)).unwrap();
    memory.write(0x1ffd, b"across").unwrap();
    let mut back = [0; 6];
    memory.read(0x1ffd, &mut back).unwrap();
    assert_eq!(&back, b"across");
    let mut in_high = [0; 3];
    high.read_exact_at(&mut in_high, 0).unwrap();
    assert_eq!(&in_high, b"oss");
    for (address, length) in [(0xfff, 2), (0x2fff, 2), (0x3000, 1), (u64::MAX, 1), (u64::MAX - 1, 4)] {
        assert_eq!(memory.read(address, &mut vec![0; length]), Err(DmaError::Unmapped), "{address:#x}");
        assert_eq!(memory.write(address, &vec![0; length]), Err(DmaError::Unmapped), "{address:#x}");
    }
    assert_eq!(memory.read(0x9000, &mut []), Ok(()), "nothing can be read anywhere");
}

#[test]
fn dwords_are_observed_and_published() {
    let (memory, file) = (memory(), memfd(1));
    memory.map(ask(0, 0, 1), copy(&file)).unwrap();
    memory.publish(0x10, 0x1122_3344).unwrap();
    let mut back = [0; 4];
    file.read_exact_at(&mut back, 0x10).unwrap();
    assert_eq!(back, [0x44, 0x33, 0x22, 0x11]);
    assert_eq!(memory.observe(0x10), Ok(0x1122_3344));
    assert_eq!(memory.observe(0x12), Err(DmaError::Misaligned));
    assert_eq!(memory.publish(0x11, 0), Err(DmaError::Misaligned));
    assert_eq!(memory.observe(0x1000), Err(DmaError::Unmapped));
}

#[test]
fn the_direction_of_a_mapping_is_kept() {
    let (memory, file) = (memory(), memfd(2));
    memory.map(DmaMap { flags: READABLE, ..ask(0, 0, 1) }, copy(&file)).unwrap();
    memory.map(DmaMap { flags: WRITABLE, ..ask(0x1000, 0, 1) }, copy(&file)).unwrap();
    assert_eq!(memory.write(0, &[1]), Err(DmaError::Protected));
    assert_eq!(memory.publish(0, 1), Err(DmaError::Protected));
    assert_eq!(memory.read(0x1000, &mut [0]), Err(DmaError::Protected));
    memory.write(0x1000, &[7]).unwrap();
    let mut seen = [0];
    memory.read(0, &mut seen).unwrap();
    assert_eq!(seen, [7]);
}

#[test]
fn a_file_is_mapped_once_however_often_its_windows_move() {
    let (memory, file) = (memory(), memfd(16));
    for round in 0..100 {
        for window in 0..4 {
            memory.map(ask(window * 0x8000, window * 0x4000, 4), copy(&file)).unwrap();
        }
        memory.write(round * 4, &[round as u8]).unwrap();
        if round % 2 == 0 {
            memory.unmap_all();
        } else {
            (0..4).for_each(|window| memory.unmap(window * 0x8000, 0x4000).unwrap());
        }
        assert_eq!(memory.read(round * 4, &mut [0]), Err(DmaError::Unmapped));
    }
    assert_eq!(memory.files.borrow().len(), 1);
    assert_eq!(memory.status.shared_memory(), (0, 0));
}

#[test]
fn files_that_nobody_shows_any_more_are_let_go() {
    let memory = memory();
    for _ in 0..100 {
        memory.map(ask(0, 0, 1), copy(&memfd(1))).unwrap();
        memory.unmap(0, 0x1000).unwrap();
    }
    assert!(memory.files.borrow().len() <= MAX_IDLE + 1);
    memory.forget();
    assert!(memory.files.borrow().is_empty());
}

#[test]
fn memory_that_is_not_shared_is_recorded_and_out_of_reach() {
    let memory = memory();
    memory.map(ask(0, 0, 16), None).unwrap();
    let (_, pipe) = rustix::pipe::pipe().unwrap();
    memory.map(ask(0x10_0000, 0, 1), Some(pipe)).unwrap();
    assert_eq!(memory.read(0, &mut [0]), Err(DmaError::Unmapped));
    assert_eq!(memory.read(0x10_0000, &mut [0]), Err(DmaError::Unmapped));
    assert_eq!(memory.status.private_memory(), (2, 17 * 4096));
    assert_eq!(memory.map(ask(0x1000, 0, 1), None), Err(Refusal::Exists));
    memory.unmap(0, 16 * 4096).unwrap();
    assert_eq!(memory.status.private_memory(), (1, 4096));
}

#[test]
fn a_file_that_is_too_short_is_refused_and_one_that_has_grown_is_mapped_anew() {
    let (memory, file) = (memory(), memfd(1));
    memory.map(ask(0, 0, 1), copy(&file)).unwrap();
    assert_eq!(memory.map(ask(0x1000, 0x1000, 1), copy(&file)), Err(Refusal::Invalid));
    ftruncate(&file, 0x2000).unwrap();
    memory.map(ask(0x1000, 0x1000, 1), copy(&file)).unwrap();
    memory.write(0xfff, &[1, 2]).unwrap();
    let mut back = [0; 2];
    file.read_exact_at(&mut back, 0xfff).unwrap();
    assert_eq!(back, [1, 2]);
}

#[test]
fn a_file_that_is_open_for_reading_only_cannot_be_mapped_for_writing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ram");
    std::fs::write(&path, [5; 4096]).unwrap();
    let memory = memory();
    let reader = File::open(&path).unwrap();
    assert_eq!(memory.map(ask(0, 0, 1), copy(&reader)), Err(Refusal::NoMemory));
    memory.map(DmaMap { flags: READABLE, ..ask(0, 0, 1) }, copy(&reader)).unwrap();
    let mut seen = [0];
    memory.read(0, &mut seen).unwrap();
    assert_eq!(seen, [5]);
}

/// platform attack case 34: an unsealed file is truncated in the middle of a transfer.
#[test]
fn memory_that_is_truncated_under_us_poisons_the_device_and_nothing_else() {
    let (bad, good) = (memory(), memory());
    let (file, other) = (memfd(4), memfd(1));
    bad.map(ask(0, 0, 4), copy(&file)).unwrap();
    good.map(ask(0, 0, 1), copy(&other)).unwrap();
    bad.write(0x3000, &[1; 64]).unwrap();
    ftruncate(&file, 0x1000).unwrap();
    assert_eq!(bad.read(0x800, &mut [0; 0x1000]), Err(DmaError::Unmapped));
    assert!(bad.status.poisoned());
    for address in [0, 0x2000] {
        assert_eq!(bad.write(address, &[1]), Err(DmaError::Unmapped));
        assert_eq!(bad.observe(address), Err(DmaError::Unmapped));
    }
    good.write(0, &[1]).unwrap();
    assert!(!good.status.poisoned());
    bad.forget();
    bad.map(ask(0, 0, 1), copy(&other)).unwrap();
    assert_eq!(bad.read(0, &mut [0]), Ok(()), "a new client, a new chance");
}

/// platform attack case 34: 65 536 maps.
#[test]
fn the_number_of_mappings_is_bounded() {
    let (memory, file) = (memory(), memfd(1));
    for page in 0..65_535 {
        memory.map(ask(page * 0x1000, 0, 1), copy(&file)).unwrap();
    }
    assert_eq!(memory.map(ask(1 << 40, 0, 1), copy(&file)), Err(Refusal::NoSpace));
    assert_eq!(memory.status.shared_memory().0, 65_535);
    assert_eq!(memory.files.borrow().len(), 1);
}
