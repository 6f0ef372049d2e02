//! The controller: registers put to their places, time, and what follows from both.

mod jacks;
mod remote;
mod space;

use core::time::Duration;

use pci::{Cx, Dma, Model, Width};

use crate::clock::{LinkClock, LinkTime};
use crate::codec::{self, Codec, Path};
use crate::corb::Corb;
use crate::interrupt::{CONTROLLER, Interrupts};
use crate::registers::{GlobalControl, GlobalStatus, ImmediateStatus, Piece, PositionBase, Register, pieces};
use crate::rirb::{Response, Rirb};
use crate::stream::{Direction, Loss, Scene, Stream, StreamRegister};
use crate::{Config, Output};
use jacks::Jacks;

/// The guest sees positions in memory no older than this.
const POSITION_AGE: u64 = 1_000_000;
/// No two ticks closer than this, whatever the guest has set up.
const TICK_MIN: u64 = 100_000;

/// An Intel HD Audio controller with its codec.
#[derive(Debug)]
pub struct Hda {
    clock: LinkClock,
    /// The streams have moved up to here.
    advanced: LinkTime,
    control: GlobalControl,
    status: GlobalStatus,
    wake_enable: u16,
    state_change: u16,
    sync: u32,
    interrupts: Interrupts,
    corb: Corb,
    rirb: Rirb,
    immediate: Immediate,
    position_low: PositionBase,
    position_high: u32,
    streams: Vec<Stream>,
    codec: Codec,
    jacks: Jacks,
    config: Config,
    shared_tags: u64,
    captured: Loss,
}

/// The immediate command interface. HDA 1.0a §3.4.
#[derive(Debug)]
struct Immediate {
    command: u32,
    response: u32,
    status: ImmediateStatus,
}

impl Default for Immediate {
    fn default() -> Self {
        Self { command: 0, response: 0, status: ImmediateStatus::DEFAULT }
    }
}

/// Facts worth counting, since the model was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Time taken back because the host was late (`hda_slip_us`).
    pub slipped: Duration,
    /// Codec verbs that meant nothing.
    pub unknown_verbs: u64,
    /// Times a playback stream was started under a tag that another one was playing under: it stays unheard.
    pub shared_tags: u64,
    /// Frames of silence in recordings, because the remote's had not come in time.
    pub missing_frames: u64,
    /// Frames left out of recordings, because too many waited.
    pub skipped_frames: u64,
}

impl Hda {
    /// A controller after power-on.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (inputs, outputs) = (config.inputs.value(), config.outputs.value());
        let stream = |number| {
            let direction = if number < inputs { Direction::Input } else { Direction::Output };
            Stream::new(number, direction, config.runs_before)
        };
        Self {
            clock: LinkClock::new(),
            advanced: LinkTime::default(),
            control: GlobalControl::DEFAULT,
            status: GlobalStatus::DEFAULT,
            wake_enable: 0,
            state_change: 0,
            sync: 0,
            interrupts: Interrupts::default(),
            corb: Corb::default(),
            rirb: Rirb::default(),
            immediate: Immediate::default(),
            position_low: PositionBase::DEFAULT,
            position_high: 0,
            streams: (0..inputs + outputs).map(stream).collect(),
            codec: Codec::new(config.speakers),
            jacks: Jacks::default(),
            config,
            shared_tags: 0,
            captured: Loss::default(),
        }
    }

    /// Facts worth counting.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            slipped: self.clock.slipped(),
            unknown_verbs: self.codec.unknown(),
            shared_tags: self.shared_tags,
            missing_frames: self.captured.missing,
            skipped_frames: self.captured.skipped,
        }
    }

    /// The level of the interrupt line: up as long as anything is pending that may interrupt. Whoever has a line drives
    /// it with this after each call; with messages it means nothing. HDA 1.0a §3.3.15.
    #[must_use]
    pub fn interrupt_line(&self) -> bool {
        self.interrupts.pending(self.sources()) != 0
    }

    /// Moves all streams up to now, in the order of their numbers. If that is further than one of them may go at
    /// once, time slips by the rest, for all of them alike and for the wall clock.
    fn advance(&mut self, cx: &mut Cx<'_, Output>) {
        let mut now = self.clock.link(cx.now);
        if let Some(stride) = self.streams.iter().filter_map(Stream::stride).min() {
            let late = now.since(self.advanced).saturating_sub(stride);
            if late > 0 {
                self.clock.slip(cx.now, late);
                now = self.clock.link(cx.now);
            }
        }
        self.advanced = now;
        let mut tags = 0u16;
        for index in 0..self.streams.len() {
            let position_entry = self.position_entry(index);
            let Some(stream) = self.streams.get_mut(index).filter(|stream| stream.moving()) else { continue };
            let path = match stream.direction() {
                Direction::Input => self.codec.inlet(stream.tag()),
                Direction::Output if tags & 1 << stream.tag() == 0 => {
                    tags |= 1 << stream.tag();
                    self.codec.outlet(stream.tag())
                }
                // The second stream of a tag: the first is heard.
                Direction::Output => Path::None,
            };
            stream.advance(&path, &mut Scene { now, dma: cx.dma, out: cx.out, held: false, position_entry });
            let loss = stream.take_loss();
            self.captured.missing += loss.missing;
            self.captured.skipped += loss.skipped;
        }
    }

    /// Where in memory a stream's position goes: 8 bytes each, in the order of the streams. HDA 1.0a §3.3.32.
    fn position_entry(&self, stream: usize) -> Option<u64> {
        let base = u64::from(self.position_high) << 32 | u64::from(self.position_low.raw_value() & !0x7f);
        self.position_low.enable().then(|| base.wrapping_add(8 * stream as u64))
    }

    /// Works through the commands that wait: 255 at most, as the ring holds no more.
    fn run_commands(&mut self, dma: &dyn Dma) {
        for _ in 0..=u8::MAX {
            let Some(command) = self.corb.fetch(dma) else { break };
            if let Some(value) = self.codec.respond(command) {
                self.rirb.store(dma, Response { codec: codec::ADDRESS, value, solicited: true });
            }
        }
        self.rirb.drained();
    }

    /// Carries the immediate command out, at once. HDA 1.0a §3.4.3.
    fn run_immediate(&mut self) {
        let answer = self.codec.respond(self.immediate.command);
        self.immediate.status = ImmediateStatus::DEFAULT.with_valid(answer.is_some());
        self.immediate.response = answer.unwrap_or(0);
    }

    /// The link goes into reset: streams stop, registers take their defaults, except WAKEEN and STATESTS.
    /// HDA 1.0a §3.3.7, §4.2.2.
    fn enter_reset(&mut self, out: &mut Vec<Output>) {
        let Self {
            clock,
            advanced: _,
            control,
            status,
            wake_enable: _,
            state_change: _,
            sync,
            interrupts,
            corb,
            rirb,
            immediate,
            position_low,
            position_high,
            streams,
            codec,
            jacks: _,
            config: _,
            shared_tags: _,
            captured: _,
        } = self;
        clock.stop_wall();
        *control = GlobalControl::DEFAULT;
        *status = GlobalStatus::DEFAULT;
        (*sync, *position_high) = (0, 0);
        *interrupts = Interrupts::default();
        *corb = Corb::default();
        *rirb = Rirb::default();
        *immediate = Immediate::default();
        *position_low = PositionBase::DEFAULT;
        for stream in streams {
            stream.reset(out);
        }
        codec.reset();
    }

    /// The link leaves reset: the codec has announced itself before software can look. HDA 1.0a §4.3.
    fn leave_reset(&mut self) {
        self.clock.start_wall(self.advanced);
        self.state_change |= 1 << codec::ADDRESS;
    }

    /// The sources that ask for an interrupt: one bit for each stream, and the controller's.
    fn sources(&self) -> u32 {
        let streams = self.streams.iter().enumerate().filter(|(_, stream)| stream.interrupting());
        let streams = streams.fold(0, |sources, (number, _)| sources | 1 << number);
        let woken = self.state_change & self.wake_enable != 0;
        let controller = self.corb.interrupting() || self.rirb.interrupting() || woken;
        if controller { streams | CONTROLLER } else { streams }
    }

    /// When the streams have to be advanced next.
    fn streams_due(&self) -> Option<Duration> {
        let stride = self.streams.iter().filter_map(Stream::stride).min()?;
        // Half a stride: a tick that is a little late still moves everything.
        let mut due = self.advanced.after(stride / 2);
        if self.position_low.enable() {
            due = due.min(self.advanced.after(POSITION_AGE));
        }
        let next = self.streams.iter().filter_map(Stream::next).min();
        due = next.map_or(due, |next| due.min(next)).max(self.advanced.after(TICK_MIN));
        Some(self.clock.host(due))
    }

    /// The end of each call: what the remote is to record, and a message, if one is due.
    fn settle(&mut self, cx: &mut Cx<'_, Output>) {
        for stream in self.streams.iter_mut().take(self.config.inputs.value().into()) {
            if stream.moving() {
                stream.listen(&self.codec.inlet(stream.tag()), cx.out);
            }
        }
        let sources = self.sources();
        if self.interrupts.update(sources) {
            cx.emit(Output::Interrupt(0));
        }
    }
}

impl Model for Hda {
    type Output = Output;

    fn read(&mut self, cx: &mut Cx<'_, Output>, offset: u64, width: Width) -> u64 {
        let mut value = 0;
        for piece in pieces(offset, width, Register::at) {
            if piece.row.register.moves_with_time() {
                self.advance(cx);
            }
            value |= piece.placed(self.read_register(piece.row.register));
        }
        self.settle(cx);
        value
    }

    fn write(&mut self, cx: &mut Cx<'_, Output>, offset: u64, width: Width, value: u64) {
        // Statuses first: what is acknowledged is what the guest has seen, not what happens in this very call.
        let status = |piece: &Piece<Register>| {
            matches!(piece.row.register, Register::Stream(_, StreamRegister::Status))
        };
        let first = pieces(offset, width, Register::at).filter(status);
        let then = pieces(offset, width, Register::at).filter(|piece| !status(piece));
        for piece in first.chain(then) {
            self.write_register(cx, piece, value);
        }
        self.settle(cx);
    }

    fn reset(&mut self, cx: &mut Cx<'_, Output>) {
        self.advance(cx);
        self.enter_reset(cx.out);
        (self.wake_enable, self.state_change) = (0, 0);
        self.codec = Codec::new(self.config.speakers);
        for (jack, present) in self.jacks.all() {
            self.codec.plug(jack, present);
        }
    }

    fn tick(&mut self, cx: &mut Cx<'_, Output>) {
        self.advance(cx);
        self.look_at_jacks(cx);
        self.settle(cx);
    }

    fn interrupt_line(&self) -> bool {
        Self::interrupt_line(self)
    }

    fn deadline(&self) -> Option<Duration> {
        self.streams_due().into_iter().chain(self.jacks.due()).min()
    }

    /// A controller that does not come out of reset.
    fn read_failed(_: u64, _: Width) -> u64 {
        0
    }
}
