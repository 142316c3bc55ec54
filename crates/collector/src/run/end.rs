//! When a collector ends, and how.

use super::{BUSY_MS, Collector, LEAVE_MS, Leaving, MARKS_MS, is_due};
use crate::ensure::Task;
use crate::pipeline::Now;
use crate::process::carries_mark;
use std::path::Path;
use std::time::Duration;
use whatap_wire::ring::flag;

impl Collector {
    /// An instance ends some time after its last client: attached processes, launched ones, and what carries our mark.
    pub(super) fn look_for_clients(&mut self, now: Now) {
        let attended = !self.rings.is_empty() || self.desk.has_launches();
        if !attended && is_due(&mut self.timers.marks, now, MARKS_MS) {
            self.marked = self.launch.name().is_some_and(carries_mark);
        }
        if attended || self.marked {
            self.idle_since_ms = None;
            return;
        }
        let since = *self.idle_since_ms.get_or_insert(now.mono_ms);
        let linger = self.launches.own().resolved.count("agent_linger_sec");
        let is_over = now.mono_ms.saturating_sub(since) >= linger.saturating_mul(1000);
        if linger > 0 && is_over && self.desk.has_watchdog() && self.leaving.is_none() {
            self.journal.line("no client left");
            self.leaving = Some(Leaving {
                until_ms: now.mono_ms,
                done: true,
                handover: false,
            });
        }
    }

    /// `clients_ms`: how long clients may go on.
    pub(crate) fn start_leaving(&mut self, done: bool, clients_ms: u64) {
        let until_ms = self.now().mono_ms.saturating_add(clients_ms);
        match &mut self.leaving {
            Some(leaving) => {
                leaving.until_ms = leaving.until_ms.min(until_ms);
                leaving.done |= done;
                leaving.handover = false;
            }
            None => {
                self.journal.line("leaving");
                self.leaving = Some(Leaving {
                    until_ms,
                    done,
                    handover: false,
                });
            }
        }
        self.pause_ms = BUSY_MS;
    }

    /// A newer collector is about to take our place.
    pub(crate) fn start_handover(&mut self) {
        if self.leaving.is_none() {
            self.journal.line("handing over to a newer version");
            self.leaving = Some(Leaving {
                until_ms: self.now().mono_ms,
                done: false,
                handover: true,
            });
        }
    }

    pub(super) fn may_leave(&self, now: Now) -> bool {
        let rings = self.rings.is_empty();
        self.leaving
            .as_ref()
            .is_some_and(|leaving| rings || now.mono_ms >= leaving.until_ms)
    }

    pub(super) fn leave(mut self, now: Now) {
        if self
            .leaving
            .as_ref()
            .is_some_and(|leaving| leaving.handover)
        {
            return self.hand_over(now);
        }
        self.hear_all_out();
        for ring in self.rings.values() {
            ring.view().set_flags(ring.view().flags() | flag::LEAVING);
        }
        self.read_rings(now);
        self.account_all(now);
        self.commit(now);
        let sent = self.back.close(Duration::from_millis(LEAVE_MS));
        // Watchdogs that have lined up meanwhile must hear of a stop; for tracers it is too late.
        self.desk.close_to_tracers();
        self.welcome();
        self.journal.line(if sent {
            "WA211-01 left, everything sent"
        } else {
            "WA211-01 left, the rest waits in the spool"
        });
        let done = self.leaving.as_ref().is_some_and(|leaving| leaving.done);
        self.desk.farewell(done);
    }

    /// What is in the rings is spooled; the rest is the next collector's.
    fn hand_over(mut self, now: Now) {
        self.hear_all_out();
        self.read_rings(now);
        self.account_all(now);
        self.commit(now);
        self.back.close(Duration::ZERO);
        self.desk.farewell(false);
    }

    fn account_all(&mut self, now: Now) {
        for ring in self.rings.values() {
            self.back.account(now, &ring.info, ring.counters(false));
        }
    }

    /// The holder has died and left the name to us: this process takes its place, so that no ring and no waiting connection
    /// is lost.
    pub(super) fn become_watchdog(mut self) {
        self.journal.line("the watchdog is gone: taking its place");
        let now = self.now();
        self.read_rings(now);
        self.commit(now);
        let mut kept = self.desk.registrations();
        for ring in self.rings.values() {
            if let Ok(fd) = ring.memory.duplicate() {
                kept.push((self.keep_message(ring).renamed("kept"), Some(fd)));
            }
        }
        let task = Task {
            launch: &self.launch,
            listener: self.listener.try_clone().ok(),
            kept,
            server: None,
        };
        let error = task.become_watchdog(Path::new("/proc/self/exe"));
        self.journal
            .line(&format!("cannot become a watchdog: {error}"));
    }
}
