//! Reads a statement once, from left to right, and writes it without its literals.

use super::MAX_SQL;
use super::dialect::{Backslash, Dialect, Dollar, DoubleQuotes, Hash};
use super::keywords::{Keyword, keyword};

pub(super) struct Reading {
    pub(super) text: String,
    /// No quote and no comment was left open.
    pub(super) complete: bool,
    /// Where in `text` the first literal lies that holds a backslash before a quote.
    pub(super) backslash_doubt: Option<usize>,
}

/// The last thing written, as far as what follows depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Start,
    /// A name, or a keyword behind which a value can stand.
    Word,
    /// A keyword behind which a name must stand: `FROM`, `AS`, ….
    Naming,
    Literal,
    Dot,
    Comma,
    Open,
    Close,
    Operator,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clause {
    Other,
    /// Names with commas between them: `ORDER BY a, b`, `SET a = …, b = …`.
    Names,
    /// Names in parentheses: `INSERT INTO t (a, b)`, `CREATE TABLE t (a …)`.
    Columns,
}

/// An open parenthesis: where it lies, and what is inside so far.
struct Group {
    start: usize,
    /// End of the first element.
    first_end: Option<usize>,
    /// Only literals and parameters so far.
    simple: bool,
    masked: bool,
    list: bool,
    /// Bare: no function's arguments.
    row: bool,
    /// The row before this one, as its end in the text.
    previous_row: Option<usize>,
}

struct Reader<'a> {
    sql: &'a str,
    at: usize,
    out: String,
    dialect: Dialect,
    escapes: bool,
    space: bool,
    last: Last,
    clause: Clause,
    /// The last word, for `IN (` and `VALUES (`.
    list_opens: bool,
    groups: Vec<Group>,
    /// The end in `out` of a row of simple values, if nothing but a comma was written since.
    closed_row: Option<usize>,
    complete: bool,
    backslash_doubt: Option<usize>,
}

/// Parentheses deeper than this are copied without folding.
const MAX_DEPTH: usize = 64;

pub(super) fn read(sql: &str, dialect: Dialect, escapes: bool) -> Reading {
    let mut reader = Reader {
        sql,
        at: 0,
        out: String::with_capacity(sql.len().min(MAX_SQL)),
        dialect,
        escapes,
        space: false,
        last: Last::Start,
        clause: Clause::Other,
        list_opens: false,
        groups: Vec::new(),
        closed_row: None,
        complete: true,
        backslash_doubt: None,
    };
    while reader.at < sql.len() && reader.out.len() <= MAX_SQL {
        reader.token();
    }
    Reading {
        text: reader.out,
        complete: reader.complete,
        backslash_doubt: reader.backslash_doubt,
    }
}

impl Reader<'_> {
    fn byte(&self, ahead: usize) -> u8 {
        self.sql
            .as_bytes()
            .get(self.at + ahead)
            .copied()
            .unwrap_or(0)
    }

    fn rest(&self) -> &[u8] {
        self.sql.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn token(&mut self) {
        match self.byte(0) {
            b if is_space(b) => {
                self.space = true;
                self.at += 1;
            }
            b'-' if self.byte(1) == b'-' => self.dashes(),
            b'/' if self.byte(1) == b'*' => self.block_comment(),
            b'*' if self.byte(1) == b'/' && self.dialect.executable_comments => {
                self.space = true;
                self.at += 2;
            }
            b'#' if self.dialect.unknown => self.give_up(),
            b'#' if self.dialect.hash == Hash::Comment => self.line_comment(),
            b'\'' => {
                self.at += 1;
                self.text_literal(
                    b'\'',
                    self.escapes,
                    self.dialect.backslash == Backslash::Escape,
                );
            }
            b'"' => self.double_quoted(),
            b'`' if self.dialect.backticks => self.quoted_name(b'`'),
            b'[' if self.dialect.unknown && self.is_doubtful_bracket() => self.give_up(),
            b'[' if self.dialect.brackets => self.quoted_name(b']'),
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.byte(1).is_ascii_digit() && self.last != Last::Word => self.number(),
            // `= -5` and `= 5` are the same query.
            b'-' | b'+' if self.byte(1).is_ascii_digit() && self.value_expected() => self.at += 1,
            b if is_name_start(b) => self.word(),
            b'?' | b':' | b'%' | b'@' => self.parameter(),
            b'(' => self.open(),
            b')' => self.close(),
            _ => self.operator(),
        }
    }

    // ---- writing

    fn gap(&mut self) {
        if self.space && !self.out.is_empty() {
            self.out.push(' ');
        }
        self.space = false;
    }

    fn copy(&mut self, bytes: usize) {
        self.gap();
        let end = (self.at + bytes).min(self.sql.len());
        self.out
            .push_str(self.sql.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    fn element(&mut self, masked: bool) {
        self.closed_row = None;
        if let Some(group) = self.groups.last_mut() {
            group.masked |= masked;
            if self.last != Last::Open && self.last != Last::Comma {
                group.simple = false;
            }
        }
    }

    fn complex(&mut self) {
        self.closed_row = None;
        if let Some(group) = self.groups.last_mut() {
            group.simple = false;
        }
    }

    /// Writes `#` for a literal that ends at `self.at`. Texts in a row are one text; a sign belongs to its number.
    fn mask(&mut self) {
        if self.last == Last::Literal {
            self.space = false;
            return;
        }
        self.element(true);
        self.gap();
        self.out.push('#');
        self.last = Last::Literal;
    }

    /// Hides all that is left.
    fn give_up(&mut self) {
        self.mask();
        self.at = self.sql.len();
    }

    // ---- comments

    fn dashes(&mut self) {
        let bare = !matches!(self.byte(2), 0..=b' ') && self.at + 2 < self.sql.len();
        if bare && self.dialect.unknown {
            self.give_up();
        } else if bare && self.dialect.dashes_need_space {
            self.operator();
        } else {
            self.line_comment();
        }
    }

    fn line_comment(&mut self) {
        let end = self.rest().iter().position(|b| *b == b'\n' || *b == b'\r');
        self.at = end.map_or(self.sql.len(), |end| self.at + end);
        self.space = true;
    }

    fn block_comment(&mut self) {
        let code = self.dialect.executable_comments
            && (self.byte(2) == b'!' || (self.byte(2) == b'M' && self.byte(3) == b'!'));
        self.space = true;
        if code {
            self.at += if self.byte(2) == b'M' { 4 } else { 3 };
            while self.byte(0).is_ascii_digit() {
                self.at += 1;
            }
            return;
        }
        if self.dialect.unknown && self.byte(2) == b'!' {
            return self.give_up();
        }
        self.at += 2;
        let mut depth = 1;
        while depth > 0 {
            if self.at >= self.sql.len() {
                self.complete = false;
                return;
            }
            match (self.byte(0), self.byte(1)) {
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                }
                (b'/', b'*') if self.dialect.unknown => return self.give_up(),
                (b'/', b'*') if self.dialect.nested_comments => {
                    depth += 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
    }

    // ---- literals

    /// Skips to behind the closing quote, beginning inside the literal, and writes `#`. `doubtful`: whether a
    /// backslash escapes is not certain, so that one before a quote makes two readings possible.
    fn text_literal(&mut self, quote: u8, escapes: bool, doubtful: bool) {
        self.mask();
        let place = self.out.len();
        loop {
            match self.byte(0) {
                _ if self.at >= self.sql.len() => {
                    self.complete = false;
                    return;
                }
                b'\\' => {
                    if doubtful
                        && self.backslash_doubt.is_none()
                        && matches!(self.byte(1), b'\'' | b'"' | b'\\')
                    {
                        self.backslash_doubt = Some(place);
                    }
                    self.at += if escapes { 2 } else { 1 };
                }
                b if b == quote && self.byte(1) == quote => self.at += 2,
                b if b == quote => {
                    self.at += 1;
                    if !self.continues(quote) {
                        break;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(self.sql.len());
    }

    /// `'a' 'b'` is one text, which goes on by the rules by which it began.
    fn continues(&mut self, quote: u8) -> bool {
        let mut ahead = 0;
        loop {
            while is_space(self.byte(ahead)) && self.at + ahead < self.sql.len() {
                ahead += 1;
            }
            let comment = self.byte(ahead) == b'-' && self.byte(ahead + 1) == b'-';
            if ahead == 0 || !comment || self.dialect.dashes_need_space || self.dialect.unknown {
                break;
            }
            let line = self.rest().get(ahead..).unwrap_or_default();
            ahead += line
                .iter()
                .position(|b| *b == b'\n' || *b == b'\r')
                .unwrap_or(line.len());
        }
        if ahead > 0 && self.byte(ahead) == quote && quote == b'\'' {
            self.at += ahead + 1;
            return true;
        }
        false
    }

    fn double_quoted(&mut self) {
        let kind = self.dialect.double_quotes;
        let escapes = self.dialect.backslash == Backslash::Escape;
        if kind == DoubleQuotes::Text
            || (kind == DoubleQuotes::Either && !self.name_can_stand_here())
        {
            self.at += 1;
            return self.text_literal(b'"', self.escapes, escapes);
        }
        if kind == DoubleQuotes::Either {
            return self.quoted_name(b'"');
        }
        match self.name_end(b'"') {
            Some(end) => {
                self.complex();
                self.copy(end);
                self.named();
            }
            None => {
                self.complete = false;
                self.give_up();
            }
        }
    }

    /// Where SQLite takes `"x"` for text if no column is called so, only places count where a value cannot stand.
    fn name_can_stand_here(&self) -> bool {
        let dotted = self
            .name_end(b'"')
            .is_some_and(|end| self.byte(end) == b'.');
        let listed = match (self.clause, self.groups.len()) {
            (Clause::Names | Clause::Columns, 0) => self.last == Last::Comma,
            (Clause::Columns, 1 | 2) => matches!(self.last, Last::Open | Last::Comma),
            _ => false,
        };
        dotted || listed || matches!(self.last, Last::Dot | Last::Naming)
    }

    /// Bytes of the quoted name that begins here, quotes included.
    fn name_end(&self, close: u8) -> Option<usize> {
        let mut end = 1;
        while self.at + end < self.sql.len() {
            if self.byte(end) == close {
                if self.byte(end + 1) != close || close == b']' {
                    return Some(end + 1);
                }
                end += 1;
            }
            end += 1;
        }
        None
    }

    /// A name in quotes of a kind that others use for text: kept only if it looks like a name.
    fn quoted_name(&mut self, close: u8) {
        let Some(end) = self.name_end(close) else {
            self.complete = false;
            return self.give_up();
        };
        let inside = self.rest().get(1..end - 1).unwrap_or_default();
        let plain = inside.len() <= 64
            && inside.first().is_some_and(|b| is_name_start(*b))
            && inside
                .iter()
                .all(|b| is_name(*b) || matches!(b, b' ' | b'-'));
        if plain {
            self.complex();
            self.copy(end);
            self.named();
        } else if self.dialect.unknown {
            self.give_up();
        } else {
            self.mask();
            self.at += end;
        }
    }

    /// `[it's]` is a name for some databases; for others a text begins in it.
    fn is_doubtful_bracket(&self) -> bool {
        let inside = self.rest().split(|b| *b == b']').next().unwrap_or_default();
        inside.iter().any(|b| b"'\"`$\\#-/".contains(b))
    }

    fn named(&mut self) {
        self.last = Last::Word;
        self.list_opens = false;
    }

    fn dollar(&mut self) {
        if self.byte(1).is_ascii_digit() || self.dialect.dollar == Dollar::Parameter {
            return self.parameter();
        }
        let tag = self
            .rest()
            .iter()
            .skip(1)
            .position(|b| *b == b'$' || !is_name(*b));
        let Some(tag) = tag
            .map(|bytes| bytes + 2)
            .filter(|end| self.byte(end - 1) == b'$')
        else {
            // Perhaps a tag whose end is missing: then nothing follows that could be shown.
            return if self.rest().iter().skip(1).all(|b| is_name(*b)) {
                self.give_up()
            } else {
                self.operator()
            };
        };
        if self.dialect.unknown || self.dialect.backslash == Backslash::Escape {
            return self.give_up();
        }
        let quote = self.rest().get(..tag).unwrap_or_default();
        let body = self.rest().get(tag..).unwrap_or_default();
        match find(body, quote) {
            Some(end) => {
                let bytes = tag + end + tag;
                self.mask();
                self.at += bytes;
            }
            None => {
                self.complete = false;
                self.give_up();
            }
        }
    }

    fn value_expected(&self) -> bool {
        matches!(
            self.last,
            Last::Start | Last::Operator | Last::Comma | Last::Open
        )
    }

    fn number(&mut self) {
        let mut end = 1;
        loop {
            let b = self.byte(end);
            let sign = matches!(b, b'+' | b'-')
                && matches!(self.byte(end - 1), b'e' | b'E')
                && self.byte(end + 1).is_ascii_digit();
            if !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_') || b >= 0x80 || sign) {
                break;
            }
            end += 1;
        }
        self.mask();
        self.at += end;
    }

    // ---- names, parameters, punctuation

    fn word(&mut self) {
        let bytes = self
            .rest()
            .iter()
            .position(|b| !is_name(*b))
            .unwrap_or(self.sql.len() - self.at);
        let word = self.sql.get(self.at..self.at + bytes).unwrap_or_default();
        if self.byte(bytes) == b'\'' {
            return self.prefixed(bytes);
        }
        if word.eq_ignore_ascii_case("u")
            && self.byte(bytes) == b'&'
            && matches!(self.byte(bytes + 1), b'\'')
        {
            return self.prefixed(bytes + 1);
        }
        let known = keyword(word);
        self.complex();
        self.copy(bytes);
        self.last = if matches!(known, Keyword::Naming | Keyword::Names | Keyword::Columns) {
            Last::Naming
        } else {
            Last::Word
        };
        self.list_opens = known == Keyword::List;
        match known {
            Keyword::Names => self.clause = Clause::Names,
            Keyword::Columns => self.clause = Clause::Columns,
            Keyword::Clause | Keyword::List => self.clause = Clause::Other,
            Keyword::Naming | Keyword::None => {}
        }
    }

    /// A literal with letters before it: `E'…'`, `x'…'`, `_utf8'…'`, `q'[…]'`, `date'…'`.
    fn prefixed(&mut self, bytes: usize) {
        let prefix = self.sql.get(self.at..self.at + bytes).unwrap_or_default();
        let is = |word: &str| prefix.eq_ignore_ascii_case(word);
        if self.dialect.q_quotes && (is("q") || is("nq")) {
            return if self.dialect.unknown {
                self.give_up()
            } else {
                self.q_quote(bytes)
            };
        }
        let escape_text = is("e") && self.dialect.dollar == Dollar::Quote;
        let part_of_it = prefix.len() == 1 || prefix.ends_with('&') || prefix.starts_with('_');
        if !part_of_it {
            self.complex();
            self.copy(bytes);
            self.named();
            self.at += 1;
        } else {
            self.at += bytes + 1;
        }
        let escapes = escape_text || self.escapes;
        self.text_literal(b'\'', escapes, self.dialect.backslash == Backslash::Escape);
    }

    fn q_quote(&mut self, bytes: usize) {
        let close = match self.byte(bytes + 1) {
            b'[' => b']',
            b'(' => b')',
            b'{' => b'}',
            b'<' => b'>',
            other => other,
        };
        let body = self.rest().get(bytes + 2..).unwrap_or_default();
        match find(body, &[close, b'\'']) {
            Some(end) => {
                self.mask();
                self.at += bytes + 2 + end + 2;
            }
            None => {
                self.complete = false;
                self.give_up();
            }
        }
    }

    /// `?`, `%s`, `%(name)s`, `:name`, `$1`, `@name`; and operators that begin so.
    fn parameter(&mut self) {
        let mark = self.byte(0);
        let bytes = match (mark, self.byte(1)) {
            (b'%', b'(') => match self.rest().iter().position(|b| *b == b')') {
                Some(end)
                    if end < 80
                        && self
                            .rest()
                            .get(2..end)
                            .is_some_and(|name| name.iter().all(|b| is_name(*b))) =>
                {
                    end + 2
                }
                _ => return self.operator(),
            },
            (b'%', b's' | b'b' | b't' | b'd') if !is_name(self.byte(2)) => 2,
            (b'?', next) if !matches!(next, b'|' | b'&' | b'?') => 1,
            (b':', next) if is_name_start(next) && self.last != Last::Operator => {
                1 + self.name_bytes(1)
            }
            (b'$', next) if is_name(next) => 1 + self.name_bytes(1),
            (b'@', next) if is_name_start(next) => 1 + self.name_bytes(1),
            _ => return self.operator(),
        };
        self.element(false);
        self.copy(bytes);
        self.last = Last::Word;
        self.list_opens = false;
    }

    fn name_bytes(&self, from: usize) -> usize {
        let name = self.rest().get(from..).unwrap_or_default();
        name.iter().position(|b| !is_name(*b)).unwrap_or(name.len())
    }

    fn open(&mut self) {
        let row = self.list_opens || !matches!(self.last, Last::Word | Last::Naming);
        let list = self.list_opens;
        self.gap();
        if self.groups.len() < MAX_DEPTH {
            let previous_row = self.closed_row.take();
            self.groups.push(Group {
                start: self.out.len(),
                first_end: None,
                simple: true,
                masked: false,
                list,
                row,
                previous_row,
            });
        }
        self.copy(1);
        self.last = Last::Open;
        self.list_opens = false;
    }

    fn close(&mut self) {
        self.space = false;
        let empty = self.last == Last::Open;
        let Some(group) = self.groups.pop() else {
            return self.operator();
        };
        let simple = group.simple && !empty;
        if simple && group.list && !self.closes_values(&group) {
            self.fold_list(&group);
        }
        self.copy(1);
        self.last = Last::Close;
        self.closed_row = (simple && group.row).then(|| self.fold_row(&group));
        if let Some(outer) = self.groups.last_mut() {
            outer.simple = false;
        }
    }

    fn closes_values(&self, group: &Group) -> bool {
        let before = self.out.get(..group.start).unwrap_or_default().trim_end();
        before.len() >= 6
            && before
                .get(before.len() - 6..)
                .is_some_and(|word| word.eq_ignore_ascii_case("values"))
    }

    /// `(#, #, #)` becomes `(#)`.
    fn fold_list(&mut self, group: &Group) {
        if group.masked {
            self.out.truncate(group.start + 1);
            self.forget_behind(group.start + 1);
            self.out.push('#');
        } else if let Some(end) = group.first_end {
            self.out.truncate(end);
            self.forget_behind(end);
        }
    }

    /// `(#, #), (#, #)` becomes `(#, #)`. Returns where the row that stays ends.
    fn fold_row(&mut self, group: &Group) -> usize {
        if let Some(end) = group.previous_row {
            self.out.truncate(end);
            self.forget_behind(end);
        }
        self.out.len()
    }

    fn forget_behind(&mut self, end: usize) {
        self.backslash_doubt = self.backslash_doubt.map(|doubt| doubt.min(end));
    }

    fn operator(&mut self) {
        let b = self.byte(0);
        if b == b',' {
            self.space = false;
            let end = self.out.len();
            if let Some(group) = self.groups.last_mut() {
                group.first_end.get_or_insert(end);
            }
        } else if b != b'.' {
            self.complex();
        }
        self.copy(1);
        self.list_opens = false;
        self.last = match b {
            b',' => Last::Comma,
            b'.' => Last::Dot,
            b']' => Last::Close,
            _ => Last::Operator,
        };
    }
}

fn is_space(b: u8) -> bool {
    b <= b' ' || b == 0x7f
}

fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn is_name(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit() || b == b'$'
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|window| window == needle)
}
