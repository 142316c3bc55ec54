//! Answers as tables and texts for a terminal.

use crate::active::Active;
use crate::answers::{Lost, Profile, Service, Step, TransactionList};
use crate::api::ProjectAnswer;

pub(crate) fn transaction_table(list: &TransactionList) -> String {
    let rows = list.rows.iter().map(|row| {
        let mut name = format!("{} {}", row.method, row.name).trim().to_owned();
        if !row.error_class.is_empty() {
            name = format!("{name}  {}: {}", row.error_class, row.error_message);
        }
        let outcome = if row.status == 0 {
            row.outcome.clone()
        } else {
            format!("{} {}", row.status, row.outcome)
        };
        vec![
            row.id.clone(),
            time(row.end_us),
            ms(row.elapsed_us),
            outcome,
            row.instance.clone(),
            format!("{}/{}", row.sql_count, ms(row.sql_us)),
            format!("{}/{}", row.http_count, ms(row.http_us)),
            name,
        ]
    });
    let head = [
        "ID",
        "END (UTC)",
        "MS",
        "OUTCOME",
        "INSTANCE",
        "SQL/MS",
        "HTTP/MS",
        "NAME",
    ];
    format!(
        "{}{} of {}\n",
        table(&head, rows),
        list.rows.len(),
        list.total
    )
}

pub(crate) fn profile_text(profile: &Profile) -> String {
    let row = &profile.transaction;
    let (name, elapsed) = (format!("{} {}", row.method, row.name), ms(row.elapsed_us));
    let mut lines = vec![
        format!(
            "{}  {elapsed} ms  {} {}",
            name.trim(),
            row.status,
            row.outcome
        ),
        format!(
            "service {}  instance {}  pid {}  trace {}",
            row.service, row.instance, row.pid, row.trace_id
        ),
        format!("ended {} UTC", time(row.end_us)),
    ];
    if let Some(error) = &profile.error {
        lines.push(format!("{}: {}", error.class, error.message));
        let frames = error.frames.iter();
        lines.extend(
            frames.map(|f| format!("  {}:{} {}  {}", f.file, f.line, f.function, f.source)),
        );
    }
    let mut logged = Vec::new();
    for log in &profile.logs {
        logged.push(format!(
            "{} UTC  severity {}  {}",
            time(log.t),
            log.severity,
            log.logger
        ));
        logged.extend(log.message.lines().map(|line| format!("  {line}")));
    }
    let steps = profile.steps.iter().map(step_row);
    let whole = |lines: Vec<String>| {
        lines
            .iter()
            .map(|line| clean(line) + "\n")
            .collect::<String>()
    };
    whole(lines) + &table(&["#", "AT MS", "MS", "KIND", "TARGET", "WHAT"], steps) + &whole(logged)
}

fn step_row(step: &Step) -> Vec<String> {
    let offset = format!("{:.3}", step.start_us as f64 / 1_000.0);
    let repeat = if step.repeat > 1 {
        format!(" ×{}", step.repeat)
    } else {
        String::new()
    };
    let error = step.error.as_deref().filter(|error| *error != step.text);
    let what = format!("{}{repeat}  {}", step.text, error.unwrap_or(""))
        .trim()
        .to_owned();
    vec![
        step.index.to_string(),
        offset,
        ms(step.elapsed_us),
        step.kind.clone(),
        step.target.clone(),
        what,
    ]
}

pub(crate) fn lost_table(lost: &Lost) -> String {
    let rows = lost
        .rows
        .iter()
        .map(|row| vec![row.place.clone(), row.cause.clone(), row.count.to_string()]);
    format!(
        "{}{} lost\n",
        table(&["WHERE", "CAUSE", "COUNT"], rows),
        lost.total
    )
}

pub(crate) fn active_table(active: &Active) -> String {
    let rows = active.rows.iter().map(|row| {
        let state = format!("{:?}", row.state).to_lowercase();
        vec![
            row.id.clone(),
            ms(row.elapsed_us),
            row.instance.clone(),
            row.pid.to_string(),
            row.name.clone(),
            state,
            row.text.clone(),
        ]
    });
    format!(
        "{}{} running\n",
        table(
            &["ID", "MS", "INSTANCE", "PID", "NAME", "STATE", "TEXT"],
            rows
        ),
        active.count
    )
}

pub(crate) fn service_table(services: &[Service]) -> String {
    let rows = services
        .iter()
        .flat_map(|service| &service.instances)
        .map(|instance| {
            let pids: Vec<_> = instance.pids.iter().map(u32::to_string).collect();
            vec![
                instance.service.clone(),
                instance.id.clone(),
                instance.host.clone(),
                pids.join(" "),
                instance.runtime.clone(),
                instance.agent.clone(),
                time(instance.last_seen_us),
                if instance.connected { "yes" } else { "no" }.to_owned(),
            ]
        });
    table(
        &[
            "SERVICE",
            "INSTANCE",
            "HOST",
            "PIDS",
            "RUNTIME",
            "AGENT",
            "LAST SEEN (UTC)",
            "CONNECTED",
        ],
        rows,
    )
}

pub(crate) fn project_table(projects: &[ProjectAnswer]) -> String {
    let rows = projects.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.name.clone(),
            time(row.created_us),
            row.licence.clone(),
        ]
    });
    table(&["ID", "NAME", "CREATED (UTC)", "LICENCE"], rows)
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.map(|row| row.iter().map(|cell| clean(cell)).collect()))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            format!(
                "{cell}{}",
                " ".repeat(width.min(&MAX_PAD).saturating_sub(cell.chars().count()))
            )
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Control characters of stored texts must not reach a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn ms(us: u64) -> String {
    format!("{:.1}", us as f64 / 1_000.0)
}

/// `2026-11-21 10:19:12.345` in UTC, by the civil-from-days rule.
fn time(us: i64) -> String {
    let (days, rest) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, millis) = (rest / 1_000_000, rest % 1_000_000 / 1_000);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{millis:03}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

const DAY_US: i64 = 86_400_000_000;
const MAX_PAD: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        assert_eq!(time(0), "1970-01-01 00:00:00.000");
        assert_eq!(time(1_709_210_096_789_000), "2024-02-29 12:34:56.789");
        assert_eq!(time(1_735_689_599_999_999), "2024-12-31 23:59:59.999");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999");
    }

    #[test]
    fn a_table_cannot_be_broken_by_what_is_in_it() {
        let text = table(
            &["A", "B"],
            [vec!["x\ny\u{1b}[2J".to_owned(), "z".to_owned()]].into_iter(),
        );
        assert_eq!(text, "A        B\nx y [2J  z\n");
    }
}
