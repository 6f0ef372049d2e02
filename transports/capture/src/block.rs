//! The blocks of a pcapng file. IETF draft-ietf-opsawg-pcapng §4.

use std::time::Duration;

/// LINKTYPE_USB_LINUX_MMAPPED: a usbmon header of 64 bytes.
const LINK_TYPE: u16 = 220;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// Written as this file writes everything: the least significant byte first.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Options. §3.5, §4.1, §4.2, §4.6.
const END: u16 = 0;
const USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;

/// §4.1: the section goes on to the end of the file, whose length nobody knows yet.
pub(crate) fn section_header() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(BYTE_ORDER.to_le_bytes());
    body.extend([1, 0, 0, 0]);
    body.extend(u64::MAX.to_le_bytes());
    option(&mut body, USER_APPLICATION, b"Farbus");
    option(&mut body, END, &[]);
    block(SECTION_HEADER, &body)
}

/// §4.2: the only interface, number 0; its times are microseconds.
pub(crate) fn interface(name: &str, snap: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LINK_TYPE.to_le_bytes());
    body.extend([0, 0]);
    body.extend(snap.to_le_bytes());
    option(&mut body, INTERFACE_NAME, name.as_bytes());
    option(&mut body, TIME_RESOLUTION, &[6]);
    option(&mut body, END, &[]);
    block(INTERFACE, &body)
}

/// §4.3: a packet, of which `missing` bytes were cut off at its end.
pub(crate) fn packet(at: Duration, packet: &[u8], missing: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(packet.len() + 24);
    body.extend([0; 4]);
    time(&mut body, at);
    body.extend((packet.len() as u32).to_le_bytes());
    body.extend(((packet.len() + missing) as u32).to_le_bytes());
    body.extend(packet);
    pad(&mut body);
    block(ENHANCED_PACKET, &body)
}

/// §4.6: how many packets there were, and how many of them are not in the file.
pub(crate) fn statistics(at: Duration, received: u64, dropped: u64) -> Vec<u8> {
    let mut body = vec![0; 4];
    time(&mut body, at);
    option(&mut body, RECEIVED, &received.to_le_bytes());
    option(&mut body, DROPPED, &dropped.to_le_bytes());
    option(&mut body, END, &[]);
    block(STATISTICS, &body)
}

/// Microseconds since 1970, the more significant half first.
fn time(body: &mut Vec<u8>, at: Duration) {
    let microseconds = at.as_micros() as u64;
    body.extend(((microseconds >> 32) as u32).to_le_bytes());
    body.extend((microseconds as u32).to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// §3.1: the length stands at both ends.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}
