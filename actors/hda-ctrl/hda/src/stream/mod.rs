//! Streams: the registers of each, and the engine that moves sound between guest memory and the link.
//! HDA 1.0a §3.3.35 to §3.3.42, §4.5.
//!
//! ```text
//!               RUN 0->1                    SSYNC 0->1
//!   Reset ───────────────► Moving ◄──────────────────────► Held
//!     ▲  list read, run+1    │ ▲      SSYNC 1->0
//!     │                 RUN  │ │ RUN 0->1: same byte, same run
//!     │ SRST            1->0 ▼ │
//!     └────────────────────  Paused ◄── descriptor error (then the next RUN is a new run)
//! ```

mod attention;
mod bdl;
mod engine;
mod format;
mod packets;
mod rate;
mod recorder;
mod registers;

pub(crate) use engine::Direction;
pub(crate) use format::RawFormat;
pub(crate) use recorder::Loss;
pub(crate) use registers::{StreamRegister, TABLE};

use pci::Dma;
use wire::audio::StreamId;

use crate::clock::LinkTime;
use crate::codec::Path;
use crate::{Output, Packet};
use bdl::Ring;
use engine::Engine;
use registers::{StreamControl, StreamStatus, fixed};

/// What a stream may touch when its RUN bit or its position changes.
pub(crate) struct Scene<'a> {
    pub(crate) now: LinkTime,
    pub(crate) dma: &'a dyn Dma,
    pub(crate) out: &'a mut Vec<Output>,
    /// SSYNC's bit.
    pub(crate) held: bool,
    /// Where the position goes as well, if the position buffer is enabled.
    pub(crate) position_entry: Option<u64>,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    number: u8,
    direction: Direction,
    control: StreamControl,
    status: StreamStatus,
    /// What the guest sees as LPIB; stays when the stream stops.
    position: u32,
    cyclic: u32,
    last: u8,
    format: RawFormat,
    list: u64,
    /// Runs so far; survives every reset, so that the remote never sees a number twice.
    runs: u32,
    /// Recordings so far; the same of them.
    recordings: u32,
    /// From the first RUN after a reset on. Writing other registers that shape it ends it as well.
    engine: Option<Engine>,
}

impl Stream {
    pub(crate) fn new(number: u8, direction: Direction, runs: u32) -> Self {
        Self {
            number,
            direction,
            control: StreamControl::DEFAULT,
            status: StreamStatus::DEFAULT,
            position: 0,
            cyclic: 0,
            last: 0,
            format: RawFormat::DEFAULT,
            list: 0,
            runs,
            recordings: 0,
            engine: None,
        }
    }

    pub(crate) fn read(&self, register: StreamRegister) -> u32 {
        match register {
            StreamRegister::Control => self.control.raw_value(),
            StreamRegister::Status => self.status.raw_value().into(),
            StreamRegister::Position => self.position,
            StreamRegister::CyclicLength => self.cyclic,
            StreamRegister::LastValidIndex => self.last.into(),
            StreamRegister::FifoWatermark | StreamRegister::FifoSize => fixed(register),
            StreamRegister::Format => self.format.raw_value().into(),
            StreamRegister::ListLow => self.list as u32,
            StreamRegister::ListHigh => (self.list >> 32) as u32,
        }
    }

    /// Takes a register's new value. The stream must have advanced to now, except for its status.
    pub(crate) fn write(&mut self, register: StreamRegister, value: u32, scene: &mut Scene<'_>) {
        match register {
            StreamRegister::Control => self.set_control(StreamControl::new_with_raw_value(value), scene),
            StreamRegister::Status => self.set_status(StreamStatus::new_with_raw_value(value as u8)),
            StreamRegister::CyclicLength => self.reshape(|stream| &mut stream.cyclic, value),
            StreamRegister::LastValidIndex => self.reshape(|stream| &mut stream.last, value as u8),
            StreamRegister::Format => {
                self.reshape(|stream| &mut stream.format, RawFormat::new_with_raw_value(value as u16));
            }
            StreamRegister::ListLow => {
                let list = self.list >> 32 << 32 | u64::from(value);
                self.reshape(|stream| &mut stream.list, list);
            }
            StreamRegister::ListHigh => {
                let list = u64::from(value) << 32 | u64::from(self.list as u32);
                self.reshape(|stream| &mut stream.list, list);
            }
            StreamRegister::Position | StreamRegister::FifoWatermark | StreamRegister::FifoSize => {}
        }
    }

    /// Sets a register that shapes a run. While the stream moves nothing else happens (HDA 1.0a §3.3.38 forbids it);
    /// otherwise the next RUN begins a new run.
    fn reshape<T: PartialEq>(&mut self, field: impl FnOnce(&mut Self) -> &mut T, value: T) {
        let field = field(self);
        let changed = *field != value;
        *field = value;
        if changed && !self.control.run() {
            self.engine = None;
        }
    }

    fn set_status(&mut self, status: StreamStatus) {
        let before = core::mem::replace(&mut self.status, status);
        if before.completed() && !status.completed() {
            self.engine.iter_mut().for_each(Engine::acknowledged);
        }
    }

    fn set_control(&mut self, control: StreamControl, scene: &mut Scene<'_>) {
        if control.reset() {
            self.reset(scene.out);
            self.control = StreamControl::DEFAULT.with_reset(true);
            return;
        }
        let ran = core::mem::replace(&mut self.control, control).run();
        match (ran, control.run()) {
            (false, true) => self.start(scene),
            (true, false) => self.halt(scene.out),
            (false, false) | (true, true) => {}
        }
    }

    fn start(&mut self, scene: &mut Scene<'_>) {
        if self.engine.is_none() {
            let ring = Ring::read(scene.dma, self.list, self.last);
            let (Ok(ring), 1..) = (ring, self.cyclic) else { return self.fail(scene.out) };
            self.runs = self.runs.wrapping_add(1);
            let id = StreamId(self.number);
            let (direction, shape) = (self.direction, self.format.shape());
            self.engine = Some(Engine::new(direction, shape, ring, self.cyclic.into(), id, self.runs));
            self.publish(scene);
        }
        if let (Some(engine), false) = (&mut self.engine, scene.held) {
            engine.go(scene.now);
        }
    }

    fn halt(&mut self, out: &mut Vec<Output>) {
        if let Some(engine) = &mut self.engine {
            engine.halt(out);
        }
    }

    /// A descriptor error: the stream stops, and starts anew if it is started. HDA 1.0a §3.3.36.
    fn fail(&mut self, out: &mut Vec<Output>) {
        self.halt(out);
        self.engine = None;
        self.control = self.control.with_run(false);
        self.status = self.status.with_descriptor_error(true);
    }

    /// SSYNC: while held, a running stream waits. HDA 1.0a §3.3.17.
    pub(crate) fn hold(&mut self, scene: &mut Scene<'_>) {
        match &mut self.engine {
            Some(engine) if scene.held => engine.halt(scene.out),
            Some(engine) if self.control.run() => engine.go(scene.now),
            _ => {}
        }
    }

    /// Moves sound up to now, then the position, then the completion.
    pub(crate) fn advance(&mut self, path: &Path, scene: &mut Scene<'_>) {
        let waiting = self.control.completion_interrupt() && self.status.completed();
        let Some(engine) = &mut self.engine else { return };
        if !engine.moving() {
            return;
        }
        match engine.advance(scene.now, scene.dma, path, waiting, scene.out) {
            Ok(completed) => {
                self.publish(scene);
                self.status = self.status.with_completed(self.status.completed() || completed);
            }
            Err(_) => self.fail(scene.out),
        }
    }

    /// Shows the guest how far the stream is. A position buffer that is not there is not missed.
    fn publish(&mut self, scene: &Scene<'_>) {
        self.position = self.engine.as_ref().map_or(0, Engine::position);
        if let Some(entry) = scene.position_entry {
            let _ = scene.dma.publish(entry, self.position);
        }
    }

    /// Everything to its default (SRST, CRST or a reset of the function).
    pub(crate) fn reset(&mut self, out: &mut Vec<Output>) {
        self.halt(out);
        let Self {
            number: _,
            direction: _,
            control,
            status,
            position,
            cyclic,
            last,
            format,
            list,
            runs: _,
            recordings: _,
            engine,
        } = self;
        *control = StreamControl::DEFAULT;
        *status = StreamStatus::DEFAULT;
        (*position, *cyclic, *last, *list) = (0, 0, 0, 0);
        *format = RawFormat::DEFAULT;
        *engine = None;
    }

    /// Lets the remote record as long as the guest can hear it.
    pub(crate) fn listen(&mut self, inlet: &Path, out: &mut Vec<Output>) {
        if let Some(engine) = &mut self.engine {
            engine.listen(inlet, &mut self.recordings, out);
        }
    }

    /// The remote that was asked to record is gone.
    pub(crate) fn forget_recording(&mut self) {
        self.engine.iter_mut().for_each(Engine::forget_recording);
    }

    /// Frames of the microphone.
    pub(crate) fn captured(&mut self, packet: &Packet) {
        self.engine.iter_mut().for_each(|engine| engine.captured(packet));
    }

    /// Captured frames that wait for the guest; `None`: it does not listen.
    pub(crate) fn waiting(&self) -> Option<u64> {
        self.engine.as_ref().and_then(Engine::waiting)
    }

    /// What the recording has lost since this was asked last.
    pub(crate) fn take_loss(&mut self) -> Loss {
        self.engine.as_mut().map(Engine::take_loss).unwrap_or_default()
    }

    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// The tag on the link, 0 for none.
    pub(crate) fn tag(&self) -> u8 {
        self.control.tag().value()
    }

    pub(crate) fn moving(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::moving)
    }

    /// The longest time that one [`Self::advance`] may cover; `None` if it does not move.
    pub(crate) fn stride(&self) -> Option<u64> {
        self.engine.as_ref().filter(|engine| engine.moving()).map(Engine::stride)
    }

    /// When something is to be told or sent next.
    pub(crate) fn next(&self) -> Option<LinkTime> {
        self.engine.as_ref()?.next()
    }

    /// Whether the stream asks for an interrupt (SISn). HDA 1.0a §3.3.15.
    pub(crate) fn interrupting(&self) -> bool {
        let Self { control, status, .. } = self;
        (control.completion_interrupt() && status.completed())
            || (control.fifo_interrupt() && status.fifo_error())
            || (control.descriptor_interrupt() && status.descriptor_error())
    }
}
