//! What storage remembers across batches: numbers of batches seen, counters of the senders'
//! accounting, instances. It changes only with the WAL, so that doing the WAL again gives the same.

use crate::answers;
use crate::codec::{Bad, Reader, put_signed, put_text, put_varint};
use crate::model::{BatchId, MetricPoint, MetricValue, Resource, Total, TotalKind};
use std::collections::HashMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    windows: HashMap<(u64, u8), Window>,
    totals: HashMap<(u64, TotalKind), (u64, i64)>,
    instances: Instances,
}

/// Project, service, instance.
pub(crate) type InstanceKey = (u32, String, String);
pub(crate) type Instances = HashMap<InstanceKey, InstanceState>;

impl Ledger {
    /// Notes a batch; false = it was seen before.
    pub(crate) fn is_new(&mut self, id: BatchId, now_us: i64) -> bool {
        if self.windows.len() >= MAX_WINDOWS
            && !self.windows.contains_key(&(id.spool, id.signal as u8))
        {
            forget_oldest(&mut self.windows, |w| w.used_us);
        }
        let window = self
            .windows
            .entry((id.spool, id.signal as u8))
            .or_insert_with(|| Window::starting_at(id.number));
        window.used_us = now_us;
        window.insert(id.number)
    }

    pub(crate) fn seen(&self, id: BatchId) -> bool {
        self.windows
            .get(&(id.spool, id.signal as u8))
            .is_some_and(|w| w.contains(id.number))
    }

    /// What a cumulative counter grew by.
    pub(crate) fn growth(&mut self, total: &Total, now_us: i64) -> u64 {
        let key = (total.ring, total.kind.clone());
        if total.value == 0 && !self.totals.contains_key(&key) {
            return 0;
        }
        if self.totals.len() >= MAX_TOTALS && !self.totals.contains_key(&key) {
            forget_oldest(&mut self.totals, |t| t.1);
        }
        let known = self.totals.entry(key).or_insert((0, now_us));
        let growth = total.value.saturating_sub(known.0);
        *known = (known.0.max(total.value), now_us);
        growth
    }

    /// Notes that a process reported at `time_us` about times since `oldest_us`.
    pub(crate) fn saw(&mut self, resource: &Resource, oldest_us: i64, time_us: i64) {
        let instance = self.instance(resource, time_us);
        instance.first_us = instance.first_us.min(oldest_us);
        instance.last_us = instance.last_us.max(time_us);
        instance.pid(resource.pid, time_us);
        for (known, new) in [
            (&mut instance.host, &resource.host),
            (&mut instance.runtime, &resource.runtime),
            (&mut instance.agent, &resource.agent),
        ] {
            if known != new && !new.is_empty() {
                known.clone_from(new);
            }
        }
    }

    pub(crate) fn gauge(&mut self, resource: &Resource, point: &MetricPoint, time_us: i64) {
        let value = match point.value {
            MetricValue::Gauge(value) | MetricValue::Sum(value) => value,
            MetricValue::Delta(_) | MetricValue::Histogram { .. } => return,
        };
        let instance = self.instance(resource, time_us);
        let host = &mut instance.host_gauges;
        match point.name.as_str() {
            "system.cpu.utilization" => host.cpu = Some(value),
            "system.memory.usage" => host.memory = Some(value),
            "system.memory.limit" => host.limit = Some(value),
            "system.cpu.load_average.1m" => host.load1 = Some(value),
            name => {
                let process = instance.pid(resource.pid, time_us);
                match name {
                    CPU => process.cpu = Some(value),
                    MEMORY => process.memory = Some(value),
                    "process.thread.count" => process.threads = Some(value),
                    "process.unix.file_descriptor.count" => process.fds = Some(value),
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn instances(&self) -> &Instances {
        &self.instances
    }

    fn instance(&mut self, resource: &Resource, time_us: i64) -> &mut InstanceState {
        let key = (
            resource.project,
            resource.service.clone(),
            resource.instance.clone(),
        );
        if self.instances.len() >= MAX_INSTANCES && !self.instances.contains_key(&key) {
            forget_oldest(&mut self.instances, |i| i.last_us);
        }
        self.instances
            .entry(key)
            .or_insert_with(|| InstanceState::new(time_us))
    }
}

/// The last numbers of one spool and signal.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    /// Highest number seen.
    highest: u64,
    /// Bit n of all: `highest - n` was seen.
    seen: Vec<u64>,
    used_us: i64,
}

impl Window {
    fn starting_at(number: u64) -> Self {
        Self {
            highest: number,
            seen: vec![0; WINDOW / 64],
            used_us: 0,
        }
    }

    fn insert(&mut self, number: u64) -> bool {
        if number > self.highest {
            self.shift(number - self.highest);
            self.highest = number;
        }
        let age = self.highest - number;
        if age >= WINDOW as u64 {
            // Numbers come in order: one so old was stored long ago.
            return false;
        }
        let (word, bit) = (age / 64, age % 64);
        let word = &mut self.seen[usize::try_from(word).unwrap_or(0)];
        let new = *word & 1 << bit == 0;
        *word |= 1 << bit;
        new
    }

    fn contains(&self, number: u64) -> bool {
        let Some(age) = self.highest.checked_sub(number) else {
            return false;
        };
        let Some(word) = usize::try_from(age / 64)
            .ok()
            .and_then(|w| self.seen.get(w))
        else {
            return true;
        };
        word & 1 << (age % 64) != 0
    }

    /// Makes every bit `by` older.
    fn shift(&mut self, by: u64) {
        let by = usize::try_from(by).unwrap_or(WINDOW).min(WINDOW);
        let (words, bits) = (by / 64, by % 64);
        for place in (0..self.seen.len()).rev() {
            let from = |back: usize| place.checked_sub(back).map_or(0, |p| self.seen[p]);
            let mut word = from(words) << bits;
            if bits > 0 {
                word |= from(words + 1) >> (64 - bits);
            }
            self.seen[place] = word;
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct InstanceState {
    pub(crate) host: String,
    pub(crate) runtime: String,
    pub(crate) agent: String,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
    host_gauges: HostGauges,
    processes: HashMap<u32, Process>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct HostGauges {
    cpu: Option<f64>,
    memory: Option<f64>,
    limit: Option<f64>,
    load1: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Process {
    last_us: i64,
    cpu: Option<f64>,
    memory: Option<f64>,
    threads: Option<f64>,
    fds: Option<f64>,
}

impl InstanceState {
    fn new(now_us: i64) -> Self {
        Self {
            first_us: now_us,
            last_us: now_us,
            ..Self::default()
        }
    }

    fn pid(&mut self, pid: u32, time_us: i64) -> &mut Process {
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&pid) {
            forget_oldest(&mut self.processes, |p| p.last_us);
        }
        let process = self.processes.entry(pid).or_default();
        process.last_us = process.last_us.max(time_us);
        process
    }

    pub(crate) fn connected(&self, now_us: i64) -> bool {
        self.last_us >= now_us.saturating_sub(CONNECTED_US)
    }

    pub(crate) fn answer(&self, key: &InstanceKey, now_us: i64) -> answers::Instance {
        let connected = self.connected(now_us);
        let alive = |p: &&Process| connected && p.last_us >= now_us.saturating_sub(CONNECTED_US);
        let mut pids: Vec<u32> = self
            .processes
            .iter()
            .filter(|(pid, p)| **pid != 0 && alive(p))
            .map(|(pid, _)| *pid)
            .collect();
        pids.sort_unstable();
        let sum = |of: fn(&Process) -> Option<f64>| {
            let values: Vec<f64> = self
                .processes
                .values()
                .filter(alive)
                .filter_map(of)
                .collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>())
        };
        let host = |value: Option<f64>| value.filter(|_| connected);
        answers::Instance {
            id: key.2.clone(),
            service: key.1.clone(),
            host: self.host.clone(),
            pids,
            runtime: self.runtime.clone(),
            agent: self.agent.clone(),
            first_seen_us: self.first_us,
            last_seen_us: self.last_us,
            connected,
            cpu: sum(|p| p.cpu),
            memory_bytes: whole(sum(|p| p.memory)),
            threads: whole(sum(|p| p.threads)),
            fds: whole(sum(|p| p.fds)),
            host_cpu: host(self.host_gauges.cpu),
            host_memory_bytes: whole(host(self.host_gauges.memory)),
            host_memory_limit: whole(host(self.host_gauges.limit)),
            load1: host(self.host_gauges.load1),
        }
    }
}

pub(crate) const CPU: &str = "process.cpu.utilization";
pub(crate) const MEMORY: &str = "process.memory.usage";

/// A gauge that counts something.
pub(crate) fn whole(value: Option<f64>) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and not-a-number becomes 0"
    )]
    value.map(|v| v as u64)
}

fn forget_oldest<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    used: impl Fn(&V) -> i64,
) {
    let oldest = map.iter().min_by_key(|(_, v)| used(v));
    if let Some(key) = oldest.map(|(k, _)| k.clone()) {
        map.remove(&key);
    }
}

/// The checkpoint's bytes (`docs/storage.md` §6).
impl Ledger {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.windows.len() as u64);
        for ((spool, signal), window) in &self.windows {
            out.extend_from_slice(&spool.to_le_bytes());
            out.push(*signal);
            put_varint(&mut out, window.highest);
            put_signed(&mut out, window.used_us);
            for word in &window.seen {
                put_varint(&mut out, !word);
            }
        }
        put_varint(&mut out, self.totals.len() as u64);
        for ((ring, kind), (value, used_us)) in &self.totals {
            out.extend_from_slice(&ring.to_le_bytes());
            match kind {
                TotalKind::Ended => out.push(0),
                TotalKind::Aborted => out.push(1),
                TotalKind::Lost { place, cause } => {
                    out.push(2);
                    put_text(&mut out, place);
                    put_text(&mut out, cause);
                }
            }
            put_varint(&mut out, *value);
            put_signed(&mut out, *used_us);
        }
        put_varint(&mut out, self.instances.len() as u64);
        for (key, state) in &self.instances {
            put_varint(&mut out, key.0.into());
            put_text(&mut out, &key.1);
            put_text(&mut out, &key.2);
            state.encode(&mut out);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(Bad::Value);
        }
        let mut ledger = Self::default();
        for _ in 0..r.count()? {
            let key = (r.u64()?, r.u8()?);
            let mut window = Window::starting_at(r.varint()?);
            window.used_us = r.signed()?;
            for word in &mut window.seen {
                *word = !r.varint()?;
            }
            ledger.windows.insert(key, window);
        }
        for _ in 0..r.count()? {
            let ring = r.u64()?;
            let kind = match r.u8()? {
                0 => TotalKind::Ended,
                1 => TotalKind::Aborted,
                2 => TotalKind::Lost {
                    place: r.string()?,
                    cause: r.string()?,
                },
                _ => return Err(Bad::Value),
            };
            let value = (r.varint()?, r.signed()?);
            ledger.totals.insert((ring, kind), value);
        }
        for _ in 0..r.count()? {
            let key = (r.varint32()?, r.string()?, r.string()?);
            ledger.instances.insert(key, InstanceState::decode(&mut r)?);
        }
        r.finish()?;
        Ok(ledger)
    }
}

impl InstanceState {
    fn encode(&self, out: &mut Vec<u8>) {
        for text in [&self.host, &self.runtime, &self.agent] {
            put_text(out, text);
        }
        put_signed(out, self.first_us);
        put_signed(out, self.last_us);
        put_varint(out, self.processes.len() as u64);
        for (pid, process) in &self.processes {
            put_varint(out, (*pid).into());
            put_signed(out, process.last_us);
            put_gauges(
                out,
                [process.cpu, process.memory, process.threads, process.fds],
            );
        }
        let host = &self.host_gauges;
        put_gauges(out, [host.cpu, host.memory, host.limit, host.load1]);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Bad> {
        let mut state = Self {
            host: r.string()?,
            runtime: r.string()?,
            agent: r.string()?,
            first_us: r.signed()?,
            last_us: r.signed()?,
            ..Self::default()
        };
        for _ in 0..r.count()? {
            let pid = r.varint32()?;
            let last_us = r.signed()?;
            let [cpu, memory, threads, fds] = gauges(r)?;
            let process = Process {
                last_us,
                cpu,
                memory,
                threads,
                fds,
            };
            state.processes.insert(pid, process);
        }
        let [cpu, memory, limit, load1] = gauges(r)?;
        state.host_gauges = HostGauges {
            cpu,
            memory,
            limit,
            load1,
        };
        Ok(state)
    }
}

/// Not-a-number stands for none.
fn put_gauges(out: &mut Vec<u8>, gauges: [Option<f64>; 4]) {
    for gauge in gauges {
        out.extend_from_slice(&gauge.unwrap_or(f64::NAN).to_le_bytes());
    }
}

fn gauges(r: &mut Reader<'_>) -> Result<[Option<f64>; 4], Bad> {
    let mut all = [None; 4];
    for gauge in &mut all {
        *gauge = Some(f64::from_bits(r.u64()?)).filter(|g| !g.is_nan());
    }
    Ok(all)
}

const VERSION: u8 = 1;
const WINDOW: usize = 4_096;
const CONNECTED_US: i64 = 30_000_000;
const MAX_WINDOWS: usize = 4_096;
const MAX_TOTALS: usize = 100_000;
const MAX_INSTANCES: usize = 10_000;
const MAX_PROCESSES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Signal;
    use crate::sample::{NOW, resource};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn id(number: u64) -> BatchId {
        BatchId {
            spool: 1,
            signal: Signal::Traces,
            number,
        }
    }

    proptest! {
        #[test]
        fn a_number_is_new_once(numbers in proptest::collection::vec(0..3_000_u64, 1..300)) {
            let mut ledger = Ledger::default();
            let mut model = HashSet::new();
            for number in numbers {
                prop_assert_eq!(ledger.seen(id(number)), model.contains(&number));
                prop_assert_eq!(ledger.is_new(id(number), 5), model.insert(number));
            }
        }
    }

    #[test]
    fn the_window_moves_on_and_what_fell_out_counts_as_seen() {
        let mut ledger = Ledger::default();
        assert!(ledger.is_new(id(10), 1));
        assert!(ledger.is_new(id(10 + 4_096), 1));
        assert!(!ledger.is_new(id(10), 1));
        assert!(ledger.is_new(id(11), 1), "still inside the window");
        assert!(!ledger.is_new(id(11), 1));
        assert!(ledger.is_new(id(u64::MAX), 1), "a leap");
        assert!(!ledger.is_new(id(u64::MAX), 1));
        let metrics = BatchId {
            signal: Signal::Metrics,
            ..id(10)
        };
        assert!(ledger.is_new(metrics, 1), "each signal has its own numbers");
    }

    #[test]
    fn counters_count_what_they_grew_by() {
        let mut ledger = Ledger::default();
        let total = |value| Total {
            resource: 0,
            time_us: NOW,
            ring: 9,
            kind: TotalKind::Ended,
            value,
        };
        let growths: Vec<u64> = [5, 5, 12, 7, 13]
            .into_iter()
            .map(|v| ledger.growth(&total(v), NOW))
            .collect();
        assert_eq!(growths, [5, 0, 7, 0, 1]);
    }

    #[test]
    fn the_checkpoint_comes_back() {
        let mut ledger = Ledger::default();
        for number in [1, 2, 5, 900] {
            ledger.is_new(id(number), NOW);
        }
        ledger.saw(&resource("shop", "a", 7), NOW - 5, NOW);
        ledger.growth(
            &Total {
                resource: 0,
                time_us: NOW,
                ring: 1,
                kind: TotalKind::Lost {
                    place: "tracer".into(),
                    cause: "exit".into(),
                },
                value: 3,
            },
            NOW,
        );
        let back = Ledger::decode(&ledger.encode()).expect("decodes");
        assert_eq!(back, ledger);
        let bytes = ledger.encode();
        for cut in 0..bytes.len() {
            assert!(Ledger::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn an_instance_is_the_sum_of_its_living_processes() {
        let mut ledger = Ledger::default();
        for (pid, cpu, time) in [(1, 0.25, NOW), (2, 0.5, NOW), (3, 9.0, NOW - 60_000_000)] {
            let resource = resource("shop", "a", pid);
            ledger.saw(&resource, time, time);
            let point = MetricPoint {
                resource: 0,
                time_us: time,
                name: CPU.into(),
                attributes: Vec::new(),
                value: MetricValue::Gauge(cpu),
            };
            ledger.gauge(&resource, &point, time);
        }
        let (key, state) = ledger.instances().iter().next().expect("one");
        let answer = state.answer(key, NOW);
        assert_eq!(answer.pids, [1, 2]);
        assert_eq!(answer.cpu, Some(0.75));
        assert!(answer.connected);
        let later = state.answer(key, NOW + 31_000_000);
        assert!(!later.connected && later.cpu.is_none() && later.pids.is_empty());
    }
}
