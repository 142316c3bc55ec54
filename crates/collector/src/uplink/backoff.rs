//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that double from 0.2 s to 10 s. Each is shortened by up to half, so that many collectors do not come back at
/// the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next pause. `random` is any number, evenly spread.
    pub fn pause(&mut self, random: u32) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause - pause / 2 * (random >> 16) / (u32::MAX >> 16)
    }

    /// It worked.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds_and_are_spread() {
        let mut backoff = Backoff::default();
        let all: Vec<_> = (0..9).map(|_| backoff.pause(0).as_millis()).collect();
        assert_eq!(
            all,
            [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000]
        );
        assert_eq!(backoff.pause(u32::MAX).as_millis(), 5_000);
        assert_eq!(backoff.pause(u32::MAX / 2).as_millis() / 100, 75);
        backoff.reset();
        assert_eq!(backoff.pause(0), FIRST);
    }
}
