//! What databases read differently.

/// How a database reads quotes and comments. See [`Dialect::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) backslash: Backslash,
    pub(super) double_quotes: DoubleQuotes,
    pub(super) hash: Hash,
    /// `--` needs white space behind it to begin a comment.
    pub(super) dashes_need_space: bool,
    pub(super) nested_comments: bool,
    /// `/*! … */` holds code.
    pub(super) executable_comments: bool,
    pub(super) dollar: Dollar,
    pub(super) backticks: bool,
    pub(super) brackets: bool,
    /// `q'[…]'`
    pub(super) q_quotes: bool,
    /// Nobody said which database this is: whatever databases read differently is a doubt.
    pub(super) unknown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    Plain,
    /// Usually an escape, but a server mode turns that off.
    Escape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoubleQuotes {
    Identifier,
    Text,
    /// An identifier where one can stand, else perhaps text.
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Comment,
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dollar {
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
    pub(super) fn of(system: &str) -> Self {
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
