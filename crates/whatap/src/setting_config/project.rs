//! `[tool.whatap]` of a `pyproject.toml`: keys are set and removed, and everything else stays, comments too.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};
use whatap_conf::{Kind, find, is_same};

use super::changes::Change;

/// The file that counts for programs started here.
pub(super) fn nearest(cwd: &Path) -> Option<PathBuf> {
    cwd.ancestors()
        .map(|dir| dir.join("pyproject.toml"))
        .find(|file| file.is_file())
}

/// The text with the changes made, or the line (0: the whole file) and why it cannot be changed.
pub(super) fn edited(text: &str, changes: &[Change]) -> Result<String, (u32, String)> {
    let (bom, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    let mut document: DocumentMut = text.parse().map_err(|error| bad_toml(text, &error))?;
    for (key, value) in changes {
        match value {
            Some(value) => set(&mut document, key, value)?,
            None => unset(&mut document, key),
        }
    }
    let edited = document.to_string();
    // The parser writes each line's end as `\n`.
    let edited = if text.contains("\r\n") {
        edited.replace("\r\n", "\n").replace('\n', "\r\n")
    } else {
        edited
    };
    Ok(format!("{bom}{edited}"))
}

/// The table's keys and values as `whatap.conf` would spell them.
pub(super) fn entries(text: &str) -> Vec<(String, String)> {
    let text = text.trim_start_matches('\u{feff}');
    let Ok(document) = text.parse::<DocumentMut>() else {
        return Vec::new();
    };
    let table = document.get("tool").and_then(|tool| tool.get("whatap"));
    let mut found = Vec::new();
    if let Some(table) = table.and_then(Item::as_table_like) {
        walk(table, &mut Vec::new(), &mut |path, value| {
            found.push((option_at(path), plain(value)));
        });
    }
    found
}

fn bad_toml(text: &str, error: &toml_edit::TomlError) -> (u32, String) {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let why = error.message().lines().next().unwrap_or("cannot be read");
    (
        u32::try_from(line).unwrap_or(0),
        format!("is not valid TOML: {why}"),
    )
}

fn set(document: &mut DocumentMut, key: &str, text: &str) -> Result<(), (u32, String)> {
    let not_a_table = || (0, "`tool.whatap` is not a table".to_owned());
    let tool = document
        .entry("tool")
        .or_insert_with(|| Item::Table(implicit()));
    let table = tool
        .as_table_like_mut()
        .ok_or_else(not_a_table)?
        .entry("whatap")
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or_else(not_a_table)?;
    let path = path_of(table, key).unwrap_or_else(|| key.split('.').map(str::to_owned).collect());
    let (last, parents) = path.split_last().ok_or_else(not_a_table)?;
    let mut place = table;
    for name in parents {
        place = place
            .entry(name)
            .or_insert_with(|| Item::Table(dotted()))
            .as_table_like_mut()
            .ok_or_else(|| (0, format!("`{name}` of `tool.whatap` is not a table")))?;
    }
    let old = place.get(last).and_then(Item::as_value);
    // A list that is written as one text stays one.
    let new = match old {
        Some(Value::String(_)) => Value::from(text),
        _ => value_of(key, text),
    };
    match place.get_mut(last).and_then(Item::as_value_mut) {
        Some(old) if plain(old) == plain(&new) => {}
        Some(old) => {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        }
        None => drop(place.insert(last, Item::Value(new))),
    }
    Ok(())
}

fn unset(document: &mut DocumentMut, key: &str) {
    let table = document
        .get_mut("tool")
        .and_then(|tool| tool.get_mut("whatap"));
    let Some(table) = table.and_then(Item::as_table_like_mut) else {
        return;
    };
    while let Some(path) = path_of(table, key) {
        remove(table, &path);
    }
}

/// Removes what lies at the path, and the tables on the way that are empty then.
fn remove(table: &mut dyn TableLike, path: &[String]) {
    match path {
        [] => {}
        [last] => drop(table.remove(last)),
        [first, rest @ ..] => {
            let Some(inner) = table.get_mut(first).and_then(Item::as_table_like_mut) else {
                return;
            };
            remove(inner, rest);
            if inner.is_empty() {
                table.remove(first);
            }
        }
    }
}

/// Where the table holds this option, however its name is spelled there.
fn path_of(table: &dyn TableLike, key: &str) -> Option<Vec<String>> {
    let mut place = None;
    walk(table, &mut Vec::new(), &mut |path, _| {
        if is_same(&option_at(path), key) {
            place = Some(path.to_vec());
        }
    });
    place
}

fn walk(table: &dyn TableLike, path: &mut Vec<String>, visit: &mut dyn FnMut(&[String], &Value)) {
    for (key, item) in table.iter() {
        path.push(key.to_owned());
        if let Some(inner) = item.as_table_like() {
            walk(inner, path, visit);
        } else if let Some(value) = item.as_value() {
            visit(path, value);
        }
        path.pop();
    }
}

/// The option that a path means; a leading `whatap` may be left out.
fn option_at(path: &[String]) -> String {
    let name = path.join(".");
    let full = format!("whatap.{name}");
    if find(&name).is_none() && find(&full).is_some() {
        full
    } else {
        name
    }
}

/// Written as TOML has it: truth values, numbers and lists as such.
fn value_of(key: &str, text: &str) -> Value {
    let kind = find(key).map(|option| option.kind);
    let normal = kind.and_then(|kind| kind.normalise(text).ok());
    let number = || normal.as_deref().and_then(|n| n.parse::<i64>().ok());
    match kind {
        Some(Kind::Bool) => Value::from(normal.as_deref() == Some("true")),
        Some(Kind::Int(..)) if number().is_some() => Value::from(number().unwrap_or_default()),
        // One element alone is as good as a list of one.
        Some(Kind::List) if text.contains(',') => {
            let elements = normal.as_deref().unwrap_or_default().split(',');
            Value::Array(elements.filter(|e| !e.is_empty()).collect::<Array>())
        }
        _ => Value::from(text),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.value().clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string().trim().to_owned(),
    }
}

/// A table of which only the inner ones are written.
fn implicit() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}

/// A table that is written as a part of its keys' names.
fn dotted() -> Table {
    let mut table = Table::new();
    table.set_dotted(true);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_all(text: &str, pairs: &[(&str, Option<&str>)]) -> String {
        let changes: Vec<Change> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
            .collect();
        edited(text, &changes).unwrap()
    }

    #[test]
    fn a_new_table_comes_last_and_the_rest_stays() {
        let before = "# ours\n[project]\nname = \"x\"   # why\n";
        let pairs = [
            ("app_name", Some("shop")),
            ("trace_cpu", Some("on")),
            ("profile_basetime", Some("200")),
            ("trace_ignore_url_set", Some("/a,/b")),
            ("whatap.server.host", Some("h")),
        ];
        let after = set_all(before, &pairs);
        assert_eq!(
            after,
            format!(
                "{before}\n[tool.whatap]\napp_name = \"shop\"\ntrace_cpu = true\nprofile_basetime = 200\n\
                 trace_ignore_url_set = [\"/a\", \"/b\"]\nwhatap.server.host = \"h\"\n"
            )
        );
        assert_eq!(set_all(&after, &pairs), after);
        let listed: Vec<_> = entries(&after);
        assert_eq!(listed.len(), 5);
        assert!(listed.contains(&("whatap.server.host".into(), "h".into())));
    }

    #[test]
    fn a_value_changes_in_place_however_its_key_is_spelled() {
        let before =
            "[tool.whatap] # us\nserver.host = 'a' # the old one\r\n# end\n[tool.other]\nx = 1\n";
        let before = before.replace("\r\n", "\n");
        assert_eq!(
            set_all(&before, &[("whatap.server.host", Some("b,c"))]),
            before.replace("'a'", "\"b,c\"")
        );
        assert_eq!(
            set_all(&before, &[("whatap.server.host", None)]),
            "[tool.whatap] # us\n# end\n[tool.other]\nx = 1\n"
        );
        let nested = "[tool.whatap.whatap.server]\nhost = \"a\"\n";
        assert_eq!(
            set_all(nested, &[("whatap.server.host", Some("b"))]),
            "[tool.whatap.whatap.server]\nhost = \"b\"\n"
        );
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_stay() {
        let before =
            "\u{feff}[project]\r\nname = \"x\"\r\n\r\n[tool.whatap]\r\napp_name = \"a\"\r\n";
        let after = set_all(
            before,
            &[("app_name", Some("b")), ("trace_cpu", Some("true"))],
        );
        let expected = before.replace("\"a\"", "\"b\"") + "trace_cpu = true\r\n";
        assert_eq!(after, expected);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let changes = [("app_name".to_owned(), Some("x".to_owned()))];
        assert_eq!(edited("a = 1\nb = \n", &changes).unwrap_err().0, 2);
        assert!(edited("[tool]\nwhatap = 1\n", &changes).is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_change_and_its_opposite_leave_the_file(value in "[ -~]{0,20}", lines in proptest::collection::vec("(# [a-z]{0,9}|[a-z]{1,5} = [0-9]|)", 0..6)) {
            let mut seen = std::collections::BTreeSet::new();
            let lines: Vec<String> = lines.into_iter().filter(|l| l.starts_with('#') || l.is_empty() || seen.insert(l.split(' ').next().map(str::to_owned))).collect();
            let text = format!("[other]\n{}\n[tool.whatap]\nprofile_rate = 5\n", lines.join("\n"));
            let set = set_all(&text, &[("app_name", Some(&value))]);
            proptest::prop_assert!(set.starts_with(&text), "{set}");
            proptest::prop_assert_eq!(entries(&set).last().map(|e| e.1.clone()), Some(value));
            proptest::prop_assert_eq!(set_all(&set, &[("app_name", None)]), text);
        }
    }
}
