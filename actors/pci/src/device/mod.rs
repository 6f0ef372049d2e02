//! A PCI function: configuration space, a model behind BAR 0, and the wall around the model.
//!
//! ```text
//!              panic in any call                       limit reached
//!   Working ───────────────────────► Failed, due at t ───────────────► Failed for good
//!      ▲                                  │ tick at t                       │ PCI reset, when the
//!      └──────────────────────────────────┴─────────────────────────────────┘ window has passed
//! ```

mod split;
mod turn;

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use turn::Turn;

use crate::{ConfigSpace, Cx, Dma, Layout, Model, Restarts};

/// A PCI function made of a [`Model`] and its [`ConfigSpace`].
///
/// Every entry into the model happens behind `catch_unwind`. When a call panics, the model is dropped, what it
/// emitted during that call is discarded, and until it has been rebuilt reads answer with [`Model::read_failed`] and
/// writes are ignored: the guest sees a failed device, and nobody else sees anything.
pub struct Device<M: Model> {
    config: ConfigSpace,
    factory: Box<dyn FnMut() -> M>,
    state: State<M>,
    restarts: Restarts,
    panics: u64,
    /// A new model came by reset: the owner hears of it at the next tick.
    unreported: bool,
}

enum State<M> {
    Working { model: M, deadline: Option<Duration> },
    Failed { due: Option<Duration> },
}

/// What a tick has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Ticked {
    /// The model is a new one: whoever attaches devices to it attaches them again.
    pub rebuilt: bool,
}

impl<M: Model> Device<M> {
    /// A function whose model is made by the factory, now and after each failure.
    pub fn new(config: ConfigSpace, factory: impl FnMut() -> M + 'static) -> Self {
        let due = Some(Duration::ZERO);
        let mut this = Self {
            config,
            factory: Box::new(factory),
            state: State::Failed { due },
            restarts: Restarts::default(),
            panics: 0,
            unreported: false,
        };
        this.build();
        this
    }

    /// The same with other rules for rebuilding.
    #[must_use]
    pub fn with_restarts(mut self, restarts: Restarts) -> Self {
        self.restarts = restarts;
        self
    }

    /// The device for the length of one request, event or batch of events.
    ///
    /// Effects are appended to `out`, in order.
    pub fn turn<'a>(
        &'a mut self,
        now: Duration,
        dma: &'a dyn Dma,
        out: &'a mut Vec<M::Output>,
    ) -> Turn<'a, M> {
        Turn { device: self, now, dma, out }
    }

    /// When [`Self::tick`] wants to be called, if at all: what the model asks for, or the time of its rebuilding.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            _ if self.unreported => Some(Duration::ZERO),
            State::Working { deadline, .. } => *deadline,
            State::Failed { due } => *due,
        }
    }

    /// Time has come: the model works off what is due, or is rebuilt. Early and repeated calls do no harm.
    pub fn tick(&mut self, now: Duration, dma: &dyn Dma, out: &mut Vec<M::Output>) -> Ticked {
        if let State::Failed { due: Some(due) } = self.state
            && due <= now
        {
            self.rebuild(now);
        }
        let _ = self.turn(now, dma, out).with(|model, cx| model.tick(cx));
        Ticked { rebuilt: core::mem::take(&mut self.unreported) && !self.failed() }
    }

    /// Whether the function drives its interrupt pin; a failed one does not.
    #[must_use]
    pub fn interrupt_line(&mut self) -> bool {
        let pending = self.model().is_some_and(Model::interrupt_line);
        self.config.interrupt_pin(pending)
    }

    /// What a bus must know in advance.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.config.layout()
    }

    /// Configuration space.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// The working model, to look at.
    #[must_use]
    pub fn model(&self) -> Option<&M> {
        match &self.state {
            State::Working { model, .. } => Some(model),
            State::Failed { .. } => None,
        }
    }

    /// Whether there is no working model at the moment.
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }

    /// How many calls of the model or its factory have panicked so far.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics
    }

    /// Calls the working model behind the wall.
    fn enter<R>(
        &mut self,
        cx: &mut Cx<'_, M::Output>,
        call: impl FnOnce(&mut M, &mut Cx<'_, M::Output>) -> R,
    ) -> Option<R> {
        let State::Working { model, deadline } = &mut self.state else { return None };
        let emitted = cx.out.len();
        // Nothing broken by the unwinding is looked at again: the model goes, its effects go, memory is the guest's.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let result = call(model, cx);
            *deadline = model.deadline();
            result
        }));
        match result {
            Ok(result) => Some(result),
            Err(_) => {
                cx.out.truncate(emitted);
                self.fail(cx.now);
                None
            }
        }
    }

    fn fail(&mut self, now: Duration) {
        self.panics += 1;
        let due = self.restarts.failed(now);
        tracing::error!(
            panics = self.panics,
            ?due,
            "a device model panicked; the guest sees a failed device"
        );
        let broken = core::mem::replace(&mut self.state, State::Failed { due });
        // A destructor of a half-changed model may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
    }

    fn rebuild(&mut self, now: Duration) {
        if self.build() {
            self.unreported = true;
            tracing::info!(panics = self.panics, "the device model was rebuilt");
        } else {
            self.state = State::Failed { due: self.restarts.failed(now) };
        }
    }

    fn build(&mut self) -> bool {
        let factory = &mut self.factory;
        let built = catch_unwind(AssertUnwindSafe(|| {
            let model = factory();
            let deadline = model.deadline();
            State::Working { model, deadline }
        }));
        match built {
            Ok(state) => self.state = state,
            Err(_) => self.panics += 1,
        }
        !self.failed()
    }
}

#[cfg(test)]
mod tests;
