//! `--live`: one test transaction through a real interpreter, the ring, the collector and the server.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use whatap_wire::Message;

use super::Examination;
use super::words::{Say, Words};
use crate::control::{self, Instance};
use crate::home::{reason, sibling};

/// What the interpreter does: one decorated function, called once; then a line that says where its transaction is.
const PROGRAM: &str = include_str!("live.py");
const LOOK: Duration = Duration::from_millis(20);

impl Examination {
    pub(super) fn live(&mut self, python: Option<&Path>, patience: Duration) {
        let began = Instant::now();
        match self.try_live(python, began + patience) {
            Ok(ring) => {
                let took = began.elapsed().as_millis();
                self.findings
                    .good("live", Say::LiveGood.with([&ring, &took]));
            }
            Err(words) => {
                let fix = match words.say() {
                    Say::LiveNoLauncher => Say::FixInstallAgain,
                    Say::LiveNoPython => Say::FixLivePython,
                    _ => Say::FixLive,
                };
                self.findings.failure("live", words, fix.fix());
            }
        }
    }

    /// The id of the ring that the transaction went through.
    fn try_live(&self, python: Option<&Path>, until: Instant) -> Result<String, Words> {
        let python = python
            .map(Path::to_owned)
            .or_else(any_python)
            .ok_or(Say::LiveNoPython)?;
        let launcher = sibling("whatap-start-agent").ok_or(Say::LiveNoLauncher)?;
        let home = &self.options.files.home;
        // The interpreter hands the transaction on; the other half is for asking what became of it.
        let half = until.saturating_duration_since(Instant::now()) / 2;
        let child = Command::new(launcher)
            .arg("--home")
            .arg(home)
            .arg(&python)
            .args(["-c", PROGRAM, &half.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Say::LiveNotStarted.with([&python.display(), &reason(&error)]))?;
        let (said, complained) = told_by(child, until)
            .map_err(|error| Say::LiveNotStarted.with([&python.display(), &reason(&error)]))?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let ring = match words.as_slice() {
            ["ring", ring, "ended", ended, "lost", "0"] if *ended != "0" => (*ring).to_owned(),
            ["untraced"] => return Err(Say::LiveUntraced.with([&python.display(), &complained])),
            ["no", "ring"] => return Err(Say::LiveNoRing.with([&complained])),
            _ => return Err(Say::LiveNotStarted.with([&python.display(), &complained])),
        };
        self.acknowledged(until)?;
        Ok(ring)
    }

    fn acknowledged(&self, until: Instant) -> Result<(), Words> {
        let lost = |why: &str| Say::LiveNoAgent.with([&why]);
        let name = control::name(&self.options.files.home, &self.env);
        let instance = Instance::connect(&name)
            .map_err(|error| lost(&reason(&error)))?
            .ok_or_else(|| lost(""))?;
        let left = until.saturating_duration_since(Instant::now());
        let flush = Message::new("flush").with("timeout_ms", left.as_millis());
        let answer = instance.ask(&flush, left + Duration::from_secs(1));
        if answer.is_ok_and(|answer| answer.verb() == "ok") {
            return Ok(());
        }
        let status = instance.ask(&Message::new("status"), Duration::from_secs(2));
        let status = status.map_err(|error| lost(&reason(&error)))?;
        let state = status.value("state_text").unwrap_or("?").to_owned();
        Err(Say::LiveNotAcknowledged.with([&state]))
    }
}

fn any_python() -> Option<PathBuf> {
    ["python3", "python"]
        .into_iter()
        .find_map(|name| which::which(name).ok())
}

/// What the program wrote on stdout and, in one line, on stderr; it is ended when its time is over.
fn told_by(mut child: Child, until: Instant) -> std::io::Result<(String, String)> {
    while child.try_wait()?.is_none() {
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        thread::sleep(LOOK);
    }
    let mut said = [String::new(), String::new()];
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said[0])?;
    }
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut said[1])?;
    }
    let [out, err] = said;
    Ok((out, err.lines().collect::<Vec<_>>().join("; ")))
}
