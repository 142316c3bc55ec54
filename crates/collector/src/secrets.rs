//! Secret options of a launch on their way to the instance: through pipes, because an environment can be read by every process
//! of the user, and by whoever gets a copy of it.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{pipe2, read, write};
use std::io;
use std::os::fd::OwnedFd;
use whatap_conf::Launch;
use whatap_wire::Message;
use whatap_wire::message::MAX_BYTES;

/// A pipe that holds them all and ends behind them; none if there are none.
pub(crate) fn in_a_pipe(launch: &Launch) -> io::Result<Option<OwnedFd>> {
    let mut message = Message::new("secrets");
    for (key, value) in launch.secrets() {
        message.push(key, value);
    }
    let bytes = message.encode();
    if launch.secrets().next().is_none() || bytes.len() > MAX_BYTES {
        return Ok(None);
    }
    let (from, to) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Nobody reads yet. A user with very many pipes gets small ones; what does not fit is missed and said by the log.
    let written = write(&to, &bytes)?;
    Ok((written == bytes.len()).then_some(from))
}

/// Adds what such a pipe holds. Never waits.
pub(crate) fn take_from(pipe: Option<OwnedFd>, launch: &mut Launch) {
    let Some(pipe) = pipe.filter(is_pipe) else {
        return;
    };
    if fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_err() {
        return;
    }
    let mut bytes = vec![0; MAX_BYTES];
    let mut length = 0;
    while let Ok(more @ 1..) = read(&pipe, bytes.get_mut(length..).unwrap_or_default()) {
        length += more;
    }
    bytes.truncate(length);
    if let Ok(message) = Message::parse(&bytes) {
        for (key, value) in message.pairs() {
            launch.set_secret(key, value);
        }
    }
}

fn is_pipe(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_the_pipe_and_are_in_no_text() {
        let mut launch = Launch::new();
        assert!(in_a_pipe(&launch).unwrap().is_none());
        launch.set_secret("license", "x1-x2;\n%");
        launch.set_secret("whatap.server.headers", "a=b");
        let pipe = in_a_pipe(&launch).unwrap();
        let mut there = Launch::new();
        take_from(pipe, &mut there);
        assert_eq!(there, launch);
        assert_eq!(launch.to_string(), "1");
        assert!(!format!("{launch:?}").contains("x1-x2"));
    }

    #[test]
    fn what_is_no_pipe_is_left_alone() {
        let mut launch = Launch::new();
        take_from(None, &mut launch);
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        take_from(Some(file), &mut launch);
        assert_eq!(launch, Launch::new());
    }
}
