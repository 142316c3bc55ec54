//! The way to the server: the name, the connection, the proof of the licence, the clocks.

use std::time::Duration;

use whatap_collector::uplink::probe::{Seen, knock_at_all, look};
use whatap_collector::uplink::{Settings, State};
use whatap_conf::Source;

use super::Examination;
use super::configuration::{needs_licence, readable};
use super::report::{Fix, State as Grade};
use super::words::{Say, Words};
use crate::local;

const PATIENCE: Duration = Duration::from_secs(3);
/// Clocks that differ by less do no harm.
const MOST_AHEAD_US: i64 = 2_000_000;

impl Examination {
    pub(super) fn server(&mut self) {
        let named = *self.options.source("whatap.server.host") != Source::Default;
        if let Some(unread) = self.unread_configuration().filter(|_| !named) {
            // Nobody knows which server it names.
            let words = Say::ServerUnknown.with([&unread.display()]);
            return self.findings.warning("server", words, readable(&unread));
        }
        if self.options.is_local() && self.local_server() {
            return;
        }
        let unproven = needs_licence(&self.options) && self.licence_finding().is_some();
        if unproven && self.knock() {
            return;
        }
        let all = look(&Settings::of(&self.options), PATIENCE);
        let is_good = |seen: &Seen| matches!(seen.state, State::Connected { .. });
        // They are tried in turn: one that answers is enough to work.
        let worst = if all.iter().any(is_good) {
            Grade::Warning
        } else {
            Grade::Failure
        };
        for seen in all {
            self.seen(&seen, worst);
        }
    }

    /// Without a licence there is nothing to prove, and the way there can still be looked at; if there is one.
    fn knock(&mut self) -> bool {
        let all = knock_at_all(&self.options, PATIENCE);
        for seen in &all {
            if let State::Connected { server } = &seen.state {
                let words = Say::ServerNotAsked.with([server]);
                self.findings.warning("server", words, self.licence_fix());
            } else {
                self.seen(seen, Grade::Failure);
            }
        }
        !all.is_empty()
    }

    /// Whether that is all there is to say: there is no local server to be asked.
    fn local_server(&mut self) -> bool {
        if local::running(&self.options.local_server_data_dir()).is_some() {
            return false;
        }
        if self.options.text("local_server") == "true" {
            self.findings.good("server", Say::ServerLocalStarts);
        } else {
            let fix = self.set("local_server", "true", "--set local_server=true");
            self.findings.warning("server", Say::ServerLocalNone, fix);
        }
        true
    }

    fn seen(&mut self, seen: &Seen, worst: Grade) {
        let server = &seen.server;
        let told = match (&seen.state, &seen.told) {
            (State::Connected { .. }, Some(told)) => told,
            (State::Connected { .. }, None) => {
                let words = Say::ServerTakesConnections.with([&server]);
                return self.findings.good("server", words);
            }
            (state, _) => {
                let (words, fix) = self.why(server, state);
                return self.findings.add("server", worst, words, fix);
            }
        };
        let words = Say::ServerGood.with([server, &told.version]);
        self.findings.good("server", words);
        let seconds = told.ahead_us / 1_000_000;
        if told.ahead_us.abs() < MOST_AHEAD_US {
            return self.findings.good("clock", Say::ClockGood.with([&server]));
        }
        let words = if seconds > 0 {
            Say::ClockBehind.with([server, &seconds])
        } else {
            Say::ClockAhead.with([server, &seconds.abs()])
        };
        let fix = Fix::Command("sudo timedatectl set-ntp true".to_owned());
        self.findings.warning("clock", words, fix);
    }

    fn why(&self, server: &str, state: &State) -> (Words, Option<Fix>) {
        let host = Some(self.set("whatap.server.host", "HOST:PORT", "--host HOST:PORT"));
        match state {
            State::NotResolved(_) => (Say::ServerUnresolved.with([&server]), host),
            State::Refused(_) => (
                Say::ServerRefused.with([&server]),
                Some(Say::FixServerRefused.fix()),
            ),
            State::TimedOut(_) => (
                Say::ServerSilent.with([&server]),
                Some(Say::FixServerSilent.fix()),
            ),
            State::LicenceUnknown(_) => (
                Say::ServerUnknownLicence.with([&server]),
                Some(self.licence_fix()),
            ),
            State::ProofFailed(_) => (Say::ServerFalse.with([&server]), host),
            State::Foreign { why, .. } => (Say::ServerForeign.with([&server, why]), host),
            State::Unprotected(_) => (
                Say::ServerInTheClear.with([&server]),
                Some(self.set(
                    "whatap.server.protocol",
                    "auto",
                    "--set whatap.server.protocol=auto",
                )),
            ),
            State::Nowhere(why) => (Say::ServerNowhere.with([why]), None),
            State::NoServer => (Say::ServerLocalNone.into(), None),
            other => (Say::ServerTrouble.with([other]), None),
        }
    }
}
