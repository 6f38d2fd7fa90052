//! How commands speak: results on stdout, all else on stderr.

use std::io::{self, Write as _};

/// Prints a result. A reader that went away (`| head`) is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Says something to the person beside the result.
pub(super) fn hint(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// One line, whatever the error holds.
pub(super) fn error(error: &anyhow::Error) {
    let line = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    hint(&format!("error: {line}"));
}

/// Columns as wide as their widest cell, two spaces between.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let widest = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(widest).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
