//! One grammar for values, whoever reads them.

/// What an option holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Bool,
    /// A whole number between the two bounds.
    Int(i64, i64),
    /// A decimal number between the two bounds.
    Float(f64, f64),
    /// Text of at most this many characters; longer values are cut.
    Text(usize),
    /// Texts separated by commas, each trimmed, empty ones left out.
    List,
    /// One of these words; `true` and `false` also in their other spellings.
    Choice(&'static [&'static str]),
}

impl Kind {
    /// The one spelling that programs hand to each other, or why the text is not a value of this kind.
    pub fn normalise(self, text: &str) -> Result<String, String> {
        let text = text.trim();
        match self {
            Self::Bool => truth(text)
                .map(|b| b.to_string())
                .ok_or_else(|| "is neither true nor false".into()),
            Self::Int(low, high) => {
                let number = text.parse::<i64>().map_err(|_| "is not a whole number")?;
                within(number, low, high).map(|n| n.to_string())
            }
            Self::Float(low, high) => {
                let number = text.parse::<f64>().map_err(|_| "is not a number")?;
                within(number, low, high).map(|n| n.to_string())
            }
            Self::Text(longest) => Ok(text.chars().take(longest).collect()),
            Self::List => Ok(elements(text).collect::<Vec<_>>().join(",")),
            Self::Choice(words) => choose(words, text),
        }
    }

    /// Does an empty text mean "as if it were not there"?
    pub(crate) fn empty_is_absent(self) -> bool {
        !matches!(self, Self::Text(_) | Self::List)
    }

    /// The name of the kind as documentation prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int(..) => "int",
            Self::Float(..) => "float",
            Self::Text(_) => "text",
            Self::List => "list",
            Self::Choice(_) => "choice",
        }
    }
}

/// `true`, `1`, `t`, `yes`, `on` and their opposites, in any case.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "yes" | "y" | "on" => Some(true),
        "false" | "0" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// The elements of a list, trimmed.
pub(crate) fn elements(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|e| !e.is_empty())
}

fn within<T: PartialOrd + std::fmt::Display>(number: T, low: T, high: T) -> Result<T, String> {
    if number >= low && number <= high {
        Ok(number)
    } else {
        Err(format!("is not between {low} and {high}"))
    }
}

fn choose(words: &[&str], text: &str) -> Result<String, String> {
    if let Some(word) = words.iter().find(|w| w.eq_ignore_ascii_case(text)) {
        return Ok((*word).into());
    }
    match truth(text).map(|b| if b { "true" } else { "false" }) {
        Some(word) if words.contains(&word) => Ok(word.into()),
        _ => Err(format!("is none of {}", words.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_of_yes_and_no_is_understood() {
        for yes in ["true", "True", "TRUE", "1", "t", "yes", "On", " on "] {
            assert_eq!(Kind::Bool.normalise(yes).as_deref(), Ok("true"), "{yes}");
        }
        for no in ["false", "False", "0", "no", "OFF"] {
            assert_eq!(Kind::Bool.normalise(no).as_deref(), Ok("false"), "{no}");
        }
        assert!(Kind::Bool.normalise("maybe").is_err());
    }

    #[test]
    fn numbers_out_of_range_and_with_units_are_refused() {
        let kind = Kind::Int(0, 100);
        assert_eq!(kind.normalise("050").as_deref(), Ok("50"));
        assert_eq!(
            kind.normalise("101"),
            Err("is not between 0 and 100".into())
        );
        assert!(kind.normalise("5s").is_err());
        assert!(Kind::Float(0.0, 1.0).normalise("nan").is_err());
    }

    #[test]
    fn lists_are_trimmed_and_choices_accept_truth_words() {
        assert_eq!(Kind::List.normalise(" /a , ,/b,").as_deref(), Ok("/a,/b"));
        let kind = Kind::Choice(&["auto", "true", "false"]);
        assert_eq!(kind.normalise("AUTO").as_deref(), Ok("auto"));
        assert_eq!(kind.normalise("on").as_deref(), Ok("true"));
        assert!(kind.normalise("sometimes").is_err());
    }
}
