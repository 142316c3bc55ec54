//! `[tool.whatap]` of a `pyproject.toml`.

use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

use crate::files::{distrusted, effective_uid, read_found};
use crate::finding::{Finding, Severity};
use crate::read::read;

/// A key and its value as `whatap.conf` would spell them, with its line.
pub(crate) type Entry = (u32, String, String);

/// The table's entries, `home` left out, and what is wrong with the file.
pub(crate) fn entries(path: &Path) -> (Vec<Entry>, Vec<Finding>) {
    let text = match read_found(path, effective_uid()) {
        Ok(Some(bytes)) => relevant(bytes),
        // It was ours when the launch found it.
        Ok(None) => return (Vec::new(), vec![distrusted(path)]),
        Err(_) => None,
    };
    let Some(text) = text else {
        return Default::default();
    };
    match Document::parse(text.as_str()) {
        Ok(document) => flat(path, &text, document.as_item()),
        Err(error) => {
            let line = error.span().map_or(0, |s| line_at(&text, s.start));
            let why = error
                .message()
                .lines()
                .next()
                .unwrap_or("cannot be read")
                .to_owned();
            let finding = Finding::new(
                Severity::Warning,
                "",
                format!("ignored, not valid TOML: {why}"),
            );
            (Vec::new(), vec![finding.at(path, line)])
        }
    }
}

/// `home` of the table, absolute.
pub(crate) fn home(path: &Path) -> Option<PathBuf> {
    let text = relevant(read_found(path, effective_uid()).ok()??)?;
    let document = Document::parse(text.as_str()).ok()?;
    let home = table(document.as_item())?
        .get("home")?
        .as_str()
        .filter(|h| !h.is_empty())?;
    Some(path.parent()?.join(home))
}

/// Most projects' files have nothing to do with us; they need not be parsed.
pub(crate) fn mentions_us(path: &Path) -> bool {
    read(path).ok().and_then(relevant).is_some()
}

fn relevant(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    text.contains("whatap").then_some(text)
}

fn table(root: &Item) -> Option<&dyn TableLike> {
    root.get("tool")?.get("whatap")?.as_table_like()
}

fn flat(path: &Path, text: &str, root: &Item) -> (Vec<Entry>, Vec<Finding>) {
    let (mut entries, mut findings) = Default::default();
    if let Some(table) = table(root) {
        let mut walk = Walk {
            path,
            text,
            entries: &mut entries,
            findings: &mut findings,
        };
        walk.table("", table);
    } else if let Some(other) = root.get("tool").and_then(|tool| tool.get("whatap")) {
        let line = other.span().map_or(0, |s| line_at(text, s.start));
        let finding = Finding::new(
            Severity::Warning,
            "",
            "ignored: `tool.whatap` is not a table",
        );
        findings.push(finding.at(path, line));
    }
    (entries, findings)
}

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    entries: &'a mut Vec<Entry>,
    findings: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &dyn TableLike) {
        for (key, item) in table.iter() {
            let name = if prefix.is_empty() {
                key.to_owned()
            } else {
                format!("{prefix}.{key}")
            };
            if name == "home" {
                continue;
            }
            let place = table
                .key(key)
                .and_then(|k| k.span())
                .or_else(|| item.span());
            let line = place.map_or(0, |s| line_at(self.text, s.start));
            if let Some(inner) = item.as_table_like() {
                self.table(&name, inner);
            } else if let Some(text) = item.as_value().and_then(plain) {
                self.entry(line, name, text);
            } else {
                let finding = Finding::new(
                    Severity::Warning,
                    &name,
                    "ignored: neither text, number, truth value nor a list of them",
                );
                self.findings.push(finding.at(self.path, line));
            }
        }
    }

    fn entry(&mut self, line: u32, name: String, text: String) {
        if crate::options::find(&name).is_some_and(|o| o.secret) {
            let message = "ignored: a secret does not belong into a file that is committed; put it into whatap.conf or the environment";
            self.findings
                .push(Finding::new(Severity::Warning, &name, message).at(self.path, line));
        } else {
            self.entries.push((line, name, text));
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.value().clone()),
        Value::Integer(i) => Some(i.value().to_string()),
        Value::Float(f) => Some(f.value().to_string()),
        Value::Boolean(b) => Some(b.value().to_string()),
        Value::Array(a) => Some(a.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Datetime(_) | Value::InlineTable(_) => None,
    }
}

fn line_at(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    u32::try_from(before.iter().filter(|b| **b == b'\n').count() + 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Vec<Entry>, Vec<String>) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pyproject.toml");
        std::fs::write(&path, text).unwrap();
        let (entries, findings) = entries(&path);
        (
            entries,
            findings
                .into_iter()
                .map(|f| format!("{}:{}: {}", f.line, f.key, f.message))
                .collect(),
        )
    }

    #[test]
    fn keys_of_the_table_read_like_those_of_whatap_conf() {
        let (entries, findings) = of(concat!(
            "[project]\nname = \"x\"\n\n[tool.whatap]\n# who\napp_name = \"shop\"\nprofile_basetime = 200\n",
            "trace_ignore_url_set = [\"/a\", \"/b\"]\ndebug = true\nwhatap.server.host = \"h\"\nhome = \"x\"\n",
        ));
        let expected = [
            (6, "app_name", "shop"),
            (7, "profile_basetime", "200"),
            (8, "trace_ignore_url_set", "/a,/b"),
            (9, "debug", "true"),
            (10, "whatap.server.host", "h"),
        ];
        assert_eq!(
            entries,
            expected.map(|(n, k, v)| (n, k.to_owned(), v.to_owned()))
        );
        assert_eq!(findings, [""; 0]);
    }

    #[test]
    fn a_licence_in_a_committed_file_is_not_used() {
        let (entries, findings) = of("[tool.whatap]\nlicense = \"x1-x2-x3\"\n");
        assert_eq!(entries, []);
        assert!(
            findings[0].starts_with("2:license: ignored"),
            "{findings:?}"
        );
        assert!(!findings[0].contains("x1-x2"));
    }

    #[test]
    fn a_broken_file_is_named_with_its_line_and_strangers_are_silent() {
        let (_, findings) = of("[tool.whatap]\napp_name = \n");
        assert!(findings[0].starts_with("2:"), "{findings:?}");
        let (entries, findings) = of("this is = = no toml\n");
        assert_eq!((entries.len(), findings.len()), (0, 0));
        for text in ["[tool]\nwhatap = 3\n", "\n[[tool.whatap]]\ndebug = true\n"] {
            let (entries, findings) = of(text);
            assert_eq!(entries, []);
            assert_eq!(findings, ["2:: ignored: `tool.whatap` is not a table"]);
        }
    }
}
