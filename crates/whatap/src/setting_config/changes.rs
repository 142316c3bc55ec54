//! What a command line of `whatap-setting-config` asks for.

use std::fs::File;
use std::io::{self, Read as _};

use whatap_conf::{Kind, find, is_same, licence};
use whatap_wire::licence::Licence;

use super::{Arguments, Failure, hosts, usage};
use crate::home::reason;

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
            set(name, checked(&format!("--{name}"), name, value)?);
        }
    }
    for pair in &arguments.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| usage("--set takes KEY=VALUE"))?;
        let key = key.trim();
        set(key, checked_option(arguments, key, value)?);
    }
    let has_switch = changes.iter().any(|(key, _)| key == "llm_enabled");
    if arguments.llm && !changes.is_empty() && !has_switch {
        changes.push(("llm_enabled".to_owned(), Some("true".to_owned())));
    }
    if arguments.pyproject
        && let Some((key, _)) = changes.iter().find(|(key, _)| is_secret(key))
    {
        return Err(usage(format!(
            "{key} is a secret and pyproject.toml is committed; set it in whatap.conf or the environment"
        )));
    }
    for key in arguments.unset.iter().map(|key| key.trim()) {
        if key.is_empty() {
            return Err(usage("--unset takes a KEY"));
        }
        changes.push((key.to_owned(), None));
    }
    match twice(&changes) {
        Some(key) => Err(usage(format!("{key} is named twice"))),
        None => Ok(changes),
    }
}

/// A key for which the command line asks two things.
fn twice(changes: &[Change]) -> Option<&str> {
    let named_before = |at: usize| {
        changes[..at]
            .iter()
            .any(|(k, _)| is_same(k, &changes[at].0))
    };
    let at = (0..changes.len()).find(|at| named_before(*at))?;
    Some(&changes[at].0)
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
    checked_license(&text).map(Some)
}

fn checked_license(text: &str) -> Result<String, Failure> {
    let key = text.trim();
    if key.is_empty() {
        return Err(usage("the license is empty; --unset license removes it"));
    }
    let valid = licence::check(key)
        .and_then(|()| Licence::parse(key).map_err(|_| "is not a project access key"));
    valid.map_err(|why| usage(format!("the license {} {why}", licence::masked(key))))?;
    Ok(key.to_owned())
}

fn read_key(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(4096).read_to_string(&mut text)?;
    Ok(text)
}

fn checked_option(arguments: &Arguments, key: &str, value: &str) -> Result<String, Failure> {
    let known = find(key).is_some()
        || whatap_conf::is_known_elsewhere(key)
        || (arguments.pyproject && key == "home");
    if !known {
        let meant = whatap_conf::nearest_option(key).map(|m| format!("; did you mean `{m}`?"));
        return Err(usage(format!(
            "--set {key}: unknown option{}",
            meant.unwrap_or_default()
        )));
    }
    checked(&format!("--set {key}"), key, value)
}

/// The value as it is to be stored: what is read back is what was given.
fn checked(option: &str, key: &str, value: &str) -> Result<String, Failure> {
    let wrong = |why: String| Err(usage(format!("{option}: {why}")));
    if value.contains(['\n', '\r', '\0']) {
        return wrong("the value has more than one line".into());
    }
    if value.trim() != value {
        return wrong("the value begins or ends with a blank, which no file keeps".into());
    }
    let Some(known) = find(key).filter(|_| !value.is_empty()) else {
        return Ok(value.to_owned());
    };
    let length = value.chars().count();
    match (known.name, known.kind) {
        ("license", _) => return checked_license(value),
        ("whatap.server.host", _) => match hosts::parse(value) {
            Ok((hosts, None)) => return Ok(hosts.join(",")),
            Ok((_, Some(_))) => return wrong("the port belongs into whatap.server.port".into()),
            Err(why) => return wrong(why),
        },
        (_, Kind::Text(longest)) if length > longest => {
            return wrong(format!("{length} characters, at most {longest}"));
        }
        (_, kind) => {
            if let Err(why) = kind.normalise(value) {
                return wrong(format!("`{value}` {why}"));
            }
        }
    }
    Ok(value.to_owned())
}
