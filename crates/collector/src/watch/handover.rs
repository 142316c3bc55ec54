//! After an upgrade: an instance passes from the watchdog that holds it to a newer one that waits in line.
//!
//! Nothing is started from a path that anybody names: the newer watchdog runs already, started by its launcher. The old
//! collector commits and ends; then listener, registrations and rings go over the line on which the newer one waits, and
//! it starts its own collector. No ring and no waiting connection is lost, and no frame is read twice.

use super::wait_for;
use crate::instance::{self, Received};
use nix::poll::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use whatap_conf::Launch;
use whatap_wire::Message;

/// What a watchdog must have to hold an instance.
pub(super) struct Legacy {
    pub(super) listener: OwnedFd,
    /// Registrations, and rings with their memory.
    pub(super) kept: Vec<(Message, Option<OwnedFd>)>,
    /// The launch that the instance was started for: its options stay those of the instance.
    pub(super) launch: Option<Launch>,
}

impl Legacy {
    /// A name that nobody had.
    pub(super) const fn fresh(listener: OwnedFd) -> Self {
        Self {
            listener,
            kept: Vec::new(),
            launch: None,
        }
    }
}

/// Both sides give up after this time; the old one then goes on as before.
const LONGEST: Duration = Duration::from_secs(10);
/// Holders answer at once, if their collector is not stopped.
const ANSWER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);
/// The most that is taken over: rings and registrations.
const MOST: usize = 100_000;

/// A place in the line behind a holder. The watchdog of a launch that is over may leave it, but not while it is about to
/// become the holder: short commands of a new version are reason enough for a handover.
pub(super) struct Line {
    version: &'static str,
    since: Instant,
    /// Not known before the holder has answered.
    is_heir: Option<bool>,
}

impl Line {
    pub(super) fn new(version: &'static str, has_holder: bool) -> Self {
        Self {
            version,
            since: Instant::now(),
            is_heir: if has_holder { None } else { Some(false) },
        }
    }

    pub(super) fn hear(&mut self, holder: &str) {
        self.is_heir = Some(is_newer(self.version, holder));
    }

    pub(super) fn may_be_left(&self) -> bool {
        let patience = match self.is_heir {
            Some(false) => return true,
            None => ANSWER,
            Some(true) => super::LEAVE + LONGEST,
        };
        self.since.elapsed() > patience
    }
}

/// Whether a program of the first version should serve instead of one of the second. A version that is no version is never
/// newer.
pub(super) fn is_newer(version: &str, than: &str) -> bool {
    matches!((numbers(version), numbers(than)), (Some(one), Some(other)) if one > other)
}

/// `3.1.4` or `3.1.4-rc1`; a release comes after its candidates.
fn numbers(version: &str) -> Option<(Vec<u64>, bool, &str)> {
    let (release, candidate) = version.split_once('-').unwrap_or((version, ""));
    let numbers: Option<Vec<u64>> = release.split('.').map(|part| part.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() == 3)?;
    Some((numbers, candidate.is_empty(), candidate))
}

/// Gives everything away. After an error everything is still here too.
pub(super) fn give<'a>(
    to: &OwnedFd,
    listener: BorrowedFd<'_>,
    launch: &Launch,
    kept: impl Iterator<Item = (Message, Option<BorrowedFd<'a>>)>,
) -> io::Result<()> {
    let until = Instant::now() + LONGEST;
    let hold = Message::new("hold").with("launch", launch);
    send(to, &hold, Some(listener), until)?;
    let mut secrets = Message::new("secrets");
    for (key, value) in launch.secrets() {
        secrets.push(key, value);
    }
    send(to, &secrets, None, until)?;
    for (message, memory) in kept {
        send(to, &message, memory, until)?;
    }
    send(to, &Message::new("yours"), None, until)
}

fn send(
    to: &OwnedFd,
    message: &Message,
    descriptor: Option<BorrowedFd<'_>>,
    until: Instant,
) -> io::Result<()> {
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    loop {
        match instance::send(to.as_fd(), message, &descriptors) {
            // Its buffer is full, or too many descriptors are on their way.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::ETOOMANYREFS)
                ) && Instant::now() < until =>
            {
                let mut writable = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                let _interrupted = poll(&mut writable, super::poll_timeout(Some(PAUSE)));
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// Takes what the old holder gives, beginning with what came with its word `hold`. None if it did not come to an end.
pub(super) fn take(from: &OwnedFd, hold: &Message, first: Vec<OwnedFd>) -> Option<Legacy> {
    let until = Instant::now() + LONGEST;
    let listener = first.into_iter().next()?;
    let told = hold.value("launch").unwrap_or_default();
    let mut launch = Launch::parse(told).ok();
    let mut kept = Vec::new();
    while kept.len() < MOST && Instant::now() < until {
        match instance::receive(from.as_fd()) {
            Ok(Received::Message(message, _)) if message.verb() == "yours" => {
                return Some(Legacy {
                    listener,
                    kept,
                    launch,
                });
            }
            Ok(Received::Message(message, _)) if message.verb() == "secrets" => {
                if let Some(launch) = &mut launch {
                    for (key, value) in message.pairs() {
                        launch.set_secret(key, value);
                    }
                }
            }
            Ok(Received::Message(message, fds)) => {
                let memory = fds.into_iter().next().map(super::out_of_the_way);
                kept.push((message, memory));
            }
            Ok(Received::Nothing) => {
                wait_for(&[from.as_fd()], Some(PAUSE));
            }
            Ok(Received::Closed) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_release_takes_over() {
        for (newer, older) in [
            ("3.0.1", "3.0.0"),
            ("3.10.0", "3.9.9"),
            ("4.0.0", "3.99.99"),
            ("3.0.0", "3.0.0-rc2"),
            ("3.0.0-rc2", "3.0.0-rc1"),
        ] {
            assert!(is_newer(newer, older), "{newer} {older}");
            assert!(!is_newer(older, newer), "{older} {newer}");
        }
        assert!(!is_newer("3.0.0", "3.0.0"));
        for nonsense in ["", "x", "99", "9.x", "../../evil"] {
            assert!(!is_newer(nonsense, "3.0.0"), "{nonsense}");
        }
    }

    #[test]
    fn what_is_given_arrives_whole_or_not_at_all() {
        let pair = || {
            nix::sys::socket::socketpair(
                nix::sys::socket::AddressFamily::Unix,
                nix::sys::socket::SockType::SeqPacket,
                None,
                nix::sys::socket::SockFlag::SOCK_NONBLOCK,
            )
            .unwrap()
        };
        let (ours, theirs) = pair();
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        let mut launch = Launch::new();
        launch.set_fact("_name", "x");
        launch.set_secret("license", "k");
        let hear_hold = |from: &OwnedFd| loop {
            match instance::receive(from.as_fd()).unwrap() {
                Received::Message(message, fds) => {
                    assert_eq!(message.verb(), "hold");
                    return (message, fds);
                }
                _ => std::thread::sleep(PAUSE),
            }
        };
        let taker = std::thread::spawn(move || {
            let (hold, first) = hear_hold(&theirs);
            take(&theirs, &hold, first)
        });
        // More than a socket's buffer and more than may be in flight at once.
        let many = (0..3000).map(|n| {
            let memory = (n % 10 == 0).then_some(file.as_fd());
            (Message::new("kept").with("ring", n), memory)
        });
        give(&ours, file.as_fd(), &launch, many).unwrap();
        let legacy = taker.join().unwrap().unwrap();
        assert_eq!(legacy.kept.len(), 3000);
        assert_eq!(legacy.launch, Some(launch));
        assert!(legacy.kept[10].1.is_some() && legacy.kept[11].1.is_none());

        let (ours, theirs) = pair();
        send(
            &ours,
            &Message::new("hold"),
            Some(file.as_fd()),
            Instant::now(),
        )
        .unwrap();
        let (hold, first) = hear_hold(&theirs);
        drop(ours);
        assert!(take(&theirs, &hold, first).is_none());
    }
}
