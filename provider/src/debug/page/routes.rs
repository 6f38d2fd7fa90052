//! The routes, a page at a time, with a filter.

use charliehub_proto::{
    debug::{Debug, RouteLine},
    route::RouteState,
};

use crate::debug::html::Html;

/// As in the query, and as a class of the style.
pub(super) fn state_word(state: RouteState) -> &'static str {
    match state {
        RouteState::Live => "live",
        RouteState::Maintenance => "maintenance",
        RouteState::Closed => "closed",
        RouteState::Off => "off",
    }
}

pub(super) fn section(html: &mut Html, debug: &Debug) {
    let routes = &debug.routes;
    html.put(
        "<section id=\"routes\" class=\"card\" aria-labelledby=\"routes-title\"><h2 id=\"routes-title\">Routes</h2>",
    );
    html.put("<form class=\"filter\" method=\"get\" action=\"/debug#routes\" role=\"search\" aria-label=\"Routes\"><p><label for=\"q\">Name, backend, owner or site</label><input type=\"search\" id=\"q\" name=\"q\" maxlength=\"200\"");
    html.attr("value", routes.filter.as_deref().unwrap_or_default()).put(
        "></p><p><label for=\"state\">State</label><select id=\"state\" name=\"state\"><option value=\"\">any</option>",
    );
    for state in [RouteState::Live, RouteState::Maintenance, RouteState::Closed, RouteState::Off] {
        html.put("<option").attr("value", state_word(state));
        if routes.state == Some(state) {
            html.put(" selected");
        }
        html.put(">").text(state_word(state)).put("</option>");
    }
    html.put("</select></p><p><button>Filter</button>");
    if routes.filter.is_some() || routes.state.is_some() {
        html.put(" <a href=\"/debug#routes\">all</a>");
    }
    html.put("</p></form><div id=\"lines\" data-live>");
    lines(html, debug);
    html.put("</div></section>");
}

fn lines(html: &mut Html, debug: &Debug) {
    let routes = &debug.routes;
    if routes.page.is_empty() {
        html.put("<p class=\"empty\">");
        match &debug.database.trouble {
            Some(trouble) => html.text(trouble).put("."),
            None if routes.filter.is_some() || routes.state.is_some() => html.put("No route is like that."),
            None => html.put("There is no route yet. Add one: <code>charliehub-provider domains add www.example.org --backend 10.0.0.7:8080</code>"),
        };
        html.put("</p>");
        return;
    }
    html.put("<div class=\"scroll\"><table class=\"routes\"><caption class=\"unseen\">Rows in the order of their names, then fragments</caption><thead><tr><th scope=\"col\">Route</th><th scope=\"col\">State</th><th scope=\"col\">To</th><th scope=\"col\">Who gets in</th><th scope=\"col\">Site, owner</th></tr></thead><tbody>");
    for one in &routes.page {
        line(html, one);
    }
    html.put("</tbody></table></div>");
    if let Some(next) = &routes.next {
        html.put("<p class=\"pages\"><a rel=\"next\"")
            .attr("href", format_args!("/debug?{}#routes", next_query(debug, next)));
        html.put(">Next page</a></p>");
    }
}

fn next_query(debug: &Debug, next: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(filter) = &debug.routes.filter {
        query.append_pair("q", filter);
    }
    if let Some(state) = debug.routes.state {
        query.append_pair("state", state_word(state));
    }
    query.append_pair("cursor", next).finish()
}

fn line(html: &mut Html, one: &RouteLine) {
    let state = state_word(one.state);
    html.put("<tr").attr("class", state).put("><th scope=\"row\">").text(&one.name);
    if one.kind != "domain" {
        html.put(" <span class=\"quiet\">").text(&one.kind).put("</span>");
    }
    if let Some(notes) = &one.notes {
        html.put("<p class=\"notes\">").text(notes).put("</p>");
    }
    html.put("</th><td><span").attr("class", format_args!("state {state}")).put(">").text(state).put("</span>");
    if let Some(reason) = &one.reason {
        html.put("<p class=\"notes\">").text(reason).put("</p>");
    }
    for trouble in &one.troubles {
        html.put("<p class=\"notes\"><span class=\"state broken\">not everywhere</span> ").text(trouble).put("</p>");
    }
    if let Some(message) = one.maintenance_message.as_ref().filter(|_| one.state == RouteState::Maintenance) {
        html.put("<p class=\"notes\">says <q>").text(message).put("</q></p>");
    }
    html.put("</td><td>").text(&one.to);
    if one.protocol.as_deref() == Some("tcp") && !one.to.starts_with("tcp:") {
        html.put(" <span class=\"quiet\">tcp</span>");
    }
    for server in &one.servers {
        html.put("<p class=\"notes\"><span")
            .attr("class", if server.up { "state ok" } else { "state broken" })
            .put(">");
        html.put(if server.up { "up" } else { "down" }).put("</span> ").text(&server.url).put("</p>");
    }
    html.put("</td><td>").text(one.access.as_deref().unwrap_or_default()).put("</td><td>");
    html.text(one.site.as_deref().unwrap_or_default());
    if let Some(owner) = &one.owner {
        html.put(if one.site.is_some() { ", " } else { "" }).text(owner);
    }
    html.put("</td></tr>");
}
