//! The route tester: which route answers a URL, why, what stands before it, and what else would have taken it.

use charliehub_proto::matching::{Answering, MatchOutcome, Matched, MiddlewareVerdict};

use super::{Tested, refusal};
use crate::debug::html::Html;

pub(super) fn section(html: &mut Html, tested: &Tested) {
    html.put("<section id=\"tester\" class=\"card\" aria-labelledby=\"tester-title\"><h2 id=\"tester-title\">Test a URL</h2>");
    html.put("<form class=\"filter\" method=\"get\" action=\"/debug#tester\" aria-label=\"Route tester\"><p class=\"wide\"><label for=\"url\">URL</label><input id=\"url\" name=\"url\" required maxlength=\"2000\" placeholder=\"https://www.example.org/path\" spellcheck=\"false\" autocapitalize=\"none\"");
    html.attr("value", &tested.url).put("></p><p><label for=\"client_ip\">Client address</label><input id=\"client_ip\" name=\"client_ip\" maxlength=\"50\" placeholder=\"any\" spellcheck=\"false\"");
    html.attr("value", &tested.client_ip)
        .put("></p><p><button>Test</button></p></form><div id=\"tested\" role=\"status\">");
    match &tested.answer {
        None => drop(html.put("<p class=\"empty\">Judged by the config that is served, as Traefik would.</p>")),
        Some(Err(problem)) => refusal(html, problem),
        Some(Ok(matched)) => shown(html, matched),
    }
    html.put("</div></section>");
}

fn shown(html: &mut Html, matched: &Matched) {
    let Some(answer) = &matched.answer else {
        html.put("<p class=\"outcome\"><span class=\"state off\">404</span> No route takes <strong>")
            .text(&matched.request.host)
            .text(&matched.request.path);
        html.put("</strong>");
        if let Some(entry) = &matched.request.entry_point {
            html.put(" on entry point ").text(entry);
        }
        html.put(".</p>");
        return;
    };
    let (class, word, meaning) = outcome(answer.outcome);
    html.put("<p class=\"outcome\"><span")
        .attr("class", format_args!("state {class}"))
        .put(">")
        .text(word)
        .put("</span> <strong>");
    html.text(&answer.router).put("</strong> ").put(meaning).put("</p>");
    why(html, matched, answer);
    html.put("<h3>On its way</h3>");
    if answer.middlewares.is_empty() {
        html.put("<p class=\"quiet\">No middleware.</p>");
    } else {
        html.put("<ol class=\"way\">");
        for step in &answer.middlewares {
            let (class, word) = match step.verdict {
                Some(MiddlewareVerdict::Refuses) => ("broken", "refuses"),
                Some(MiddlewareVerdict::Passes) => ("ok", "passes"),
                Some(MiddlewareVerdict::Asks) => ("attention", "asks"),
                None => ("off", "–"),
            };
            html.put("<li><span")
                .attr("class", format_args!("state {class}"))
                .put(">")
                .text(word)
                .put("</span> ")
                .text(&step.name);
            html.put(" <span class=\"quiet\">").text(step.kind.as_deref().unwrap_or("not in our configuration"));
            if let Some(detail) = &step.detail {
                html.put(": ").text(detail);
            }
            html.put("</span></li>");
        }
        html.put("</ol>");
    }
    if !matched.also.is_empty() {
        html.put("<h3>Would have taken it too</h3><ul class=\"way\">");
        for other in &matched.also {
            html.put("<li>")
                .text(&other.router)
                .put(" <span class=\"quiet\">priority ")
                .text(other.priority)
                .put("</span></li>");
        }
        html.put("</ul>");
    }
}

fn why(html: &mut Html, matched: &Matched, answer: &Answering) {
    html.put("<dl class=\"tight\"><div><dt>Why</dt><dd>its rule <code>").text(&answer.rule).put("</code> holds, and ");
    if matched.also.is_empty() {
        html.put("no other does");
    } else {
        html.put("of those that hold it has the highest priority, ").text(answer.priority);
    }
    html.put("</dd></div><div><dt>Comes from</dt><dd>");
    match (&answer.row, &answer.fragment) {
        (Some(row), _) => {
            let path = if row.path_prefix == "/" { "" } else { &row.path_prefix };
            html.put("row ").text(&row.domain).text(path);
        }
        (None, Some(fragment)) => drop(html.put("fragment ").text(&fragment.kind).put(" ").text(&fragment.name)),
        (None, None) => drop(html.put("no row that is there by now")),
    }
    html.put("</dd></div><div><dt>Leads to</dt><dd>service ").text(&answer.service).put("</dd></div></dl>");
}

fn outcome(outcome: MatchOutcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        MatchOutcome::Routed => ("ok", "routed", "answers, with what its service says."),
        MatchOutcome::Refused => ("broken", "403", "takes it, and a list of addresses refuses this client."),
        MatchOutcome::Closed => ("broken", "503", "takes it, and has no server."),
        MatchOutcome::Maintenance => ("maintenance", "503", "takes it, and is in maintenance."),
        MatchOutcome::Redirect => ("ok", "redirect", "sends the client elsewhere."),
    }
}
