//! The reading side of each ring.
//!
//! A frame is copied out, checked, and given away; the tail moves only when [`Ring::settle`] is told that the spool has it.

use crate::launches::Options;
use crate::memory::{Memory, Refused};
use crate::pipeline::{Counters, Now, RingInfo, SlotSnapshot};
use crate::process::Life;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use whatap_wire::frame::{self, Frame, KIND_TRANSACTION};
use whatap_wire::ring::{Header, Look, SLOT_COUNT, Slot, View, flag};

/// An unreadable frame is one that is still being written, for this long.
const GIVE_UP_MS: u64 = 1_000;
/// A transaction that has a frame is not aborted, though its slot may still say that it runs.
const RECENT_IDS: usize = 64;

/// One interpreter's ring, from the collector's side.
#[derive(Debug)]
pub struct Ring {
    pub info: RingInfo,
    /// The launch value that its options are resolved from.
    pub launch: Rc<str>,
    pub memory: Memory,
    pub life: Life,
    /// When its connection ended, if it has: a hint for those whose death nobody tells.
    pub closed_ms: Option<u64>,
    /// Read up to here; the header's tail follows when it is spooled.
    read: u64,
    taken: u64,
    damaged: u64,
    /// Sequence numbers up to this one are spooled.
    spooled_seq: u64,
    stuck_since_ms: Option<u64>,
    recent: VecDeque<u64>,
    last_change_ms: u64,
    last_seen: (u64, u64),
    unsettled: bool,
    accounted: Option<Counters>,
    /// By slot.
    asked: HashMap<usize, Asked>,
}

impl Ring {
    /// A ring of a process that has just asked for one.
    pub fn create(
        data_bytes: usize,
        info: RingInfo,
        launch: Rc<str>,
        life: Life,
        now: Now,
    ) -> Result<Self, Refused> {
        let memory = Memory::create(data_bytes)?;
        memory.view().init(Header {
            ring: info.ring,
            created_us: now.wall_us,
            pid: info.pid,
        });
        Ok(Self::over(memory, info, launch, life, 0, now))
    }

    /// A ring that lived under a collector before us. `spooled_seq`: what the spool already has of it.
    pub fn adopt(
        memory: Memory,
        info: RingInfo,
        launch: Rc<str>,
        life: Life,
        spooled_seq: u64,
        now: Now,
    ) -> io::Result<Self> {
        let header = memory.view().header().map_err(io::Error::other)?;
        if header.ring != info.ring {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another ring"));
        }
        Ok(Self::over(memory, info, launch, life, spooled_seq, now))
    }

    fn over(
        memory: Memory,
        info: RingInfo,
        launch: Rc<str>,
        life: Life,
        spooled_seq: u64,
        now: Now,
    ) -> Self {
        let view = memory.view();
        let (read, taken, damaged) = (view.tail(), view.taken(), view.damaged());
        Self {
            info,
            launch,
            memory,
            life,
            closed_ms: None,
            read,
            taken,
            damaged,
            spooled_seq,
            stuck_since_ms: None,
            recent: VecDeque::with_capacity(RECENT_IDS),
            last_change_ms: now.mono_ms,
            last_seen: (0, 0),
            unsettled: false,
            accounted: None,
            asked: HashMap::new(),
        }
    }

    pub fn view(&self) -> View<'_> {
        self.memory.view()
    }

    /// Gives every readable frame to `take`, in order. Returns their bytes.
    pub fn drain(
        &mut self,
        now: Now,
        dead: bool,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&RingInfo, &Frame<'_>),
    ) -> u64 {
        let start = self.read;
        let head = self.view().head();
        while self.read != head {
            match self.view().look(self.read, head, buffer) {
                Look::Empty => break,
                Look::Frame { next } => {
                    self.read = next;
                    self.stuck_since_ms = None;
                    self.file(buffer, take);
                }
                Look::Unreadable(_) if self.is_worth_waiting(now, dead) => break,
                Look::Unreadable(_) => self.give_up_to(head),
            }
        }
        self.unsettled |= self.read != start;
        self.read.wrapping_sub(start)
    }

    fn file(&mut self, bytes: &[u8], take: &mut dyn FnMut(&RingInfo, &Frame<'_>)) {
        if frame::kind(bytes) != Some(KIND_TRANSACTION) {
            self.taken += 1;
            return;
        }
        let Ok(frame) = Frame::decode(bytes) else {
            self.damaged += 1;
            return;
        };
        if frame.ring != self.info.ring {
            self.damaged += 1;
            return;
        }
        // Numbers have no gaps: what is missing before this one was given up.
        self.damaged = self
            .damaged
            .max(frame.seq.saturating_sub(1).saturating_sub(self.taken));
        self.taken = frame.seq.saturating_sub(self.damaged).max(self.taken);
        if self.recent.len() == RECENT_IDS {
            self.recent.pop_front();
        }
        self.recent.push_back(frame.id);
        // A collector that died between spooling and moving the tail left us what it had spooled.
        if frame.seq > self.spooled_seq {
            self.spooled_seq = frame.seq;
            take(&self.info, &frame);
        }
    }

    fn is_worth_waiting(&mut self, now: Now, dead: bool) -> bool {
        let since = *self.stuck_since_ms.get_or_insert(now.mono_ms);
        !dead && now.mono_ms.saturating_sub(since) < GIVE_UP_MS
    }

    /// Nothing before `head` can be made out: the next frame begins there.
    fn give_up_to(&mut self, head: u64) {
        let put = self.view().counted().put;
        let missing = put
            .saturating_sub(self.taken.saturating_add(self.damaged))
            .max(1);
        self.damaged = self.damaged.saturating_add(missing);
        self.read = head;
        self.stuck_since_ms = None;
    }

    /// What was read is spooled: the tracer gets the space back.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.unsettled) {
            let view = self.memory.view();
            view.set_tail(self.read);
            view.set_taken(self.taken);
            view.set_damaged(self.damaged);
        }
    }

    /// The counters as of now; when the process is dead, what it still held is lost with it.
    pub fn counters(&self, dead: bool) -> Counters {
        let counted = self.view().counted();
        let mut lost = counted.lost;
        if dead {
            let known = self
                .taken
                .saturating_add(self.damaged)
                .saturating_add(counted.lost_total());
            if let Some(exit) = lost.get_mut(EXIT) {
                *exit = exit.saturating_add(counted.ended.saturating_sub(known));
            }
        }
        Counters {
            ended: counted.ended,
            lost,
            damaged: self.damaged,
            steps_cut: counted.steps_cut,
            guarded: counted.hook_failures,
        }
    }

    /// What runs now. A transaction whose frame we have does not.
    pub fn running(&self) -> Vec<Running> {
        if !self.view().may_run() {
            return Vec::new();
        }
        let slots = self.view().slots().into_iter();
        slots
            .filter(|slot| !self.recent.contains(&slot.id))
            .map(snapshot)
            .collect()
    }

    /// Whether the process has ended, as far as anybody can tell.
    pub fn is_dead(&mut self, now: Now) -> bool {
        /// Of a process that we cannot see: its connection has ended and nothing has moved for this long.
        const SILENT_MS: u64 = 600_000;
        let counted = self.view().counted();
        let seen = (self.view().head(), counted.begun);
        if seen != self.last_seen {
            self.last_seen = seen;
            self.last_change_ms = now.mono_ms;
        }
        if !matches!(self.life, Life::Unknown) {
            return self.life.is_over();
        }
        let silent = now.mono_ms.saturating_sub(self.last_change_ms) >= SILENT_MS;
        self.closed_ms.is_some() && silent
    }

    /// The counters, if they have changed since the last call.
    pub fn changed_counters(&mut self) -> Option<Counters> {
        let counters = self.counters(false);
        if self.accounted == Some(counters) {
            return None;
        }
        self.accounted = Some(counters);
        Some(counters)
    }

    /// Writes the options for its tracer.
    pub fn tell(&self, options: &Options) {
        let view = self.view();
        view.set_flags(if options.is_on() { flag::ON } else { 0 });
        if view.options().as_deref() != Some(options.block.as_str()) {
            view.set_options(&options.block);
        }
    }

    /// Wants the stack of each transaction that has run for another period. Says whether any was asked for.
    pub fn ask_for_stacks(&mut self, now: Now, every_ms: u64, running: &[Running]) -> bool {
        let view = self.memory.view();
        self.asked.retain(|slot, asked| {
            running
                .iter()
                .any(|now| now.slot == *slot && now.snapshot.id == asked.id)
        });
        let mut any = false;
        for Running { slot, snapshot } in running {
            let age_ms = now.wall_us.saturating_sub(snapshot.start_us) / 1000;
            let periods = age_ms.checked_div(every_ms).unwrap_or(0);
            let asked = self.asked.entry(*slot).or_insert(Asked {
                id: snapshot.id,
                ..Asked::default()
            });
            if periods > asked.periods {
                *asked = Asked {
                    periods,
                    step: snapshot.step,
                    waits: true,
                    ..*asked
                };
                view.want_stack(*slot, (periods % 255) as u8 + 1);
                any = true;
            }
        }
        for slot in (0..SLOT_COUNT).filter(|slot| !self.asked.contains_key(slot)) {
            if view.stack_wanted(slot) != 0 {
                view.want_stack(slot, 0);
            }
        }
        any
    }

    /// Takes back what was asked of transactions that have made a step since: one stack is enough.
    pub fn take_stacks_back(&mut self) {
        let view = self.memory.view();
        for (slot, asked) in self.asked.iter_mut().filter(|(_, asked)| asked.waits) {
            let waits = view
                .slot(*slot)
                .is_some_and(|now| now.id == asked.id && now.step == asked.step);
            if !waits {
                asked.waits = false;
                view.want_stack(*slot, 0);
            }
        }
    }

    pub fn has_waiting(&self) -> bool {
        self.view().head() != self.read
    }
}

/// What a running transaction was asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    id: u64,
    /// Its age when it was asked last, in periods.
    periods: u64,
    /// The step that it was at.
    step: u16,
    waits: bool,
}

/// Index of the cause `exit` among the causes.
const EXIT: usize = 4;

/// A running transaction and its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub slot: usize,
    pub snapshot: SlotSnapshot,
}

fn snapshot(slot: Slot) -> Running {
    let snapshot = SlotSnapshot {
        id: slot.id,
        start_us: slot.start_us,
        thread: slot.thread,
        name: slot.name,
        state: slot.state.0,
        state_start_ms: slot.state_ms,
        text: slot.text,
        step: slot.step,
    };
    Running {
        slot: slot.index,
        snapshot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Policy;
    use std::path::PathBuf;
    use std::sync::Arc;
    use whatap_wire::frame::Draft;
    use whatap_wire::ring::{DATA_BYTES, Writer};

    fn now(mono_ms: u64) -> Now {
        Now {
            wall_us: 1_700_000_000_000_000 + mono_ms * 1000,
            mono_ms,
        }
    }

    fn info() -> RingInfo {
        RingInfo {
            ring: 77,
            pid: std::process::id(),
            start_ticks: 0,
            uid: 0,
            runtime: "CPython 3.11.7".into(),
            version: "3.0.0".into(),
            host: "h".into(),
            service: "s".into(),
            instance: "i".into(),
            home: PathBuf::from("/tmp"),
            policy: Arc::new(Policy {
                keep_steps_from_us: 0,
                keep_steps_permille: 0,
                normalise_paths: true,
                path_patterns: Vec::new(),
                ..Policy::default()
            }),
        }
    }

    fn ring() -> Ring {
        Ring::create(DATA_BYTES, info(), "".into(), Life::Unknown, now(1)).unwrap()
    }

    fn put(ring: &Ring, seq: u64) {
        let head = Frame {
            seq,
            id: 1000 + seq,
            ring: 77,
            name: "/x",
            ..Frame::default()
        };
        assert!(Writer::new(ring.view()).put(|at| {
            Draft {
                head,
                ..Draft::default()
            }
            .encode(at)
        }));
    }

    fn take_all(ring: &mut Ring, at_ms: u64, dead: bool) -> Vec<u64> {
        let mut seen = Vec::new();
        ring.drain(now(at_ms), dead, &mut Vec::new(), &mut |_, frame| {
            seen.push(frame.seq)
        });
        seen
    }

    #[test]
    fn the_tail_moves_only_when_the_spool_has_it() {
        let mut ring = ring();
        (1..=3).for_each(|seq| put(&ring, seq));
        assert_eq!(take_all(&mut ring, 1, false), [1, 2, 3]);
        assert_eq!((ring.view().tail(), ring.view().taken()), (0, 0));
        ring.settle();
        assert_eq!(
            (ring.view().tail(), ring.view().taken()),
            (ring.view().head(), 3)
        );
    }

    #[test]
    fn a_collector_that_died_before_moving_the_tail_makes_no_duplicate() {
        let mut first = ring();
        (1..=5).for_each(|seq| put(&first, seq));
        take_all(&mut first, 1, false);
        let fd = first.memory.descriptor().try_clone_to_owned().unwrap();
        drop(first);
        let memory = Memory::adopt(fd).unwrap();
        let mut second = Ring::adopt(memory, info(), "".into(), Life::Unknown, 3, now(9)).unwrap();
        assert_eq!(take_all(&mut second, 9, false), [4, 5]);
        second.settle();
        assert_eq!((second.view().taken(), second.view().damaged()), (5, 0));
    }

    #[test]
    fn a_frame_that_stays_unreadable_is_given_up_and_counted() {
        let mut ring = ring();
        put(&ring, 1);
        let second = ring.view().head();
        (2..=4).for_each(|seq| put(&ring, seq));
        ring.view().scribble(second + 40);
        assert_eq!(take_all(&mut ring, 10, false), [1]);
        assert_eq!(take_all(&mut ring, 900, false), [] as [u64; 0]);
        assert_eq!(take_all(&mut ring, 1011, false), [] as [u64; 0]);
        assert_eq!(ring.damaged, 3);
        put(&ring, 5);
        assert_eq!(take_all(&mut ring, 1012, false), [5]);
        let counters = ring.counters(true);
        assert_eq!(
            (counters.ended, counters.damaged, counters.lost),
            (5, 3, [0; 8])
        );
    }

    #[test]
    fn what_waited_outside_of_the_ring_is_lost_with_the_process() {
        let mut ring = ring();
        put(&ring, 1);
        let writer = Writer::new(ring.view());
        writer.end_unseen(4);
        writer.lose(0, 2);
        assert_eq!(take_all(&mut ring, 1, true), [1]);
        assert_eq!(ring.counters(false).lost, [2, 0, 0, 0, 0, 0, 0, 0]);
        let counters = ring.counters(true);
        assert_eq!(
            (counters.ended, counters.lost),
            (7, [2, 0, 0, 0, 4, 0, 0, 0])
        );
    }

    #[test]
    fn a_transaction_that_has_a_frame_is_not_aborted() {
        let mut ring = ring();
        let writer = Writer::new(ring.view());
        writer.begin(&Slot {
            index: 0,
            id: 1001,
            name: "GET /done".into(),
            ..Slot::default()
        });
        writer.begin(&Slot {
            index: 1,
            id: 5,
            name: "GET /lost".into(),
            ..Slot::default()
        });
        put(&ring, 1);
        take_all(&mut ring, 1, true);
        let names: Vec<_> = ring
            .running()
            .into_iter()
            .map(|one| one.snapshot.name)
            .collect();
        assert_eq!(names, ["GET /lost"]);
    }

    #[test]
    fn a_stack_is_asked_for_once_a_period_and_until_the_next_step() {
        let mut ring = ring();
        let start_us = now(0).wall_us;
        let slot = Slot {
            index: 5,
            id: 9,
            start_us,
            step: 1,
            ..Slot::default()
        };
        Writer::new(ring.view()).begin(&slot);
        let ask = |ring: &mut Ring, ms| {
            let running = ring.running();
            ring.ask_for_stacks(now(ms), 10_000, &running)
        };
        assert!(!ask(&mut ring, 9_000));
        assert!(ask(&mut ring, 10_000));
        assert!(!ask(&mut ring, 11_000));
        let first = ring.view().stack_wanted(5);
        ring.take_stacks_back();
        assert_eq!(ring.view().stack_wanted(5), first);
        Writer::new(ring.view()).begin(&Slot {
            version: 1,
            step: 2,
            ..slot.clone()
        });
        ring.take_stacks_back();
        assert_eq!(ring.view().stack_wanted(5), 0);
        assert!(ask(&mut ring, 20_000));
        assert!(
            ![0, first].contains(&ring.view().stack_wanted(5)),
            "another number each time"
        );
        Writer::new(ring.view()).clear(5);
        assert!(!ask(&mut ring, 30_000));
        assert_eq!(ring.view().stack_wanted(5), 0);
    }
}
