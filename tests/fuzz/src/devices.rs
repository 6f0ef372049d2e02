//! The software devices of a remote, driven by whatever a host asks of them.

use core::time::Duration;

use bytes::Bytes;
use functions::{Disk, Function, Keyboard, Medium, MediumError, Pattern, Zero};
use wire::{
    Lane,
    usb::{RequestId, ToRemote},
};

/// Sectors of the disk.
const SECTORS: usize = 16;

/// One device of each kind, and how many requests of each have ended.
pub(crate) struct Devices {
    devices: Vec<Box<dyn Function>>,
    now: Duration,
}

/// A disk's bytes.
struct Memory(Vec<u8>);

impl Medium for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, MediumError> {
        let bytes = self.0.get(offset as usize..).and_then(|bytes| bytes.get(..length));
        bytes.map(Bytes::copy_from_slice).ok_or_else(|| MediumError("beyond the end".to_owned()))
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        let bytes = self.0.get_mut(offset as usize..).and_then(|bytes| bytes.get_mut(..data.len()));
        bytes.ok_or_else(|| MediumError("beyond the end".to_owned()))?.copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        Ok(())
    }
}

impl Devices {
    pub(crate) fn new() -> Self {
        let mut keyboard = Keyboard::new();
        keyboard.type_text("ab").expect("keys that exist");
        let disk = Disk::new(Memory(vec![7; SECTORS * 512]), "1");
        let devices: Vec<Box<dyn Function>> =
            vec![Box::new(Zero::new(Pattern::Zeros)), Box::new(disk), Box::new(keyboard)];
        Self { devices, now: Duration::ZERO }
    }

    /// Carries out what a host says; every end is of something that could have been asked.
    pub(crate) fn carry_out(&mut self, message: ToRemote) {
        let number = message.device().0 as usize % self.devices.len();
        let Some(device) = self.devices.get_mut(number) else { return };
        match message {
            ToRemote::Submit(request) => device.submit(request),
            ToRemote::Follow(follow) => device.submit(follow.into()),
            ToRemote::Cancel { endpoint, through, .. } => device.cancel(endpoint, through),
            // A reset that fails is told as its end; these never do.
            ToRemote::Reset { id, .. } => assert_eq!(device.reset(id), Ok(())),
            ToRemote::Streams { id, endpoints, count, .. } => device.streams(id, &endpoints, count),
        }
        self.now += Duration::from_micros(500);
        for lane in Lane::ALL {
            while let Some(end) = device.poll(self.now, lane) {
                assert_eq!(end.lane, lane);
                assert!(end.moved.len() as usize <= wire::MAX_BODY, "a message has no room for it");
            }
        }
    }

    /// Everything that waits ends.
    pub(crate) fn finish(mut self) {
        for device in &mut self.devices {
            assert_eq!(device.reset(RequestId(u64::MAX)), Ok(()));
            for lane in Lane::ALL {
                while device.poll(self.now, lane).is_some() {}
            }
            assert_eq!(device.deadline(), None, "nothing waits any more");
        }
    }
}
