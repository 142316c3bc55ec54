//! Command lines: help and version on stdout with status 0, a mistake is one line on stderr. `--completions SHELL` and `--man`, alone
//! on the command line, print what is generated from the same description.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Command, Parser};
use clap_complete::Shell;
use whatap_conf::licence;

use crate::home::reason;
use crate::inherited;

/// The parsed command line, or the status to leave with.
pub fn parse<P: Parser>(
    program: &str,
    args: impl IntoIterator<Item = OsString>,
    mistake: u8,
) -> Result<P, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(printed) = generated(program, &args, P::command) {
        return Err(match printed {
            Ok(text) => print(program, &text, ExitCode::SUCCESS),
            Err(problem) => {
                complain(program, &problem);
                ExitCode::from(mistake)
            }
        });
    }
    let command = P::command().after_help(GENERATED);
    let parsed = command.try_get_matches_from(args);
    let parsed = parsed.and_then(|found| P::from_arg_matches(&found));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print(program, &error.to_string(), ExitCode::SUCCESS)
        }
        _ => {
            complain(program, &one_line(&error));
            ExitCode::from(mistake)
        }
    })
}

/// What the help says of them.
pub const GENERATED: &str =
    "Alone on the command line, --completions SHELL prints completions and --man the manual page.";

/// Completions or the manual page, if that is what the command line asks for.
pub fn generated(
    program: &str,
    args: &[OsString],
    command: impl Fn() -> Command,
) -> Option<Result<String, String>> {
    let words: Vec<_> = args
        .iter()
        .skip(1)
        .filter_map(|word| word.to_str())
        .collect();
    let mut text = Vec::new();
    match words[..] {
        ["--man"] => {
            let page = clap_mangen::Man::new(command()).render(&mut text);
            page.map_err(|error| error.to_string())
        }
        ["--completions", shell] => completions(program, shell, command(), &mut text),
        ["--completions"] => Err(format!("--completions needs a shell: {SHELLS}")),
        _ => return None,
    }
    .map(|()| String::from_utf8_lossy(&text).into_owned())
    .into()
}

const SHELLS: &str = "bash, elvish, fish, powershell or zsh";

fn completions(
    program: &str,
    shell: &str,
    mut command: Command,
    text: &mut Vec<u8>,
) -> Result<(), String> {
    let known: Shell = shell
        .parse()
        .map_err(|_| format!("--completions {shell}: not one of {SHELLS}"))?;
    clap_complete::generate(known, &mut command, program, text);
    Ok(())
}

/// Reads a whole number within these limits.
pub fn whole_number(
    limits: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| limits.contains(number));
        let (least, most) = (limits.start(), limits.end());
        number.ok_or_else(|| format!("not a whole number from {least} to {most}"))
    }
}

/// Writes to stdout what was asked for: the status, or another one if it could not be written. A reader that has gone is no reason
/// to fail.
pub fn print(program: &str, text: &str, status: ExitCode) -> ExitCode {
    match written(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let why = reason(&error);
            complain(program, &format!("cannot write to standard output: {why}"));
            ExitCode::from(CANNOT_PRINT)
        }
        _ => status,
    }
}

/// Writes to stdout what was done, which is done also where nobody can be told.
pub fn tell(text: &str) {
    drop(written(text));
}

/// As `EX_IOERR` of sysexits.h.
const CANNOT_PRINT: u8 = 74;

fn written(text: &str) -> io::Result<()> {
    if inherited::is_stdout_closed() {
        return Err(nix::errno::Errno::EBADF.into());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// One line on stderr, in one write, whoever else writes there. A key that the user typed in a wrong place is not repeated: what is
/// said here ends up in journals.
pub fn complain(program: &str, message: &str) {
    let message = licence::without_keys(message);
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
