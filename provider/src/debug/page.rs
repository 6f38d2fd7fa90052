//! Writes the page: whether the edge is right comes first, then what to do, then everything else.
//!
//! It is whole without scripts: filter, pages and route tester are forms of GET, decisions are forms of POST. Parts with
//! `data-live` are replaced by those of a newer page where scripts run.

mod changes;
mod frame;
mod instances;
mod now;
mod routes;
pub mod sign_in;
mod tester;
pub(super) mod time;
mod withheld;

use charliehub_proto::{
    debug::{Debug, Health, Verdict},
    matching::Matched,
    problem::Problem,
};
use jiff::Timestamp;

use super::{html::Html, verdict::count};

/// Who looks at it.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub name: String,
    pub role: &'static str,
    /// May decide about what is withheld.
    pub admin: bool,
    /// By a session, which can be ended.
    pub signed_in: bool,
    /// Proves that a form is from this page.
    pub proof: String,
}

/// What was asked of the route tester, and what came out.
#[derive(Clone, Debug, Default)]
pub struct Tested {
    pub url: String,
    pub client_ip: String,
    pub answer: Option<Result<Matched, Problem>>,
}

/// What is said above everything else.
#[derive(Clone, Debug, Default)]
pub enum Said {
    #[default]
    Nothing,
    Done(String),
    Refused(Problem),
}

/// The page for one viewer.
pub struct View<'v> {
    pub debug: &'v Debug,
    pub viewer: &'v Viewer,
    pub tested: &'v Tested,
    /// What the last form came to.
    pub said: Said,
}

/// The whole page.
pub fn render(view: &View<'_>) -> String {
    let (debug, mut html) = (view.debug, Html::new());
    let state = debug.verdict.state;
    frame::head(&mut html, word(state), Some(view.viewer));
    html.put("<main id=\"main\">");
    verdict(&mut html, &debug.verdict, debug.at);
    said(&mut html, &view.said);
    causes(&mut html, debug);
    // What asks for a decision stands above what is only to be known.
    let waits = !debug.withheld.is_empty();
    if waits {
        withheld::section(&mut html, debug, view.viewer);
    }
    html.put("<div class=\"columns\">");
    now::section(&mut html, debug);
    instances::section(&mut html, debug);
    html.put("</div>");
    if !waits {
        withheld::section(&mut html, debug, view.viewer);
    }
    changes::section(&mut html, debug);
    routes::section(&mut html, debug);
    html.put("<div class=\"columns\">");
    tester::section(&mut html, view.tested);
    agents(&mut html, debug);
    html.put("</div>");
    events(&mut html, debug);
    html.put("</main>");
    frame::foot(&mut html, debug);
    html.finish()
}

/// The title of the window, so that a tab tells it too.
fn word(state: Health) -> &'static str {
    match state {
        Health::Ok => "Right",
        Health::Attention => "Needs attention",
        Health::Broken => "Broken",
    }
}

fn verdict(html: &mut Html, verdict: &Verdict, at: Timestamp) {
    let (class, mark) = match verdict.state {
        Health::Ok => ("ok", "\u{2713}"),
        Health::Attention => ("attention", "!"),
        Health::Broken => ("broken", "\u{2715}"),
    };
    html.put("<section id=\"verdict\" data-live").attr("class", format_args!("verdict {class}"));
    html.put(" aria-labelledby=\"verdict-title\"><span class=\"mark\" aria-hidden=\"true\">").text(mark).put("</span>");
    html.put("<div class=\"said\"><h1 id=\"verdict-title\">").text(match verdict.state {
        Health::Ok => "The edge is right",
        Health::Attention => "The edge works, and needs attention",
        Health::Broken => "The edge is broken",
    });
    html.put("</h1><p>").text(sentence(&verdict.text)).put("</p></div><p class=\"when\">as of ");
    time::clock(html, at);
    html.put("</p></section>");
    // A region of its own, which is there before anything happens: so a change is read out.
    html.put("<p id=\"announce\" class=\"unseen\" role=\"status\" aria-live=\"polite\"></p>");
}

fn said(html: &mut Html, said: &Said) {
    match said {
        Said::Nothing => {}
        Said::Done(done) => {
            html.put("<p class=\"note done\" role=\"status\">").text(done).put("</p>");
        }
        Said::Refused(problem) => refusal(html, problem),
    }
}

/// Why something was refused, and what to do.
pub(super) fn refusal(html: &mut Html, problem: &Problem) {
    html.put("<p class=\"note refused\" role=\"alert\"><strong>").text(&problem.title).put("</strong>: ");
    html.text(&problem.detail).put(".");
    if let Some(remedy) = &problem.remedy {
        html.put(" ").text(sentence(remedy));
    }
    html.put("</p>");
}

fn causes(html: &mut Html, debug: &Debug) {
    html.put("<section id=\"causes\" data-live aria-labelledby=\"causes-title\"");
    if debug.causes.is_empty() {
        html.put(" hidden><h2 id=\"causes-title\">Causes</h2></section>");
        return;
    }
    html.put("><h2 id=\"causes-title\">").text(count(debug.causes.len(), "cause"));
    html.put(if debug.causes.len() > 1 { ", the worst first</h2>" } else { "</h2>" });
    html.put("<ol class=\"causes\">");
    for cause in debug.causes.iter().take(SHOWN) {
        html.put("<li").attr("class", cause.state.as_str()).put("><p class=\"line\"><span class=\"badge\">");
        html.text(word(cause.state)).put("</span> <strong>").text(&cause.subject).put("</strong>: ");
        html.text(&cause.text);
        if let Some(since) = cause.since {
            html.put(" <span class=\"quiet\">since ");
            time::ago(html, since, debug.at);
            html.put("</span>");
        }
        html.put("</p><p class=\"next\"><span class=\"quiet\">Next:</span> ").text(&cause.next);
        if let Some(command) = &cause.command {
            html.put(" <code>").text(command).put("</code>");
        }
        html.put("</p>");
        if cause.joined > 1 {
            html.put("<details").attr("id", format_args!("joined-{}", slug(&cause.subject))).put("><summary>");
            html.text(count(cause.joined, "signal")).put(" joined here</summary><ul>");
            for signal in &cause.signals {
                html.put("<li>")
                    .tag("span class=\"kind\"", signal.kind.as_str())
                    .put(" ")
                    .text(&signal.text)
                    .put("</li>");
            }
            html.put("</ul></details>");
        }
        html.put("</li>");
    }
    html.put("</ol>");
    if debug.causes.len() > SHOWN {
        html.put("<p class=\"quiet\">")
            .text(debug.causes.len() - SHOWN)
            .put(" more are in <a href=\"/debug.json\">/debug.json</a>.</p>");
    }
    html.put("</section>");
}

/// Causes that are worth a line each.
const SHOWN: usize = 20;

fn agents(html: &mut Html, debug: &Debug) {
    html.put("<section id=\"agents\" data-live class=\"card\" aria-labelledby=\"agents-title\"><h2 id=\"agents-title\">Agents</h2>");
    if let Some(note) = &debug.agents.note {
        html.put("<p class=\"empty\">").text(note);
        if !debug.agents.agents.iter().any(|agent| agent.last_report.is_some()) {
            html.put(" What they find on the edge hosts (tunnels, firewall, certificates) stands here, joined with what it breaks.");
        }
        html.put("</p>");
    } else {
        html.put("<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Agent</th><th scope=\"col\">Check</th><th scope=\"col\">Found</th></tr></thead><tbody>");
        for finding in &debug.agents.findings {
            html.put("<tr>")
                .tag("th scope=\"row\"", &finding.agent)
                .put("<td>")
                .text(&finding.check)
                .put(" ")
                .text(&finding.target);
            html.put("</td><td>")
                .put("<span")
                .attr("class", format_args!("state {}", finding.status.as_str()))
                .put(">");
            html.text(finding.status.as_str()).put("</span> ").text(&finding.text);
            if let Some(action) = &finding.action {
                html.put("<p class=\"action\">");
                time::ago(html, action.at, debug.at);
                html.put(": ").text(&action.what).put("; ").text(action.outcome.as_str());
                html.put(": ").text(&action.result).put("</p>");
            }
            html.put("</td></tr>");
        }
        html.put("</tbody></table></div>");
    }
    for agent in &debug.agents.agents {
        let Some(at) = agent.last_report else { continue };
        html.put("<p class=\"empty\">").text(&agent.name).put(" reported ");
        time::ago(html, at, debug.at);
        html.put("; its version is ").text(agent.version.as_deref().unwrap_or_default()).put(".</p>");
    }
    html.put("</section>");
}

fn events(html: &mut Html, debug: &Debug) {
    html.put("<section id=\"events\" data-live class=\"card\" aria-labelledby=\"events-title\"><h2 id=\"events-title\">What happened</h2>");
    if debug.events.is_empty() {
        html.put("<p class=\"empty\">Nothing since the start.</p>");
    } else {
        html.put("<ol class=\"events\">");
        for event in &debug.events {
            let kind = event.kind.to_string().replace('_', " ");
            html.put("<li>");
            time::clock(html, event.at);
            html.put(" ").tag("span class=\"kind\"", kind).put(" <span>").text(&event.text).put("</span></li>");
        }
        html.put("</ol>");
    }
    html.put("</section>");
}

/// As a sentence: with a capital, and a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    // A name stays as it is written.
    format!("{text}.")
}

/// For an id: letters and digits, the rest is `-`.
fn slug(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests;
