//! Saving and restoring the controller's state, as drivers do around a suspend. xHCI 1.2 §4.23.2.

mod world;

use pci::Width;
use world::*;
use xhci::driver::{Host as _, code};

const SAVE: u64 = 1 << 8;
const RESTORE: u64 = 1 << 9;
const RUN: u64 = 5;
const ERROR: u64 = 1 << 10;
const BUFFER: u64 = 0x80_0000;

/// What a driver writes anew before it has the rest restored.
const REGISTERS: [(bool, u64); 4] = [(false, 0x30), (false, 0x38), (true, 0x28), (true, 0x30)];

/// Stops, saves, forgets nothing, writes all registers anew, restores, and runs.
fn suspend_and_resume(world: &mut World, meanwhile: impl FnOnce(&mut World)) -> u64 {
    let (operational, runtime) = (world.operational(), world.runtime());
    let place = |(is_runtime, offset)| if is_runtime { runtime + offset } else { operational + offset };
    world.host.write(operational, Width::Dword, 0);
    let kept = REGISTERS.map(|register| world.host.read(place(register), Width::Qword));
    world.host.write(operational, Width::Dword, SAVE);
    meanwhile(world);
    for (register, value) in REGISTERS.into_iter().zip(kept) {
        world.host.write(place(register), Width::Qword, value);
    }
    let erdp = world.host.read(runtime + 0x38, Width::Qword);
    world.host.write(runtime + 0x38, Width::Qword, erdp);
    world.host.write(operational, Width::Dword, RESTORE);
    let status = world.host.read(operational + 4, Width::Dword);
    world.host.write(operational, Width::Dword, RUN);
    status
}

#[test]
fn after_a_suspend_slots_endpoints_and_event_rings_go_on_where_they_were() {
    let mut world = world();
    let slot = configured(&mut world);
    for _ in 0..3 {
        world.transfer(slot, BULK_IN, BUFFER, 8);
        let sent = request(&mut world);
        world.host.give(sent.id, vec![7; 8]);
    }
    world.events();
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    assert_eq!(world.command(stop).code, code::SUCCESS);
    world.events();
    assert_eq!(suspend_and_resume(&mut world, |_| {}) & ERROR, 0);
    let at = world.transfer(slot, BULK_IN, BUFFER, 8);
    let sent = request(&mut world);
    world.host.give(sent.id, vec![9; 8]);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)], "in the next place of the same ring");
    assert_eq!(memory(&world, BUFFER, 8), [9; 8]);
}

/// Case 5, and Case 9: what was saved is never read from the guest (more in `attacks_on_state.rs`), and a reset in between takes it away.
#[test]
fn a_reset_between_save_and_restore_reports_an_error_and_leaves_a_reset_controller() {
    let mut world = world();
    configured(&mut world);
    let operational = world.operational();
    let status = suspend_and_resume(&mut world, |world| world.host.write(operational, Width::Dword, 2));
    assert_eq!(status & ERROR, ERROR);
    assert_eq!(world.host.xhci.stats().slots, 0);
}
