//! The Traefiks: what each runs, how far behind it is, what it does not take.

use charliehub_proto::{
    debug::Debug,
    drift::{DriftKind, InstanceDrift},
    instance::{ConfigAt, InstanceState, InstanceStatus, Instead},
};

use super::{
    slug,
    time::{ago, took},
};
use crate::debug::{html::Html, verdict::count};

pub(super) fn section(html: &mut Html, debug: &Debug) {
    html.put("<section id=\"traefiks\" data-live class=\"card\" aria-labelledby=\"traefiks-title\"><h2 id=\"traefiks-title\">Traefiks</h2>");
    if debug.instances.is_empty() {
        html.put("<p class=\"empty\">None has polled since the start.</p>");
    }
    let mut all: Vec<&InstanceStatus> = debug.instances.iter().collect();
    if all.len() > SHOWN {
        all.sort_by_key(|one| matches!(one.state, InstanceState::Current | InstanceState::Unverified));
    }
    for one in all.iter().take(SHOWN) {
        let drift = debug.drift.iter().find(|drift| drift.instance == one.name);
        instance(html, one, drift, debug);
    }
    if all.len() > SHOWN {
        html.put("<p class=\"quiet\">");
        html.text(all.len() - SHOWN).put(" more are in <a href=\"/debug.json\">/debug.json</a>.</p>");
    }
    html.put("</section>");
}

/// Traefiks that are worth a place; of more, those that something is wrong with come first.
const SHOWN: usize = 100;

fn instance(html: &mut Html, one: &InstanceStatus, drift: Option<&InstanceDrift>, debug: &Debug) {
    let (class, word) = state(one.state);
    html.put("<article class=\"traefik\"><h3>")
        .text(&one.name)
        .put(" <span")
        .attr("class", format_args!("state {class}"))
        .put(">");
    html.text(word).put("</span>");
    if let Some(version) = &one.version {
        html.put(" <span class=\"quiet\">").text(version).put("</span>");
    }
    html.put("</h3>");
    if let Some(trouble) = &one.trouble {
        html.put("<p class=\"trouble\">").text(trouble).put("</p>");
    }
    html.put("<dl class=\"tight\">");
    if let Some(part) = &one.part {
        html.put("<div><dt>Is given</dt><dd>").text(&part.selector).put(", ");
        html.text(count(part.routes, "route")).put("</dd></div>");
    }
    html.put("<div><dt>Runs</dt><dd>");
    config(html, one.running.as_ref(), "not known", debug);
    html.put("</dd></div><div><dt>Was sent</dt><dd>");
    config(html, one.sent.as_ref(), "nothing yet", debug);
    html.put("</dd></div><div><dt>Last poll</dt><dd>");
    match one.last_poll {
        Some(at) => ago(html, at, debug.at),
        None => drop(html.put("none")),
    }
    html.put("</dd></div>");
    if let Some(seconds) = one.time_to_live_seconds {
        html.put("<div><dt>Last change</dt><dd>live after <strong>").text(took(seconds)).put("</strong></dd></div>");
    }
    if one.lag_seconds > 0.0 {
        html.put("<div><dt>Behind</dt><dd>for ").text(took(one.lag_seconds)).put("</dd></div>");
    }
    html.put("</dl>");
    refused(html, one);
    held_back(html, one, debug);
    servers(html, one);
    drifted(html, drift);
    if !one.advice.is_empty() {
        html.put("<p class=\"quiet\">Change in its static configuration:</p><ul class=\"plain\">");
        for line in &one.advice {
            html.put("<li><code>").text(line).put("</code></li>");
        }
        html.put("</ul>");
    }
    html.put("</article>");
}

fn state(state: InstanceState) -> (&'static str, &'static str) {
    match state {
        InstanceState::Current => ("ok", "current"),
        InstanceState::Behind => ("behind", "taking a change"),
        InstanceState::Late => ("broken", "late"),
        InstanceState::Refused => ("broken", "refused"),
        InstanceState::Unverified => ("attention", "polling, unverified"),
        InstanceState::Unknown => ("attention", "API does not answer"),
        InstanceState::Gone => ("broken", "gone"),
    }
}

fn config(html: &mut Html, config: Option<&ConfigAt>, none: &'static str, debug: &Debug) {
    let Some(config) = config else {
        html.put(none);
        return;
    };
    match config.revision {
        Some(revision) => html.put("revision ").text(revision),
        None => html.put("a config that is not of this provider's life"),
    };
    html.put(" <code class=\"quiet\"").attr("title", format_args!("digest {}", config.digest)).put(">");
    html.text(config.digest.get(..8).unwrap_or(&config.digest)).put("</code> <span class=\"quiet\">");
    ago(html, config.at, debug.at);
    html.put("</span>");
}

fn open(html: &mut Html, one: &str, what: &'static str, n: usize, (single, several): (&'static str, &'static str)) {
    html.put("<details open").attr("id", format_args!("{what}-{}", slug(one))).put("><summary>").text(n).put(" ");
    html.put(if n == 1 { single } else { several }).put("</summary><ul>");
}

fn refused(html: &mut Html, one: &InstanceStatus) {
    if one.refused_routes.is_empty() {
        return;
    }
    open(html, &one.name, "refused", one.refused_routes.len(), ("refused object", "refused objects"));
    for refused in &one.refused_routes {
        html.put("<li><strong>")
            .text(&refused.name)
            .put("</strong> <span class=\"quiet\">")
            .text(&refused.protocol)
            .put(" ");
        html.text(&refused.object).put(", ").text(&refused.status);
        if let Some(owner) = &refused.owner {
            html.put(", of ").text(&owner.kind).put(" ").text(&owner.name);
        }
        html.put("</span>");
        for words in &refused.errors {
            html.put("<br><q>").text(words).put("</q>");
        }
        html.put("</li>");
    }
    html.put("</ul></details>");
}

fn held_back(html: &mut Html, one: &InstanceStatus, debug: &Debug) {
    if one.held_back.is_empty() {
        return;
    }
    open(html, &one.name, "held", one.held_back.len(), ("row held back", "rows held back"));
    for held in &one.held_back {
        html.put("<li><strong>").text(&held.owner.name).put("</strong> ").put(match held.instead {
            Instead::Earlier => "runs as it was before",
            Instead::Closed => "is closed: 503",
            Instead::Nothing => "is left out",
        });
        html.put(" <span class=\"quiet\">since revision ").text(held.revision).put(", ");
        ago(html, held.since, debug.at);
        html.put("</span><br><q>").text(&held.reason).put("</q></li>");
    }
    html.put("</ul></details>");
}

fn servers(html: &mut Html, one: &InstanceStatus) {
    let down: Vec<_> = one.servers.iter().filter(|server| !server.up).collect();
    if down.is_empty() {
        return;
    }
    open(html, &one.name, "down", down.len(), ("server down", "servers down"));
    for server in down {
        html.put("<li><strong>")
            .text(&server.url)
            .put("</strong> <span class=\"quiet\">of ")
            .text(&server.service)
            .put("</span></li>");
    }
    html.put("</ul></details>");
}

fn drifted(html: &mut Html, drift: Option<&InstanceDrift>) {
    let Some(drift) = drift else { return };
    if let Some(trouble) = &drift.trouble {
        html.put("<p class=\"quiet\">What it runs cannot be compared: ").text(trouble).put("</p>");
    }
    if drift.differences.is_empty() {
        return;
    }
    open(html, &drift.instance, "drift", drift.differences.len(), ("difference", "differences"));
    for one in drift.differences.iter().take(100) {
        html.put("<li><strong>").text(&one.name).put("</strong> ").put(match one.kind {
            DriftKind::Missing => "is missing",
            DriftKind::Extra => "is extra",
            DriftKind::Different => "is different",
            DriftKind::Shadowed => "is shadowed",
        });
        html.put(" <span class=\"quiet\">")
            .text(&one.protocol)
            .put(" ")
            .text(&one.object)
            .put("</span><br>")
            .text(&one.detail)
            .put("</li>");
    }
    html.put("</ul></details>");
}
