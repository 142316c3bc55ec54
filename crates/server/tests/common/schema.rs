//! As much of JSON Schema as the API's description uses.

use serde_json::Value;

/// Fails with the place in `value` that is not as the schema `name` (or a list of it, `Name[]`) says.
pub(crate) fn check(document: &Value, name: &str, value: &Value, place: &str) {
    match name.strip_suffix("[]") {
        Some(name) => {
            for (i, item) in value
                .as_array()
                .unwrap_or_else(|| panic!("{place}: no list"))
                .iter()
                .enumerate()
            {
                check(document, name, item, &format!("{place}[{i}]"));
            }
        }
        None => against(
            document,
            &document["components"]["schemas"][name],
            value,
            place,
        ),
    }
}

fn against(document: &Value, schema: &Value, value: &Value, place: &str) {
    assert!(schema.is_object(), "{place}: no schema");
    if let Some(target) = schema["$ref"].as_str() {
        let target = document
            .pointer(target.trim_start_matches('#'))
            .expect(target);
        return against(document, target, value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let null = choices.iter().any(|choice| choice["type"] == "null");
        if !(null && value.is_null()) {
            against(document, &choices[0], value, place);
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{place}: the schema has no type"),
    };
    let fits = types.iter().any(|name| match *name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{place}: type {other}"),
    });
    assert!(fits, "{place}: {value} is not {types:?}");
    if let (Some(words), Some(text)) = (schema["enum"].as_array(), value.as_str()) {
        assert!(
            words.iter().any(|word| word == text),
            "{place}: {text} is not one of {words:?}"
        );
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        let length = if pattern.contains("{32}") { 32 } else { 16 };
        let hex = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        assert!(
            hex && text.len() == length,
            "{place}: {text} is not {pattern}"
        );
    }
    if let Some(items) = value.as_array() {
        for (bound, holds) in [
            (
                "minItems",
                schema["minItems"]
                    .as_u64()
                    .is_none_or(|n| items.len() as u64 >= n),
            ),
            (
                "maxItems",
                schema["maxItems"]
                    .as_u64()
                    .is_none_or(|n| items.len() as u64 <= n),
            ),
        ] {
            assert!(holds, "{place}: {} items against {bound}", items.len());
        }
        for (i, item) in items.iter().enumerate() {
            against(document, &schema["items"], item, &format!("{place}[{i}]"));
        }
    }
    if let Some(object) = value.as_object() {
        for required in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            assert!(
                object.contains_key(required),
                "{place}: `{required}` is missing"
            );
        }
        for (key, item) in object {
            let place = format!("{place}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Null) => panic!("{place}: not described"),
                (Value::Null, more) => against(document, more, item, &place),
                (known, _) => against(document, known, item, &place),
            }
        }
    }
}
