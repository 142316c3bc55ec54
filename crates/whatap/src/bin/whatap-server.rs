//! The server's program. What needs unsafe code is here: the environment and inherited descriptors; all else is in
//! `whatap_server`.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, fcntl};
use whatap::usage;
use whatap_server::cli::{self, Process};

fn main() -> ExitCode {
    let one_time_token = std::env::var(ONE_TIME_TOKEN).ok();
    // SAFETY: no other thread runs yet.
    unsafe { std::env::remove_var(ONE_TIME_TOKEN) };
    let arguments: Vec<_> = std::env::args_os().collect();
    match usage::generated("whatap-server", &arguments, cli::command) {
        Some(Ok(text)) => return usage::print("whatap-server", &text, ExitCode::SUCCESS),
        Some(Err(problem)) => {
            usage::complain("whatap-server", &problem);
            return ExitCode::from(2);
        }
        None => {}
    }
    cli::main(Process {
        arguments,
        inherit,
        one_time_token,
    })
}

/// The listener that our parent left open at this number.
fn inherit(number: RawFd) -> io::Result<TcpListener> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed for this one question, whose answer is an error if nothing is open at that number.
    fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD)?;
    // SAFETY: called once for each number of the command line, before anything else is opened at it; what is no socket
    // fails below and is closed.
    let listener = unsafe { TcpListener::from_raw_fd(number) };
    listener.local_addr()?;
    Ok(listener)
}

const ONE_TIME_TOKEN: &str = "WHATAP_SERVER_ONE_TIME_TOKEN";
