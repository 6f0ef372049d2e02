#![expect(clippy::unusual_byte_groupings, reason = "verb and payload stand apart")]

use super::*;
use crate::codec::amplifier::{Amplifier, CAPABILITIES};

const DAC: u8 = 0x02;
const SPEAKER: u8 = 0x14;
const DAC_2: u8 = 0x06;
const HEADPHONE: u8 = 0x15;
const ADC: u8 = 0x08;
const MICROPHONE: u8 = 0x18;

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
        Case { name: "widgets: 23 from 2",           node: 1,       verb: 0xf0004, reply: 0x0002_0017 },
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
        Case { name: "2nd DAC: as the first",        node: DAC_2,   verb: 0xf0009, reply: 0x0000_041d },
        Case { name: "2nd DAC: its amplifier",       node: DAC_2,   verb: 0xf0012, reply: 0x8003_4a4a },
        Case { name: "headphone: a pin that speaks", node: HEADPHONE, verb: 0xf0009, reply: 0x0040_0581 },
        Case { name: "headphone: output, detects",   node: HEADPHONE, verb: 0xf000c, reply: 0x0000_001c },
        Case { name: "headphone: from its own DAC",  node: HEADPHONE, verb: 0xf0200, reply: 0x0000_0006 },
        Case { name: "headphone: a green jack",      node: HEADPHONE, verb: 0xf1c00, reply: 0x0221_4020 },
        Case { name: "headphone: nothing plugged",   node: HEADPHONE, verb: 0xf0900, reply: 0 },
        Case { name: "headphone: no EAPD",           node: HEADPHONE, verb: 0xf0c00, reply: 0 },
        Case { name: "ADC: stereo, amp, formats",    node: ADC,     verb: 0xf0009, reply: 0x0010_051b },
        Case { name: "ADC: PCM",                     node: ADC,     verb: 0xf000a, reply: 0x001e_07ff },
        Case { name: "ADC: input amplifier",         node: ADC,     verb: 0xf000d, reply: 0x8003_4a4a },
        Case { name: "ADC: no output amplifier",     node: ADC,     verb: 0xf0012, reply: 0 },
        Case { name: "ADC: one connection",          node: ADC,     verb: 0xf000e, reply: 0x0000_0001 },
        Case { name: "ADC: from the microphone",     node: ADC,     verb: 0xf0200, reply: 0x0000_0018 },
        Case { name: "microphone: a pin that speaks", node: MICROPHONE, verb: 0xf0009, reply: 0x0040_0481 },
        Case { name: "microphone: input, voltages",  node: MICROPHONE, verb: 0xf000c, reply: 0x0000_1324 },
        Case { name: "microphone: a pink jack",      node: MICROPHONE, verb: 0xf1c00, reply: 0x02a1_9030 },
        Case { name: "microphone: no connections",   node: MICROPHONE, verb: 0xf000e, reply: 0 },
        Case { name: "microphone: input is on",      node: MICROPHONE, verb: 0xf0700, reply: 0x20 },
        Case { name: "a gap is vendor-defined",      node: 0x07,    verb: 0xf0009, reply: 0x00f0_0000 },
        Case { name: "a gap has nothing else",       node: 0x07,    verb: 0xf000a, reply: 0 },
        Case { name: "behind the last node",         node: 0x19,    verb: 0xf0009, reply: 0 },
    ];
    let mut codec = Codec::new(Speakers::Stereo);
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
    Case { name: "unsolicited response",    node: HEADPHONE, set: 0x708_bf, get: 0xf08_00, reply: 0xbf },
    Case { name: "unsolicited, reserved",   node: MICROPHONE, set: 0x708_ff, get: 0xf08_00, reply: 0xbf },
    Case { name: "headphone amplifier on",  node: HEADPHONE, set: 0x707_c0, get: 0xf07_00, reply: 0xc0 },
    Case { name: "microphone's voltage",    node: MICROPHONE, set: 0x707_24, get: 0xf07_00, reply: 0x24 },
    Case { name: "input amplifier, left",   node: ADC,     set: 0x3_6012, get: 0xb_2000, reply: 0x12 },
    Case { name: "input amplifier, mute",   node: ADC,     set: 0x3_5080, get: 0xb_0000, reply: 0x80 },
    Case { name: "no second input",         node: ADC,     set: 0x3_7180, get: 0xb_0001, reply: 0x00 },
    Case { name: "no output of an ADC",     node: ADC,     set: 0x3_b080, get: 0xb_8000, reply: 0x00 },
    Case { name: "format of the ADC",       node: ADC,     set: 0x2_0831, get: 0xa_0000, reply: 0x0831 },
    Case { name: "stream of the ADC",       node: ADC,     set: 0x706_30, get: 0xf06_00, reply: 0x30 },
    Case { name: "its connection",          node: ADC,     set: 0x701_01, get: 0xf01_00, reply: 0x00 },
    Case { name: "no EAPD of headphones",   node: HEADPHONE, set: 0x70c_00, get: 0xf0c_00, reply: 0x00 },
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
        let mut codec = Codec::new(Speakers::Stereo);
        assert_eq!(ask(&mut codec, *node, *set), 0, "{name}: the reply to setting");
        assert_eq!(ask(&mut codec, *node, *get), *reply, "{name}");
    }
}

#[test]
fn a_function_reset_restores_all_but_what_firmware_writes() {
    let defaults = |codec: &mut Codec| -> Vec<u32> {
        STATEFUL.iter().map(|case| ask(codec, case.node, case.get)).collect()
    };
    let mut fresh = Codec::new(Speakers::Stereo);
    let mut used = Codec::new(Speakers::Stereo);
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
    let mut codec = Codec::new(Speakers::Stereo);
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
    let mut codec = Codec::new(Speakers::Stereo);
    ask(&mut codec, 1, 0x705_03);
    ask(&mut codec, DAC, 0x705_00);
    assert_eq!(ask(&mut codec, DAC, 0xf05_00), 0x30);
    ask(&mut codec, 1, 0x705_00);
    assert_eq!(ask(&mut codec, DAC, 0xf05_00), 0x00);
}

#[test]
fn sound_is_heard_only_if_everything_on_its_way_is_on() {
    let silent = Path::Open(Levels([Level::SILENT; 16]));
    let connected = || {
        let mut codec = Codec::new(Speakers::Stereo);
        ask(&mut codec, DAC, 0x706_50);
        codec
    };
    let open = connected().outlet(5);
    assert!(open != silent && open != Path::None);
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
    assert_eq!(connected().outlet(4), Path::None);
    assert_eq!(Codec::new(Speakers::Stereo).outlet(0), Path::None);
}

#[test]
fn headphones_are_heard_when_they_are_plugged_in_and_the_loudest_way_counts() {
    let mut codec = Codec::new(Speakers::Stereo);
    for dac in [DAC, DAC_2] {
        ask(&mut codec, dac, 0x706_50);
    }
    let both = codec.outlet(5);
    // Auto-mute: the speaker's pin is switched off, with nothing in the jack.
    ask(&mut codec, SPEAKER, 0x707_00);
    assert!(both.audible(2) && !codec.outlet(5).audible(2));
    assert_eq!(codec.plug(Jack::Headphone, true), None, "nobody has asked to be told");
    assert_eq!(codec.outlet(5), both, "0 dB through the other DAC");
    ask(&mut codec, DAC_2, 0x3_b040);
    assert_ne!(codec.outlet(5), both);
    ask(&mut codec, SPEAKER, 0x707_40);
    assert_eq!(codec.outlet(5), both, "the speaker is louder");
    ask(&mut codec, 1, 0x705_03);
    assert!(!codec.outlet(5).audible(2));
}

#[test]
fn a_microphone_is_heard_only_if_everything_on_its_way_is_on() {
    let connected = || {
        let mut codec = Codec::new(Speakers::Stereo);
        ask(&mut codec, ADC, 0x706_30);
        assert!(!codec.inlet(3).audible(2), "nothing is plugged in");
        codec.plug(Jack::Microphone, true);
        codec
    };
    assert!(connected().inlet(3).audible(2));
    for (name, node, verb) in [
        ("group in D3", 1, 0x705_03),
        ("ADC in D2", ADC, 0x705_02),
        ("pin in D3", MICROPHONE, 0x705_03),
        ("pin input off", MICROPHONE, 0x707_00),
        ("muted", ADC, 0x3_70ca),
        ("turned down to nothing", ADC, 0x3_7000),
    ] {
        let mut codec = connected();
        ask(&mut codec, node, verb);
        assert_eq!(codec.inlet(3), Path::Open(Levels([Level::SILENT; 16])), "{name}");
    }
    assert_eq!(connected().inlet(4), Path::None);
    assert_eq!(connected().outlet(3), Path::None, "tags of the two directions are apart");
}

#[test]
fn a_jack_speaks_with_its_tag_once_it_may_and_is_sensed_as_it_is() {
    let mut codec = Codec::new(Speakers::Stereo);
    for (jack, node, tag) in [(Jack::Headphone, HEADPHONE, 0x2b), (Jack::Microphone, MICROPHONE, 0x01)] {
        ask(&mut codec, node, 0x708_80 | tag);
        for (present, sense) in [(true, 1 << 31), (false, 0)] {
            assert_eq!(codec.plug(jack, present), Some(tag << 26));
            ask(&mut codec, node, 0x709_00);
            assert_eq!(ask(&mut codec, node, 0xf09_00), sense);
        }
    }
}

#[test]
fn eight_channels_are_four_speakers_of_one_association_each_with_its_converter() {
    let mut codec = Codec::new(Speakers::Surround71);
    assert_eq!(ask(&mut codec, 1, 0xf00_04), 0x0002_0018);
    for (sequence, (dac, pin)) in [(2, 0x14), (3, 0x16), (4, 0x17), (5, 0x19)].into_iter().enumerate() {
        assert_eq!(ask(&mut codec, pin, 0xf02_00), dac);
        assert_eq!(ask(&mut codec, pin, 0xf1c_00), 0x9010_0110 | sequence as u32);
        // One tag, a pair of channels each.
        ask(&mut codec, dac as u8, 0x706_50 | (2 * sequence as u32));
    }
    let mut levels = [Level::SILENT; 16];
    levels[..8].fill(Amplifier::default().level(true));
    assert_eq!(codec.outlet(5), Path::Open(Levels(levels)));
}

#[test]
fn any_20_bits_at_any_node_are_answered() {
    let mut codec = Codec::new(Speakers::Stereo);
    for verb in 0..1 << 20 {
        for node in [0, 1, DAC, 0x07, ADC, SPEAKER, HEADPHONE, MICROPHONE, 0xff] {
            let _ = ask(&mut codec, node, verb);
        }
    }
}

/// Fields that verbs write whole: node, the verb that sets with 8 bits of payload, the one that reads, the place of the
/// byte in the reply, and its bits that exist.
const BYTES: &[(u8, u32, u32, u32, u8)] = &[
    (DAC, 0x706, 0xf06_00, 0, 0xff),
    (DAC_2, 0x706, 0xf06_00, 0, 0xff),
    (ADC, 0x706, 0xf06_00, 0, 0xff),
    (1, 0x705, 0xf05_00, 0, 0x03),
    (DAC, 0x705, 0xf05_00, 0, 0x03),
    (ADC, 0x705, 0xf05_00, 0, 0x03),
    (HEADPHONE, 0x705, 0xf05_00, 0, 0x03),
    (SPEAKER, 0x707, 0xf07_00, 0, 0xe7),
    (HEADPHONE, 0x707, 0xf07_00, 0, 0xe7),
    (MICROPHONE, 0x707, 0xf07_00, 0, 0xe7),
    (HEADPHONE, 0x708, 0xf08_00, 0, 0xbf),
    (MICROPHONE, 0x708, 0xf08_00, 0, 0xbf),
    (SPEAKER, 0x70c, 0xf0c_00, 0, 0x07),
    (SPEAKER, 0x71c, 0xf1c_00, 0, 0xff),
    (SPEAKER, 0x71f, 0xf1c_00, 24, 0xff),
    (MICROPHONE, 0x71d, 0xf1c_00, 8, 0xff),
    (1, 0x721, 0xf20_00, 8, 0xff),
    (1, 0x722, 0xf20_00, 16, 0xff),
];

proptest::proptest! {
    /// In whatever order fields are written, with hostile verbs in between: each reads as it was written last.
    #[test]
    fn every_field_reads_as_it_was_written_last(
        writes in proptest::collection::vec((0..BYTES.len(), proptest::num::u8::ANY, proptest::num::u32::ANY), 1..100),
    ) {
        let mut codec = Codec::new(Speakers::Stereo);
        let mut written = std::collections::BTreeMap::new();
        for (field, value, noise) in writes {
            let (node, set, ..) = BYTES[field];
            ask(&mut codec, node, set << 8 | u32::from(value));
            written.insert(field, value);
            // Any verb that does not write: gets, and nodes that are not there.
            ask(&mut codec, noise as u8, 0xf_0000 | noise & 0xffff);
            ask(&mut codec, 0x40 | noise as u8 & 0x3f, noise & 0xf_ffff);
        }
        for (field, value) in written {
            let (node, _, get, place, bits) = BYTES[field];
            let read = (ask(&mut codec, node, get) >> place) as u8 & bits;
            proptest::prop_assert_eq!(read, value & bits, "{:?}", BYTES[field]);
        }
    }
}
