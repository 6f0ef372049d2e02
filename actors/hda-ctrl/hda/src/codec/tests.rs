#![expect(clippy::unusual_byte_groupings, reason = "verb and payload stand apart")]

use super::*;
use crate::codec::amplifier::CAPABILITIES;

const DAC: u8 = 0x02;
const SPEAKER: u8 = 0x14;

fn ask(codec: &mut Codec, node: u8, verb: u32) -> u32 {
    codec.respond(u32::from(node) << 20 | verb).expect("address 0 answers")
}

#[test]
fn every_parameter_reads_as_the_codec_is_built() {
    struct Case {
        name: &'static str,
        node: u8,
        verb: u32,
        reply: u32,
    }
    #[rustfmt::skip]
    let cases = [
        Case { name: "vendor and device",            node: 0,       verb: 0xf0000, reply: 0xfa2b_0001 },
        Case { name: "revision",                     node: 0,       verb: 0xf0002, reply: 0x0010_0100 },
        Case { name: "function groups: 1 from 1",    node: 0,       verb: 0xf0004, reply: 0x0001_0001 },
        Case { name: "widgets: 19 from 2",           node: 1,       verb: 0xf0004, reply: 0x0002_0013 },
        Case { name: "an audio function group",      node: 1,       verb: 0xf0005, reply: 0x0000_0001 },
        Case { name: "no beep, no delays",           node: 1,       verb: 0xf0008, reply: 0 },
        Case { name: "PCM of the group",             node: 1,       verb: 0xf000a, reply: 0x001e_07ff },
        Case { name: "formats of the group",         node: 1,       verb: 0xf000b, reply: 0x0000_0001 },
        Case { name: "power states of the group",    node: 1,       verb: 0xf000f, reply: 0x0000_000f },
        Case { name: "no GPIO",                      node: 1,       verb: 0xf0011, reply: 0 },
        Case { name: "subsystem",                    node: 1,       verb: 0xf2000, reply: 0xfa2b_0001 },
        Case { name: "DAC: stereo, amp, formats",    node: DAC,     verb: 0xf0009, reply: 0x0000_041d },
        Case { name: "DAC: PCM",                     node: DAC,     verb: 0xf000a, reply: 0x001e_07ff },
        Case { name: "DAC: formats",                 node: DAC,     verb: 0xf000b, reply: 0x0000_0001 },
        Case { name: "DAC: 74 steps of 1 dB, mute",  node: DAC,     verb: 0xf0012, reply: 0x8003_4a4a },
        Case { name: "DAC: no input amplifier",      node: DAC,     verb: 0xf000d, reply: 0 },
        Case { name: "DAC: no connections",          node: DAC,     verb: 0xf000e, reply: 0 },
        Case { name: "DAC: power states",            node: DAC,     verb: 0xf000f, reply: 0x0000_000f },
        Case { name: "speaker: a stereo pin",        node: SPEAKER, verb: 0xf0009, reply: 0x0040_0501 },
        Case { name: "speaker: output with EAPD",    node: SPEAKER, verb: 0xf000c, reply: 0x0001_0010 },
        Case { name: "speaker: no amplifier",        node: SPEAKER, verb: 0xf0012, reply: 0 },
        Case { name: "speaker: one connection",      node: SPEAKER, verb: 0xf000e, reply: 0x0000_0001 },
        Case { name: "speaker: from the DAC",        node: SPEAKER, verb: 0xf0200, reply: 0x0000_0002 },
        Case { name: "speaker: no more connections", node: SPEAKER, verb: 0xf0204, reply: 0 },
        Case { name: "speaker: fixed, internal",     node: SPEAKER, verb: 0xf1c00, reply: 0x9010_0110 },
        Case { name: "speaker: nothing to sense",    node: SPEAKER, verb: 0xf0900, reply: 0 },
        Case { name: "a gap is vendor-defined",      node: 0x08,    verb: 0xf0009, reply: 0x00f0_0000 },
        Case { name: "a gap has nothing else",       node: 0x08,    verb: 0xf000a, reply: 0 },
        Case { name: "behind the last node",         node: 0x15,    verb: 0xf0009, reply: 0 },
    ];
    let mut codec = Codec::new();
    for Case { name, node, verb, reply } in cases {
        assert_eq!(ask(&mut codec, node, verb), reply, "{name}");
    }
    assert_eq!(CAPABILITIES, 0x8003_4a4a);
}

/// A verb that sets, what it sets, the verb that reads it back, and what that replies.
struct Case {
    name: &'static str,
    node: u8,
    set: u32,
    get: u32,
    reply: u32,
}

#[rustfmt::skip]
const STATEFUL: &[Case] = &[
    Case { name: "format",                  node: DAC,     set: 0x2_4011, get: 0xa_0000, reply: 0x4011 },
    Case { name: "stream and channel",      node: DAC,     set: 0x706_52, get: 0xf06_00, reply: 0x52 },
    Case { name: "amplifier, left",         node: DAC,     set: 0x3_a023, get: 0xb_a000, reply: 0x23 },
    Case { name: "amplifier, right, mute",  node: DAC,     set: 0x3_9092, get: 0xb_8000, reply: 0x92 },
    Case { name: "amplifier, too many",     node: DAC,     set: 0x3_b07f, get: 0xb_8000, reply: 0x4a },
    Case { name: "power of the DAC",        node: DAC,     set: 0x705_03, get: 0xf05_00, reply: 0x33 },
    Case { name: "power of the pin",        node: SPEAKER, set: 0x705_02, get: 0xf05_00, reply: 0x22 },
    Case { name: "power of the group",      node: 1,       set: 0x705_03, get: 0xf05_00, reply: 0x33 },
    Case { name: "pin control",             node: SPEAKER, set: 0x707_c0, get: 0xf07_00, reply: 0xc0 },
    Case { name: "pin control, reserved",   node: SPEAKER, set: 0x707_ff, get: 0xf07_00, reply: 0xe7 },
    Case { name: "EAPD off",                node: SPEAKER, set: 0x70c_00, get: 0xf0c_00, reply: 0x00 },
    Case { name: "EAPD and its neighbours", node: SPEAKER, set: 0x70c_07, get: 0xf0c_00, reply: 0x07 },
    Case { name: "connection 0",            node: SPEAKER, set: 0x701_00, get: 0xf01_00, reply: 0x00 },
    Case { name: "connection out of range", node: SPEAKER, set: 0x701_01, get: 0xf01_00, reply: 0x00 },
    Case { name: "configuration, byte 0",   node: SPEAKER, set: 0x71c_a1, get: 0xf1c_00, reply: 0x9010_01a1 },
    Case { name: "configuration, byte 1",   node: SPEAKER, set: 0x71d_a2, get: 0xf1c_00, reply: 0x9010_a210 },
    Case { name: "configuration, byte 2",   node: SPEAKER, set: 0x71e_a3, get: 0xf1c_00, reply: 0x90a3_0110 },
    Case { name: "configuration, byte 3",   node: SPEAKER, set: 0x71f_a4, get: 0xf1c_00, reply: 0xa410_0110 },
    Case { name: "subsystem, byte 0",       node: 1,       set: 0x720_b1, get: 0xf20_00, reply: 0xfa2b_00b1 },
    Case { name: "subsystem, byte 3",       node: 1,       set: 0x723_b4, get: 0xf20_00, reply: 0xb42b_0001 },
    Case { name: "no unsolicited response", node: SPEAKER, set: 0x708_bf, get: 0xf08_00, reply: 0x00 },
    Case { name: "no digital converter",    node: DAC,     set: 0x70d_01, get: 0xf0d_00, reply: 0x00 },
    Case { name: "no processing",           node: DAC,     set: 0x703_01, get: 0xf03_00, reply: 0x00 },
    Case { name: "no coefficients",         node: DAC,     set: 0x4_1234, get: 0xc_0000, reply: 0x00 },
    Case { name: "no GPIO",                 node: 1,       set: 0x715_ff, get: 0xf15_00, reply: 0x00 },
    Case { name: "no beep",                 node: 1,       set: 0x70a_ff, get: 0xf0a_00, reply: 0x00 },
];

#[test]
fn what_a_verb_sets_another_reads_back_exactly() {
    for Case { name, node, set, get, reply } in STATEFUL {
        let mut codec = Codec::new();
        assert_eq!(ask(&mut codec, *node, *set), 0, "{name}: the reply to setting");
        assert_eq!(ask(&mut codec, *node, *get), *reply, "{name}");
    }
}

#[test]
fn a_function_reset_restores_all_but_what_firmware_writes() {
    let defaults = |codec: &mut Codec| -> Vec<u32> {
        STATEFUL.iter().map(|case| ask(codec, case.node, case.get)).collect()
    };
    let mut fresh = Codec::new();
    let mut used = Codec::new();
    for case in STATEFUL {
        ask(&mut used, case.node, case.set);
    }
    ask(&mut used, 1, 0x7ff00);
    ask(&mut used, 1, 0x7ff00);
    let (before, after) = (defaults(&mut fresh), defaults(&mut used));
    for ((case, before), after) in STATEFUL.iter().zip(before).zip(after) {
        let firmware = case.get == 0xf1c_00 || case.get == 0xf20_00;
        assert_eq!(before != after, firmware, "{}: {before:#x} and {after:#x}", case.name);
    }
}

#[test]
fn an_absent_address_does_not_answer_and_an_unknown_verb_answers_0_and_is_counted() {
    let mut codec = Codec::new();
    for address in 1..16 {
        assert_eq!(codec.respond(address << 28 | 0xf_0000), None);
    }
    assert_eq!(codec.unknown(), 0);
    for (node, verb) in
        [(DAC, 0xf99_00), (DAC, 0x1_0000), (0x7f, 0xf00_09), (SPEAKER, 0xa_0000), (0, 0x705_00)]
    {
        assert_eq!(ask(&mut codec, node, verb), 0, "{node:#x} {verb:#x}");
    }
    assert_eq!(codec.unknown(), 5);
}

#[test]
fn a_widget_does_not_reach_more_power_than_its_group() {
    let mut codec = Codec::new();
    ask(&mut codec, 1, 0x705_03);
    ask(&mut codec, DAC, 0x705_00);
    assert_eq!(ask(&mut codec, DAC, 0xf05_00), 0x30);
    ask(&mut codec, 1, 0x705_00);
    assert_eq!(ask(&mut codec, DAC, 0xf05_00), 0x00);
}

#[test]
fn sound_is_heard_only_if_everything_on_its_way_is_on() {
    let silent = Outlet::Sound(Levels([Level::SILENT; 16]));
    let connected = || {
        let mut codec = Codec::new();
        ask(&mut codec, DAC, 0x706_50);
        codec
    };
    let open = connected().outlet(5);
    assert!(open != silent && open != Outlet::Nobody);
    for (name, node, verb) in [
        ("group in D3", 1, 0x705_03),
        ("DAC in D3", DAC, 0x705_03),
        ("pin in D3", SPEAKER, 0x705_03),
        ("pin output off", SPEAKER, 0x707_00),
        ("external amplifier off", SPEAKER, 0x70c_00),
        ("muted", DAC, 0x3_b0ca),
    ] {
        let mut codec = connected();
        ask(&mut codec, node, verb);
        assert_eq!(codec.outlet(5), silent, "{name}");
    }
    assert_eq!(connected().outlet(4), Outlet::Nobody);
    assert_eq!(Codec::new().outlet(0), Outlet::Nobody);
}

#[test]
fn any_20_bits_at_any_node_are_answered() {
    let mut codec = Codec::new();
    for verb in 0..1 << 20 {
        for node in [0, 1, DAC, 0x08, SPEAKER, 0xff] {
            let _ = ask(&mut codec, node, verb);
        }
    }
}
