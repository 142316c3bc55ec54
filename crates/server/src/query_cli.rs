//! `whatap-server query …`: the same questions as the dashboard's, for terminals and scripts.

use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::active::Active;
use crate::answers::{Lost, Profile, Service, TransactionList};
use crate::api::Count;
use crate::app::now_us;
use crate::cli::{Format, print};
use crate::client::{Client, encode};
use crate::engine::{
    Engine, ErrorFilter, OpenError, Page, Queries, Scope, StatusFilter, TransactionFilter,
    TransactionSort,
};
use crate::{since, tables};

#[derive(Subcommand)]
pub(crate) enum Query {
    /// Prints how many transactions are stored
    Count {
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        filter: Filter,
    },
    /// Prints how many transactions were reported as lost
    Lost {
        #[command(flatten)]
        range: Range,
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// Lists transactions
    Transactions {
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        filter: Filter,
        #[arg(long, value_enum, default_value_t = Sort::End)]
        sort: Sort,
        /// Smallest or oldest first
        #[arg(long)]
        ascending: bool,
        #[arg(long, default_value_t = 50, allow_hyphen_values = true)]
        limit: usize,
        #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
        offset: usize,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Prints one transaction with its steps
    Transaction {
        /// 16 hex digits
        #[arg(value_parser = transaction_id)]
        id: u64,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Lists what is running right now, longest first
    Active {
        #[command(flatten)]
        range: Range,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Lists services with their instances
    Services {
        #[command(flatten)]
        range: Range,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Args)]
pub(crate) struct Range {
    /// Only the last 30s, 10m, 6h, 7d … [default: everything]
    #[arg(long, value_name = "SPAN", value_parser = span, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Only this service (may be repeated)
    #[arg(long)]
    service: Vec<String>,
    /// Only this instance (may be repeated)
    #[arg(long)]
    instance: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Filter {
    /// Only this name, with or without the method before it
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    method: Option<String>,
    /// Only this HTTP status (404) or class (5xx)
    #[arg(long, value_parser = status)]
    status: Option<StatusFilter>,
    /// `any`, `none`, or an error's class
    #[arg(long)]
    error: Option<String>,
    #[arg(long, value_parser = trace_id)]
    trace_id: Option<u128>,
    #[arg(long)]
    client: Option<String>,
    /// Part of name, path, client, user, error class or message
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    #[arg(long, value_name = "MS", allow_hyphen_values = true)]
    min_ms: Option<u64>,
    #[arg(long, value_name = "MS", allow_hyphen_values = true)]
    max_ms: Option<u64>,
    /// Those that died with their process (otherwise left out)
    #[arg(long)]
    aborted: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Sort {
    End,
    Elapsed,
    Sql,
    Http,
}

fn span(text: &str) -> Result<i64, String> {
    since::parse(text).ok_or_else(|| "must be like 30s, 10m, 6h or 7d".to_owned())
}

fn trace_id(text: &str) -> Result<u128, String> {
    let id = is_hex(text, 32).then(|| u128::from_str_radix(text, 16).ok());
    id.flatten()
        .ok_or_else(|| "must be 32 hex digits".to_owned())
}

fn transaction_id(text: &str) -> Result<u64, String> {
    let id = is_hex(text, 16).then(|| u64::from_str_radix(text, 16).ok());
    id.flatten()
        .ok_or_else(|| "must be 16 hex digits".to_owned())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn status(text: &str) -> Result<StatusFilter, String> {
    let class = text
        .strip_suffix("xx")
        .and_then(|class| class.parse().ok())
        .filter(|class| (1..=5).contains(class));
    let code = text.parse().ok().filter(|code| *code < 1_000);
    class
        .map(StatusFilter::Class)
        .or_else(|| code.map(StatusFilter::Code))
        .ok_or_else(|| "must be like 404 or 4xx".to_owned())
}

pub(crate) fn run(data_dir: &Path, query: Query) -> anyhow::Result<()> {
    let source = Source::of(data_dir)?;
    match query {
        Query::Count { range, filter } => print(&source.count(&range, &filter)?.to_string()),
        Query::Lost { range, format } => {
            let lost = source.lost(&range)?;
            match format {
                None => print(&lost.total.to_string()),
                Some(Format::Json) => json(&lost),
                Some(Format::Table) => print(&tables::lost_table(&lost)),
            }
        }
        Query::Transactions {
            range,
            filter,
            sort,
            ascending,
            limit,
            offset,
            format,
        } => {
            let page = Page {
                sort: sort.into(),
                ascending,
                limit,
                offset,
            };
            let list = source.transactions(&range, &filter, &page)?;
            if let Some(missing) = what_is_missing(&list, &page) {
                crate::log::line(&missing);
            }
            match format {
                Format::Json => json(&list),
                Format::Table => print(&tables::transaction_table(&list)),
            }
        }
        Query::Transaction { id, format } => {
            let profile = source.transaction(id)?;
            match format {
                Format::Json => json(&profile),
                Format::Table => print(&tables::profile_text(&profile)),
            }
        }
        Query::Active { range, format } => {
            let active = source.active(&range)?;
            match format {
                Format::Json => json(&active),
                Format::Table => print(&tables::active_table(&active)),
            }
        }
        Query::Services { range, format } => {
            let services = source.services(&range)?;
            match format {
                Format::Json => json(&services),
                Format::Table => print(&tables::service_table(&services)),
            }
        }
    }
}

/// A running server gives so many rows at most: who asked for more should not take them for all.
fn what_is_missing(list: &TransactionList, page: &Page) -> Option<String> {
    let given = page.offset.saturating_add(list.rows.len());
    let wanted = (page.offset.saturating_add(page.limit) as u64).min(list.total);
    let is_cut = !list.rows.is_empty() && (given as u64) < wanted;
    is_cut.then(|| {
        format!(
            "these are {} of {}: more are not given at once, go on with `--offset {given}`",
            list.rows.len(),
            list.total
        )
    })
}

/// Who answers.
enum Source {
    Running(Client),
    Stopped(Box<Engine>),
}

impl Source {
    fn of(data_dir: &Path) -> anyhow::Result<Self> {
        if let Some(client) = Client::of_running(data_dir) {
            return Ok(Self::Running(client));
        }
        if !data_dir.is_dir() {
            bail!("there is no data directory {}", data_dir.display());
        }
        match Engine::open_read_only(data_dir) {
            Ok(engine) => Ok(Self::Stopped(Box::new(engine))),
            Err(OpenError::Locked) => bail!(
                "{} is in use by a server that does not answer",
                data_dir.display()
            ),
            Err(error) => bail!("cannot read {}: {error}", data_dir.display()),
        }
    }

    fn count(&self, range: &Range, filter: &Filter) -> anyhow::Result<u64> {
        match self {
            Self::Running(client) => {
                let path = format!("/api/v1/count?{}{}", range.query(), filter.query(true));
                Ok(client.get::<Count>(&path)?.count)
            }
            Self::Stopped(engine) => Ok(engine.count(&range.scope(), &filter.filter(true))?),
        }
    }

    fn lost(&self, range: &Range) -> anyhow::Result<Lost> {
        match self {
            Self::Running(client) => client.get(&format!("/api/v1/lost?{}", range.query())),
            Self::Stopped(engine) => {
                engine.verify()?;
                Ok(engine.lost(&range.scope())?)
            }
        }
    }

    fn transactions(
        &self,
        range: &Range,
        filter: &Filter,
        page: &Page,
    ) -> anyhow::Result<TransactionList> {
        match self {
            Self::Running(client) => {
                let order = if page.ascending { "asc" } else { "desc" };
                let path = format!(
                    "/api/v1/transactions?{}{}&sort={}&order={order}&limit={}&offset={}",
                    range.query(),
                    filter.query(false),
                    sort_name(page.sort),
                    page.limit,
                    page.offset
                );
                client.get(&path)
            }
            Self::Stopped(engine) => {
                Ok(engine.transactions(&range.scope(), &filter.filter(false), page)?)
            }
        }
    }

    fn transaction(&self, id: u64) -> anyhow::Result<Profile> {
        match self {
            Self::Running(client) => client.get(&format!("/api/v1/transactions/{id:016x}")),
            Self::Stopped(engine) => engine.transaction(id)?.context("no such transaction"),
        }
    }

    fn active(&self, range: &Range) -> anyhow::Result<Active> {
        match self {
            Self::Running(client) => client.get(&format!("/api/v1/active?{}", range.query())),
            Self::Stopped(_) => bail!("nothing runs: the server is stopped"),
        }
    }

    fn services(&self, range: &Range) -> anyhow::Result<Vec<Service>> {
        match self {
            Self::Running(client) => client.get(&format!("/api/v1/services?{}", range.query())),
            Self::Stopped(engine) => Ok(engine.services(&range.scope(), now_us())?),
        }
    }
}

impl Range {
    /// Rows may be up to a day in the future of this clock, so everything ends later than now.
    fn bounds(&self) -> (i64, i64) {
        let now = now_us();
        (self.since.map_or(0, |since| now - since), now + DAY_US * 2)
    }

    fn scope(&self) -> Scope {
        let (from_us, to_us) = self.bounds();
        Scope {
            from_us,
            to_us,
            services: self.service.clone(),
            instances: self.instance.clone(),
            project: None,
        }
    }

    fn query(&self) -> String {
        let (from, to) = self.bounds();
        let services = self
            .service
            .iter()
            .map(|name| format!("&service={}", encode(name)));
        let instances = self
            .instance
            .iter()
            .map(|name| format!("&instance={}", encode(name)));
        format!(
            "from={from}&to={to}{}",
            services.chain(instances).collect::<String>()
        )
    }
}

impl Filter {
    /// For a count, aborted ones are left out unless asked for.
    fn filter(&self, is_count: bool) -> TransactionFilter {
        TransactionFilter {
            min_us: self.min_ms.map(|ms| ms.saturating_mul(1_000)),
            max_us: self.max_ms.map(|ms| ms.saturating_mul(1_000)),
            name: self.name.clone(),
            method: self.method.clone(),
            status: self.status,
            error: self.error.as_deref().map(|error| match error {
                "any" => ErrorFilter::Any,
                "none" => ErrorFilter::None,
                class => ErrorFilter::Class(class.to_owned()),
            }),
            trace_id: self.trace_id,
            client: self.client.clone(),
            text: self.text.clone(),
            aborted: if self.aborted {
                Some(true)
            } else {
                is_count.then_some(false)
            },
        }
    }

    fn query(&self, is_count: bool) -> String {
        let filter = self.filter(is_count);
        let status = filter.status.map(|status| match status {
            StatusFilter::Code(code) => code.to_string(),
            StatusFilter::Class(class) => format!("{class}xx"),
        });
        let pairs = [
            ("min_us", filter.min_us.map(|us| us.to_string())),
            ("max_us", filter.max_us.map(|us| us.to_string())),
            ("name", filter.name),
            ("method", filter.method),
            ("status", status),
            ("error", self.error.clone()),
            ("trace_id", filter.trace_id.map(|id| format!("{id:032x}"))),
            ("client", filter.client),
            ("q", filter.text),
            ("aborted", filter.aborted.map(|aborted| aborted.to_string())),
        ];
        let given = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        given
            .map(|(name, value)| format!("&{name}={}", encode(&value)))
            .collect()
    }
}

impl From<Sort> for TransactionSort {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::End => Self::End,
            Sort::Elapsed => Self::Elapsed,
            Sort::Sql => Self::Sql,
            Sort::Http => Self::Http,
        }
    }
}

fn sort_name(sort: TransactionSort) -> &'static str {
    match sort {
        TransactionSort::End => "end",
        TransactionSort::Elapsed => "elapsed",
        TransactionSort::Sql => "sql",
        TransactionSort::Http => "http",
    }
}

fn json(answer: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(answer)?)
}

const DAY_US: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::Transaction;

    #[test]
    fn who_gets_fewer_rows_than_asked_for_is_told_where_to_go_on() {
        let list = TransactionList {
            total: 25,
            rows: vec![Transaction::default(); 10],
            ..TransactionList::default()
        };
        let page = |limit, offset| Page {
            limit,
            offset,
            ..Page::default()
        };
        let said = what_is_missing(&list, &page(100, 10)).unwrap();
        assert!(said.contains("10 of 25") && said.contains("--offset 20"));
        assert_eq!(what_is_missing(&list, &page(10, 0)), None);
        assert_eq!(what_is_missing(&list, &page(100, 15)), None);
    }

    #[test]
    fn counts_leave_aborted_ones_out_and_lists_do_not() {
        let filter = Filter {
            name: Some("GET /a b".into()),
            method: None,
            status: Some(StatusFilter::Class(5)),
            error: None,
            trace_id: None,
            client: None,
            text: None,
            min_ms: Some(5),
            max_ms: None,
            aborted: false,
        };
        assert_eq!(
            filter.query(true),
            "&min_us=5000&name=GET%20%2Fa%20b&status=5xx&aborted=false"
        );
        assert_eq!(filter.filter(false).aborted, None);
        let filter = Filter {
            aborted: true,
            ..filter
        };
        assert_eq!(filter.filter(true).aborted, Some(true));
    }
}
