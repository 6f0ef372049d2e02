//! Descriptors of a device that lies: in what a remote tells beforehand, and in what the device answers.

use core::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use functions::configuration::Configuration;
use wire::{
    Lane, ToHost,
    control::{self, Attachment, BulkOnly, Descriptor, Profile},
    usb::{
        DeviceId, Direction, Endpoint, Moved, Payload, Request, RequestId, Setup, Speed, ToRemote, Transfer,
    },
};
use xhci::{
    Config,
    driver::{Bare, Driver, Host, Plan},
};

use crate::devices::Devices;

const MEMORY: usize = 2 << 20;
const DEVICE: DeviceId = DeviceId(1);
/// Control transfers of one run.
const MOST_TRANSFERS: usize = 32;

/// A device with any profile is attached, enumerated and asked: nothing panics, and every transfer that the guest
/// queues comes to an end.
pub(crate) fn run(data: &[u8]) {
    parse(data);
    let mut data = Unstructured::new(data);
    // What cannot be read any more is not there.
    let _ = lend(&mut data);
}

fn lend(data: &mut Unstructured<'_>) -> Result<()> {
    let speed = *data.choose(&[Speed::High, Speed::Super, Speed::Full, Speed::Low])?;
    let profile = over_the_wire(profile(data)?, speed);
    let mut driver = Driver::start(Bare::new(Config::default(), MEMORY), Plan::at(0x1000, 1 << 20));
    let Ok(port) = driver.host.attach_known(DEVICE, speed, profile) else { return Ok(()) };
    driver.reset_port(port.0);
    driver.host.take_requests();
    let slot = driver.enable_slot();
    let code = match speed {
        Speed::Full => 1,
        Speed::Low => 2,
        Speed::High => 3,
        Speed::Super => 4,
    };
    driver.address_device(slot, port.0, code, false);
    driver.events();
    let buffer = driver.allocate(0x1_0000);
    let mut devices = Devices::new();
    for number in 0..MOST_TRANSFERS {
        if data.is_empty() {
            break;
        }
        let setup = setup(data)?;
        devices.carry_out(ToRemote::Submit(request(number, setup)));
        driver.control(slot, setup.to_bytes(), buffer);
        answer(&mut driver, data)?;
        driver.host.wait(Duration::from_millis(1));
        driver.events();
    }
    devices.finish();
    Ok(())
}

/// A remote reads the configuration of a real device: what it takes for an endpoint of Bulk-Only Transport, or for one
/// that may be read ahead, has the direction for it.
fn parse(data: &[u8]) {
    let configuration = Configuration::parse(data);
    let _ = configuration.names();
    for interface in configuration.interfaces() {
        let _ = configuration.endpoints_of(interface);
    }
    for endpoint in configuration.read_ahead() {
        assert_eq!(endpoint.direction(), Direction::In);
    }
    for pair in configuration.bulk_only() {
        assert_eq!((pair.out.direction(), pair.input.direction()), (Direction::Out, Direction::In));
    }
}

/// As a host gets it: written and read back.
fn over_the_wire(profile: Profile, speed: Speed) -> Profile {
    let attachment =
        Attachment { device: DEVICE, speed, vendor: 0, product: 0, name: String::new(), profile };
    let message = ToHost::Control(control::ToHost::Attached(attachment)).encode();
    let bytes: Bytes = [&message.head[..], &message.body[..]].concat().into();
    match ToHost::decode(Lane::Ctl, bytes) {
        Ok(ToHost::Control(control::ToHost::Attached(attachment))) => attachment.profile,
        _ => Profile::default(),
    }
}

fn profile(data: &mut Unstructured<'_>) -> Result<Profile> {
    let descriptors = (0..data.int_in_range(0..=6)?).map(|_| {
        let kind = data.int_in_range(0..=48_u16)?;
        let (value, index) = (kind << 8 | data.int_in_range(0..=3_u16)?, data.int_in_range(0..=3)?);
        let request_type = *data.choose(&[0x80, 0x80, 0x81, 0xff])?;
        Ok(Descriptor { request_type, value, index, data: descriptors(data)? })
    });
    let descriptors = descriptors.collect::<Result<_>>()?;
    let read_ahead = (0..data.int_in_range(0..=3)?).map(|_| Ok(Endpoint::from_address(data.arbitrary()?)));
    let read_ahead = read_ahead.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let bulk_only = (0..data.int_in_range(0..=1)?).map(|_| {
        let out = Endpoint::from_address(data.int_in_range(0..=15)?);
        let input = Endpoint::from_address(data.int_in_range(0x80..=0x8f)?);
        Ok(out.zip(input).map(|(out, input)| BulkOnly { out, input }))
    });
    let bulk_only = bulk_only.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Ok(Profile { descriptors, read_ahead, bulk_only })
}

/// Descriptors one behind the other, with lengths and types that make sense, mostly.
fn descriptors(data: &mut Unstructured<'_>) -> Result<Bytes> {
    let mut bytes = Vec::new();
    for _ in 0..data.int_in_range(0..=8)? {
        let kind = *data.choose(&[1, 2, 4, 5, 5, 5, 48, 15, 16, 11, 0x21, 0xff])?;
        let length: u8 = match kind {
            _ if data.ratio(1, 8)? => data.arbitrary()?,
            1 => 18,
            2 | 4 | 0x21 => 9,
            5 => 7,
            48 => 6,
            _ => 8,
        };
        bytes.extend([length, kind]);
        let body = data.bytes(usize::from(length.saturating_sub(2)).min(data.len()))?;
        bytes.extend(body);
    }
    Ok(bytes.into())
}

/// GET_DESCRIPTOR mostly. USB 2.0 §9.4.3.
fn setup(data: &mut Unstructured<'_>) -> Result<Setup> {
    if data.ratio(1, 4)? {
        return Ok(Setup::from_bytes(data.arbitrary()?));
    }
    let value = data.int_in_range(0..=48_u16)? << 8 | data.int_in_range(0..=3_u16)?;
    let length = *data.choose(&[8, 9, 18, 255, 4096, u16::MAX, 0])?;
    let request_type = *data.choose(&[0x80, 0x81, 0x82])?;
    Ok(Setup { request_type, request: 6, value, index: data.int_in_range(0..=3)?, length })
}

fn request(number: usize, setup: Setup) -> Request {
    let payload = match setup.direction() {
        Direction::In => Payload::In { max: setup.length.into() },
        Direction::Out => Payload::Out(vec![0; setup.length.into()].into()),
    };
    Request {
        id: RequestId(number as u64 + 1),
        device: DeviceId(number as u32),
        endpoint: Endpoint::CONTROL,
        transfer: Transfer::Control(setup),
        payload,
    }
}

/// The device answers what reached it with descriptors of its own.
fn answer(driver: &mut Driver<Bare>, data: &mut Unstructured<'_>) -> Result<()> {
    for request in driver.host.take_requests() {
        let moved = match request.payload {
            Payload::In { .. } => Moved::In(descriptors(data)?),
            Payload::Out(bytes) => Moved::Out(bytes.len() as u32),
        };
        driver.host.complete(request.id, Ok(()), moved);
    }
    Ok(())
}
