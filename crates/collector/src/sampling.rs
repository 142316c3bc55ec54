//! Which transactions keep their steps, and which names are still told apart. Counts are never sampled: every
//! transaction's row is sent whatever is decided here.

use crate::pipeline::{Now, Policy};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Distinct transaction names per [`WINDOW_MS`]; more are called [`OTHER`].
pub const MAX_NAMES: usize = 5_000;
/// The first transaction of each name in such a window keeps its steps.
pub const WINDOW_MS: u64 = 5 * 60 * 1_000;
/// The name of what has no name of its own any more.
pub const OTHER: &str = "(other)";
/// So many ordinary transactions a second keep their steps whatever the rate says: sampling is for load.
pub const QUIET_PER_SECOND: u32 = 20;

/// What a name is to the present window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    First,
    Before,
    /// There are too many names already.
    Over,
}

/// The names of the present window.
#[derive(Default)]
pub struct Names {
    began_ms: u64,
    seen: HashSet<u64, BuildHasherDefault<AsIs>>,
    over: u64,
}

impl Names {
    /// Files `name`, a hash of the service and the name.
    pub fn file(&mut self, now: Now, name: u64) -> Seen {
        if now.mono_ms.saturating_sub(self.began_ms) >= WINDOW_MS {
            self.began_ms = now.mono_ms;
            self.seen.clear();
        }
        if self.seen.contains(&name) {
            return Seen::Before;
        }
        if self.seen.len() >= MAX_NAMES {
            self.over += 1;
            return Seen::Over;
        }
        self.seen.insert(name);
        Seen::First
    }

    /// Transactions so far that were filed under [`OTHER`].
    pub const fn over(&self) -> u64 {
        self.over
    }
}

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub error: bool,
    pub duration_us: u64,
    pub first_of_name: bool,
    /// The caller, in another process, says that it keeps this trace.
    pub kept_by_caller: bool,
    pub trace: [u8; 16],
}

/// Decides about steps.
#[derive(Default)]
pub struct Sampler {
    second: u64,
    quiet_left: u32,
}

impl Sampler {
    pub fn keeps_steps(&mut self, now: Now, policy: &Policy, case: Case) -> bool {
        let must = case.error
            || case.duration_us >= policy.keep_steps_from_us
            || case.first_of_name
            || case.kept_by_caller;
        must || share(case.trace) < policy.keep_steps_permille || self.is_quiet(now)
    }

    fn is_quiet(&mut self, now: Now) -> bool {
        let second = now.mono_ms / 1_000;
        if second != self.second {
            self.second = second;
            self.quiet_left = QUIET_PER_SECOND;
        }
        let quiet = self.quiet_left > 0;
        self.quiet_left = self.quiet_left.saturating_sub(1);
        quiet
    }
}

/// 0 to 999, by the trace alone: every process that a trace passes through decides alike.
fn share(trace: [u8; 16]) -> u32 {
    let id = u128::from_be_bytes(trace);
    let mixed = ((id as u64) ^ ((id >> 64) as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (((mixed >> 32) * 1_000) >> 32) as u32
}

/// For values that are hashes already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            wall_us: 0,
            mono_ms: ms,
        }
    }

    fn policy(permille: u32) -> Policy {
        Policy {
            keep_steps_from_us: 500_000,
            keep_steps_permille: permille,
            ..Policy::default()
        }
    }

    fn ordinary(trace: u64) -> Case {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&trace.wrapping_mul(0x5851_f42d_4c95_7f2d).to_be_bytes());
        Case {
            error: false,
            duration_us: 10,
            first_of_name: false,
            kept_by_caller: false,
            trace: id,
        }
    }

    #[test]
    fn what_matters_is_always_kept() {
        let mut sampler = Sampler::default();
        let none = policy(0);
        for trace in 0..1_000 {
            sampler.keeps_steps(at(1_000), &none, ordinary(trace));
        }
        let case = ordinary(1);
        assert!(!sampler.keeps_steps(at(1_000), &none, case));
        assert!(sampler.keeps_steps(
            at(1_000),
            &none,
            Case {
                error: true,
                ..case
            }
        ));
        assert!(sampler.keeps_steps(
            at(1_000),
            &none,
            Case {
                duration_us: 500_000,
                ..case
            }
        ));
        assert!(sampler.keeps_steps(
            at(1_000),
            &none,
            Case {
                first_of_name: true,
                ..case
            }
        ));
        assert!(sampler.keeps_steps(
            at(1_000),
            &none,
            Case {
                kept_by_caller: true,
                ..case
            }
        ));
    }

    #[test]
    fn quiet_traffic_keeps_all_and_load_keeps_a_share() {
        let mut sampler = Sampler::default();
        let tenth = policy(100);
        let quiet = (0..20)
            .filter(|n| sampler.keeps_steps(at(1_000), &tenth, ordinary(*n)))
            .count();
        assert_eq!(quiet, 20);
        let loaded = (0..10_000)
            .filter(|n| sampler.keeps_steps(at(2_000), &tenth, ordinary(*n)))
            .count();
        assert!((900..1_150).contains(&loaded), "{loaded}");
    }

    #[test]
    fn a_trace_is_decided_alike_everywhere() {
        let (mut one, mut other) = (Sampler::default(), Sampler::default());
        let half = policy(500);
        for n in 0..100 {
            one.keeps_steps(at(1_000), &half, ordinary(n));
            other.keeps_steps(at(1_000), &half, ordinary(1_000 + n));
        }
        for n in 0..1_000 {
            assert_eq!(
                one.keeps_steps(at(1_000), &half, ordinary(n)),
                other.keeps_steps(at(1_000), &half, ordinary(n))
            );
        }
    }

    #[test]
    fn names_are_told_apart_up_to_a_number_and_counted_beyond() {
        let mut names = Names::default();
        assert_eq!(names.file(at(0), 7), Seen::First);
        assert_eq!(names.file(at(10), 7), Seen::Before);
        for name in 0..100_000_u64 {
            names.file(at(20), name);
        }
        assert_eq!(names.file(at(30), 999_999), Seen::Over);
        assert_eq!(names.file(at(30), 7), Seen::Before);
        assert_eq!(names.over(), 100_000 - MAX_NAMES as u64 + 1);
        assert_eq!(names.file(at(WINDOW_MS), 999_999), Seen::First);
    }
}
