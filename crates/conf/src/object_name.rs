//! Names of instances made from a pattern: `{type}-{ip2}-{ip3}-{process}`.

/// The pattern with each `{variable}` replaced by what `value` says of it. One that is unknown or empty leaves its bare name.
pub fn object_name(pattern: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut name = String::new();
    let mut rest = pattern;
    while let Some((before, variable, after)) = next(rest) {
        name.push_str(before);
        match value(variable).filter(|value| !value.is_empty()) {
            Some(value) => name.push_str(&value),
            None => name.push_str(variable.strip_prefix(ENV).unwrap_or(variable)),
        }
        rest = after;
    }
    name.push_str(rest);
    name
}

/// The environment variables that a pattern names.
pub(crate) fn variables(pattern: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = pattern;
    while let Some((_, variable, after)) = next(rest) {
        found.extend(variable.strip_prefix(ENV));
        rest = after;
    }
    found
}

const ENV: &str = "env.";

fn next(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (variable, after) = rest.split_once('}')?;
    Some((before, variable, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_or_empty_leaves_its_name() {
        let value = |name: &str| match name {
            "type" => Some("shop".to_owned()),
            "ip2" => Some("7".to_owned()),
            "env.POD" => Some("pod-1".to_owned()),
            "process" => Some(String::new()),
            _ => None,
        };
        let filled = |pattern| object_name(pattern, value);
        assert_eq!(filled("{type}-{ip2}-{process}"), "shop-7-process");
        assert_eq!(
            filled("{env.POD}/{env.ZONE}/{nonsense}"),
            "pod-1/ZONE/nonsense"
        );
        assert_eq!(filled("plain {type"), "plain {type");
        assert_eq!(filled("{}{type}}"), "shop}");
        assert_eq!(variables("{env.A}-{type}-{env.B_C}{env."), ["A", "B_C"]);
    }
}
