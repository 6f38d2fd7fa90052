//! Writes HTML of which only what is written in this program is markup: everything else is escaped.
//!
//! By construction: markup is `&'static str`, so nothing that was read can be taken for it.

use std::fmt::{Display, Write};

/// HTML being written.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    pub(super) fn new() -> Self {
        Self(String::with_capacity(32 << 10))
    }

    /// Markup of ours.
    pub(super) fn put(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// What was read, as text.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a string does not fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// ` name="value"`; the value is escaped.
    pub(super) fn attr(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.put(" ").put(name).put("=\"").text(value).put("\"")
    }

    /// `<tag>text</tag>`; the tag is ours and may have attributes.
    pub(super) fn tag(&mut self, open: &'static str, text: impl Display) -> &mut Self {
        self.put("<").put(open).put(">").text(text).put("</");
        self.put(open.split(' ').next().unwrap_or_default()).put(">")
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                // Control characters, and those that turn the direction of what is read.
                c if c.is_control()
                    || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    self.0.push('\u{fffd}');
                }
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_never_markup() {
        let mut html = Html::new();
        html.put("<p")
            .attr("title", "\" onmouseover='x'")
            .put(">")
            .text("<script>alert(1)</script> & \u{202e}gnp\0")
            .put("</p>");
        html.tag("td class=\"n\"", "</td>");
        assert_eq!(
            html.finish(),
            "<p title=\"&quot; onmouseover=&#39;x&#39;\">&lt;script&gt;alert(1)&lt;/script&gt; &amp; \u{fffd}gnp\u{fffd}</p>\
             <td class=\"n\">&lt;/td&gt;</td>"
        );
    }
}
