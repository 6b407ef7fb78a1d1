//! Time since the start of the run, shared by those who send and those who receive.

use std::thread;
use std::time::{Duration, Instant};

/// A clock that starts at zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this program measures time; everything else is given this clock"
    )]
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// How long ago the start was.
    pub(crate) fn now(self) -> Duration {
        self.start.elapsed()
    }

    /// Lets time pass until what no event announces: a model's next word, the moment a request is due, another look at a
    /// process that is not ours.
    #[expect(
        clippy::disallowed_methods,
        reason = "the pause itself is what is wanted, not something that happens meanwhile"
    )]
    pub(crate) fn wait_until(self, moment: Duration) {
        thread::sleep(moment.saturating_sub(self.now()));
    }
}
