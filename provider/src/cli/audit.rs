//! `audit-report`: who did what, for people and programs, and whether it is still what was written down.

mod host;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::ExitCode,
};

use charliehub_proto::duration;
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde_json::json;

use self::host::{Source, Wanted};
use super::{database, output};
use crate::{
    audit::{
        self, Broken, Ends,
        list::{Entry, Filter, entries},
    },
    config::Config,
};

const BATCH: i64 = 1000;

#[derive(Debug, Args)]
pub(super) struct Report {
    /// From then on: a time, a day in UTC, or how long ago
    #[arg(long, value_name = "7d|DATE", default_value = "7d", value_parser = moment)]
    since: Timestamp,
    /// Up to then, in the same forms
    #[arg(long, value_name = "DATE", value_parser = moment)]
    until: Option<Timestamp>,
    /// What this one did
    #[arg(long)]
    actor: Option<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only from these, apart by commas; a source that cannot be read says why, and holds up no other
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Source::ALL)]
    source: Vec<Source>,
    /// Find what was changed, removed or moved since it was written; ends with 1 and names the first place
    #[arg(long)]
    verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Csv,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = || Timestamp::now().checked_sub(SignedDuration::try_from(duration::parse(text)?).ok()?).ok();
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let moment = text.parse().ok().or_else(day).or_else(ago);
    moment.ok_or_else(|| "write 7d, 2026-11-24 or 2026-11-24T18:00:00Z".to_owned())
}

/// Ends with 1 when our own audit was asked for and could not be read; what other sources have is told all the same.
pub(super) async fn run(config: &Config, report: &Report) -> anyhow::Result<ExitCode> {
    let format = if report.json { Format::Json } else { report.format };
    if report.verify {
        return verify(config, format).await;
    }
    let wanted = Wanted { since: report.since, until: report.until, actor: report.actor.clone() };
    let mut sources = host::read(config, &report.source, &wanted).await;
    let mut code = ExitCode::SUCCESS;
    if report.source.contains(&Source::Own) {
        let own = database::with(config, async |opened| opened.run(async |client| read(client, report).await).await);
        let own = own.await.map_err(|error| {
            output::error(&error);
            code = ExitCode::FAILURE;
            format!("{error:#}")
        });
        sources.insert(0, (Source::Own, own));
    }
    let (found, unavailable) = merged(sources);
    output::print(&match format {
        Format::Text => text(&found) + &notes(&unavailable),
        Format::Json => serde_json::to_string_pretty(&with_notes(found, &unavailable))? + "\n",
        Format::Csv => csv(&with_notes(found, &unavailable)),
    })?;
    Ok(code)
}

/// All entries in the order of time, and which sources could not be read. A change that our own audit has is told once.
fn merged(sources: Vec<(Source, host::Read)>) -> (Vec<Entry>, Vec<(Source, String)>) {
    let (mut found, mut unavailable) = (Vec::new(), Vec::new());
    for (source, read) in sources {
        match read {
            Ok(entries) => found.extend(entries.into_iter().map(|entry| (source, entry))),
            Err(why) => unavailable.push((source, why)),
        }
    }
    let own = found.iter().filter(|(source, _)| *source == Source::Own);
    let known: BTreeSet<i64> = own.filter_map(|(_, entry)| entry.revision).collect();
    found.retain(|(source, entry)| {
        *source != Source::Changes || entry.revision.is_none_or(|revision| !known.contains(&revision))
    });
    found.sort_by_key(|(_, entry)| entry.at);
    (found.into_iter().map(|(_, entry)| entry).collect(), unavailable)
}

/// For people, below the report.
fn notes(unavailable: &[(Source, String)]) -> String {
    let line = |(source, why): &(Source, String)| format!("{} unavailable: {}\n", source.name(), printable(why));
    unavailable.iter().map(line).collect()
}

/// For programs, as entries at the end.
fn with_notes(mut found: Vec<Entry>, unavailable: &[(Source, String)]) -> Vec<Entry> {
    found.extend(unavailable.iter().map(|(source, why)| host::unavailable(*source, why)));
    found
}

/// What is no character of a line is written out, so that nobody's words move a terminal's cursor or make a line.
fn printable(text: &str) -> String {
    let plain = |one: char| {
        !one.is_control() && !matches!(one, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|one| if plain(one) { one.to_string() } else { one.escape_default().to_string() }).collect()
}

async fn read(client: &tokio_postgres::Client, report: &Report) -> anyhow::Result<Vec<Entry>> {
    let mut filter = Filter {
        since: Some(report.since),
        until: report.until,
        actor: report.actor.clone(),
        limit: BATCH,
        ..Filter::default()
    };
    let mut all = Vec::new();
    loop {
        let found = entries(client, &filter).await.map_err(database::explain)?;
        let Some(last) = found.last() else { return Ok(all) };
        filter.behind = Some(last.place.clone());
        all.extend(found);
    }
}

async fn verify(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let work = async |client: &mut tokio_postgres::Client| {
        // What is written meanwhile must not look like a break.
        let snapshot = client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
        let transaction = snapshot.read_only(true).start().await.map_err(database::explain)?;
        let broken = audit::broken(&transaction).await.map_err(database::explain)?;
        Ok((broken, audit::ends(&transaction).await.map_err(database::explain)?))
    };
    let (broken, ends) = database::with(config, async |opened| opened.run(work).await).await?;
    output::print(&match format {
        Format::Json => serde_json::to_string_pretty(&json!({ "broken": broken, "ends": ends }))? + "\n",
        Format::Text | Format::Csv => verdict(&broken, &ends),
    })?;
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(broken: &[Broken], ends: &Ends) -> String {
    if broken.is_empty() {
        let Ends { event, event_hash, revision, revision_hash } = ends;
        return format!(
            "the audit is as it was written\nevent {event} {event_hash}\nrevision {revision} {revision_hash}\n\
             Keep these two lines elsewhere: a chain that was made anew cannot have them.\n"
        );
    }
    let line = |broken: &Broken| format!("BROKEN at {} {}: {}\n", broken.chain, broken.place, broken.why);
    broken.iter().map(line).collect()
}

/// For each day who did what; refusals are counted.
fn text(found: &[Entry]) -> String {
    let mut days = BTreeMap::<Date, (Vec<Vec<String>>, BTreeMap<String, u64>)>::new();
    for entry in found {
        let at = entry.at.to_zoned(TimeZone::UTC);
        let (lines, refused) = days.entry(at.date()).or_default();
        if entry.kind == "refused" {
            let detail = |key: &str| entry.detail.as_ref().and_then(|detail| detail.get(key));
            let problem = detail("problem").and_then(|problem| problem.as_str()).unwrap_or_default();
            let from = entry.address.as_deref().unwrap_or("elsewhere");
            let count = detail("count").and_then(serde_json::Value::as_u64).unwrap_or(1);
            *refused.entry(printable(&format!("{} at {from}, {problem}", entry.actor))).or_default() += count;
            continue;
        }
        let cells = [at.strftime("%H:%M:%S").to_string(), who(entry), entry.kind.clone(), what(entry)];
        lines.push(cells.iter().map(|cell| printable(cell)).collect());
    }
    let mut text = String::new();
    for (day, (lines, refused)) in days {
        let _ = writeln!(text, "{day}"); // a String takes all
        if !lines.is_empty() {
            text.push_str(&output::table(&["TIME", "WHO", "DID", "WHAT"], &lines));
        }
        for (whom, count) in refused {
            let _ = writeln!(text, "refused {count} x: {whom}");
        }
        text.push('\n');
    }
    if text.is_empty() { "nothing happened\n".to_owned() } else { text }
}

fn who(entry: &Entry) -> String {
    let by = entry.db_user.as_deref().filter(|user| *user != entry.actor && entry.source == "sql");
    let by = by.map(|user| format!(", database user {user}")).unwrap_or_default();
    let from = entry.address.as_deref().map(|address| format!(", {address}")).unwrap_or_default();
    format!("{} ({}{by}{from})", entry.actor, entry.source)
}

fn what(entry: &Entry) -> String {
    let mut parts = Vec::new();
    parts.extend(entry.name.clone());
    if !entry.fields.is_empty() {
        parts.push(format!("[{}]", entry.fields.join(", ")));
    }
    parts.extend(entry.revision.map(|revision| format!("revision {revision}")));
    parts.extend(entry.detail.as_ref().map(ToString::to_string));
    parts.extend(entry.reason.as_ref().map(|reason| format!("because: {reason}")));
    parts.join(" ")
}

fn csv(found: &[Entry]) -> String {
    let mut text = "at,kind,actor,source,address,db_user,revision,table,name,fields,reason,detail\r\n".to_owned();
    for entry in found {
        let Entry { kind, actor, source, address, db_user, revision, table, name, fields, reason, detail, .. } = entry;
        let cells = [
            Some(entry.at.to_string()),
            Some(kind.clone()),
            Some(actor.clone()),
            Some(source.clone()),
            address.clone(),
            db_user.clone(),
            revision.map(|revision| revision.to_string()),
            table.clone(),
            name.clone(),
            Some(fields.join(" ")),
            reason.clone(),
            detail.as_ref().map(ToString::to_string),
        ];
        text.push_str(&cells.map(|cell| quoted(&cell.unwrap_or_default())).join(","));
        text.push_str("\r\n");
    }
    text
}

/// RFC 4180. A cell that a spreadsheet would take for a formula is text.
fn quoted(cell: &str) -> String {
    let formula = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if formula.is_empty() && !cell.contains(['"', ',', '\n', '\r']) {
        return cell.to_owned();
    }
    format!("\"{formula}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::list::Place;

    fn entry(kind: &str, actor: &str) -> Entry {
        Entry {
            at: "2026-11-24T18:00:00Z".parse().unwrap(),
            kind: kind.to_owned(),
            actor: actor.to_owned(),
            source: "sql".to_owned(),
            address: None,
            db_user: Some("owner".to_owned()),
            revision: None,
            table: None,
            id: None,
            name: None,
            fields: Vec::new(),
            request_id: None,
            reason: None,
            detail: None,
            place: Place { at: String::new(), chain: 0, number: 0, seq: 0 },
        }
    }

    #[test]
    fn people_read_who_did_what_on_each_day_and_refusals_are_counted() {
        let change = Entry {
            name: Some("a.test".to_owned()),
            fields: vec!["notes".to_owned()],
            revision: Some(7),
            ..entry("row.update", "ed")
        };
        let refused = |count: u64| Entry {
            detail: Some(json!({"problem": "unauthorized", "count": count})),
            ..entry("refused", "unknown")
        };
        let text = text(&[change, refused(40), refused(2)]);
        assert_eq!(
            text,
            "2026-11-24\nTIME      WHO                            DID         WHAT\n\
             18:00:00  ed (sql, database user owner)  row.update  a.test [notes] revision 7\n\
             refused 42 x: unknown at elsewhere, unauthorized\n\n"
        );
        assert_eq!(super::text(&[]), "nothing happened\n");
    }

    #[test]
    fn sources_are_one_list_in_time_and_each_that_fails_says_so() {
        let at = |at: &str, revision: Option<i64>, actor: &str| Entry {
            at: at.parse().unwrap(),
            revision,
            ..entry("x", actor)
        };
        let own = vec![at("2026-11-24T18:00:00Z", Some(7), "ann"), at("2026-11-24T20:00:00Z", None, "cat")];
        let git = vec![at("2026-11-24T19:00:00Z", None, "bob")];
        let log = vec![at("2026-11-24T18:00:00Z", Some(7), "ann"), at("2026-11-24T18:30:00Z", Some(8), "eve")];
        let sources = vec![
            (Source::Own, Ok(own)),
            (Source::Git, Ok(git)),
            (Source::Changes, Ok(log)),
            (Source::Auditd, Err("not \u{1b}[1minstalled".to_owned())),
        ];
        let (found, unavailable) = merged(sources);
        let actors: Vec<&str> = found.iter().map(|entry| entry.actor.as_str()).collect();
        assert_eq!(actors, ["ann", "eve", "bob", "cat"], "what only the log knows is told");
        assert_eq!(notes(&unavailable), "auditd unavailable: not \\u{1b}[1minstalled\n");
        assert_eq!(with_notes(found, &unavailable).last().unwrap().kind, "unavailable");
    }

    #[test]
    fn nobodys_name_moves_the_cursor() {
        let text = text(&[entry("x\n", "\u{1b}[2Jan\u{202e}n")]);
        assert!(text.contains("\\u{1b}[2Jan\\u{202e}n (sql, database user owner)  x\\n"), "{text}");
        assert!(text.lines().all(|line| !line.contains('\u{1b}')), "{text}");
    }

    #[test]
    fn a_cell_is_one_cell_and_no_formula() {
        for (cell, csv) in
            [("a", "a"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("=1+1", "\"'=1+1\""), ("@x", "\"'@x\""), ("", "")]
        {
            assert_eq!(quoted(cell), csv);
        }
        assert_eq!(csv(&[entry("x", "ann")]).lines().nth(1), Some("2026-11-24T18:00:00Z,x,ann,sql,,owner,,,,,,"));
    }

    #[test]
    fn a_moment_is_a_time_a_day_or_how_long_ago() {
        assert_eq!(moment("2026-11-24"), Ok("2026-11-24T00:00:00Z".parse().unwrap()));
        assert_eq!(moment("2026-11-24T18:00:00Z"), Ok("2026-11-24T18:00:00Z".parse().unwrap()));
        assert!(moment("7d").unwrap() < Timestamp::now());
        assert!(moment("yesterday").unwrap_err().contains("7d"));
    }
}
