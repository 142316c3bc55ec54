//! Frames that this code and the Python tracer both write from the same JSON and read back to it.

use serde_json::{Value, json};
use whatap_wire::frame::{Draft, Frame, Step, StepKind, Work, check};

const VECTORS: &str = include_str!("../../../tests/vectors/frames.txt");
const NOT_MEASURED: u64 = 0xffff_ffff;

#[test]
fn every_vector_is_written_byte_for_byte() {
    for vector in vectors() {
        let text = |key: &str| vector.json[key].as_str().unwrap();
        let number = |key: &str| vector.json[key].as_u64().unwrap();
        let head = Frame {
            version: 1,
            flags: number("flags") as u32,
            ring: hex(text("ring")),
            seq: number("sequence"),
            id: hex(text("id")),
            trace: bytes(text("trace")).try_into().unwrap(),
            caller: hex(text("parent")),
            start_us: number("start"),
            duration_us: number("duration"),
            cpu_us: Some(number("cpu"))
                .filter(|us| *us != NOT_MEASURED)
                .map(|us| us as u32),
            status: number("status") as u16,
            work: Work(number("type") as u8),
            thread: number("thread"),
            steps_cut: number("cut") as u32,
            name: text("name"),
            method: text("method"),
            path: text("path"),
            host: text("host"),
            client: text("client"),
            user_agent: text("agent"),
            referer: text("referer"),
            user: text("user"),
            error_class: text("error_class"),
            error_message: text("error_message"),
            error_stack: text("error_stack"),
            tracestate: text("tracestate"),
            ..Frame::default()
        };
        let steps = vector.json["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(step)
            .collect();
        let pairs = vector.json["attributes"].as_array().unwrap().iter();
        let attributes = pairs
            .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
            .collect();
        let draft = Draft {
            head,
            steps,
            attributes,
        };
        assert_eq!(
            draft.encode(vector.position()),
            vector.bytes,
            "{}",
            vector.name
        );
    }
}

#[test]
fn every_vector_is_read_back() {
    let mut seen = 0;
    for vector in vectors() {
        assert_eq!(
            check(&vector.bytes, vector.position()),
            Ok(()),
            "{}",
            vector.name
        );
        let frame = Frame::decode(&vector.bytes).unwrap();
        let mut read = read_back(&frame);
        read["position"] = json!(vector.position());
        assert_eq!(read, vector.json, "{}", vector.name);
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn no_vector_is_taken_at_another_position() {
    for vector in vectors() {
        assert!(
            check(&vector.bytes, vector.position() + 262_144).is_err(),
            "{}",
            vector.name
        );
    }
}

fn step(json: &Value) -> Step<'_> {
    let number = |key: &str| json[key].as_i64().unwrap();
    let text = |key: &str| json[key].as_str().unwrap();
    Step {
        kind: StepKind(number("kind") as u8),
        flags: number("flags") as u8,
        parent: (number("parent") as u16).checked_sub(1),
        start_us: number("start") as u32,
        duration_us: number("duration") as u32,
        value: number("value") as i32,
        repeat: number("repeat") as u32,
        span: hex(text("span")),
        a: text("a"),
        b: text("b"),
        c: text("c"),
        d: text("d"),
    }
}

fn read_back(frame: &Frame<'_>) -> Value {
    let id = |id: u64| format!("{id:016x}");
    let steps = frame.steps.iter().map(|step| {
        json!({
            "kind": step.kind.0, "flags": step.flags, "parent": step.parent.map_or(0, |p| p + 1),
            "start": step.start_us, "duration": step.duration_us, "value": step.value, "repeat": step.repeat,
            "span": id(step.span), "a": step.a, "b": step.b, "c": step.c, "d": step.d,
        })
    });
    let trace: String = frame
        .trace
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({
        "flags": frame.flags, "ring": id(frame.ring), "sequence": frame.seq, "id": id(frame.id), "trace": trace,
        "parent": id(frame.caller), "start": frame.start_us, "duration": frame.duration_us,
        "cpu": frame.cpu_us.map_or(NOT_MEASURED, u64::from), "status": frame.status, "type": frame.work.0,
        "thread": frame.thread, "cut": frame.steps_cut, "name": frame.name, "method": frame.method,
        "path": frame.path, "host": frame.host, "client": frame.client, "agent": frame.user_agent,
        "referer": frame.referer, "user": frame.user, "error_class": frame.error_class,
        "error_message": frame.error_message, "error_stack": frame.error_stack, "tracestate": frame.tracestate,
        "steps": steps.collect::<Vec<_>>(),
        "attributes": frame.attributes.iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>(),
    })
}

struct Vector {
    name: &'static str,
    json: Value,
    bytes: Vec<u8>,
}

impl Vector {
    fn position(&self) -> u64 {
        self.json["position"].as_u64().unwrap()
    }
}

fn vectors() -> Vec<Vector> {
    let lines = VECTORS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let vector = |line: &'static str| {
        let [name, json, hex] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        Vector {
            name,
            json: serde_json::from_str(json).unwrap(),
            bytes: bytes(hex),
        }
    };
    lines.map(vector).collect()
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}
