use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::{DmaError, Function, Identity, MsixPlace, Ram, Region, Width};

/// A model with one scratch register in each qword, that breaks on command.
struct Scratch {
    value: u64,
    seen: Vec<(u64, usize)>,
    alarm: Option<Duration>,
}

#[derive(Debug, PartialEq)]
enum Effect {
    Wrote(u64, usize),
    Reset,
    Ticked,
}

const BREAK: u64 = 0x100;
const DMA: u64 = 0x108;
const FAIL_LATER: u64 = 0x110;

impl Model for Scratch {
    type Output = Effect;

    fn read(&mut self, _: &mut Cx<'_, Effect>, offset: u64, width: Width) -> u64 {
        self.seen.push((offset, width.bytes()));
        self.value >> (8 * (offset % 8))
    }

    fn write(&mut self, cx: &mut Cx<'_, Effect>, offset: u64, width: Width, value: u64) {
        cx.emit(Effect::Wrote(offset, width.bytes()));
        match offset {
            BREAK => panic!("as the test asked"),
            FAIL_LATER => self.alarm = Some(cx.now + Duration::from_millis(value)),
            DMA => self.value = u64::from(cx.dma.publish(value, 7) == Err(DmaError::BusMasterDisabled)),
            _ => self.value = value,
        }
    }

    fn reset(&mut self, cx: &mut Cx<'_, Effect>) {
        self.value = 0;
        cx.emit(Effect::Reset);
    }

    fn tick(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.alarm.take_if(|at| *at <= cx.now).is_some() {
            cx.emit(Effect::Ticked);
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.alarm
    }

    fn interrupt_line(&self) -> bool {
        self.value & 1 == 1
    }

    fn read_failed(offset: u64, _: Width) -> u64 {
        0xdead_0000 + offset
    }
}

struct World {
    device: Device<Scratch>,
    ram: Ram,
    now: Duration,
    out: Vec<Effect>,
}

impl World {
    fn new() -> Self {
        Self::made_by(|| Scratch { value: 0, seen: Vec::new(), alarm: None })
    }

    fn made_by(factory: impl FnMut() -> Scratch + 'static) -> Self {
        let identity =
            Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
        let place = MsixPlace { vectors: 2, bar: 0, table: 0x800, pending: 0x900 };
        let config = ConfigSpace::builder(identity).bar32(0, 0x1000).intx().msix(0x40, place).build();
        let device = Device::new(config, factory);
        Self { device, ram: Ram::new(0, 0x1000), now: Duration::ZERO, out: Vec::new() }
    }

    fn turn(&mut self) -> Turn<'_, Scratch> {
        self.device.turn(self.now, &self.ram, &mut self.out)
    }

    fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0xaa; length];
        self.turn().read(Region::Bar(0), offset, &mut data);
        data
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.turn().write(Region::Bar(0), offset, &value.to_le_bytes());
    }

    fn tick_at(&mut self, ms: u64) -> Ticked {
        self.now = Duration::from_millis(ms);
        self.device.tick(self.now, &self.ram, &mut self.out)
    }
}

#[test]
fn an_access_of_any_shape_reaches_the_model_in_aligned_pieces() {
    let mut world = World::new();
    world.write(0, 0x1122_3344_5566_7788);
    assert_eq!(world.read(1, 7), [0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    assert_eq!(world.device.model().unwrap().seen, [(1, 1), (2, 2), (4, 4)]);
}

#[test]
fn nothing_exists_outside_the_bar_or_where_msix_is() {
    let mut world = World::new();
    world.write(0, u64::MAX);
    world.out.clear();
    assert_eq!(world.read(0xffc, 8), [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    for offset in [0x1000, u64::MAX - 3, 0x800, 0x818, 0x900] {
        assert_eq!(world.read(offset, 8), [0; 8], "offset {offset:#x}");
        world.write(offset, 1);
    }
    let mut data = [1; 4];
    world.turn().read(Region::Bar(3), 0, &mut data);
    assert_eq!(data, [0; 4]);
    assert_eq!(world.out, []);
}

/// PCI 3.0 §6.2.2.
#[test]
fn memory_is_out_of_reach_while_bus_mastering_is_off() {
    let mut world = World::new();
    world.write(DMA, 0x20);
    assert_eq!(world.device.model().unwrap().value, 1);
    world.turn().write(Region::Config, 4, &[0x04]);
    world.write(DMA, 0x20);
    assert_eq!(world.device.model().unwrap().value, 0);
    assert_eq!(world.ram.observe(0x20), Ok(7));
}

#[test]
fn a_panic_makes_a_failed_device_and_discards_the_effects_of_that_call() {
    let mut world = World::new();
    world.write(8, 5);
    world.write(BREAK, 0);
    world.write(8, 6);
    assert_eq!(world.out, [Effect::Wrote(8, 8)]);
    assert_eq!(world.read(0x24, 4), 0xdead_0024_u32.to_le_bytes());
    assert_eq!((world.device.panics(), world.device.failed()), (1, true));
    assert!(world.turn().with(|_, _| ()).is_none());
    let mut vendor = [0; 2];
    world.turn().read(Region::Config, 0, &mut vendor);
    assert_eq!(vendor, [1, 0], "configuration space goes on");
}

#[test]
fn a_failed_device_is_rebuilt_when_it_is_due_and_says_so_once() {
    let mut world = World::new();
    world.write(BREAK, 0);
    assert_eq!(world.device.deadline(), Some(Duration::from_millis(20)));
    assert_eq!(world.tick_at(19), Ticked { rebuilt: false });
    assert_eq!(world.tick_at(20), Ticked { rebuilt: true });
    assert_eq!(world.tick_at(21), Ticked { rebuilt: false });
    assert_eq!(world.read(0, 4), [0; 4]);
}

#[test]
fn a_device_that_keeps_failing_stays_failed_until_a_reset_after_the_window() {
    let mut world = World::new();
    let mut rebuilds = 0;
    world.write(BREAK, 0);
    while let Some(due) = world.device.deadline() {
        rebuilds += u32::from(world.tick_at(due.as_millis() as u64).rebuilt);
        world.write(BREAK, 0);
    }
    assert_eq!(rebuilds, 5);
    world.turn().reset();
    assert!(world.device.failed());
    world.now += Duration::from_secs(61);
    world.turn().reset();
    assert!(!world.device.failed());
}

#[test]
fn a_reset_rebuilds_a_failed_device_at_once_and_the_next_tick_tells() {
    let mut world = World::new();
    world.write(BREAK, 0);
    world.turn().reset();
    assert_eq!(world.read(0, 4), [0; 4]);
    assert_eq!(world.device.deadline(), Some(Duration::ZERO));
    assert!(world.tick_at(0).rebuilt);
    assert_eq!(world.device.deadline(), None);
}

#[test]
fn a_reset_reaches_configuration_space_and_a_working_model() {
    let mut world = World::new();
    world.turn().write(Region::Config, 4, &[0x06]);
    world.write(0, 9);
    world.turn().reset();
    assert!(!world.device.config().bus_master());
    assert_eq!(world.read(0, 8), [0; 8]);
    assert_eq!(world.out, [Effect::Wrote(0, 8), Effect::Reset]);
}

/// PCI 3.0 §6.2.2, §6.2.3, §6.8.2.3.
#[test]
fn the_pin_is_driven_while_something_is_pending_unless_command_or_messages_forbid_it() {
    let mut world = World::new();
    let mut set = |place: Region, offset: u64, value: u16| {
        world.turn().write(place, offset, &value.to_le_bytes());
        let (mut status, mut pin) = ([0; 1], [0; 1]);
        world.turn().read(Region::Config, 0x06, &mut status);
        world.turn().read(Region::Config, 0x3d, &mut pin);
        assert_eq!(pin, [1]);
        (status[0] & 0x08 != 0, world.turn().interrupt_line())
    };
    assert_eq!(set(Region::Bar(0), 0, 2), (false, false));
    assert_eq!(set(Region::Bar(0), 0, 1), (true, true));
    assert_eq!(set(Region::Config, 0x04, 0x0400), (true, false), "Interrupt Disable");
    assert_eq!(set(Region::Config, 0x04, 0), (true, true));
    assert_eq!(set(Region::Config, 0x42, 0x8000), (true, false), "MSI-X Enable");
    assert_eq!(set(Region::Config, 0x42, 0), (true, true));
    assert_eq!(set(Region::Bar(0), 0, 0), (false, false));
    assert_eq!(set(Region::Bar(0), 0, 1), (true, true));
    assert_eq!(set(Region::Bar(0), BREAK, 0), (false, false), "a failed device");
}

#[test]
fn the_deadline_is_the_models() {
    let mut world = World::new();
    world.write(FAIL_LATER, 30);
    assert_eq!(world.device.deadline(), Some(Duration::from_millis(30)));
    let _ = world.tick_at(30);
    assert_eq!(world.out.last(), Some(&Effect::Ticked));
    assert_eq!(world.device.deadline(), None);
}

#[test]
fn a_factory_that_panics_is_tried_again_within_the_limit() {
    let tries = Rc::new(Cell::new(0));
    let count = tries.clone();
    let mut world = World::made_by(move || {
        count.set(count.get() + 1);
        panic!("as the test asked")
    });
    while let Some(due) = world.device.deadline() {
        assert!(!world.tick_at(due.as_millis() as u64).rebuilt);
    }
    assert_eq!(tries.get(), 7, "at the start, at the first tick, and five more");
    assert_eq!(world.device.panics(), 7);
}
