//! The server against the crate that Cloud Hypervisor uses. Each of its calls reads a fixed number of bytes: a reply
//! of another length would hang the call, or spoil the next one.

use std::os::fd::AsRawFd;

use crate::desk::{Desk, LOOK, PUT, RAISE, RESETS, RESULT, eventfd, memfd, signals};
use vfio_user::Client as Kind;
use vfio_user_crate::Client;

fn read(client: &mut Client, offset: u64) -> u64 {
    let mut data = [0; 8];
    client.region_read(0, offset, &mut data).unwrap();
    u64::from_le_bytes(data)
}

fn write(client: &mut Client, offset: u64, value: u64) {
    client.region_write(0, offset, &value.to_le_bytes()).unwrap();
}

#[test]
fn it_finds_the_regions_and_interrupts_of_the_function() {
    let desk = Desk::new();
    let mut client = Client::new(&desk.path).unwrap();
    assert_eq!(desk.status.client(), Some(Kind::CloudHypervisor));
    for (index, size) in (0..).zip([0x1000, 0, 0, 0, 0, 0, 0, 4096, 0]) {
        let region = client.region(index).unwrap();
        assert_eq!((region.size, region.flags), (size, if size > 0 { 3 } else { 0 }), "region {index}");
        assert!(region.file_offset.is_none() && region.sparse_areas.is_empty());
    }
    assert!(client.region(9).is_none());
    for (index, count) in (0..).zip([0, 4, 0, 0, 0]) {
        let info = client.get_irq_info(index).unwrap();
        assert_eq!((info.index, info.count), (index, count));
    }
}

#[test]
fn everything_it_does_is_answered_to_the_byte() {
    let desk = Desk::new();
    let mut client = Client::new(&desk.path).unwrap();
    let (ram, wires) = (memfd(16), [eventfd(), eventfd()]);
    client.reset().unwrap();
    assert_eq!(read(&mut client, RESETS), 2);

    client.dma_map(0, 0x10_0000, 16 * 4096, ram.as_raw_fd()).unwrap();
    write(&mut client, RESULT, 77);
    write(&mut client, PUT, 0x10_0040);
    write(&mut client, LOOK, 0x10_0040);
    assert_eq!(read(&mut client, RESULT), 77);

    client.set_irqs(1, 0x24, 0, 2, &wires.each_ref().map(AsRawFd::as_raw_fd)).unwrap();
    write(&mut client, RAISE, 1);
    assert_eq!(wires.each_ref().map(signals), [0, 1]);
    client.set_irqs(1, 0x21, 0, 0, &[]).unwrap();
    write(&mut client, RAISE, 1);
    assert_eq!(wires.each_ref().map(signals), [0, 0]);

    client.dma_unmap(0x10_0000, 16 * 4096).unwrap();
    write(&mut client, LOOK, 0x10_0040);
    assert_eq!(read(&mut client, RESULT), u64::MAX);
}

/// Nothing it asks for in vain may be answered with an error where it waits for more than a header.
#[test]
fn what_fails_does_not_hang_it() {
    let desk = Desk::new();
    let mut client = Client::new(&desk.path).unwrap();
    client.dma_unmap(0x5000, 4096).unwrap();
    let ram = memfd(1);
    client.dma_map(0, 0x1000, 4096, ram.as_raw_fd()).unwrap();
    client.dma_map(0, 0x1000, 4096, ram.as_raw_fd()).unwrap();
    client.dma_map(0, 0x8000, 1 << 30, ram.as_raw_fd()).unwrap();
    client.set_irqs(2, 0x24, 0, 1, &[eventfd().as_raw_fd()]).unwrap();
    let mut data = [0; 4];
    client.region_read(8, 0, &mut data).unwrap();
    assert_eq!(data, [0xff; 4]);
    client.region_read(3, 0, &mut data).unwrap();
    client.region_read(0, u64::MAX, &mut data).unwrap();
    client.region_write(6, 0, &data).unwrap();
    let mut config = [0xaa; 4096];
    client.region_read(7, 0, &mut config).unwrap();
    assert_eq!(config, [0; 4096]);
    assert_eq!(read(&mut client, RESETS), 1, "still in step");
}
