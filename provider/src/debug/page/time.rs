//! Times and durations as people read them.

use jiff::{Timestamp, Unit};

use crate::debug::html::Html;

/// `8.4 ms`, `2.3 s`, `4 min`, `3 h`, `12 d`.
pub(in crate::debug) fn took(seconds: f64) -> String {
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// `3 min ago`, with the moment itself for machines and on hover.
pub(in crate::debug) fn ago(html: &mut Html, at: Timestamp, now: Timestamp) {
    let seconds = at.until(now).map_or(0.0, |span| span.total(Unit::Second).unwrap_or(0.0)).max(0.0);
    html.put("<time data-ago").attr("datetime", at).attr("title", at.strftime("%Y-%m-%d %H:%M:%S UTC")).put(">");
    if seconds < 1.0 {
        html.put("just now");
    } else {
        html.text(took(seconds)).put(" ago");
    }
    html.put("</time>");
}

/// `14:03:07`, UTC: as the logs have it.
pub(in crate::debug) fn clock(html: &mut Html, at: Timestamp) {
    html.put("<time").attr("datetime", at).attr("title", at.strftime("%Y-%m-%d %H:%M:%S UTC")).put(">");
    html.text(at.strftime("%H:%M:%S")).put(" UTC</time>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_unit_that_people_would_use() {
        for (seconds, text) in [
            (0.0084, "8.4 ms"),
            (0.123, "123 ms"),
            (2.345, "2.3 s"),
            (61.0, "61 s"),
            (240.0, "4 min"),
            (7200.0, "2 h"),
            (900_000.0, "10 d"),
        ] {
            assert_eq!(took(seconds), text);
        }
    }
}
