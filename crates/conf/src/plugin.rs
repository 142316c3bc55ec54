//! `plugin.json`, by which manuals of 2019 let functions be timed: module names with their functions. It is read as if
//! `hook_method_patterns` said the same, and only where nobody else could have written it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::finding::{Finding, Severity};
use crate::properties::LARGEST;

/// The patterns of the file; none if there is no file.
pub(crate) fn patterns(file: &Path) -> Option<Result<Vec<String>, Finding>> {
    let mut text = String::new();
    File::open(file)
        .ok()?
        .take(LARGEST)
        .read_to_string(&mut text)
        .ok()?;
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
        patterns(file.path()).map(|read| read.map_err(|finding| finding.message))
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
        assert_eq!(patterns(Path::new("/nonexistent")), None);
    }
}
