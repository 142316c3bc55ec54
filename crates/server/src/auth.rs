//! Who may look: the token of `server.json`, one-time links, and the sessions that both open.
//!
//! Secrets are remembered by their digests only, so neither a copy of `sessions.json` nor the time that a look-up takes
//! helps anybody to guess one.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

use crate::log;
use crate::private_file::{read_private, write_private};
use crate::secret::{self, Fingerprint};

/// The key holder: tells requests that may read from those that may not.
pub struct Access {
    token: Fingerprint,
    state: Mutex<State>,
    /// Where sessions outlive a restart.
    file: PathBuf,
    /// Servers on other ports of this host share the browser's cookies, so each has a name of its own.
    cookie: String,
}

#[derive(Default)]
struct State {
    one_time: Vec<Fingerprint>,
    sessions: HashMap<Fingerprint, i64>,
    failures: HashMap<IpAddr, Failures>,
}

#[derive(Clone, Copy)]
struct Failures {
    second: i64,
    count: u32,
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// `Authorization: Bearer` with the token: programs of the owner.
    Token,
    /// A browser's cookie.
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Unauthorized,
    /// Too many wrong tokens from there within a second.
    TooMany,
}

impl Access {
    pub fn new(token: &str, data_dir: &Path) -> Self {
        let file = data_dir.join(SESSIONS);
        let state = State {
            sessions: read_sessions(&file),
            ..State::default()
        };
        let access = Self {
            token: secret::fingerprint(token),
            state: Mutex::new(state),
            file,
            cookie: format!(
                "{COOKIE}_{}",
                &secret::hex(&secret::fingerprint(&data_dir.to_string_lossy()))[..8]
            ),
        };
        if access.file.exists()
            && let Err(error) = check_sessions(&access.file)
        {
            log::line(&format!(
                "warning: {} is no list of sessions ({error}): browsers have to log in again",
                access.file.display()
            ));
            access.save(&access.lock());
        }
        access
    }

    /// Makes a token usable once, for a link.
    pub fn allow_once(&self, token: &str) {
        let mut state = self.lock();
        if state.one_time.len() >= MAX_ONE_TIME {
            state.one_time.remove(0);
        }
        state.one_time.push(secret::fingerprint(token));
    }

    /// Exchanges a token for a session's cookie. A one-time token is used up by this.
    pub fn login(&self, token: &str, source: IpAddr, now_us: i64) -> Result<String, Refused> {
        let session = secret::random_hex(32).map_err(|_| Refused::Unauthorized)?;
        let mut state = self.lock();
        state.check_rate(source, now_us)?;
        let shown = secret::fingerprint(token);
        let once = state.one_time.iter().position(|known| *known == shown);
        if shown != self.token && once.is_none() {
            state.count_failure(source, now_us);
            return Err(Refused::Unauthorized);
        }
        if let Some(index) = once {
            state.one_time.remove(index);
        }
        state.expire(now_us);
        state.sessions.insert(secret::fingerprint(&session), now_us);
        self.save(&state);
        Ok(session)
    }

    /// The `Set-Cookie` value that starts a session. `Secure` is not set: the server speaks plain HTTP on loopback. How
    /// long a session lasts is decided here, not by the browser.
    #[must_use]
    pub fn cookie(&self, session: &str) -> String {
        format!(
            "{}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_SECONDS}",
            self.cookie
        )
    }

    /// The `Set-Cookie` value that ends one.
    #[must_use]
    pub fn no_cookie(&self) -> String {
        format!(
            "{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0",
            self.cookie
        )
    }

    /// Ends the session that the request's cookie names.
    pub fn logout(&self, headers: &HeaderMap) {
        let mut state = self.lock();
        for session in cookies(headers, &self.cookie) {
            state.sessions.remove(&secret::fingerprint(session));
        }
        self.save(&state);
    }

    /// Checks a request's headers.
    pub fn check(
        &self,
        headers: &HeaderMap,
        source: IpAddr,
        now_us: i64,
    ) -> Result<Login, Refused> {
        let mut state = self.lock();
        if let Some(token) = bearer(headers) {
            state.check_rate(source, now_us)?;
            if secret::fingerprint(token) == self.token {
                return Ok(Login::Token);
            }
            state.count_failure(source, now_us);
            return Err(Refused::Unauthorized);
        }
        for session in cookies(headers, &self.cookie) {
            let Some(seen) = state.sessions.get_mut(&secret::fingerprint(session)) else {
                continue;
            };
            if now_us.saturating_sub(*seen) > SESSION_IDLE_US {
                continue;
            }
            // Saved now and then only: a crash may shorten a session, nothing else.
            let due = now_us.saturating_sub(*seen) > SESSION_SAVE_US;
            *seen = now_us.max(*seen);
            if due {
                self.save(&state);
            }
            return Ok(Login::Session);
        }
        Err(Refused::Unauthorized)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, state: &State) {
        let rows = state.sessions.iter().map(|(session, seen_us)| Row {
            session: secret::hex(session),
            seen_us: *seen_us,
        });
        let rows: Vec<Row> = rows.collect();
        let saved = serde_json::to_vec(&rows).map_err(io::Error::other);
        if let Err(error) = saved.and_then(|text| write_private(&self.file, &text)) {
            log::limited("sessions", || {
                format!("cannot write {}: {error}", self.file.display())
            });
        }
    }
}

impl State {
    fn check_rate(&self, source: IpAddr, now_us: i64) -> Result<(), Refused> {
        match self.failures.get(&source) {
            Some(f) if f.second == now_us / 1_000_000 && f.count >= MAX_FAILURES => {
                Err(Refused::TooMany)
            }
            _ => Ok(()),
        }
    }

    fn count_failure(&mut self, source: IpAddr, now_us: i64) {
        let second = now_us / 1_000_000;
        if self.failures.len() >= MAX_SOURCES {
            self.failures.retain(|_, f| f.second == second);
        }
        if self.failures.len() >= MAX_SOURCES {
            return;
        }
        let failures = self
            .failures
            .entry(source)
            .or_insert(Failures { second, count: 0 });
        if failures.second != second {
            *failures = Failures { second, count: 0 };
        }
        failures.count += 1;
    }

    fn expire(&mut self, now_us: i64) {
        self.sessions
            .retain(|_, seen| now_us.saturating_sub(*seen) <= SESSION_IDLE_US);
        while self.sessions.len() >= MAX_SESSIONS {
            let Some(oldest) = self
                .sessions
                .iter()
                .min_by_key(|(_, seen)| **seen)
                .map(|(session, _)| *session)
            else {
                return;
            };
            self.sessions.remove(&oldest);
        }
    }
}

/// `Authorization: Bearer TOKEN`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    scheme(headers, "bearer")
}

/// What follows an authorization scheme, whatever case that is written in.
#[must_use]
pub fn scheme<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let (scheme, value) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .trim()
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| value.trim())
}

/// Every value of our cookie: another path's or an older one may come along.
fn cookies<'a>(headers: &'a HeaderMap, wanted: &'a str) -> impl Iterator<Item = &'a str> {
    let headers = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let pairs = headers
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(move |(name, _)| *name == wanted)
        .map(|(_, value)| value)
        .take(4)
}

#[derive(Serialize, Deserialize)]
struct Row {
    session: String,
    seen_us: i64,
}

/// Whether the file can be read as what it should be.
pub(crate) fn check_sessions(file: &Path) -> io::Result<()> {
    session_rows(file).map(drop)
}

fn session_rows(file: &Path) -> io::Result<Vec<Row>> {
    Ok(serde_json::from_slice(&read_private(file)?)?)
}

/// A file that cannot be read means that everybody logs in again.
fn read_sessions(file: &Path) -> HashMap<Fingerprint, i64> {
    let rows = session_rows(file).unwrap_or_default();
    rows.into_iter()
        .take(MAX_SESSIONS)
        .filter_map(|row| Some((digest_of(&row.session)?, row.seen_us)))
        .collect()
}

fn digest_of(hex: &str) -> Option<Fingerprint> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

pub(crate) const SESSIONS: &str = "sessions.json";
const COOKIE: &str = "whatap_session";
const COOKIE_SECONDS: u32 = 30 * 86_400;
/// A session ends after this long without a request.
const SESSION_IDLE_US: i64 = 12 * 3600 * 1_000_000;
const SESSION_SAVE_US: i64 = 600 * 1_000_000;
const MAX_SESSIONS: usize = 1_000;
const MAX_ONE_TIME: usize = 16;
/// Wrong tokens that one source may show in a second.
const MAX_FAILURES: u32 = 5;
const MAX_SOURCES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const NOW: i64 = 1_763_719_200_000_000;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn with_cookie(access: &Access, session: &str) -> HeaderMap {
        let cookie = access.cookie(session);
        let pair = cookie.split(';').next().unwrap_or("");
        headers(
            header::COOKIE,
            &format!("theme=dark; whatap_session_00000000=another's; {pair}"),
        )
    }

    #[test]
    fn the_token_opens_requests_and_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::new("secret", dir.path());
        let check = |headers| access.check(&headers, HERE, NOW);
        assert_eq!(
            check(headers(header::AUTHORIZATION, "bearer secret")),
            Ok(Login::Token)
        );
        assert_eq!(
            check(headers(header::AUTHORIZATION, "Bearer secre")),
            Err(Refused::Unauthorized)
        );
        assert_eq!(
            check(headers(header::AUTHORIZATION, "Basic secret")),
            Err(Refused::Unauthorized)
        );
        assert_eq!(check(HeaderMap::new()), Err(Refused::Unauthorized));
        let session = access.login("secret", HERE, NOW).unwrap();
        assert_eq!(check(with_cookie(&access, &session)), Ok(Login::Session));
        access.logout(&with_cookie(&access, &session));
        assert_eq!(
            check(with_cookie(&access, &session)),
            Err(Refused::Unauthorized)
        );
    }

    #[test]
    fn two_servers_share_a_browser() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = |dir: &Path| {
            Access::new("secret", dir)
                .cookie("s")
                .split('=')
                .next()
                .map(str::to_owned)
        };
        assert_ne!(name(one.path()), name(two.path()));
        assert_eq!(name(one.path()), name(one.path()), "also after a restart");
    }

    #[test]
    fn a_link_works_once() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::new("secret", dir.path());
        access.allow_once("link");
        assert!(access.login("link", HERE, NOW).is_ok());
        assert_eq!(access.login("link", HERE, NOW), Err(Refused::Unauthorized));
    }

    #[test]
    fn a_session_survives_a_restart_and_ends_when_idle() {
        let dir = tempfile::tempdir().unwrap();
        let session = Access::new("secret", dir.path())
            .login("secret", HERE, NOW)
            .unwrap();
        let again = Access::new("other", dir.path());
        let hours = |n: i64| NOW + n * 3_600_000_000;
        assert_eq!(
            again.check(&with_cookie(&again, &session), HERE, hours(11)),
            Ok(Login::Session)
        );
        assert_eq!(
            again.check(&with_cookie(&again, &session), HERE, hours(22)),
            Ok(Login::Session),
            "used meanwhile"
        );
        assert_eq!(
            again.check(&with_cookie(&again, &session), HERE, hours(35)),
            Err(Refused::Unauthorized)
        );
        let text = std::fs::read_to_string(dir.path().join("sessions.json")).unwrap();
        assert!(!text.contains(&session), "only digests are kept");
        let file = dir.path().join(SESSIONS);
        std::fs::write(&file, &text[1..]).unwrap();
        assert!(check_sessions(&file).is_err());
        Access::new("next", dir.path());
        assert!(check_sessions(&file).is_ok(), "written anew");
    }

    #[test]
    fn guessing_is_slowed_down_for_the_guesser_alone() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::new("secret", dir.path());
        for guess in 0..5 {
            assert_eq!(
                access.login(&guess.to_string(), HERE, NOW),
                Err(Refused::Unauthorized)
            );
        }
        assert_eq!(access.login("secret", HERE, NOW), Err(Refused::TooMany));
        assert!(access.login("secret", [192, 0, 2, 1].into(), NOW).is_ok());
        assert!(
            access.login("secret", HERE, NOW + 1_000_000).is_ok(),
            "a second later"
        );
    }

    #[test]
    fn sessions_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::default();
        for n in 0..MAX_SESSIONS as i64 + 50 {
            state.expire(NOW + n);
            state
                .sessions
                .insert(secret::fingerprint(&n.to_string()), NOW + n);
        }
        assert!(state.sessions.len() <= MAX_SESSIONS);
        assert!(
            !state.sessions.contains_key(&secret::fingerprint("0")),
            "the oldest went first"
        );
        drop(dir);
    }
}
