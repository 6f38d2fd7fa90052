//! What stands around every page: head, banner, foot.

use charliehub_proto::debug::Debug;

use super::Viewer;
use crate::debug::{SCRIPT, STYLE, html::Html, version};

pub(super) fn head(html: &mut Html, title: &str, viewer: Option<&Viewer>) {
    html.put("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>")
        .text(title)
        .put(" · CharlieHub edge</title>");
    html.put("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">");
    html.put("<link rel=\"icon\" href=\"/debug/icon.svg\" type=\"image/svg+xml\"><link rel=\"stylesheet\"");
    html.attr("href", format_args!("/debug/style.css?v={}", version(STYLE).get(..12).unwrap_or_default())).put(">");
    if viewer.is_some() {
        html.put("<script defer")
            .attr("src", format_args!("/debug/app.js?v={}", version(SCRIPT).get(..12).unwrap_or_default()))
            .put("></script>");
    }
    html.put("</head><body><a class=\"skip\" href=\"#main\">To the content</a><header><p class=\"brand\"><a href=\"/debug\">CharlieHub <span>edge</span></a></p>");
    if let Some(viewer) = viewer {
        html.put("<nav aria-label=\"Sections\"><a href=\"#traefiks\">Traefiks</a><a href=\"#changes\">Changes</a><a href=\"#routes\">Routes</a><a href=\"#tester\">Test a URL</a><a href=\"#events\">Events</a></nav>");
        html.put("<p class=\"who\"><span id=\"stream\" class=\"stream\" hidden></span> <span>")
            .text(&viewer.name)
            .put(" <span class=\"quiet\">");
        html.text(viewer.role).put("</span></span></p>");
        if viewer.signed_in {
            html.put("<form method=\"post\" action=\"/debug/sign-out\"><input type=\"hidden\" name=\"proof\"");
            html.attr("value", &viewer.proof).put("><button class=\"plain\">Sign out</button></form>");
        }
    }
    html.put("</header>");
}

pub(super) fn foot(html: &mut Html, debug: &Debug) {
    html.put("<footer><p>charliehub-provider ").text(&debug.version).put(
        " · <a href=\"/debug.json\">the same as data</a> · <a href=\"/debug\">reload</a></p></footer></body></html>",
    );
}

pub(super) fn foot_of_form(html: &mut Html) {
    html.put("</body></html>");
}
