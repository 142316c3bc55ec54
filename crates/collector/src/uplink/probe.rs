//! One look at each server that the settings name, for whoever wants to know and has nothing to send: the doctor. It
//! greets as the uplink does, so what it sees is what the uplink will see.

use super::http::{Address, Connection};
use super::local::local_server;
use super::proof::Answer;
use super::{Settings, State, Target, check, new_hello, post_hello, settings};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use whatap_conf::Resolved;

/// What one server showed of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub server: String,
    /// `Connected`: it knows the licence. A plain OTLP backend: it takes connections.
    pub state: State,
    /// What only a server of ours tells.
    pub told: Option<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub version: String,
    /// How far its clock is ahead of ours, µs.
    pub ahead_us: i64,
}

/// Looks at all of them, each for at most `patience`. Sends no licence and no data.
pub fn look(settings: &Settings, patience: Duration) -> Vec<Seen> {
    let licence = settings.licence.0.clone();
    match settings.target.clone() {
        Target::Nowhere(why) => vec![Seen::failed(String::new(), State::Nowhere(why))],
        Target::Local { data_dir } => match local_server(&data_dir) {
            None => vec![Seen::failed(String::new(), State::NoServer)],
            Some((address, licence)) => vec![within(patience, &address, move |address| {
                greet(address, &licence, false, patience)
            })],
        },
        Target::Otlp(endpoint) => vec![within(patience, &endpoint.address, knock)],
        Target::Servers {
            addresses,
            anywhere,
        } => {
            let one = |address: &Address| {
                let licence = licence.clone();
                within(patience, address, move |address| {
                    greet(address, &licence, anywhere, patience)
                })
            };
            addresses.iter().map(one).collect()
        }
    }
}

/// Only knocks at each server of the options: without a licence there is nothing more to do there.
pub fn knock_at_all(options: &Resolved, patience: Duration) -> Vec<Seen> {
    let addresses = settings::addresses(options);
    let one = |address: &Address| within(patience, address, knock);
    addresses.iter().map(one).collect()
}

impl Seen {
    fn failed(server: String, state: State) -> Self {
        Self {
            server,
            state,
            told: None,
        }
    }
}

/// Names are looked up by the C library, which may take its time: on a thread of its own, which is left behind then.
fn within(
    patience: Duration,
    address: &Address,
    look: impl FnOnce(&Address) -> Result<Option<Told>, State> + Send + 'static,
) -> Seen {
    let server = address.to_string();
    let (tell, told) = mpsc::channel();
    let address = address.clone();
    thread::spawn(move || tell.send(look(&address)));
    match told.recv_timeout(patience + Duration::from_secs(1)) {
        Ok(Ok(told)) => Seen {
            state: State::Connected {
                server: server.clone(),
            },
            server,
            told,
        },
        Ok(Err(state)) => Seen::failed(server, state),
        Err(_) => Seen::failed(server.clone(), State::TimedOut(server)),
    }
}

fn knock(address: &Address) -> Result<Option<Told>, State> {
    match Connection::open(address, true) {
        Ok(_) => Ok(None),
        Err(fault) => Err(State::of(address.to_string(), fault)),
    }
}

fn greet(
    address: &Address,
    licence: &str,
    anywhere: bool,
    patience: Duration,
) -> Result<Option<Told>, State> {
    let server = address.to_string();
    let failed = |fault| State::of(server.clone(), fault);
    let mut connection = Connection::open(address, anywhere).map_err(failed)?;
    let hello = new_hello(licence, &server)?;
    let before = now_us();
    let answer = post_hello(&mut connection, &hello, patience).map_err(failed)?;
    let after = now_us();
    check(&hello, licence, &answer, server.clone())?;
    let told: Option<Answer> = serde_json::from_slice(&answer.body).ok();
    Ok(told.map(|told| Told {
        version: told.server,
        // Their clock was read somewhere between our two looks.
        ahead_us: match told.now_us {
            0 => 0,
            theirs if theirs < before => theirs.saturating_sub(before),
            theirs => theirs.saturating_sub(after).max(0),
        },
    }))
}

fn now_us() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    age.map_or(0, |age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
