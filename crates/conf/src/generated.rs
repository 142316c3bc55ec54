//! Keeps the files that follow from the option table true: a stale one is rewritten, and the test fails once.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::options::{OPTIONS, Opt, Reader, Reload};
use crate::value::Kind;

#[test]
fn generated_files_follow_the_option_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = Vec::new();
    for (file, text) in [
        ("docs/options.md", documentation()),
        ("bootstrap/whatap/_options.py", python_options()),
        ("bootstrap/whatap/_version.py", python_version()),
    ] {
        let path = root.join(file);
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            stale.push(file);
        }
    }
    assert!(
        stale.is_empty(),
        "{stale:?} did not follow the option table; rewritten now, commit them"
    );
}

fn python_version() -> String {
    format!(
        "# Generated from Cargo.toml by `cargo test -p whatap-conf`.\nVERSION = \"{}\"\n",
        crate::VERSION
    )
}

/// A dictionary of values as Python sees them, and the kinds for those that arrive as text.
fn python_options() -> String {
    let mut out = String::from(concat!(
        "# Generated from the option table by `cargo test -p whatap-conf`: what the tracer reads, and the defaults.\n",
        "# Values arrive normalised: true/false, plain numbers, lists joined with commas.\n",
        "DEFAULTS = {\n",
    ));
    for o in OPTIONS.iter().filter(|o| o.reader.includes(Reader::TRACER)) {
        writeln!(out, "    \"{}\": {},", o.name, python_value(o)).unwrap();
    }
    out.push_str("}\n");
    out
}

fn python_value(o: &Opt) -> String {
    let quoted = |t: &str| format!("\"{}\"", t.replace('\\', "\\\\").replace('"', "\\\""));
    match o.kind {
        Kind::Bool => if o.default == "true" { "True" } else { "False" }.into(),
        Kind::Int(..) | Kind::Float(..) => o.default.into(),
        Kind::Text(_) | Kind::Choice(_) => quoted(o.default),
        Kind::List => {
            let items: Vec<String> = crate::value::elements(o.default).map(quoted).collect();
            let comma = if items.len() == 1 { "," } else { "" };
            format!("({}{comma})", items.join(", "))
        }
    }
}

fn documentation() -> String {
    let mut out = String::from(concat!(
        "# Options\n\n",
        "Generated from `crates/conf/src/options.rs`; do not edit.\n\n",
        "Precedence: command line > environment > `whatap.conf` > `[tool.whatap]` in `pyproject.toml` > default.\n",
        "With `use_env_first=false` the file wins over the environment. `whatap-doctor` shows each effective value and where it comes from.\n\n",
        "*Environment*: every option has the variable named in its row, some have others as well. ",
        "Truth values: `true`, `1`, `yes`, `on` and their opposites, in any case. Lists: separated by commas.\n",
        "*Reader*: L launcher, T tracer, C collector; none: accepted, because existing files hold it, and not in use yet. ",
        "*Takes effect*: at once (within three seconds), at the collector's next connection, or at the application's next start.\n\n",
        "| Option | Type | Default | Reader | Takes effect | Environment | Meaning |\n",
        "|---|---|---|---|---|---|---|\n",
    ));
    for o in OPTIONS {
        writeln!(out, "{}", row(o)).unwrap();
    }
    out.push_str(concat!(
        "\n## Variables that are not options\n\n",
        "| Variable | Meaning |\n|---|---|\n",
        "| `WHATAP_HOME` | The home: the directory of `whatap.conf`, `logs/` and `spool/`. |\n",
        "| `WHATAP_HOME_BATCH` | The home of `whatap-start-batch-agent`. |\n",
        "| `WHATAP_CONFIG` | Another name for `whatap.conf`, for all programs alike; relative to the home or `WHATAP_CONFIG_HOME`. |\n",
        "| `WHATAP_CONFIG_HOME` | The directory of that file, if it is not the home. |\n",
        "| `WHATAP_LOGS` | The directory for logs, if it is not `logs/` in the home. |\n",
        "| `WHATAP_BOOTSTRAP_DIR` | The directory that holds our `sitecustomize.py`, taken as it is. |\n",
        "| `WHATAP_BANNER` | `1`: the launcher prints version, home, configuration file and logs on stderr. |\n",
    ));
    out
}

fn row(o: &Opt) -> String {
    let code = |t: &str| format!("`{}`", t.replace('|', "\\|"));
    let mut names = code(o.name);
    for alias in o.aliases {
        write!(names, " (also {})", code(alias)).unwrap();
    }
    let kind = match o.kind {
        Kind::Int(low, high) => format!("int {low}–{high}"),
        Kind::Float(low, high) => format!("float {low}–{high}"),
        Kind::Choice(words) => words.iter().map(|w| code(w)).collect::<Vec<_>>().join(" "),
        other => other.name().into(),
    };
    let kind = if o.unit.is_empty() {
        kind
    } else {
        format!("{kind}, {}", o.unit)
    };
    let readers: String = [
        (Reader::LAUNCHER, 'L'),
        (Reader::TRACER, 'T'),
        (Reader::COLLECTOR, 'C'),
    ]
    .into_iter()
    .filter_map(|(r, letter)| o.reader.includes(r).then_some(letter))
    .collect();
    let reload = match o.reload {
        Reload::Hot => "at once",
        Reload::Reconnect => "next connection",
        Reload::Restart => "next start",
    };
    let default = if o.default.is_empty() {
        String::new()
    } else {
        code(o.default)
    };
    let variables: Vec<String> = std::iter::once(o.variable())
        .chain(o.env.iter().map(|e| (*e).to_owned()))
        .map(|v| code(&v))
        .collect();
    format!(
        "| {names} | {kind} | {default} | {readers} | {reload} | {} | {} |",
        variables.join(" "),
        o.help
    )
}
