//! Statements without their literals: what is the same query gets the same text, and no value of the user's reaches
//! a disk or a network.
//!
//! Literals become `#`, comments and white space fold into one blank, lists of values shrink to their first element.
//! Where two readings of a statement are possible (a backslash before a quote, a `"…"` that may be text, a database we
//! do not know), the reading that hides more wins; if neither hides all, everything from there on becomes one `#`.

/// Longest normalised statement, in bytes.
pub const MAX_SQL: usize = 32 * 1024;

/// How a database reads quotes and comments. See [`Dialect::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    backslash: Backslash,
    double_quotes: DoubleQuotes,
    hash: Hash,
    /// `--` needs white space behind it to begin a comment.
    dashes_need_space: bool,
    nested_comments: bool,
    /// `/*! … */` holds code.
    executable_comments: bool,
    dollar: Dollar,
    backticks: bool,
    brackets: bool,
    /// `q'[…]'`
    q_quotes: bool,
    /// Nobody said which database this is: whatever databases read differently is a doubt.
    unknown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backslash {
    Plain,
    /// Usually an escape, but a server mode turns that off.
    Escape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DoubleQuotes {
    Identifier,
    Text,
    /// An identifier where one can stand, else perhaps text.
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Comment,
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dollar {
    /// `$tag$ … $tag$`
    Quote,
    /// `$name` is a parameter.
    Parameter,
}

const POSTGRES: Dialect = Dialect {
    backslash: Backslash::Plain,
    double_quotes: DoubleQuotes::Identifier,
    hash: Hash::Operator,
    dashes_need_space: false,
    nested_comments: true,
    executable_comments: false,
    dollar: Dollar::Quote,
    backticks: false,
    brackets: false,
    q_quotes: false,
    unknown: false,
};

const MYSQL: Dialect = Dialect {
    backslash: Backslash::Escape,
    double_quotes: DoubleQuotes::Text,
    hash: Hash::Comment,
    dashes_need_space: true,
    nested_comments: false,
    executable_comments: true,
    dollar: Dollar::Quote,
    backticks: true,
    brackets: false,
    q_quotes: false,
    unknown: false,
};

const SQLITE: Dialect = Dialect {
    backslash: Backslash::Plain,
    double_quotes: DoubleQuotes::Either,
    hash: Hash::Operator,
    dashes_need_space: false,
    nested_comments: false,
    executable_comments: false,
    dollar: Dollar::Parameter,
    backticks: true,
    brackets: true,
    q_quotes: false,
    unknown: false,
};

const SQL_SERVER: Dialect = Dialect {
    nested_comments: true,
    backticks: false,
    ..SQLITE
};

const ORACLE: Dialect = Dialect {
    q_quotes: true,
    nested_comments: false,
    dollar: Dollar::Parameter,
    ..POSTGRES
};

const UNKNOWN: Dialect = Dialect {
    backslash: Backslash::Escape,
    double_quotes: DoubleQuotes::Either,
    backticks: true,
    q_quotes: true,
    unknown: true,
    ..POSTGRES
};

impl Dialect {
    /// By the name that OpenTelemetry gives the database system.
    pub fn of(system: &str) -> Self {
        match system {
            "postgresql" | "cockroachdb" | "redshift" | "aws.redshift" | "greenplum"
            | "yugabytedb" => POSTGRES,
            "mysql" | "mariadb" | "tidb" => MYSQL,
            "sqlite" | "duckdb" => SQLITE,
            "mssql" | "microsoft.sql_server" => SQL_SERVER,
            "oracle" | "oracle.db" => ORACLE,
            _ => UNKNOWN,
        }
    }
}

/// Databases whose commands are no SQL: only the command's name is kept.
fn is_command_language(system: &str) -> bool {
    matches!(
        system,
        "redis"
            | "memcached"
            | "mongodb"
            | "elasticsearch"
            | "opensearch"
            | "couchdb"
            | "neo4j"
            | "dynamodb"
            | "aws.dynamodb"
    )
}

/// `sql` without literals, for the database `system`. `cut` says that the end of the statement is missing.
pub fn normalise(sql: &str, system: &str, cut: bool) -> String {
    if is_command_language(system) {
        return command_name(sql);
    }
    let dialect = Dialect::of(system);
    let first = read(sql, dialect, dialect.backslash == Backslash::Escape);
    let mut text = match first.backslash_doubt {
        None => first.text,
        Some(doubt) => {
            let second = read(sql, dialect, dialect.backslash != Backslash::Escape);
            resolve(first, second, doubt, cut || dialect.unknown)
        }
    };
    shorten(&mut text, MAX_SQL);
    text
}

/// Two readings of the same statement, with and without escapes: one of them leaves a quote open and is wrong. If
/// both are possible, what lies behind the first doubtful quote is hidden.
fn resolve(first: Reading, second: Reading, doubt: usize, unsure: bool) -> String {
    if first.text == second.text {
        return first.text;
    }
    if !unsure && first.complete && !second.complete {
        return first.text;
    }
    if !unsure && second.complete && !first.complete {
        return second.text;
    }
    let mut text = first.text;
    shorten(&mut text, doubt);
    push_mask(&mut text);
    text
}

fn command_name(command: &str) -> String {
    let mut words = command.split_ascii_whitespace();
    let name: String = words
        .next()
        .unwrap_or_default()
        .chars()
        .take(64)
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .collect();
    if words.next().is_some() {
        format!("{name} #")
    } else {
        name
    }
}

/// Cuts `text` to at most `limit` bytes, between characters.
pub(crate) fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

fn push_mask(text: &mut String) {
    if !text.ends_with('#') {
        text.push('#');
    }
}

struct Reading {
    text: String,
    /// No quote and no comment was left open.
    complete: bool,
    /// Where in `text` the first literal lies that holds a backslash before a quote.
    backslash_doubt: Option<usize>,
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

fn read(sql: &str, dialect: Dialect, escapes: bool) -> Reading {
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keyword {
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

fn keyword(word: &str) -> Keyword {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(system: &str, sql: &str, expected: &str) {
        assert_eq!(normalise(sql, system, false), expected, "{system}: {sql}");
    }

    #[test]
    fn literals_become_marks_and_parameters_stay() {
        for system in ["postgresql", "mysql", "sqlite", "oracle", "mssql", ""] {
            check(
                system,
                "SELECT a FROM t WHERE b = 'x' AND c = 5",
                "SELECT a FROM t WHERE b = # AND c = #",
            );
            check(
                system,
                "SELECT a FROM t WHERE b = ? AND c = %s AND d = :d",
                "SELECT a FROM t WHERE b = ? AND c = %s AND d = :d",
            );
            check(
                system,
                "SELECT 'it''s', 1.5e-3, 0xFF, t1.c2, .5",
                "SELECT #, #, #, t1.c2, #",
            );
            check(
                system,
                "WHERE a = -5 AND b - 5 > 0",
                "WHERE a = # AND b - # > #",
            );
        }
        check(
            "postgresql",
            "SELECT %(name)s, $1, a::int, b->>'k'",
            "SELECT %(name)s, $1, a::int, b->>#",
        );
    }

    #[test]
    fn white_space_and_comments_fold() {
        check(
            "sqlite",
            "  SELECT\n\t a -- 'x\n , b /* 'y */ FROM  t ",
            "SELECT a, b FROM t",
        );
        check("postgresql", "SELECT /* a /* b */ 'c' */ 1", "SELECT #");
        check(
            "mysql",
            "SELECT /*!40001 SQL_NO_CACHE */ 1 # it's\nFROM t",
            "SELECT SQL_NO_CACHE # FROM t",
        );
        check("mysql", "SELECT /*! 'a */ secret' */ 1", "SELECT #");
        check("mysql", "SELECT 1--'a\nb'", "SELECT #--#");
    }

    #[test]
    fn lists_shrink() {
        check(
            "sqlite",
            "SELECT a FROM t WHERE b IN (1, 2,3)",
            "SELECT a FROM t WHERE b IN (#)",
        );
        check(
            "sqlite",
            "WHERE b IN (?, ?) AND c in (-1,'x')",
            "WHERE b IN (?) AND c in (#)",
        );
        check(
            "sqlite",
            "WHERE b IN (SELECT c FROM d WHERE e IN (1,2))",
            "WHERE b IN (SELECT c FROM d WHERE e IN (#))",
        );
        check(
            "sqlite",
            "WHERE (a, b) IN ((1, 2), (3, 4))",
            "WHERE (a, b) IN ((#, #))",
        );
        check(
            "mysql",
            "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y'), (3, 'z')",
            "INSERT INTO t (a, b) VALUES (#, #)",
        );
        check(
            "postgresql",
            "INSERT INTO t VALUES ($1, $2), ($3, $4)",
            "INSERT INTO t VALUES ($1, $2)",
        );
        check("postgresql", "SELECT f(1, 2), g(3)", "SELECT f(#, #), g(#)");
    }

    #[test]
    fn quoting_follows_the_database() {
        check(
            "postgresql",
            r#"SELECT "a b"."it's" FROM "t""#,
            r#"SELECT "a b"."it's" FROM "t""#,
        );
        check("postgresql", r"SELECT E'it\'s', 'C:\', x", "SELECT #, #, x");
        check("postgresql", "SELECT E'a'\n'b\\' c' , d", "SELECT #, d");
        check(
            "postgresql",
            "SELECT $$it's$$, $q$ $$ 'x $q$, $1",
            "SELECT #, #, $1",
        );
        check(
            "mysql",
            r#"SELECT "it's", 'it\'s', `na me` FROM t"#,
            "SELECT #, #, `na me` FROM t",
        );
        check(
            "mysql",
            "SELECT _utf8'x', N'y', x'ff', 'a' 'b'",
            "SELECT #, #, #, #",
        );
        check(
            "sqlite",
            "SELECT [a b], `c` FROM t",
            "SELECT [a b], `c` FROM t",
        );
        check(
            "oracle",
            "SELECT q'[it's]', nq'!a'b!' FROM dual",
            "SELECT #, # FROM dual",
        );
    }

    #[test]
    fn double_quotes_in_sqlite_are_names_only_where_names_stand() {
        let orm = r#"SELECT "s"."id", COUNT(*) AS "n" FROM "s" INNER JOIN "o" ON ("s"."id" = "o"."s_id") WHERE "s"."name" = %s GROUP BY "s"."id", "x" ORDER BY "n" DESC LIMIT 21"#;
        check("sqlite", orm, &orm.replace("21", "#"));
        let insert = r#"INSERT INTO "t" ("a", "b") VALUES (?, ?) ON CONFLICT ("a") DO UPDATE SET "b" = excluded."b", "c" = ?"#;
        check("sqlite", insert, insert);
        check(
            "sqlite",
            r#"SELECT * FROM t WHERE a = "secret" OR b IN ("secret")"#,
            "SELECT * FROM t WHERE a = # OR b IN (#)",
        );
        check(
            "sqlite",
            r#"UPDATE t SET a = f("x", "secret")"#,
            "UPDATE t SET a = f(#, #)",
        );
        check("sqlite", r#"SELECT "secret""#, "SELECT #");
    }

    #[test]
    fn two_readings_show_only_what_both_allow() {
        // With escapes this is one text, without them two texts around `secret`: neither leaves a quote open.
        check("mysql", r"SELECT 'a\' , secret, \' b'", "SELECT #");
        check(
            "mysql",
            r"SELECT a WHERE b = 'C:\' AND c = 1",
            "SELECT a WHERE b = # AND c = #",
        );
        check(
            "",
            r"SELECT a WHERE b = 'it\'s' AND c = 1",
            "SELECT a WHERE b = #",
        );
        check("", "SELECT a -- x\n, b", "SELECT a, b");
        check("", "SELECT a --x'\n, 'b", "SELECT a #");
    }

    #[test]
    fn a_cut_statement_hides_what_is_open() {
        for system in ["postgresql", "mysql", "sqlite", ""] {
            for sql in [
                "SELECT a WHERE b = 'secr",
                "SELECT a WHERE b = 4711",
                r"SELECT a WHERE b = 'x\' secret",
            ] {
                let text = normalise(sql, system, true);
                assert!(text.starts_with("SELECT a WHERE b = #"), "{system}: {text}");
                assert!(
                    !text.contains("secr") || (system != "mysql" && !system.is_empty()),
                    "{system}: {text}"
                );
            }
        }
        assert_eq!(
            normalise("SELECT $body$ secret", "postgresql", true),
            "SELECT #"
        );
        assert_eq!(
            normalise("SELECT a FROM \"secr", "postgresql", true),
            "SELECT a FROM #"
        );
        assert_eq!(
            normalise("SELECT a /* secr", "postgresql", true),
            "SELECT a"
        );
    }

    #[test]
    fn commands_that_are_no_sql_keep_their_name_only() {
        check("redis", "SET user:7 secret", "SET #");
        check("redis", "PING", "PING");
    }

    #[test]
    fn length_is_bounded() {
        let sql = format!("SELECT {}", "columnä, ".repeat(10_000));
        assert!(normalise(&sql, "mysql", false).len() <= MAX_SQL);
    }

    /// One literal of the database `system` that holds `inside`.
    fn literal(system: &'static str) -> impl Strategy<Value = String> {
        let quoted = |open: &'static str, close: &'static str| {
            "[a-z ,;()\\-/*#$\"%_0-9]{0,12}".prop_map(move |noise| {
                let noise = noise.replace('"', if open.contains('"') { "" } else { "\"" });
                format!("{open}{noise}CANARY{noise}{close}")
            })
        };
        let mut kinds = vec![
            quoted("'", "'").boxed(),
            Just("'it''s CANARY'".to_owned()).boxed(),
            "[0-9]{1,9}"
                .prop_map(|digits| format!("{digits}7777777"))
                .boxed(),
        ];
        match system {
            "postgresql" => {
                kinds.push(Just(r"E'a\'CANARY\\'".to_owned()).boxed());
                kinds.push(Just(r"'C:\'".to_owned()).boxed());
                kinds.push(Just("$$ 'CANARY $$".to_owned()).boxed());
                kinds.push(Just("$t$ $$ CANARY\" $t$".to_owned()).boxed());
            }
            "mysql" => {
                kinds.push(quoted("\"", "\"").boxed());
                kinds.push(Just(r"'a\'CANARY\\'".to_owned()).boxed());
                kinds.push(Just(r#""a\"CANARY""#.to_owned()).boxed());
                kinds.push(Just(r"'C:\\'".to_owned()).boxed());
            }
            _ => {
                kinds.push(Just("\"CANARY\"".to_owned()).boxed());
                kinds.push(Just(r"'C:\'".to_owned()).boxed());
            }
        }
        proptest::strategy::Union::new(kinds)
    }

    fn statement(system: &'static str) -> impl Strategy<Value = String> {
        let mut glue = vec![
            " AND b = ",
            " OR c <> ",
            ", ",
            " + ",
            " || ",
            " IN (",
            ") AND (x = ",
            " /* it's */ = ",
            " -- it's\n = ",
            " LIKE ",
            " BETWEEN ",
            " VALUES (",
            "), (",
            " = f(",
            " THEN ",
            "\n= ",
            " = -",
            " - ",
            " LIMIT ",
            " = ? AND d=",
            " IN (%s, ",
            " CASE WHEN x=",
            " || E || ",
            " IS NOT ",
            " (",
            ") = (",
            " AS n, ",
            "=t.c1+",
        ];
        match system {
            "postgresql" => glue.extend([
                r#" AND "it's" = "#,
                " /* a /* ' */ ' */ = ",
                "->>",
                "::text || ",
                " = $1 || ",
                " #> ",
                " ? ",
                " @> ",
                " = a[1] || ",
                " = 'x'\n",
                " \"$$\" = ",
            ]),
            "mysql" => glue.extend([
                " # it's\n = ",
                " `it's` = ",
                " = --1 + ",
                " /*! = */ + ",
                " /*!50000 ' */ ' + */ ",
                " -- it's\n = ",
                " @x := ",
                " `\"` = ",
            ]),
            _ => glue.extend([
                " [it's] = ",
                " `it's` = ",
                " = $x || ",
                " = :x || ",
                " = \"a\".\"b\" || ",
            ]),
        }
        let glue = prop::sample::select(glue);
        proptest::collection::vec((glue, literal(system)), 1..8).prop_map(|parts| {
            parts.into_iter().fold(
                "SELECT a FROM t WHERE d = e".to_owned(),
                |sql, (glue, literal)| sql + glue + &literal,
            )
        })
    }

    fn hides(system: &str, sql: &str) -> Result<(), TestCaseError> {
        for (end, _) in sql.char_indices().chain([(sql.len(), ' ')]) {
            let text = normalise(&sql[..end], system, end < sql.len());
            prop_assert!(
                !text.contains("CANA"),
                "{system}: {} became {text}",
                &sql[..end]
            );
            prop_assert!(
                !text.contains("7777"),
                "{system}: {} became {text}",
                &sql[..end]
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_literal_survives_in_postgresql(sql in statement("postgresql")) {
            hides("postgresql", &sql)?;
        }

        #[test]
        fn no_literal_survives_in_mysql(sql in statement("mysql")) {
            hides("mysql", &sql)?;
        }

        #[test]
        fn no_literal_survives_in_sqlite(sql in statement("sqlite")) {
            hides("sqlite", &sql)?;
        }

        #[test]
        fn no_literal_survives_where_the_database_is_unknown(sql in prop_oneof![statement("mysql"), statement("sqlite"), statement("postgresql")]) {
            hides("", &sql)?;
        }

        #[test]
        fn any_text_is_read(sql in "\\PC{0,200}", soup in "['\"`$\\\\#/*!\\-(),.a1 \n\\[\\]qE?:%@]{0,60}", cut in any::<bool>()) {
            for system in ["postgresql", "mysql", "sqlite", "oracle", "mssql", "redis", ""] {
                prop_assert!(normalise(&sql, system, cut).len() <= MAX_SQL);
                prop_assert!(normalise(&soup, system, cut).len() <= soup.len() + 1);
            }
        }
    }
}
