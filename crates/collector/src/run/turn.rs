//! One turn of the loop.

use super::{
    ACCOUNT_MS, ACTIVE_MS, BUSY_MS, COMMIT_BYTES, Collector, FIGURES_MS, HEARTBEAT_MS, IDLE_MS,
    LIFE_MS, LOGS_MS, OPTIONS_MS, STACKS_MS, is_due,
};
use crate::launches::Renewed;
use crate::pipeline::{Now, ProcessFigures, SlotSnapshot};
use crate::rings::Ring;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use whatap_wire::Frame;

impl Collector {
    pub(super) fn turn(&mut self, now: Now) {
        if is_due(&mut self.timers.heartbeat, now, HEARTBEAT_MS) {
            self.rings
                .values()
                .for_each(|ring| ring.view().beat(now.wall_us));
        }
        let bytes = self.read_rings(now);
        self.bury(now);
        self.periodic(now);
        self.commit(now);
        self.answer_waiting(now);
        let stacks = now.mono_ms < self.stacks_until_ms;
        self.rings.values_mut().for_each(Ring::take_stacks_back);
        let busy = bytes > 0 || stacks || self.desk.take_bell();
        self.pause_ms = if busy {
            BUSY_MS
        } else {
            (self.pause_ms * 3 / 2).min(IDLE_MS)
        };
    }

    pub(super) fn read_rings(&mut self, now: Now) -> u64 {
        let ids: Vec<u64> = self
            .rings
            .iter()
            .filter(|(_, ring)| ring.has_waiting())
            .map(|(id, _)| *id)
            .collect();
        let (mut total, mut uncommitted) = (0, 0);
        for id in ids {
            let bytes = self.read_ring(id, now, false);
            total += bytes;
            uncommitted += bytes;
            if uncommitted >= COMMIT_BYTES {
                self.commit(now);
                uncommitted = 0;
            }
        }
        total
    }

    /// A ring whose content makes us fail costs its content, not the collector.
    pub(crate) fn read_ring(&mut self, id: u64, now: Now, dead: bool) -> u64 {
        let Some(ring) = self.rings.get_mut(&id) else {
            return 0;
        };
        let (back, buffer) = (&mut self.back, &mut self.buffer);
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut take = |info: &_, frame: &Frame<'_>| back.take(now, info, frame);
            ring.drain(now, dead, buffer, &mut take)
        }));
        read.unwrap_or_else(|_| {
            self.journal.line(&format!(
                "ring {id:016x} of pid {}: content given up",
                ring.info.pid
            ));
            0
        })
    }

    /// Everything taken so far goes to disk, and then the tails move.
    pub(crate) fn commit(&mut self, now: Now) {
        self.back.commit(now);
        self.rings.values_mut().for_each(Ring::settle);
        self.back.release();
    }

    /// The last accounts of processes that have ended.
    fn bury(&mut self, now: Now) {
        if is_due(&mut self.timers.life, now, LIFE_MS) {
            let silent = self
                .rings
                .iter_mut()
                .filter(|(_, ring)| ring.life.descriptor().is_none());
            self.dying
                .extend(silent.filter_map(|(id, ring)| ring.is_dead(now).then_some(*id)));
        }
        if self.dying.is_empty() {
            return;
        }
        let mut dying = std::mem::take(&mut self.dying);
        dying.sort_unstable();
        dying.dedup();
        for id in &dying {
            self.hear_out(*id);
            self.read_ring(*id, now, true);
            let Some(ring) = self.rings.get(id) else {
                continue;
            };
            for one in ring.running() {
                self.journal.line(&format!(
                    "pid {} ended while serving {}",
                    ring.info.pid, one.snapshot.name
                ));
                self.back.aborted(now, &ring.info, &one.snapshot);
            }
            let counters = ring.counters(true);
            self.journal.detail(|| {
                let (pid, lost) = (ring.info.pid, counters.lost.iter().sum::<u64>());
                format!("pid {pid} ended: {} transactions, {lost} lost in it, {} damaged, {} steps cut, {} faults of the tracer",
                    counters.ended, counters.damaged, counters.steps_cut, counters.guarded)
            });
            self.back.account(now, &ring.info, counters);
        }
        self.commit(now);
        for id in dying {
            self.rings.remove(&id);
            self.lives.retain(|_, ring| *ring != id);
            self.back.forget(id);
            self.desk.forget_ring(id);
        }
    }

    pub(super) fn periodic(&mut self, now: Now) {
        if is_due(&mut self.timers.active, now, ACTIVE_MS) {
            self.show_active(now);
        }
        if is_due(&mut self.timers.account, now, ACCOUNT_MS) {
            for ring in self.rings.values_mut() {
                if let Some(counters) = ring.changed_counters() {
                    self.back.account(now, &ring.info, counters);
                }
            }
        }
        if is_due(&mut self.timers.figures, now, FIGURES_MS) {
            self.measure(now);
        }
        if is_due(&mut self.timers.options, now, OPTIONS_MS) {
            self.refresh_options(false);
            self.desk.tidy(now);
            self.look_for_clients(now);
        }
        if is_due(&mut self.timers.logs, now, LOGS_MS) {
            self.journal.tidy();
        }
        if self.may_start_server() && self.back.wants_server() {
            let data_dir = self.launches.own().resolved.local_server_data_dir();
            self.desk.ask_for_server(now, &data_dir);
        }
    }

    /// Without a terminal only when told so, or when the launch has had one started.
    fn may_start_server(&self) -> bool {
        self.launches.own().resolved.text("local_server") == "true"
            || self.launch.get("_server").is_some()
    }

    /// Running transactions: of each ring once a second while there are any, and once more.
    pub(super) fn show_active(&mut self, now: Now) {
        let mut all: Vec<(u64, Vec<SlotSnapshot>)> = Vec::new();
        for (id, ring) in &mut self.rings {
            let running = ring.running();
            let every_ms = self.launches.options(&ring.launch).stack_period_ms();
            if ring.ask_for_stacks(now, every_ms, &running) {
                self.stacks_until_ms = now.mono_ms + STACKS_MS;
            }
            if !running.is_empty() || self.shown_active.contains(id) {
                all.push((*id, running.into_iter().map(|one| one.snapshot).collect()));
            }
        }
        let busy = all.iter().filter(|(_, slots)| !slots.is_empty());
        self.shown_active = busy.map(|(id, _)| *id).collect();
        if all.is_empty() {
            return;
        }
        let known = all
            .iter()
            .filter_map(|(id, slots)| Some((&self.rings.get(id)?.info, slots.as_slice())));
        self.back.active(now, &known.collect::<Vec<_>>());
    }

    pub(super) fn measure(&mut self, now: Now) {
        if self.rings.is_empty() || !self.launches.own().resolved.bool("counter_enabled") {
            return;
        }
        let host = self.sampler.host();
        let mut seen: HashMap<u32, Option<ProcessFigures>> = HashMap::new();
        for ring in self.rings.values() {
            let pid = ring.info.pid;
            // One process, one set of figures, however many interpreters it has.
            if pid == 0 || seen.contains_key(&pid) {
                continue;
            }
            let figures = self.sampler.process(pid, now.mono_ms);
            seen.insert(pid, figures);
            if let Some(figures) = figures {
                self.back.figures(now, &ring.info, figures, host);
            }
        }
        let pids: Vec<u32> = seen.into_keys().collect();
        self.sampler.keep_only(&pids);
    }

    pub(super) fn refresh_options(&mut self, force: bool) {
        let renewed = self.launches.refresh(force);
        if renewed.is_empty() {
            return;
        }
        self.keep_journal();
        for line in renewed.iter().filter_map(Renewed::line) {
            self.journal.news(&line);
        }
        for finding in renewed.iter().flat_map(|one| &one.findings) {
            self.journal.line(finding);
        }
        let ids: Vec<u64> = self.rings.keys().copied().collect();
        for id in ids {
            self.renew(id, &renewed);
        }
        self.back.change(self.launches.own());
    }

    fn renew(&mut self, id: u64, renewed: &[Renewed]) {
        let Some(ring) = self.rings.get(&id) else {
            return;
        };
        if renewed.iter().any(|one| one.launch == ring.launch) {
            let (service, instance) = self.names(&ring.launch, ring.info.pid);
            let options = self.launches.options(&ring.launch);
            let Some(ring) = self.rings.get_mut(&id) else {
                return;
            };
            ring.info.policy = options.policy.clone();
            (ring.info.service, ring.info.instance) = (service, instance);
            ring.tell(options);
            self.journal
                .detail(|| format!("pid {} is told new options", ring.info.pid));
        }
    }

    /// How the log is kept is an option too.
    pub(super) fn keep_journal(&self) {
        let own = &self.launches.own().resolved;
        self.journal
            .keep(own.count("log_keep_days"), own.bool("log_rotation_enabled"));
        self.journal.detailed(own.bool("debug"));
        self.journal.tidy();
    }
}
