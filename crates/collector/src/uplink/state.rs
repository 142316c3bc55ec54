//! How things stand with the server, and what the log says about it.

use super::http::Fault;
use std::fmt;

/// How things stand with the server. A change of it is one line in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing was to be sent yet.
    #[default]
    Idle,
    Connected {
        server: String,
    },
    /// Nothing can be sent, for the reason given.
    Nowhere(String),
    /// Nothing protects the way there, and nobody has said that it may be taken all the same.
    Unprotected(String),
    /// Local mode, and no server of this user runs.
    NoServer,
    NotResolved(String),
    Refused(String),
    TimedOut(String),
    Broken(String),
    /// Something answers that is no server of ours.
    Foreign {
        server: String,
        why: String,
    },
    /// The server does not know the licence that it should.
    ProofFailed(String),
    LicenceUnknown(String),
    /// It asks for patience, or fails: data waits.
    Busy {
        server: String,
        status: u16,
    },
    /// It refuses what we send.
    Rejected {
        server: String,
        why: String,
    },
    Failed {
        server: String,
        why: String,
    },
}

impl State {
    /// What a fault on the way to this server means.
    pub(super) fn of(server: String, fault: Fault) -> Self {
        match fault {
            Fault::Unresolved => Self::NotResolved(server),
            Fault::Refused => Self::Refused(server),
            Fault::TimedOut => Self::TimedOut(server),
            Fault::Broken { .. } => Self::Broken(server),
            Fault::NotHttp => Self::Foreign {
                server,
                why: "its answer is not HTTP".to_owned(),
            },
            Fault::NotLoopback(_) => Self::Unprotected(fault.to_string()),
            Fault::Other(error) => Self::Failed {
                server,
                why: error.to_string(),
            },
        }
    }

    /// One word, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connected { .. } => "connected",
            Self::Nowhere(_) | Self::Unprotected(_) => "nowhere",
            Self::NoServer => "no_server",
            Self::NotResolved(_) => "not_resolved",
            Self::Refused(_) => "refused",
            Self::TimedOut(_) => "timed_out",
            Self::Broken(_) => "broken",
            Self::Foreign { .. } => "foreign",
            Self::ProofFailed(_) => "proof_failed",
            Self::LicenceUnknown(_) => "licence_unknown",
            Self::Busy { .. } => "busy",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
        }
    }
}

impl State {
    /// What run-books search the log for.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Connected { .. } => " [WA174]",
            Self::LicenceUnknown(_)
            | Self::NotResolved(_)
            | Self::Refused(_)
            | Self::TimedOut(_)
            | Self::Foreign { .. } => " [check license or whatap.server.host]",
            _ => "",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => write!(f, "nothing to send yet"),
            Self::Connected { server } => write!(f, "connected to {server}"),
            Self::Nowhere(why) | Self::Unprotected(why) => write!(f, "data waits: {why}"),
            Self::NoServer => write!(
                f,
                "data waits: no local server runs; `whatap-server` starts one"
            ),
            Self::NotResolved(server) => {
                write!(f, "{server}: the name does not resolve; trying on")
            }
            Self::Refused(server) => write!(f, "{server}: connection refused; trying on"),
            Self::TimedOut(server) => write!(f, "{server}: no answer in time; trying on"),
            Self::Broken(server) => write!(f, "{server}: the connection broke; trying on"),
            Self::Foreign { server, why } => write!(
                f,
                "{server} is no whatap-server: {why}; nothing was sent to it"
            ),
            Self::ProofFailed(server) => write!(
                f,
                "{server} does not know the licence that it claims to know; nothing was sent to it"
            ),
            Self::LicenceUnknown(server) => write!(
                f,
                "{server} does not know this licence; see `whatap-server project list`"
            ),
            Self::Busy { server, status } => {
                write!(f, "{server} asks to send later ({status}); trying on")
            }
            Self::Rejected { server, why } => write!(f, "{server} refused data for good: {why}"),
            Self::Failed { server, why } => write!(f, "{server}: {why}; trying on"),
        }
    }
}
