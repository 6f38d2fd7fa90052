//! What waits for an operator, with what it would change, and the buttons that decide; below it what is closed.

use charliehub_proto::{
    debug::Debug,
    revision::{RouteOp, Withheld},
};

use super::{Viewer, slug, time::ago};
use crate::debug::{html::Html, verdict::count};

/// Differences that are shown of one revision.
const SHOWN: usize = 20;

pub(super) fn section(html: &mut Html, debug: &Debug, viewer: &Viewer) {
    let nothing = debug.withheld.is_empty() && debug.quarantined.is_empty();
    html.put("<section id=\"withheld\" data-live").attr("class", if nothing { "card slim" } else { "card" });
    html.put(" aria-labelledby=\"withheld-title\"><h2 id=\"withheld-title\">Withheld and quarantined</h2>");
    for (at, one) in debug.withheld.iter().enumerate() {
        waiting(html, one, at + 1 == debug.withheld.len(), debug, viewer);
    }
    if nothing {
        html.put("<p class=\"empty\">Nothing waits, and every row runs as it says.</p>");
    }
    quarantined(html, debug);
    html.put("</section>");
}

fn waiting(html: &mut Html, one: &Withheld, newest: bool, debug: &Debug, viewer: &Viewer) {
    html.put("<article class=\"waiting\"><h3>Revision ").text(one.revision).put(" waits ");
    if let Some(part) = &one.part {
        html.put("in ").text(part).put(" ");
    }
    html.put("<span class=\"state attention\">").text(&one.held_by);
    html.put("</span></h3><p>Made by ").text(one.actor.as_deref().unwrap_or("somebody")).put(" ");
    ago(html, one.at, debug.at);
    if let Some(reason) = &one.reason {
        html.put(": <q>").text(reason).put("</q>");
    }
    html.put(". It has ")
        .text(count(usize::try_from(one.routes).unwrap_or_default(), "route"))
        .put("; it would change:</p>");
    html.put("<ul class=\"diff\">");
    for change in one.diff.iter().take(SHOWN) {
        let (class, word) = match change.change {
            RouteOp::Added => ("added", "added"),
            RouteOp::Removed => ("removed", "removed"),
            RouteOp::Changed => ("changed", "changed"),
        };
        html.put("<li")
            .attr("class", class)
            .put("><span class=\"kind\">")
            .text(word)
            .put("</span> ")
            .text(&change.router);
        html.put(" <span class=\"quiet\">").text(&change.section).put("</span></li>");
    }
    html.put("</ul>");
    if one.diff.len() > SHOWN {
        html.put("<p class=\"quiet\">and more: <code>charliehub-provider withheld</code> has all of it.</p>");
    }
    if newest {
        decide(html, one.revision, viewer);
    } else {
        html.put("<p class=\"quiet\">Another one waits too: decide there.</p>");
    }
    html.put("</article>");
}

fn decide(html: &mut Html, revision: i64, viewer: &Viewer) {
    html.put("<form class=\"decide\" method=\"post\" action=\"/debug/decide\" autocomplete=\"off\"><input type=\"hidden\" name=\"proof\"");
    html.attr("value", &viewer.proof).put("><input type=\"hidden\" name=\"revision\"").attr("value", revision).put(">");
    let id = format!("token-{revision}");
    html.put("<p><label").attr("for", &id).put(">Token of an administrator");
    if viewer.admin {
        html.put(" <span class=\"quiet\">(empty: yours)</span>");
    }
    html.put("</label><input type=\"password\" name=\"token\" autocomplete=\"off\"").attr("id", &id);
    if !viewer.admin {
        html.put(" required");
    }
    let id = format!("reason-{revision}");
    html.put("></p><p><label")
        .attr("for", &id)
        .put(">Why <span class=\"quiet\">(for the audit)</span></label><input name=\"reason\" maxlength=\"200\"");
    html.attr("id", &id)
        .put("></p><p class=\"buttons\"><button name=\"decision\" value=\"approve\">Approve ")
        .text(revision);
    html.put("</button> <button name=\"decision\" value=\"discard\" class=\"danger\">Discard ")
        .text(revision)
        .put("</button></p></form>");
}

fn quarantined(html: &mut Html, debug: &Debug) {
    if debug.quarantined.is_empty() {
        return;
    }
    html.put("<details open")
        .attr("id", slug("quarantined"))
        .put("><summary>")
        .text(count(debug.quarantined.len(), "row"));
    html.put(" closed: each place answers 503, whatever stands beside it</summary><ul>");
    for one in debug.quarantined.iter().take(SHOWN) {
        html.put("<li><strong>")
            .text(&one.name)
            .put("</strong> <span class=\"quiet\">")
            .text(&one.table)
            .put("</span><br>");
        html.text(&one.reason).put("</li>");
    }
    html.put("</ul>");
    if debug.quarantined.len() > SHOWN {
        html.put("<p><a href=\"/debug?state=closed#routes\">All of them</a></p>");
    }
    html.put("</details>");
}
