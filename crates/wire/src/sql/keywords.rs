//! The words that say what may stand behind them.

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    None,
    /// Begins a part in which values stand.
    Clause,
    /// A list of values follows.
    List,
    /// A name follows.
    Naming,
    /// A name follows, then perhaps more of them: see [`Clause`].
    Names,
    Columns,
}

pub(super) fn keyword(word: &str) -> Keyword {
    const WORDS: &[(&str, Keyword)] = &[
        ("ADD", Keyword::Naming),
        ("ALTER", Keyword::Columns),
        ("AS", Keyword::Naming),
        ("BY", Keyword::Names),
        ("CHECK", Keyword::Clause),
        ("COLUMN", Keyword::Naming),
        ("CONFLICT", Keyword::Columns),
        ("CONSTRAINT", Keyword::Naming),
        ("CREATE", Keyword::Columns),
        ("DEFAULT", Keyword::Clause),
        ("DROP", Keyword::Columns),
        ("EXISTS", Keyword::Naming),
        ("FROM", Keyword::Names),
        ("HAVING", Keyword::Clause),
        ("IN", Keyword::List),
        ("INDEX", Keyword::Naming),
        ("INTO", Keyword::Columns),
        ("JOIN", Keyword::Naming),
        ("LIMIT", Keyword::Clause),
        ("REFERENCES", Keyword::Naming),
        ("RELEASE", Keyword::Naming),
        ("RETURNING", Keyword::Clause),
        ("SAVEPOINT", Keyword::Naming),
        ("SELECT", Keyword::Clause),
        ("SET", Keyword::Names),
        ("TABLE", Keyword::Naming),
        ("TO", Keyword::Naming),
        ("UPDATE", Keyword::Naming),
        ("VALUES", Keyword::List),
        ("VIEW", Keyword::Naming),
        ("WHERE", Keyword::Clause),
    ];
    if word.len() > 10 {
        return Keyword::None;
    }
    WORDS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(word))
        .map_or(Keyword::None, |(_, keyword)| *keyword)
}
