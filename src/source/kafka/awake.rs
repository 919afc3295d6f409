//! Whether this process has stood still: suspended, or its machine frozen.
//!
//! The group takes a member for dead that was silent for its session, and gives its partitions to others. librdkafka finds that out when the process
//! wakes, and joins anew, under a membership that the broker accepts; what is still on its way to a transaction then would be committed under it although another
//! member has committed the same. So a process that has stood still for half of its session commits nothing any more and stops. Time is measured by a thread
//! that does nothing else: what is busy, or waits for a broker, goes on sending heartbeats and is no case of this.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{STAGE, Shared};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};

/// How often the thread says that time goes on.
const TURN: Duration = Duration::from_millis(100);

/// The last sign of life.
#[derive(Debug)]
pub(super) struct Awake {
    last: Mutex<Instant>,
    /// Standing still for longer may have cost the membership.
    longest: Duration,
}

impl Awake {
    /// For a member of this session time-out.
    pub(super) fn new(session: Duration) -> Self {
        Awake { last: Mutex::new(clock::tick()), longest: session / 2 }
    }

    /// The session time-out.
    pub(super) fn session(&self) -> Duration {
        self.longest * 2
    }

    /// How long the process has stood still, if that was too long; else a sign of life.
    fn turn(&self, now: Instant) -> Option<Duration> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let still = now.saturating_duration_since(*last);
        if still > self.longest {
            // Not set: whoever asks from now on learns the same.
            return Some(still);
        }
        *last = now;
        None
    }

    /// Refuses if the process has stood still for too long.
    ///
    /// # Errors
    /// As above; the stage is to be started again.
    pub(super) fn check(&self, group: &str) -> Result<()> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let still = clock::tick().saturating_duration_since(last);
        if still > self.longest { Err(stood_still(still, group)) } else { Ok(()) }
    }
}

fn stood_still(still: Duration, group: &str) -> Error {
    let text =
        format!("this process stood still for {:.1} s: the group `{group}` may have given its partitions to others", still.as_secs_f64());
    Error::new(Kind::Retry, STAGE, text)
        .help("start again; nothing is lost and nothing is written twice. Where machines sleep, a longer `session.timeout.ms` in the client settings of [source] bears it")
}

/// Says that time goes on until the source ends; stops the source when it has not gone on.
pub(super) fn run(shared: &Shared, ended: &dyn Fn() -> bool) {
    while !ended() {
        std::thread::sleep(TURN);
        if let Some(still) = shared.awake.turn(clock::tick()) {
            shared.fail(stood_still(still, &shared.group));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stood_still_for_half_a_session_is_told_so_from_then_on() {
        let awake = Awake::new(Duration::from_secs(10));
        let start = clock::tick();
        assert_eq!(awake.turn(start + Duration::from_secs(4)), None);
        assert_eq!(awake.turn(start + Duration::from_secs(8)), None);
        assert!(awake.check("g").is_ok());
        for _ in 0..2 {
            assert!(awake.turn(start + Duration::from_secs(14)).is_some_and(|still| still > Duration::from_secs(5)));
        }
        let short = Awake::new(Duration::ZERO);
        let error = short.check("g").unwrap_err();
        assert!(error.exit_code() == 75 && error.to_string().contains("stood still"), "{error}");
    }
}
