//! Statements without their literals: what is the same query gets the same text, and no value of the user's reaches
//! a disk or a network.
//!
//! Literals become `#`, comments and white space fold into one blank, lists of values shrink to their first element.
//! Where two readings of a statement are possible (a backslash before a quote, a `"…"` that may be text, a database we
//! do not know), the reading that hides more wins; if neither hides all, everything from there on becomes one `#`.

mod dialect;
mod keywords;
mod reader;

use dialect::{Backslash, Dialect};
use reader::{Reading, read};

/// Longest normalised statement, in bytes.
pub const MAX_SQL: usize = 32 * 1024;

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
pub fn shorten(text: &mut String, limit: usize) {
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
