//! The launcher's own options. They end at the first word that is not one: everything from there on belongs to the command.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error, Parser, ValueHint};
use whatap_conf::find;

use super::PROGRAM;

/// Starts a command and traces the Python processes in it.
///
/// The command gets this process's id, its exit status is the command's. 127: no such command, 126: it cannot be executed, 125: these
/// options are wrong. If anything is wrong with the monitoring, the command starts all the same.
#[derive(Parser, Debug, Default, PartialEq, Eq)]
#[command(name = PROGRAM, version)]
pub(super) struct Arguments {
    /// Directory of whatap.conf, logs and spool [env: WHATAP_HOME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) home: Option<PathBuf>,
    /// Name of the application [env: WHATAP_APP_NAME]
    #[arg(long = "app_name", alias = "app-name", value_name = "NAME")]
    app_name: Option<String>,
    /// Set any option for this launch; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = Pair)]
    set: Vec<(String, String)>,
    /// Say on stderr which version, home and files are used
    #[arg(long)]
    pub(super) banner: bool,
    /// Print what would be started, and why; start nothing
    #[arg(long, alias = "dry_run")]
    pub(super) dry_run: bool,
    /// What to start
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        value_hint = ValueHint::CommandWithArguments
    )]
    pub(super) command: Vec<OsString>,
}

impl Arguments {
    /// Options that this command line sets, as `whatap.conf` spells them.
    pub(super) fn overrides(&self) -> Vec<(String, String)> {
        let name = self.app_name.iter();
        name.map(|name| ("app_name".to_owned(), name.clone()))
            .chain(self.set.iter().cloned())
            .collect()
    }
}

/// Reads `KEY=VALUE`. What is wrong is said without the value, which may be a secret.
#[derive(Clone)]
struct Pair;

impl TypedValueParser for Pair {
    type Value = (String, String);

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, text: &OsStr) -> Result<Self::Value, Error> {
        let text = text.to_str().ok_or("is not UTF-8".to_owned());
        text.and_then(pair)
            .map_err(|why| Error::raw(ErrorKind::ValueValidation, format!("--set {why}")))
    }
}

/// The value as it is handed on.
fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("takes KEY=VALUE")?;
    let option = find(key).ok_or_else(|| format!("unknown option `{key}`"))?;
    if option.secret {
        return Err(format!(
            "{key}: a secret on a command line is seen by everybody; use whatap.conf or {}",
            option.variable()
        ));
    }
    let value = option
        .kind
        .normalise(value)
        .map_err(|why| format!("{key}: `{value}` {why}"))?;
    Ok((option.name.into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("whatap-start-agent").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map_err(|error| error.to_string())
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
            ("env -i --unknown -- y", "env -i --unknown -- y"),
            ("-- gunicorn -w 2 -- -c", "gunicorn -w 2 -- -c"),
        ] {
            let expected: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
            assert_eq!(parse(line).unwrap().command, expected, "{line}");
        }
        assert_eq!(parse("--home=/h x").unwrap().home, Some("/h".into()));
    }

    #[test]
    fn settings_of_one_launch_are_checked() {
        let arguments = parse("--app_name shop --set profile_basetime=010 --set=trace_cpu=on x");
        let expected = [
            ("app_name", "shop"),
            ("profile_basetime", "10"),
            ("trace_cpu", "true"),
        ];
        assert_eq!(
            arguments.unwrap().overrides(),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        for (line, why) in [
            (
                "--set debug=perhaps x",
                "`perhaps` is neither true nor false",
            ),
            ("--set license=x1 x", "WHATAP_LICENSE"),
            ("--set lisence=x1 x", "unknown option `lisence`"),
            ("--set nothing x", "takes KEY=VALUE"),
            ("--hone /x y", "--hone"),
            ("-z", "-z"),
            ("--home", "value is required"),
            ("--banner=1 x", "--banner"),
            ("", "COMMAND"),
            ("--", "COMMAND"),
        ] {
            let mistake = parse(line).unwrap_err();
            assert!(mistake.contains(why), "{line}: {mistake}");
        }
        for line in [
            "--set license=hunter2 x",
            "--set accesskey=hunter2 x",
            "--set whatap.server.headers=a=hunter2 x",
            "--set lisence=hunter2 x",
            "--set hunter2 x",
        ] {
            let mistake = parse(line).unwrap_err();
            assert!(!mistake.contains("hunter2"), "{line}: {mistake}");
        }
    }
}
