//! `plugin.json`, by which manuals of 2019 let functions be timed: module names with their functions. It is read as if
//! `hook_method_patterns` said the same, and only where nobody else could have written it.

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::files::is_believed;
use crate::finding::{Finding, Severity};
use crate::read::read_if;

/// The patterns of the file; none if there is no file, or if others than this user could have written it.
pub(crate) fn patterns(file: &Path, uid: u32) -> Option<Result<Vec<String>, Finding>> {
    let text = match read_if(file, |meta| is_believed(meta, uid)) {
        Ok(bytes) => String::from_utf8(bytes?).map_err(|_| io::ErrorKind::InvalidData.into()),
        // Where the directory is closed nobody knows whether there is one; that is said of whatap.conf.
        Err(_) if file.symlink_metadata().is_err() => return None,
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return Some(Err(Finding::unreadable(Severity::Warning, file, &error))),
    };
    let finding = |message: String| Finding::new(Severity::Warning, "", message).at(file, 0);
    Some(match serde_json::from_str::<Value>(&text) {
        Ok(value) => of(&value).ok_or_else(|| {
            finding("ignored: it names no functions as `{\"module\": [\"Class.method\", \"function\"]}`".into())
        }),
        Err(error) => Err(finding(format!("ignored, not valid JSON: {error}"))),
    })
}

/// An object of modules, a list of such objects, or a list of `module:function`.
fn of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Object(modules) => {
            let mut found = Vec::new();
            for (module, functions) in modules {
                let names = names(functions)?;
                found.extend(names.into_iter().map(|name| format!("{module}:{name}")));
            }
            Some(found)
        }
        Value::Array(items) => {
            let lists: Option<Vec<Vec<String>>> = items.iter().map(item).collect();
            Some(lists?.concat())
        }
        _ => None,
    }
}

fn item(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => text.contains(':').then(|| vec![text.trim().to_owned()]),
        Value::Object(_) => of(value),
        _ => None,
    }
}

fn names(functions: &Value) -> Option<Vec<String>> {
    match functions {
        Value::String(text) => Some(crate::value::elements(text).map(str::to_owned).collect()),
        Value::Array(items) => {
            let lists: Option<Vec<Vec<String>>> = items.iter().map(names).collect();
            Some(lists?.concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Result<Vec<String>, String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        patterns(file.path(), crate::files::effective_uid())
            .map(|read| read.map_err(|finding| finding.message))
    }

    #[test]
    fn modules_and_their_functions_become_patterns() {
        let expected = Some(Ok(vec![
            "shop.cart:Cart.add".into(),
            "shop.cart:total".into(),
        ]));
        for text in [
            r#"{"shop.cart": ["Cart.add", "total"]}"#,
            r#"{"shop.cart": "Cart.add, total"}"#,
            r#"["shop.cart:Cart.add", "shop.cart:total"]"#,
            r#"[{"shop.cart": "Cart.add"}, {"shop.cart": ["total"]}]"#,
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_something_else_is_said_and_left_alone() {
        for text in ["", "{", "7", r#"{"a": 7}"#, r#"["a"]"#] {
            let said = read(text).unwrap().unwrap_err();
            assert!(said.starts_with("ignored"), "{text}: {said}");
        }
        assert_eq!(patterns(Path::new("/nonexistent"), 0), None);
    }

    #[test]
    fn what_cannot_be_read_is_one_finding_and_waited_for_by_nobody() {
        let temp = tempfile::tempdir().unwrap();
        let said = |name: &str| {
            let read = patterns(&temp.path().join(name), crate::files::effective_uid());
            read.unwrap().unwrap_err().message
        };
        nix::unistd::mkfifo(&temp.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(temp.path().join("bytes"), b"{\"m\": [\"\xff\"]}").unwrap();
        assert_eq!(
            said("pipe"),
            "cannot be read: not a regular file; going on without it"
        );
        assert_eq!(
            said("bytes"),
            "cannot be read: not UTF-8; going on without it"
        );
    }
}
