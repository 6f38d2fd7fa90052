//! What stands in the operator's handbook (`deploy/README.md`), for stories that do it.

use crate::deployed;

/// A block of code: its language and text.
pub type Block = (String, String);

/// The blocks below a heading of the first rank.
pub fn handbook(heading: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(deployed("README.md")).expect("the handbook");
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no chapter {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let fenced = section.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .map(|(language, text)| (language.to_owned(), text.to_owned()))
        .collect()
}

/// A text in which each of these is replaced; it must be there.
pub fn replaced(text: &str, pairs: &[(&str, String)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in: {text}");
        text.replace(from, to)
    })
}
