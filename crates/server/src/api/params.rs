//! What a request's query string says, checked.

use std::collections::HashSet;

use crate::engine::{
    ErrorFilter, Page, Scope, StatisticsKind, StatisticsSort, StatusFilter, TransactionFilter,
    TransactionSort,
};

use super::error::ApiError;

/// Name and value pairs in their order; a name may come more than once.
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    now_us: i64,
}

impl Params {
    pub(super) fn new(pairs: Vec<(String, String)>, now_us: i64) -> Result<Self, ApiError> {
        if pairs.len() > MAX_PAIRS {
            return Err(ApiError::bad("too many parameters"));
        }
        let params = Self { pairs, now_us };
        params.refuse_two_values()?;
        Ok(params)
    }

    /// Which of two was meant nobody knows.
    fn refuse_two_values(&self) -> Result<(), ApiError> {
        let mut seen = HashSet::new();
        for (name, value) in &self.pairs {
            let many = LISTS.contains(&name.as_str());
            if !value.is_empty() && !many && !seen.insert(name) {
                return Err(ApiError::bad(format!("`{name}` is given twice")));
            }
        }
        Ok(())
    }

    pub(super) fn scope(&self) -> Result<Scope, ApiError> {
        let to_us = self
            .number("to")?
            .unwrap_or(self.now_us)
            .clamp(0, END_OF_TIME_US);
        let from_us = match (self.number::<i64>("from")?, self.text("since")) {
            (Some(_), Some(_)) => {
                return Err(ApiError::bad("`since` and `from` exclude each other"));
            }
            (Some(from), None) => from.clamp(0, END_OF_TIME_US),
            (None, Some(since)) => {
                let since = crate::since::parse(since)
                    .ok_or_else(|| ApiError::bad("`since` must be like 30s, 10m, 6h or 7d"))?;
                to_us.saturating_sub(since)
            }
            (None, None) => to_us.saturating_sub(DEFAULT_RANGE_US),
        };
        if from_us >= to_us {
            return Err(ApiError::bad("`from` must be before `to`"));
        }
        Ok(Scope {
            from_us,
            to_us,
            services: self.all("service"),
            instances: self.all("instance"),
            project: None,
        })
    }

    /// Whether the range is one that has passed, so that an answer may be kept.
    pub(super) fn is_past(&self, scope: &Scope) -> bool {
        self.text("to").is_some() && scope.to_us <= self.now_us
    }

    pub(super) fn filter(&self) -> Result<TransactionFilter, ApiError> {
        let (min_us, max_us): (Option<u64>, Option<u64>) =
            (self.number("min_us")?, self.number("max_us")?);
        if min_us.zip(max_us).is_some_and(|(min, max)| min > max) {
            return Err(ApiError::bad("`min_us` must not be above `max_us`"));
        }
        Ok(TransactionFilter {
            min_us,
            max_us,
            name: self.owned("name"),
            method: self.owned("method"),
            status: self.text("status").map(status).transpose()?,
            error: self.text("error").map(|error| match error {
                "any" => ErrorFilter::Any,
                "none" => ErrorFilter::None,
                class => ErrorFilter::Class(class.to_owned()),
            }),
            trace_id: self.text("trace_id").map(trace_id).transpose()?,
            client: self.owned("client"),
            text: self.owned("q"),
            aborted: self.choice(
                "aborted",
                &[("true", true), ("1", true), ("false", false), ("0", false)],
            )?,
        })
    }

    pub(super) fn page(&self) -> Result<Page, ApiError> {
        use TransactionSort::{Elapsed, End, Http, Sql};
        let sort = self.choice(
            "sort",
            &[
                ("end", End),
                ("elapsed", Elapsed),
                ("sql", Sql),
                ("http", Http),
            ],
        )?;
        let ascending = self.choice("order", &[("desc", false), ("asc", true)])?;
        Ok(Page {
            sort: sort.unwrap_or_default(),
            ascending: ascending.unwrap_or(false),
            limit: self.number::<usize>("limit")?.unwrap_or(200).min(MAX_ROWS),
            offset: self.number::<usize>("offset")?.unwrap_or(0).min(MAX_OFFSET),
        })
    }

    pub(super) fn statistics(&self) -> Result<(StatisticsKind, StatisticsSort, usize), ApiError> {
        use StatisticsKind as Kind;
        use StatisticsSort as Sort;
        let kinds = [
            ("transaction", Kind::Transaction),
            ("sql", Kind::Sql),
            ("http", Kind::Http),
            ("error", Kind::Error),
        ];
        let sorts = [
            ("total", Sort::Total),
            ("count", Sort::Count),
            ("mean", Sort::Mean),
            ("max", Sort::Max),
            ("error", Sort::Error),
        ];
        let kind = self.choice("kind", &kinds)?.unwrap_or(Kind::Transaction);
        let limit = self.number::<usize>("limit")?.unwrap_or(100).min(MAX_ROWS);
        Ok((
            kind,
            self.choice("sort", &sorts)?.unwrap_or_default(),
            limit,
        ))
    }

    /// Seconds of a step, as µs.
    pub(super) fn step_us(&self, scope: &Scope) -> Result<i64, ApiError> {
        let step: i64 = self.number("step")?.unwrap_or(5);
        if !(1..=86_400).contains(&step) {
            return Err(ApiError::bad("`step` must be 1 to 86400 seconds"));
        }
        let step_us = step * 1_000_000;
        if scope.to_us.saturating_sub(scope.from_us) / step_us > MAX_POINTS {
            return Err(ApiError::bad(
                "too many points: take a larger `step` or a shorter range",
            ));
        }
        Ok(step_us)
    }

    pub(super) fn hitmap(&self) -> Result<(u32, Option<u64>), ApiError> {
        let columns = self.number("columns")?.unwrap_or(120);
        if !(1..=1_000).contains(&columns) {
            return Err(ApiError::bad("`columns` must be 1 to 1000"));
        }
        Ok((columns, self.number("max_us")?))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    fn all(&self, name: &str) -> Vec<String> {
        let values = self
            .pairs
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty());
        values.map(|(_, value)| value.clone()).collect()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let number = self.text(name).map(str::parse);
        number
            .transpose()
            .map_err(|_| ApiError::bad(format!("`{name}` must be a number")))
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let found = choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        found.map(Some).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            ApiError::bad(format!("`{name}` must be one of {}", words.join(", ")))
        })
    }
}

/// 16 hex digits.
pub(super) fn transaction_id(text: &str) -> Result<u64, ApiError> {
    let id = (text.len() == 16)
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten();
    id.ok_or_else(|| ApiError::bad("a transaction id is 16 hex digits"))
}

/// 32 hex digits.
pub(super) fn trace_id(text: &str) -> Result<u128, ApiError> {
    let id = (text.len() == 32)
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten();
    id.ok_or_else(|| ApiError::bad("a trace id is 32 hex digits"))
}

fn status(text: &str) -> Result<StatusFilter, ApiError> {
    let class = text
        .strip_suffix("xx")
        .and_then(|class| class.parse().ok())
        .filter(|class| (1..=5).contains(class));
    let code = text.parse().ok().filter(|code| *code < 1_000);
    class
        .map(StatusFilter::Class)
        .or_else(|| code.map(StatusFilter::Code))
        .ok_or_else(|| ApiError::bad("`status` must be like 404 or 4xx"))
}

const DEFAULT_RANGE_US: i64 = 600_000_000;
/// Nothing is stored beyond; sums of two times cannot overflow.
const END_OF_TIME_US: i64 = 10_000_000_000_000_000;
/// What may have several values.
const LISTS: [&str; 2] = ["service", "instance"];
const MAX_PAIRS: usize = 2_000;
const MAX_ROWS: usize = 10_000;
const MAX_OFFSET: usize = 10_000_000;
const MAX_POINTS: i64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_719_200_000_000;

    fn params(query: &[(&str, &str)]) -> Params {
        let pairs = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Params::new(pairs, NOW).unwrap()
    }

    #[test]
    fn a_scope_is_a_range_and_names() {
        let scope = params(&[("since", "6h"), ("service", "a"), ("service", "b")])
            .scope()
            .unwrap();
        assert_eq!((scope.to_us, scope.from_us), (NOW, NOW - 6 * 3_600_000_000));
        assert_eq!(scope.services, ["a", "b"]);
        let scope = params(&[("from", "5"), ("to", "9")]).scope().unwrap();
        assert_eq!((scope.from_us, scope.to_us), (5, 9));
        assert_eq!(params(&[]).scope().unwrap().from_us, NOW - DEFAULT_RANGE_US);
        for bad in [
            [("from", "9"), ("to", "9")],
            [("from", "x"), ("to", "")],
            [("since", "10 m"), ("to", "")],
        ] {
            assert!(params(&bad).scope().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn filters_and_pages_are_checked() {
        let filter = params(&[("status", "5xx"), ("error", "any"), ("aborted", "false")])
            .filter()
            .unwrap();
        assert_eq!(filter.status, Some(StatusFilter::Class(5)));
        assert_eq!(
            (filter.error, filter.aborted),
            (Some(ErrorFilter::Any), Some(false))
        );
        for bad in [
            ("status", "9xx"),
            ("status", "1000"),
            ("aborted", "maybe"),
            ("min_us", "-1"),
            ("trace_id", "12"),
        ] {
            assert!(params(&[bad]).filter().is_err(), "{bad:?}");
        }
        let page = params(&[("limit", "999999"), ("sort", "sql"), ("order", "asc")])
            .page()
            .unwrap();
        assert_eq!(
            (page.limit, page.sort, page.ascending),
            (MAX_ROWS, TransactionSort::Sql, true)
        );
        assert!(params(&[("sort", "name")]).page().is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_a_reason() {
        let reason = |query: &[(&str, &str)]| {
            let pairs = query
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            let params = Params::new(pairs.collect(), NOW)?;
            params.scope()?;
            params.filter().map(drop)
        };
        for bad in [
            &[("since", "10m"), ("from", "1"), ("to", "2")][..],
            &[("limit", "1"), ("limit", "2")],
            &[("min_us", "10"), ("max_us", "1")],
        ] {
            assert!(reason(bad).is_err(), "{bad:?}");
        }
        for good in [
            &[("since", "10m"), ("to", "2000000")][..],
            &[("limit", ""), ("limit", "2")],
            &[("min_us", "1"), ("max_us", "1")],
            &[("instance", "a"), ("instance", "b")],
        ] {
            assert!(reason(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn nobody_gets_a_million_points() {
        let year = params(&[("from", "0"), ("to", "31536000000000")]);
        assert!(year.step_us(&year.scope().unwrap()).is_err());
        let step = params(&[("from", "0"), ("to", "31536000000000"), ("step", "3600")]);
        assert_eq!(step.step_us(&step.scope().unwrap()).unwrap(), 3_600_000_000);
    }
}
