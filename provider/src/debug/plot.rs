//! Draws how long the last changes took to be live: a dot for each, on a scale of powers of ten. Pure.

use charliehub_proto::debug::LastChange;

use super::{html::Html, page::time::took};

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 24.0;
/// The ends of the scale, in seconds: nothing is faster than a reload, nobody waits longer without an alarm.
const FASTEST: f64 = 0.001;
const SLOWEST: f64 = 10.0;

/// The newest change is on the right. Nothing where no time is known.
pub(super) fn plot(html: &mut Html, changes: &[LastChange]) {
    let known: Vec<&LastChange> = changes.iter().rev().filter(|change| !change.live.is_empty()).collect();
    if known.is_empty() {
        html.put(
            "<p class=\"empty\">No change has been seen live yet: that takes a Traefik whose API is configured.</p>",
        );
        return;
    }
    let places = f64::from(u32::try_from(known.len()).unwrap_or(u32::MAX));
    let step = (WIDTH - LEFT - RIGHT) / places;
    html.put("<svg class=\"plot\" role=\"img\" aria-label=\"Time from commit to live of the last changes; the table below has the numbers\"");
    html.attr("viewBox", format_args!("0 0 {WIDTH} {HEIGHT}")).put(">");
    for (seconds, label) in [(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")] {
        let y = height(seconds);
        html.put("<line class=\"grid\"").attr("x1", LEFT).attr("x2", WIDTH - RIGHT);
        html.attr("y1", number(y)).attr("y2", number(y)).put("/>");
        html.put("<text class=\"tick\" text-anchor=\"end\"").attr("x", LEFT - 8.0).attr("y", number(y + 4.0));
        html.put(">").text(label).put("</text>");
    }
    let mut x = LEFT + step / 2.0;
    for (at, change) in known.iter().enumerate() {
        let slowest = change.live.iter().map(|live| live.seconds).fold(0.0, f64::max);
        html.put("<line class=\"stem\"").attr("x1", number(x)).attr("x2", number(x));
        html.attr("y1", HEIGHT - BOTTOM).attr("y2", number(height(slowest))).put("/>");
        for live in &change.live {
            html.put("<circle class=\"dot\" r=\"4\"").attr("cx", number(x)).attr("cy", number(height(live.seconds)));
            html.put("><title>revision ").text(change.commit.revision).put(": ").text(took(live.seconds));
            html.put(" on ").text(&live.instance).put("</title></circle>");
        }
        if at == 0 || at + 1 == known.len() {
            html.put("<text class=\"tick\" text-anchor=\"middle\"").attr("x", number(x)).attr("y", HEIGHT - 6.0);
            html.put(">").text(change.commit.revision).put("</text>");
        }
        x += step;
    }
    html.put("</svg>");
}

fn height(seconds: f64) -> f64 {
    let share = (seconds.clamp(FASTEST, SLOWEST) / FASTEST).log10() / (SLOWEST / FASTEST).log10();
    HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
}

fn number(n: f64) -> String {
    format!("{n:.1}")
}
