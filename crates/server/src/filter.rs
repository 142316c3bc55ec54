//! A scope and a filter made ready for one part: texts become numbers once, so that a row is judged
//! by comparing numbers.

use crate::columns::{Columns, Narrow, Rows, Wide, flags};
use crate::engine::{ErrorFilter, Scope, StatusFilter, TransactionFilter};
use crate::hot::outcome_of;
use crate::model::{Outcome, Resource};
use crate::part::{Part, PartError, Passing};
use std::ops::Range;

pub(crate) struct Matcher<'a> {
    filter: &'a TransactionFilter,
    times: Range<i64>,
    resources: Vec<bool>,
    every_resource: bool,
    name: Option<NameMatch>,
    method: Option<Passing>,
    class: Option<Passing>,
    client: Option<Passing>,
    text: Option<TextMatch>,
    columns: Columns,
}

/// A name alone, or a method and a name.
struct NameMatch {
    whole: Passing,
    method: Passing,
    rest: Passing,
}

struct TextMatch {
    passing: Passing,
    id: Option<u64>,
    trace: Option<u128>,
}

impl<'a> Matcher<'a> {
    /// `None` when no row of the part can match.
    pub(crate) fn new(
        scope: &Scope,
        filter: &'a TransactionFilter,
        part: &dyn Part,
    ) -> Result<Option<Self>, PartError> {
        let resources = resources_in(scope, part.resources());
        let every_resource = !resources.contains(&false);
        if !resources.contains(&true) {
            return Ok(None);
        }
        let equal = |names: bool, wanted: Option<&str>| -> Result<Option<Passing>, PartError> {
            wanted
                .map(|w| part.texts_passing(names, &|t| t == w))
                .transpose()
        };
        let class = match &filter.error {
            Some(ErrorFilter::Class(class)) => Some(class.as_str()),
            _ => None,
        };
        let mut matcher = Self {
            filter,
            times: scope.from_us..scope.to_us,
            resources,
            every_resource,
            name: filter
                .name
                .as_deref()
                .map(|name| NameMatch::new(name, part))
                .transpose()?,
            method: equal(true, filter.method.as_deref())?,
            class: equal(true, class)?,
            client: equal(false, filter.client.as_deref())?,
            text: filter
                .text
                .as_deref()
                .map(|text| TextMatch::new(text, part))
                .transpose()?,
            columns: Columns::default(),
        };
        let impossible = [&matcher.method, &matcher.class, &matcher.client]
            .into_iter()
            .flatten()
            .any(Passing::is_empty);
        matcher.columns = matcher.needs();
        Ok((!impossible).then_some(matcher))
    }

    /// The columns that [`Matcher::passes`] looks at.
    pub(crate) fn columns(&self) -> Columns {
        self.columns
    }

    pub(crate) fn passes(&self, rows: &Rows, row: usize) -> bool {
        if !self.times.contains(&rows[Wide::End][row])
            || !(self.every_resource || self.resources[rows[Narrow::Resource][row] as usize])
        {
            return false;
        }
        let filter = self.filter;
        let elapsed = rows[Wide::Elapsed][row].cast_unsigned();
        filter.min_us.is_none_or(|min| elapsed >= min)
            && filter.max_us.is_none_or(|max| elapsed <= max)
            && self.passes_outcome(rows, row)
            && filter
                .status
                .is_none_or(|s| passes_status(s, rows[Narrow::Status][row]))
            && filter.trace_id.is_none_or(|t| rows.trace[row] == t)
            && has(&self.method, rows, Narrow::Method, row)
            && has(&self.class, rows, Narrow::ErrorClass, row)
            && has(&self.client, rows, Narrow::Client, row)
            && self.name.as_ref().is_none_or(|n| n.passes(rows, row))
            && self.text.as_ref().is_none_or(|t| t.passes(rows, row))
    }

    fn passes_outcome(&self, rows: &Rows, row: usize) -> bool {
        if self.filter.aborted.is_none() && self.filter.error.is_none() {
            return true;
        }
        let outcome = outcome_of(rows[Narrow::Flags][row]);
        let error = match &self.filter.error {
            None | Some(ErrorFilter::Class(_)) => true,
            Some(ErrorFilter::Any) => outcome != Outcome::Ok,
            Some(ErrorFilter::None) => outcome == Outcome::Ok,
        };
        error
            && self
                .filter
                .aborted
                .is_none_or(|wanted| (outcome == Outcome::Aborted) == wanted)
    }

    fn needs(&self) -> Columns {
        let filter = self.filter;
        let mut columns = Columns::from(Wide::End);
        if !self.every_resource {
            columns = columns.with(Narrow::Resource);
        }
        columns = columns.with(Wide::Elapsed);
        for (needed, column) in [
            (filter.status.is_some(), Narrow::Status),
            (
                filter.aborted.is_some() || filter.error.is_some(),
                Narrow::Flags,
            ),
            (self.class.is_some(), Narrow::ErrorClass),
            (self.client.is_some(), Narrow::Client),
            (self.method.is_some() || self.name.is_some(), Narrow::Method),
            (self.name.is_some(), Narrow::Name),
        ] {
            if needed {
                columns = columns.with(column);
            }
        }
        if filter.trace_id.is_some() {
            columns = columns.trace();
        }
        if let Some(text) = &self.text {
            columns = columns.with(Columns::from(TextMatch::COLUMNS));
            if text.id.is_some() {
                columns = columns.with(Wide::Id);
            }
            if text.trace.is_some() {
                columns = columns.trace();
            }
        }
        columns
    }
}

/// Which resources a scope names.
pub(crate) fn resources_in(scope: &Scope, resources: &[Resource]) -> Vec<bool> {
    resources.iter().map(|r| in_scope(scope, r)).collect()
}

pub(crate) fn in_scope(scope: &Scope, resource: &Resource) -> bool {
    names_one(&scope.services, &resource.service)
        && names_one(&scope.instances, &resource.instance)
        && scope.project.is_none_or(|p| p == resource.project)
}

pub(crate) fn names_one(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|w| w == name)
}

fn has(set: &Option<Passing>, rows: &Rows, column: Narrow, row: usize) -> bool {
    set.as_ref().is_none_or(|s| s.has(rows[column][row]))
}

fn passes_status(filter: StatusFilter, status: u32) -> bool {
    match filter {
        StatusFilter::Code(code) => status == u32::from(code),
        StatusFilter::Class(class) => status / 100 == u32::from(class),
    }
}

impl NameMatch {
    fn new(name: &str, part: &dyn Part) -> Result<Self, PartError> {
        let (method, rest) = name.split_once(' ').unwrap_or(("", ""));
        Ok(Self {
            whole: part.texts_passing(true, &|t| t == name)?,
            method: part.texts_passing(true, &|t| !method.is_empty() && t == method)?,
            rest: part.texts_passing(true, &|t| !rest.is_empty() && t == rest)?,
        })
    }

    fn passes(&self, rows: &Rows, row: usize) -> bool {
        let name = rows[Narrow::Name][row];
        self.whole.has(name) || (self.rest.has(name) && self.method.has(rows[Narrow::Method][row]))
    }
}

impl TextMatch {
    const COLUMNS: [Narrow; 6] = [
        Narrow::Name,
        Narrow::Path,
        Narrow::Client,
        Narrow::User,
        Narrow::ErrorClass,
        Narrow::ErrorMessage,
    ];

    fn new(text: &str, part: &dyn Part) -> Result<Self, PartError> {
        let wanted = text.to_lowercase();
        Ok(Self {
            passing: part.texts_passing(false, &|t| contains_ignoring_case(t, &wanted))?,
            id: (text.len() == 16)
                .then(|| u64::from_str_radix(text, 16).ok())
                .flatten(),
            trace: (text.len() == 32)
                .then(|| u128::from_str_radix(text, 16).ok())
                .flatten(),
        })
    }

    fn passes(&self, rows: &Rows, row: usize) -> bool {
        Self::COLUMNS
            .iter()
            .any(|&column| self.passing.has(rows[column][row]))
            || self
                .id
                .is_some_and(|id| rows[Wide::Id][row].cast_unsigned() == id)
            || self.trace.is_some_and(|t| rows.trace[row] == t)
    }
}

fn contains_ignoring_case(text: &str, wanted: &str) -> bool {
    if text.is_ascii() && wanted.is_ascii() {
        let wanted = wanted.as_bytes();
        return wanted.is_empty()
            || text
                .as_bytes()
                .windows(wanted.len())
                .any(|w| w.eq_ignore_ascii_case(wanted));
    }
    text.to_lowercase().contains(wanted)
}

/// Whether a row failed, was aborted, has steps.
pub(crate) fn row_marks(bits: u32) -> (Outcome, bool) {
    (outcome_of(bits), bits & flags::PROFILE != 0)
}
