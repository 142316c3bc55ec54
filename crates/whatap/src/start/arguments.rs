//! The launcher's own options. They end at the first word that is not one: everything from there on belongs to the command.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use whatap_conf::find;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Run(Arguments),
    /// Help or version, for stdout.
    Show(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) home: Option<PathBuf>,
    pub(super) overrides: Vec<(String, String)>,
    pub(super) banner: bool,
    pub(super) dry_run: bool,
    pub(super) command: Vec<OsString>,
}

const HELP: &str = "\
Starts a command and traces the Python processes in it.

Usage: whatap-start-agent [OPTIONS] [--] COMMAND [ARGUMENT]...

Options:
      --home DIR          Directory of whatap.conf, logs and spool [env: WHATAP_HOME]
      --app_name NAME     Name of the application [env: WHATAP_APP_NAME]
      --set KEY=VALUE     Set any option for this launch; may be repeated
      --banner            Say on stderr which version, home and files are used
      --dry-run           Print what would be started and with which environment
  -h, --help              Print this help
  -V, --version           Print the version

The command gets this process's id, its exit status is the command's. 127: no such command, 126: it cannot be executed,
125: these options are wrong. If anything is wrong with the monitoring, the command starts all the same.
";

impl Request {
    pub(super) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut words = words.peekable();
        let mut found = Arguments::default();
        while let Some(word) = words.next_if(|w| w.as_encoded_bytes().starts_with(b"-")) {
            if word == "--" {
                break;
            }
            let (name, attached) = split(&word);
            let mut value = || {
                attached
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            match name.replace('_', "-").as_str() {
                "-h" | "--help" => return Ok(Self::Show(HELP.into())),
                "-V" | "--version" => {
                    return Ok(Self::Show(format!(
                        "whatap-start-agent {}\n",
                        whatap_conf::VERSION
                    )));
                }
                "--home" => found.home = Some(value()?.into()),
                "--app-name" => found.overrides.push(("app_name".into(), text(value()?)?)),
                "--set" => found.overrides.push(pair(&text(value()?)?)?),
                "--banner" if attached.is_none() => found.banner = true,
                "--dry-run" if attached.is_none() => found.dry_run = true,
                _ => return Err(format!("unknown option {}", word.display())),
            }
        }
        found.command = words.collect();
        if found.command.is_empty() {
            return Err("no command given".into());
        }
        Ok(Self::Run(found))
    }
}

/// `--name=value` in two.
fn split(word: &OsStr) -> (String, Option<OsString>) {
    let bytes = word.as_encoded_bytes();
    match bytes
        .iter()
        .position(|b| *b == b'=')
        .filter(|_| bytes.starts_with(b"--"))
    {
        Some(at) => {
            use std::os::unix::ffi::OsStrExt as _;
            let value = OsStr::from_bytes(&word.as_bytes()[at + 1..]).to_owned();
            (
                String::from_utf8_lossy(&bytes[..at]).into_owned(),
                Some(value),
            )
        }
        None => (word.to_string_lossy().into_owned(), None),
    }
}

fn text(value: OsString) -> Result<String, String> {
    value
        .into_string()
        .map_err(|v| format!("{} is not UTF-8", v.display()))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("--set {text}: not KEY=VALUE"))?;
    let option = find(key).ok_or_else(|| format!("--set {key}: unknown option"))?;
    if option.secret {
        return Err(format!(
            "--set {key}: a secret on a command line is seen by everybody; use whatap.conf or {}",
            option.variable()
        ));
    }
    let value = option
        .kind
        .normalise(value)
        .map_err(|why| format!("--set {key}: `{value}` {why}"))?;
    Ok((option.name.into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.split_whitespace().map(OsString::from))
    }

    fn run(line: &str) -> Arguments {
        match parse(line) {
            Ok(Request::Run(arguments)) => arguments,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_commands_own_options_are_its_own() {
        for (line, command) in [
            (
                "python -c pass --home /x --help",
                "python -c pass --home /x --help",
            ),
            ("--home /h gunicorn --version", "gunicorn --version"),
            ("--home=/h -- --odd -x", "--odd -x"),
            ("--banner -- -- x", "-- x"),
            ("env -i --unknown", "env -i --unknown"),
        ] {
            let expected: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
            assert_eq!(run(line).command, expected, "{line}");
        }
        assert_eq!(run("--home=/h x").home, Some("/h".into()));
    }

    #[test]
    fn settings_of_one_launch_are_checked() {
        let arguments = run("--app_name shop --set profile_basetime=010 --set=trace_cpu=on x");
        let expected = [
            ("app_name", "shop"),
            ("profile_basetime", "10"),
            ("trace_cpu", "true"),
        ];
        assert_eq!(
            arguments.overrides,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(
            parse("--set debug=perhaps x"),
            Err("--set debug: `perhaps` is neither true nor false".into())
        );
        assert!(
            parse("--set license=x1 x")
                .unwrap_err()
                .contains("WHATAP_LICENSE")
        );
    }

    #[test]
    fn mistakes_of_ours_are_named() {
        assert_eq!(parse("--hone /x y"), Err("unknown option --hone".into()));
        assert_eq!(parse("-z"), Err("unknown option -z".into()));
        assert_eq!(parse("--home"), Err("--home needs a value".into()));
        assert_eq!(
            parse("--banner=1 x"),
            Err("unknown option --banner=1".into())
        );
        assert_eq!(parse(""), Err("no command given".into()));
        assert_eq!(parse("--"), Err("no command given".into()));
        assert!(matches!(parse("--help"), Ok(Request::Show(_))));
        assert!(matches!(parse("-V x"), Ok(Request::Show(_))));
    }
}
