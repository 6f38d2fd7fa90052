//! What is served now: the revision, who made it, the link to the database, the routes in numbers.

use charliehub_proto::{
    debug::{Debug, RouteCount},
    route::RouteState,
};

use super::{
    routes::state_word,
    time::{ago, took},
};
use crate::debug::html::Html;

pub(super) fn section(html: &mut Html, debug: &Debug) {
    html.put("<section id=\"now\" data-live class=\"card\" aria-labelledby=\"now-title\"><h2 id=\"now-title\">What is served</h2><dl>");
    revision(html, debug);
    html.put("<div><dt>Rows</dt><dd>");
    routes(html, &debug.routes.counts);
    html.put("</dd></div><div><dt>Database</dt><dd>");
    database(html, debug);
    html.put("</dd></div></dl></section>");
}

fn revision(html: &mut Html, debug: &Debug) {
    let Some(served) = &debug.revision else {
        html.put("<div><dt>Revision</dt><dd>none yet: the first row makes one</dd></div>");
        return;
    };
    html.put("<div><dt>Revision</dt><dd><strong class=\"big\">")
        .text(served.revision)
        .put("</strong> <code class=\"quiet\"");
    html.attr("title", format_args!("digest {}", served.digest))
        .put(">")
        .text(served.digest.get(..12).unwrap_or_default());
    html.put("</code>");
    if let Some(newest) = served.withheld {
        html.put("<br><a class=\"state attention\" href=\"#withheld\">revision ")
            .text(newest)
            .put(" waits</a> with the newest restrictions already live");
    }
    html.put("</dd></div><div><dt>Routes</dt><dd>").text(served.routes).put("</dd></div>");
    let Some(commit) = &served.commit else {
        html.put("<div><dt>Made by</dt><dd>not known without the database</dd></div>");
        return;
    };
    html.put("<div><dt>Made by</dt><dd>").text(&commit.actor).put(" <span class=\"quiet\">by ").text(&commit.source);
    if let Some(address) = &commit.address {
        html.put(" from ").text(address);
    }
    html.put("</span></dd></div><div><dt>When</dt><dd>");
    ago(html, commit.at, debug.at);
    html.put("</dd></div>");
    if let Some(reason) = &commit.reason {
        html.put("<div><dt>Why</dt><dd>").text(reason).put("</dd></div>");
    }
}

fn routes(html: &mut Html, counts: &[RouteCount]) {
    if counts.is_empty() {
        html.put("none");
    }
    for state in [RouteState::Live, RouteState::Maintenance, RouteState::Closed, RouteState::Off] {
        let of_state = counts.iter().filter(|one| one.state == state);
        let sum: usize = of_state.clone().map(|one| one.count).sum();
        if sum == 0 {
            continue;
        }
        let protocols: Vec<String> = of_state.map(|one| format!("{} {}", one.count, one.protocol)).collect();
        html.put("<a").attr("href", format_args!("/debug?state={}#routes", state_word(state)));
        html.attr("class", format_args!("state {}", state_word(state))).attr("title", protocols.join(", ")).put(">");
        html.text(sum).put(" ").text(state_word(state)).put("</a> ");
    }
}

fn database(html: &mut Html, debug: &Debug) {
    let link = &debug.database;
    if link.followed {
        html.put("<span class=\"state ok\">followed</span> what is served is the newest");
    } else {
        html.put("<span class=\"state broken\">lost</span> for ").text(took(link.age_seconds));
        html.put("; what is served goes on, changes wait");
    }
    if let Some(trouble) = &link.trouble {
        html.put("<br><span class=\"quiet\">").text(trouble).put("</span>");
    }
}
