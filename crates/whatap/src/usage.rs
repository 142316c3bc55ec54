//! Command lines of the programs that clap parses: help and version on stdout with status 0, a mistake is one line on stderr.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// The parsed command line, or the status to leave with.
pub fn parse<P: Parser>(
    program: &str,
    args: impl IntoIterator<Item = OsString>,
    mistake: u8,
) -> Result<P, ExitCode> {
    P::try_parse_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print(&error.to_string());
            ExitCode::SUCCESS
        }
        _ => {
            complain(program, &one_line(&error));
            ExitCode::from(mistake)
        }
    })
}

/// Writes to stdout; a reader that has gone is no reason to fail.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// One line on stderr, in one write, whoever else writes there.
pub fn complain(program: &str, message: &str) {
    drop(io::stderr().write_all(format!("{program}: {message}\n").as_bytes()));
}

fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|l| !l.starts_with("Usage") && !l.starts_with("For more"));
    let joined = lines
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    joined.trim_start_matches("error: ").to_owned()
}
