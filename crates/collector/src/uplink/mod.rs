//! Sends what the spool holds to a server, on a thread of its own: greets it, waits for each acknowledgement, and tries
//! again, later and later, when there is none. `docs/protocol.md` §6 is what it speaks.

pub mod backoff;
pub mod http;
mod link;
mod local;
pub mod otlp;
pub mod probe;
pub mod proof;
mod settings;
mod state;

pub use settings::{Endpoint, Settings, Target};
pub use state::State;

use crate::outbox::{Outbox, Work};
use crate::spool::{BATCH_BYTES, Batch, Signal};
use backoff::Backoff;
use http::{Address, Answer, Connection, Fault};
use link::{Encoding, Link};
use local::local_server;
use proof::{Failed, Hello, Token};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use whatap_wire::otlp::ExportTraceServiceResponse;

/// For an acknowledgement; twice as long after each that did not come.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_PATIENCE: u32 = 3;
const SHOW_PATIENCE: Duration = Duration::from_secs(2);
/// Between two batches, so that one request carries what comes in meanwhile.
const LINGER: Duration = Duration::from_millis(200);
/// A larger batch means that there is much to send: no lingering.
const MUCH: usize = 256 << 10;
const SMALLEST_BATCH: usize = 64 << 10;
const LOCAL_PAUSE: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(60);
const MAX_TOLD: usize = 64;
const MAX_ERROR_TEXT: usize = 200;

/// The uplink's thread, seen from the main one.
pub struct Uplink {
    control: Arc<Control>,
    outbox: Arc<Outbox>,
    thread: JoinHandle<()>,
}

/// What both threads read and write.
struct Control {
    settings: Mutex<Settings>,
    status: Mutex<State>,
}

/// Takes one line about a change.
pub type Log = Box<dyn Fn(&str) + Send>;

impl Uplink {
    pub fn start(outbox: Arc<Outbox>, settings: Settings, log: Log) -> io::Result<Self> {
        let control = Arc::new(Control {
            settings: Mutex::new(settings.clone()),
            status: Mutex::default(),
        });
        let mut sender = Sender {
            outbox: outbox.clone(),
            control: control.clone(),
            settings,
            log,
            link: None,
            backoff: Backoff::default(),
            not_before: None,
            turn: 0,
            timeouts: 0,
            told: Vec::new(),
            batch_bytes: BATCH_BYTES,
            random: random(),
        };
        let thread = std::thread::Builder::new()
            .name("whatap-uplink".to_owned())
            .stack_size(512 << 10)
            .spawn(move || sender.work())?;
        Ok(Self {
            control,
            outbox,
            thread,
        })
    }

    /// Other settings, from the next request on.
    pub fn change(&self, settings: Settings) {
        let mut present = lock(&self.control.settings);
        if *present != settings {
            *present = settings;
            drop(present);
            self.outbox.poke();
        }
    }

    pub fn state(&self) -> State {
        lock(&self.control.status).clone()
    }

    /// Local mode, there is something to send, and no server takes it.
    pub fn wants_server(&self) -> bool {
        self.state() == State::NoServer
    }

    /// Ends the thread after the request that is under way. False if that took longer than `patience`.
    pub fn stop(&self, patience: Duration) -> bool {
        self.outbox.stop();
        let until = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Only spreads pauses: a fixed number would do.
    let _unfilled = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes) | 1
}

/// What became of one request.
enum Outcome {
    Acknowledged,
    /// So many items are refused for good, the others acknowledged.
    Partly(u64),
    Rejected,
    /// Not acknowledged: everything is sent again.
    Failed(State),
}

struct Sender {
    outbox: Arc<Outbox>,
    control: Arc<Control>,
    settings: Settings,
    log: Log,
    link: Option<Link>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Which of several servers is next.
    turn: usize,
    timeouts: u32,
    /// Troubles since the last success that the log knows.
    told: Vec<State>,
    batch_bytes: usize,
    random: u64,
}

impl Sender {
    /// A fault of our own may cost a connection, not the uplink.
    fn work(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            (self.log)("uplink: stopped by a fault of its own; starting again");
            self.link = None;
            self.outbox.abandon();
            self.outbox.pause(Duration::from_secs(1));
        }
    }

    fn run(&mut self) {
        loop {
            match self.outbox.next(IDLE) {
                Work::Stop => return,
                Work::Nothing => {}
                Work::Show(request) => self.show(&request),
                Work::Send(batch) => {
                    if !self.send(&batch) {
                        return;
                    }
                    if batch.bytes() < MUCH {
                        self.outbox.linger(LINGER);
                    }
                }
            }
        }
    }

    /// Sends until the batch is settled. False: we are to stop.
    fn send(&mut self, batch: &Batch) -> bool {
        let mut done = [false; 3];
        let mut rejected = 0;
        loop {
            let outcome = self
                .connect()
                .and_then(|()| self.attempt(batch, &mut done, &mut rejected));
            match outcome {
                Ok(()) => break,
                Err(state) => self.failed(state),
            }
            if !self.wait() {
                return false;
            }
        }
        self.outbox.settle(batch, rejected);
        self.succeeded(rejected > 0);
        true
    }

    /// Sends what is not acknowledged yet.
    fn attempt(
        &mut self,
        batch: &Batch,
        done: &mut [bool; 3],
        rejected: &mut u64,
    ) -> Result<(), State> {
        for signal in Signal::ALL {
            let is_ours = self.link.as_ref().is_some_and(|link| link.is_ours);
            let body = batch.body(signal, is_ours);
            if done[signal as usize] || body.is_empty() {
                continue;
            }
            match self.request(signal, &body, Some(batch)) {
                Outcome::Acknowledged => {}
                Outcome::Partly(count) if signal == Signal::Traces => *rejected += count,
                Outcome::Rejected if signal == Signal::Traces => *rejected = batch.transactions,
                Outcome::Partly(_) | Outcome::Rejected => {}
                Outcome::Failed(state) => return Err(state),
            }
            done[signal as usize] = true;
        }
        Ok(())
    }

    /// One request. A second one if the peer closed the connection while it was idle, or has forgotten our token.
    fn request(&mut self, signal: Signal, body: &[u8], batch: Option<&Batch>) -> Outcome {
        let patience = PATIENCE * (1_u32 << self.timeouts.min(MOST_PATIENCE));
        let patience = if batch.is_some() {
            patience
        } else {
            SHOW_PATIENCE
        };
        let mut again = true;
        loop {
            let Some(link) = &mut self.link else {
                return Outcome::Failed(State::Idle);
            };
            let was_used = link.connection.was_used();
            let answer = link.post(signal, body, batch, patience);
            again &= match &answer {
                Err(Fault::Broken { answering: false }) => was_used,
                Ok(answer) => answer.status == 401 && link.is_ours,
                Err(_) => false,
            };
            if !again {
                return self.judge(answer);
            }
            again = false;
            self.link = None;
            if let Err(state) = self.connect() {
                return Outcome::Failed(state);
            }
        }
    }

    fn judge(&mut self, answer: Result<Answer, Fault>) -> Outcome {
        let server = self
            .link
            .as_ref()
            .map(|link| link.address.to_string())
            .unwrap_or_default();
        let is_open = self
            .link
            .as_ref()
            .is_some_and(|link| link.connection.is_open());
        if !is_open {
            self.link = None;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => return Outcome::Failed(self.faulted(server, fault)),
        };
        match answer.status {
            200..300 => self.partly(server, &answer.body),
            401 => {
                self.link = None;
                Outcome::Failed(State::LicenceUnknown(server))
            }
            408 | 429 | 500..600 => {
                self.not_before = answer
                    .retry_after
                    .map(|pause| Instant::now() + pause.min(Duration::from_secs(60)));
                Outcome::Failed(State::Busy {
                    server,
                    status: answer.status,
                })
            }
            status => {
                let text = error_text(&answer.body);
                self.set_state(State::Rejected {
                    server,
                    why: format!("{status} {text}"),
                });
                Outcome::Rejected
            }
        }
    }

    /// An acknowledgement may name items that it leaves out.
    fn partly(&mut self, server: String, body: &[u8]) -> Outcome {
        let answer =
            <ExportTraceServiceResponse as prost::Message>::decode(body).unwrap_or_default();
        match answer.partial_success.map(|part| {
            (
                u64::try_from(part.rejected).unwrap_or(0),
                part.error_message,
            )
        }) {
            None | Some((0, _)) => Outcome::Acknowledged,
            Some((count, why)) => {
                self.set_state(State::Rejected {
                    server,
                    why: format!("{count} items: {}", printable(&why)),
                });
                Outcome::Partly(count)
            }
        }
    }

    fn faulted(&mut self, server: String, fault: Fault) -> State {
        self.link = None;
        if matches!(fault, Fault::TimedOut) {
            self.timeouts += 1;
            self.batch_bytes = (self.batch_bytes / 2).max(SMALLEST_BATCH);
            self.outbox.set_batch_bytes(self.batch_bytes);
        }
        State::of(server, fault)
    }

    /// Shows what is running, if that is possible without waiting.
    fn show(&mut self, request: &[u8]) {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        if let Err(state) = self.connect() {
            return self.failed(state);
        }
        if !self.link.as_ref().is_some_and(|link| link.is_ours) {
            return;
        }
        match self.request(Signal::Logs, request, None) {
            Outcome::Failed(state) => self.failed(state),
            Outcome::Acknowledged => self.succeeded(false),
            Outcome::Partly(_) | Outcome::Rejected => {}
        }
    }

    fn succeeded(&mut self, rejected: bool) {
        self.backoff.reset();
        self.not_before = None;
        self.timeouts = 0;
        if self.batch_bytes < BATCH_BYTES {
            self.batch_bytes = (self.batch_bytes * 2).min(BATCH_BYTES);
            self.outbox.set_batch_bytes(self.batch_bytes);
        }
        let server = self.link.as_ref().map(|link| link.address.to_string());
        if let Some(server) = server
            && !rejected
        {
            self.set_state(State::Connected { server });
        }
    }

    fn failed(&mut self, state: State) {
        self.turn += 1;
        if !self.turn.is_multiple_of(self.settings.target.servers()) {
            // The next server at once; a pause when all were tried.
            self.not_before = None;
            return self.set_state(state);
        }
        self.random = self
            .random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        let mut pause = self.backoff.pause((self.random >> 32) as u32);
        if state == State::NoServer {
            // Looking for a file on this host costs nothing, and somebody may be waiting for the first page.
            pause = pause.min(LOCAL_PAUSE);
        }
        let pause = Instant::now() + pause;
        self.not_before = Some(self.not_before.map_or(pause, |asked| asked.max(pause)));
        self.set_state(state);
    }

    /// Waits until it is time for the next attempt. False: we are to stop.
    fn wait(&mut self) -> bool {
        if let Some(time) = self.not_before.take() {
            self.outbox
                .pause(time.saturating_duration_since(Instant::now()));
        }
        !self.outbox.is_stopping()
    }

    /// Several servers that are tried in turn, or troubles that alternate, are a line each, not a line each time.
    fn set_state(&mut self, state: State) {
        let mut present = lock(&self.control.status);
        if *present == state {
            return;
        }
        if matches!(state, State::Connected { .. }) {
            self.told.clear();
        }
        if !self.told.contains(&state) {
            (self.log)(&format!("uplink: {state}{}", state.code()));
            if self.told.len() < MAX_TOLD {
                self.told.push(state.clone());
            }
        }
        *present = state;
    }

    // ---- connecting

    /// Makes sure that there is a link, by the settings as they are now.
    fn connect(&mut self) -> Result<(), State> {
        let settings = lock(&self.control.settings).clone();
        if settings != self.settings {
            self.settings = settings;
            self.link = None;
            self.turn = 0;
            self.backoff.reset();
        }
        if self.link.is_some() {
            return Ok(());
        }
        let link = match self.settings.target.clone() {
            Target::Nowhere(why) => return Err(State::Nowhere(why)),
            Target::Otlp(endpoint) => self.plain_link(endpoint)?,
            Target::Local { data_dir } => {
                let (address, licence) = local_server(&data_dir).ok_or(State::NoServer)?;
                match self.greet(&address, &licence, false) {
                    // Its files are there, but it is not: it died.
                    Err(State::Refused(_)) => return Err(State::NoServer),
                    other => other?,
                }
            }
            Target::Servers {
                addresses,
                anywhere,
            } => {
                let Some(address) = addresses.get(self.turn % addresses.len().max(1)) else {
                    return Err(State::Nowhere("no server is named".to_owned()));
                };
                let licence = self.settings.licence.0.clone();
                self.greet(address, &licence, anywhere)?
            }
        };
        self.link = Some(link);
        Ok(())
    }

    fn plain_link(&mut self, endpoint: Endpoint) -> Result<Link, State> {
        let Endpoint {
            address,
            path,
            headers,
        } = endpoint;
        let connection = Connection::open(&address, true)
            .map_err(|fault| self.faulted(address.to_string(), fault))?;
        let encoding = if connection.is_loopback() {
            Encoding::Plain
        } else {
            Encoding::Gzip
        };
        Ok(Link {
            connection,
            address,
            path,
            headers,
            encoding,
            is_ours: false,
        })
    }

    /// Connects, and finds out whether the peer knows the licence. Nothing else is sent before.
    fn greet(&mut self, address: &Address, licence: &str, anywhere: bool) -> Result<Link, State> {
        let server = address.to_string();
        let mut connection = Connection::open(address, anywhere)
            .map_err(|fault| self.faulted(server.clone(), fault))?;
        let hello = new_hello(licence, &server)?;
        let answer = post_hello(&mut connection, &hello, PATIENCE)
            .map_err(|fault| self.faulted(server.clone(), fault))?;
        let token = check(&hello, licence, &answer, server)?;
        let encoding = if connection.is_loopback() {
            Encoding::Plain
        } else {
            Encoding::Zstd
        };
        let headers = vec![("Authorization".to_owned(), token.header())];
        if !connection.is_open() {
            connection = Connection::open(address, anywhere)
                .map_err(|fault| self.faulted(address.to_string(), fault))?;
        }
        Ok(Link {
            connection,
            address: address.clone(),
            path: String::new(),
            headers,
            encoding,
            is_ours: true,
        })
    }
}

fn new_hello(licence: &str, server: &str) -> Result<Hello, State> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| State::Failed {
        server: server.to_owned(),
        why: format!("no random numbers: {error}"),
    })?;
    Ok(Hello::new(licence, nonce))
}

fn post_hello(
    connection: &mut Connection,
    hello: &Hello,
    patience: Duration,
) -> Result<Answer, Fault> {
    let body = serde_json::to_vec(hello).unwrap_or_default();
    let json = [("Content-Type", "application/json")];
    connection.post("/whatap/v1/hello", &json, &body, patience)
}

fn check(hello: &Hello, licence: &str, answer: &Answer, server: String) -> Result<Token, State> {
    match answer.status {
        200 => match hello.check(licence, &answer.body) {
            Ok(token) => Ok(token),
            Err(Failed::Wrong) => Err(State::ProofFailed(server)),
            Err(Failed::Malformed) => Err(State::Foreign {
                server,
                why: "its greeting is of another kind".to_owned(),
            }),
        },
        401 => Err(State::LicenceUnknown(server)),
        408 | 429 | 500..600 => Err(State::Busy {
            server,
            status: answer.status,
        }),
        status => Err(State::Foreign {
            server,
            why: format!("it answers the greeting with {status}"),
        }),
    }
}

/// The readable part of an error answer: a `google.rpc.Status`, or text.
fn error_text(body: &[u8]) -> String {
    let status = <whatap_wire::otlp::RpcStatus as prost::Message>::decode(body).ok();
    let text = status
        .map(|status| status.message)
        .filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    printable(&text)
}

fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_ERROR_TEXT)
        .collect()
}
