//! Who may send: licences, and the tokens that a collector earns by proving that it knows one (docs/protocol.md §6.1).
//!
//! A licence never travels between our own parts. The peer's `hello` names it by a digest and brings a nonce; we prove
//! that we know the licence, and from both nonces follows a token that only somebody who knows it too can compute.

use std::collections::{HashMap, VecDeque};
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::engine::Project;
use crate::secret::{self, Fingerprint};

/// The licences in force.
#[derive(Default)]
pub struct Licences {
    known: RwLock<Known>,
    tokens: RwLock<Tokens>,
}

#[derive(Default)]
struct Known {
    by_licence: HashMap<Fingerprint, u32>,
    by_key: HashMap<String, (u32, String)>,
}

/// Tokens wait until they are shown once. Strangers can ask for tokens but cannot compute them, so they can push out
/// tokens that nobody has used yet, never one that works.
#[derive(Default)]
struct Tokens {
    waiting: VecDeque<(Fingerprint, Token)>,
    shown: HashMap<Fingerprint, Token>,
}

#[derive(Clone, Copy)]
struct Token {
    project: u32,
    ends_us: i64,
}

#[derive(Deserialize)]
pub struct Hello {
    pub key: String,
    pub nonce: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HelloAnswer {
    pub nonce: String,
    pub proof: String,
    pub server: String,
    pub now_us: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum HelloError {
    BadNonce,
    UnknownLicence,
    NoRandomness,
}

impl Licences {
    /// Takes over what the catalogue says now. Tokens of a licence that is no longer there end.
    pub fn replace(&self, projects: &[Project]) {
        let with_licence = || {
            projects
                .iter()
                .filter(|project| !project.licence.is_empty())
        };
        let by_licence: HashMap<_, _> = with_licence()
            .map(|p| (secret::fingerprint(&p.licence), p.id))
            .collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<u32> = known
            .by_licence
            .iter()
            .filter(|(licence, _)| !by_licence.contains_key(*licence))
            .map(|(_, project)| *project)
            .collect();
        known.by_licence = by_licence;
        known.by_key = with_licence()
            .map(|p| {
                (
                    secret::key_of_licence(&p.licence),
                    (p.id, p.licence.clone()),
                )
            })
            .collect();
        drop(known);
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens
            .waiting
            .retain(|(_, token)| !gone.contains(&token.project));
        tokens
            .shown
            .retain(|_, token| !gone.contains(&token.project));
    }

    /// The project that a licence opens.
    #[must_use]
    pub fn project_of_licence(&self, licence: &str) -> Option<u32> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_licence.get(&secret::fingerprint(licence)).copied()
    }

    /// The project that a token opens.
    #[must_use]
    pub fn project_of_token(&self, token: &str, now_us: i64) -> Option<u32> {
        let shown = secret::fingerprint(token);
        {
            let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(token) = tokens.shown.get(&shown) {
                return (token.ends_us > now_us).then_some(token.project);
            }
        }
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        let index = tokens
            .waiting
            .iter()
            .position(|(waiting, _)| *waiting == shown)?;
        let (_, token) = tokens.waiting.remove(index)?;
        if token.ends_us <= now_us {
            return None;
        }
        tokens.make_room(now_us);
        tokens.shown.insert(shown, token);
        Some(token.project)
    }

    pub fn hello(
        &self,
        hello: &Hello,
        version: &str,
        now_us: i64,
    ) -> Result<HelloAnswer, HelloError> {
        if hello.nonce.len() != NONCE || !hello.nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(HelloError::BadNonce);
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (project, licence) = known
            .by_key
            .get(&hello.key)
            .ok_or(HelloError::UnknownLicence)?;
        let nonce = secret::random_hex(NONCE / 2).map_err(|_| HelloError::NoRandomness)?;
        let proof = secret::proof(licence, &["server", &hello.nonce, &nonce]);
        let token = secret::proof(licence, &["client", &hello.nonce, &nonce]);
        let token = (
            secret::fingerprint(&token),
            Token {
                project: *project,
                ends_us: now_us + LIFE_US,
            },
        );
        drop(known);
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.waiting.len() >= MAX_WAITING {
            tokens.waiting.pop_front();
        }
        tokens.waiting.push_back(token);
        Ok(HelloAnswer {
            nonce,
            proof,
            server: version.to_owned(),
            now_us,
        })
    }
}

impl Tokens {
    fn make_room(&mut self, now_us: i64) {
        if self.shown.len() < MAX_SHOWN {
            return;
        }
        self.shown.retain(|_, token| token.ends_us > now_us);
        if self.shown.len() >= MAX_SHOWN {
            let oldest = self
                .shown
                .iter()
                .min_by_key(|(_, token)| token.ends_us)
                .map(|(token, _)| *token);
            oldest.map(|token| self.shown.remove(&token));
        }
    }
}

const NONCE: usize = 32;
const LIFE_US: i64 = 12 * 3600 * 1_000_000;
const MAX_SHOWN: usize = 10_000;
const MAX_WAITING: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_719_200_000_000;
    const LICENCE: &str = "x4uj9227hsb9s-x4mmj9f23pd9dk-z3ob8u20000000";
    const NONCE_A: &str = "000102030405060708090a0b0c0d0e0f";

    fn project(id: u32, licence: &str) -> Project {
        Project {
            id,
            name: id.to_string(),
            licence: licence.into(),
            created_us: 0,
        }
    }

    fn licences() -> Licences {
        let licences = Licences::default();
        licences.replace(&[project(1, LICENCE), project(2, "x1-x2"), project(3, "")]);
        licences
    }

    fn hello(licence: &str) -> Hello {
        Hello {
            key: secret::key_of_licence(licence),
            nonce: NONCE_A.into(),
        }
    }

    fn token(licences: &Licences, licence: &str) -> String {
        let answer = licences.hello(&hello(licence), "3.0.0", NOW).unwrap();
        assert_eq!(
            answer.proof,
            secret::proof(licence, &["server", NONCE_A, &answer.nonce])
        );
        secret::proof(licence, &["client", NONCE_A, &answer.nonce])
    }

    #[test]
    fn who_knows_the_licence_gets_in_for_twelve_hours() {
        let licences = licences();
        let token = token(&licences, LICENCE);
        assert_eq!(licences.project_of_token(&token, NOW), Some(1));
        assert_eq!(
            licences.project_of_token(&token, NOW + LIFE_US - 1),
            Some(1)
        );
        assert_eq!(licences.project_of_token(&token, NOW + LIFE_US), None);
        assert_eq!(licences.project_of_token("", NOW), None);
    }

    #[test]
    fn who_does_not_gets_nowhere() {
        let licences = licences();
        let unknown = licences.hello(&hello("x9-x9"), "3.0.0", NOW);
        assert_eq!(unknown.err(), Some(HelloError::UnknownLicence));
        assert_eq!(
            licences.hello(&hello(""), "", NOW).err(),
            Some(HelloError::UnknownLicence),
            "a project without one"
        );
        let short = Hello {
            nonce: "00".into(),
            ..hello(LICENCE)
        };
        assert_eq!(
            licences.hello(&short, "", NOW).err(),
            Some(HelloError::BadNonce)
        );
        assert_eq!(licences.project_of_licence(LICENCE), Some(1));
        assert_eq!(licences.project_of_licence(""), None);
    }

    #[test]
    fn a_flood_of_hellos_does_not_end_tokens_that_work() {
        let licences = licences();
        let token = token(&licences, LICENCE);
        assert_eq!(licences.project_of_token(&token, NOW), Some(1));
        for _ in 0..MAX_WAITING * 2 {
            licences.hello(&hello(LICENCE), "", NOW).unwrap();
        }
        assert_eq!(licences.project_of_token(&token, NOW), Some(1));
        assert_eq!(licences.tokens.read().unwrap().waiting.len(), MAX_WAITING);
    }

    #[test]
    fn a_new_licence_ends_the_old_one_and_its_tokens_alone() {
        let licences = licences();
        let (old, other) = (token(&licences, LICENCE), token(&licences, "x1-x2"));
        assert_eq!(licences.project_of_token(&old, NOW), Some(1));
        licences.replace(&[project(1, "x7-x7"), project(2, "x1-x2")]);
        assert_eq!(licences.project_of_token(&old, NOW), None);
        assert_eq!(licences.project_of_licence(LICENCE), None);
        assert_eq!(licences.project_of_token(&other, NOW), Some(2));
    }
}
