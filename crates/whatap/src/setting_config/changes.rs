//! What a command line of `whatap-setting-config` asks for.

use std::fs::File;
use std::io::{self, Read as _};

use whatap_conf::{find, licence};
use whatap_wire::licence::Licence;

use super::{Arguments, Failure, hosts, usage};
use crate::home::reason;

const LONGEST_NAME: usize = 50;

/// One key, and its new value or none to remove it.
pub(super) type Change = (String, Option<String>);

/// What the command line asks for, every value checked.
pub(super) fn of(arguments: &Arguments) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    let mut set = |key: &str, value: String| changes.push((key.to_owned(), Some(value)));
    if let Some(text) = &arguments.host {
        let (hosts, port) =
            hosts::parse(text).map_err(|why| usage(format!("--host {text}: {why}")))?;
        set(host_key(arguments), hosts.join(","));
        match port {
            Some(_) if arguments.llm => {
                return Err(usage(format!(
                    "--host {text}: servers of the LLM channel are named without a port"
                )));
            }
            Some(port) => set("whatap.server.port", port.to_string()),
            None => {}
        }
    }
    if let Some(key) = license(arguments)? {
        let name = if arguments.llm {
            "llm_license"
        } else {
            "license"
        };
        set(name, key);
    }
    for (name, value) in [
        ("app_name", &arguments.app_name),
        ("app_process_name", &arguments.app_process_name),
    ] {
        if let Some(value) = value {
            set(name, checked_name(name, value)?);
        }
    }
    for pair in &arguments.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| usage("--set takes KEY=VALUE"))?;
        let key = key.trim();
        set(key, checked_option(arguments, key, value)?);
    }
    if arguments.llm && !changes.is_empty() {
        changes.push(("llm_enabled".to_owned(), Some("true".to_owned())));
    }
    if arguments.pyproject
        && let Some((key, _)) = changes.iter().find(|(key, _)| is_secret(key))
    {
        return Err(usage(format!(
            "{key} is a secret and pyproject.toml is committed; set it in whatap.conf or the environment"
        )));
    }
    changes.extend(
        arguments
            .unset
            .iter()
            .map(|key| (key.trim().to_owned(), None)),
    );
    Ok(changes)
}

/// The option that `--host` sets.
pub(super) const fn host_key(arguments: &Arguments) -> &'static str {
    if arguments.llm {
        "llm.whatap.server.host"
    } else {
        "whatap.server.host"
    }
}

/// An option that is, or a key that sounds like one or was meant to be one.
pub(super) fn is_secret(key: &str) -> bool {
    let is_option_secret = |key| find(key).map(|option| option.secret);
    is_option_secret(key).unwrap_or_else(|| {
        let meant = whatap_conf::nearest_option(key).and_then(is_option_secret);
        let key = key.to_ascii_lowercase();
        let sounds = ["licen", "key", "passw", "secret", "token"];
        meant == Some(true) || sounds.iter().any(|sound| key.contains(sound))
    })
}

fn license(arguments: &Arguments) -> Result<Option<String>, Failure> {
    let text = if let Some(key) = &arguments.license {
        key.clone()
    } else if let Some(file) = &arguments.license_file {
        let read = File::open(file).and_then(read_key);
        read.map_err(|error| {
            usage(format!(
                "--license-file {}: {}",
                file.display(),
                reason(&error)
            ))
        })?
    } else if arguments.license_stdin {
        read_key(io::stdin().lock())
            .map_err(|error| usage(format!("--license-stdin: {}", reason(&error))))?
    } else {
        return Ok(None);
    };
    let key = text.trim();
    let valid = licence::check(key)
        .and_then(|()| Licence::parse(key).map_err(|_| "is not a project access key"));
    valid.map_err(|why| usage(format!("the license {} {why}", licence::masked(key))))?;
    Ok(Some(key.to_owned()))
}

fn read_key(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(4096).read_to_string(&mut text)?;
    Ok(text)
}

fn checked_name(option: &str, value: &str) -> Result<String, Failure> {
    let length = value.chars().count();
    if length > LONGEST_NAME {
        return Err(usage(format!(
            "--{option}: {length} characters, at most {LONGEST_NAME}"
        )));
    }
    one_line(option, value)
}

fn checked_option(arguments: &Arguments, key: &str, value: &str) -> Result<String, Failure> {
    match find(key) {
        None if arguments.pyproject && key == "home" => {}
        Some(option) if !value.trim().is_empty() => {
            let normal = option.kind.normalise(value);
            normal.map_err(|why| usage(format!("--set {key}: `{value}` {why}")))?;
        }
        None if !whatap_conf::is_known_elsewhere(key) => {
            let meant = whatap_conf::nearest_option(key).map(|m| format!("; did you mean `{m}`?"));
            return Err(usage(format!(
                "--set {key}: unknown option{}",
                meant.unwrap_or_default()
            )));
        }
        Some(_) | None => {}
    }
    one_line(key, value)
}

fn one_line(key: &str, value: &str) -> Result<String, Failure> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(usage(format!("{key}: the value has more than one line")));
    }
    Ok(value.to_owned())
}
