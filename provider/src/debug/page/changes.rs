//! The last changes: how long each took to be live, who made it and why.

use charliehub_proto::{
    debug::{Debug, LastChange},
    revision::SnapshotState,
};

use super::time::{ago, took};
use crate::debug::{html::Html, plot::plot, verdict::count};

/// Lines; the plot has more.
const LINES: usize = 6;

pub(super) fn section(html: &mut Html, debug: &Debug) {
    html.put("<section id=\"changes\" data-live class=\"card\" aria-labelledby=\"changes-title\"><h2 id=\"changes-title\">The last changes</h2>");
    if debug.changes.is_empty() {
        html.put("<p class=\"empty\">None that can be read.</p></section>");
        return;
    }
    html.put("<div class=\"beside\"><figure><figcaption>From commit to live, in each Traefik");
    if let Some(half) = median(&debug.changes) {
        html.put(": half of them within <strong>").text(took(half)).put("</strong>");
    }
    html.put("</figcaption>");
    plot(html, &debug.changes);
    html.put("</figure><div class=\"scroll\"><table><caption class=\"unseen\">The last changes</caption><thead><tr><th scope=\"col\">Revision</th><th scope=\"col\">Who and why</th><th scope=\"col\">When</th><th scope=\"col\">Live after</th></tr></thead><tbody>");
    for change in debug.changes.iter().take(LINES) {
        line(html, change, debug);
    }
    html.put("</tbody></table></div></div></section>");
}

fn line(html: &mut Html, change: &LastChange, debug: &Debug) {
    let commit = &change.commit;
    html.put("<tr>")
        .tag("th scope=\"row\"", commit.revision)
        .put("<td>")
        .text(&commit.actor)
        .put(" <span class=\"quiet\">");
    html.text(&commit.source)
        .put(", ")
        .text(count(usize::try_from(change.rows).unwrap_or_default(), "row"))
        .put("</span>");
    if let Some(reason) = &commit.reason {
        html.put("<br>").text(reason);
    }
    html.put("</td><td>");
    ago(html, commit.at, debug.at);
    html.put("</td><td>");
    match (change.live.as_slice(), commit.state) {
        ([], Some(SnapshotState::Withheld)) => drop(html.put("<span class=\"state attention\">waits</span>")),
        ([], Some(SnapshotState::Discarded)) => drop(html.put("<span class=\"quiet\">discarded</span>")),
        ([], _) => drop(html.put("<span class=\"quiet\" title=\"not seen, or nothing changed for Traefik\">–</span>")),
        (live, _) => {
            for (at, one) in live.iter().enumerate() {
                html.put(if at > 0 { "<br>" } else { "" })
                    .text(took(one.seconds))
                    .put(" <span class=\"quiet\">")
                    .text(&one.instance)
                    .put("</span>");
            }
        }
    }
    html.put("</td></tr>");
}

/// Half of all times are at most this.
fn median(changes: &[LastChange]) -> Option<f64> {
    let mut times: Vec<f64> = changes.iter().flat_map(|change| &change.live).map(|live| live.seconds).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len().saturating_sub(1) / 2).copied()
}
