//! `events`: what happened, a line each, by the API of a provider, which may be elsewhere.
//!
//! Following is asking once a second for what came since: it survives a restart of the provider, and a proxy between that
//! collects answers.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use charliehub_proto::event::{Event, EventKind};
use clap::Args;
use tokio::time::sleep;

use super::{
    domains::{Api, Ask, Flags, Refused, decoded},
    output,
};
use crate::config::Config;

const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Wanted {
    #[command(flatten)]
    flags: Flags,
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// Only this kind; several are several flags
    #[arg(long, value_parser = kind)]
    kind: Vec<EventKind>,
    /// Each event as JSON, on a line
    #[arg(long)]
    json: bool,
}

fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::named(text).map_err(|nearest| format!("did you mean `{nearest}`?"))
}

pub(super) async fn run(config: &Config, wanted: Wanted) -> anyhow::Result<()> {
    let Wanted { flags, follow, kind, json } = wanted;
    let api = Api::of(config, flags)?;
    let mut after = None;
    let mut answered = false;
    loop {
        let events = async { decoded::<Vec<Event>>(api.send(&ask(after.as_deref())).await?) }.await;
        match events {
            Ok(events) => {
                for event in events.iter().filter(|event| is_wanted(&kind, event)) {
                    if !print(event, json)? {
                        return Ok(());
                    }
                }
                after = events.into_iter().next_back().map(|event| event.id).or(after);
                answered = true;
            }
            // Who was answered once waits for a provider that is started again.
            Err(error) if follow && after.is_some() && !error.is::<Refused>() => {
                if answered {
                    output::error(&error);
                }
                answered = false;
            }
            Err(error) => return Err(error),
        }
        if !follow {
            return Ok(());
        }
        sleep(AGAIN).await;
    }
}

/// All kinds: the id of the last one of any kind is where to go on.
fn ask(after: Option<&str>) -> Ask {
    Ask::get(format!("/api/events?after={}", after.unwrap_or("0")))
}

fn is_wanted(kinds: &[EventKind], event: &Event) -> bool {
    kinds.is_empty() || event.kind == EventKind::Missed || kinds.contains(&event.kind)
}

/// False when the reader went away.
fn print(event: &Event, json: bool) -> anyhow::Result<bool> {
    let line = if json { serde_json::to_string(event)? } else { line(event) };
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// The texts of others, such as Traefik's, do not move the cursor.
fn line(event: &Event) -> String {
    let text: String = event.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{}  {:<14}  {text}", event.at.strftime("%Y-%m-%d %H:%M:%S"), event.kind.as_str())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::events::missed;

    #[test]
    fn an_event_is_one_line_for_people() {
        let mut event = missed("a-1".to_owned(), Some(2));
        (event.at, event.text) = (Timestamp::UNIX_EPOCH, "a\n\u{1b}[2Jb".to_owned());
        assert_eq!(line(&event), "1970-01-01 00:00:00  missed          a  [2Jb");
    }

    #[test]
    fn the_first_question_is_for_all_that_is_kept_and_the_next_for_what_came_since() {
        assert_eq!(ask(None).path, "/api/events?after=0");
        assert_eq!(ask(Some("1f-7")).path, "/api/events?after=1f-7");
        let event = missed("a-1".to_owned(), None);
        assert!(is_wanted(&[EventKind::Ack], &event), "a gap concerns everybody");
        assert!(!is_wanted(&[EventKind::Ack], &Event { kind: EventKind::Late, ..event }));
    }
}
