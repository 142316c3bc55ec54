//! The package: programs and tracer, and what an upgrade may have left behind.

use std::fs;
use std::path::Path;

use whatap_conf::VERSION;
use whatap_wire::Message;

use super::report::Fix;
use super::words::Say;
use super::{Examination, PROGRAM};
use crate::shell;
use crate::{bootstrap, executable, home};

/// Files of other versions in a home, which nothing of ours reads.
const LEFT_BEHIND: [&str; 6] = [
    "whatap_python",
    "whatap_python.pid",
    "whatap_python.pid.batch",
    "whatap_home",
    "whatap_home_batch",
    "run",
];

impl Examination {
    pub(super) fn installation(&mut self) {
        match bootstrap::planned(&self.env) {
            Ok(dir) => match tracer_version(&dir) {
                Some(version) if version != VERSION => {
                    let words = Say::TracerOther.with([&dir.display(), &version, &VERSION]);
                    self.findings
                        .warning("tracer", words, Say::FixInstallAgain.fix());
                }
                _ => self
                    .findings
                    .good("tracer", Say::TracerGood.with([&dir.display()])),
            },
            Err(why) => {
                let words = Say::TracerNowhere.with([&why]);
                self.findings.failure("tracer", words, Say::FixTracer.fix());
            }
        }
        for program in ["whatap-start-agent", "whatap_python", "whatap-server"] {
            let words = match home::sibling(program) {
                None => Some(Say::ProgramMissing.with([&program, &PROGRAM])),
                Some(found) => executable::obstacle(&found)
                    .map(|why| Say::ProgramUnusable.with([&found.display(), &why])),
            };
            if let Some(words) = words {
                let fix = Say::FixInstallAgain.fix();
                match program {
                    "whatap-server" => self.findings.warning("programs", words, fix),
                    _ => self.findings.failure("programs", words, fix),
                }
            }
        }
    }

    pub(super) fn after_upgrade(&mut self, agent: Option<&Message>) {
        let running = agent.and_then(|status| status.value("version"));
        let clients = agent
            .and_then(|status| status.number("clients"))
            .unwrap_or(0);
        if running.is_some() && clients > 0 {
            // Their tracer is the one that they were started with.
            let words = Say::UpgradeClients.with([&clients]);
            self.findings
                .warning("upgrade", words, Say::FixRestartApplications.fix());
        }
        let home = self.options.files.home.clone();
        let left: Vec<_> = LEFT_BEHIND
            .iter()
            .map(|name| home.join(name))
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .collect();
        if left.is_empty() {
            return self.findings.good("upgrade", Say::UpgradeClean);
        }
        let names: Vec<String> = left.iter().map(|path| shell::path(path)).collect();
        let words = Say::UpgradeLeft.with([&names.join(" ")]);
        let fix = Fix::Command(format!("rm -r -- {}", names.join(" ")));
        self.findings.warning("upgrade", words, fix);
    }
}

/// The version of the tracer whose bootstrap directory this is, if it can be read.
fn tracer_version(bootstrap: &Path) -> Option<String> {
    let text = fs::read_to_string(bootstrap.parent()?.join("_version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VERSION"))?;
    let version = line.split_once('=')?.1.trim();
    Some(version.trim_matches(['\'', '"']).to_owned())
}
