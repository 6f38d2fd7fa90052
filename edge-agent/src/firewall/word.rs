//! The words of a rule, as iptables splits and quotes them.
//!
//! iptables-save quotes with `"` only, and writes `\` before `"`, `'` and `\` within. Pure.

/// A word, and whether it was in quotes: what is quoted is a value, also when it begins with a hyphen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) is_quoted: bool,
}

impl Word {
    /// It begins an option: `-s`, `--dport`. `!` is none.
    pub(crate) fn is_option(&self) -> bool {
        !self.is_quoted && self.text.len() > 1 && self.text.starts_with('-')
    }

    pub(crate) fn is_not(&self) -> bool {
        !self.is_quoted && self.text == "!"
    }
}

/// Splits a line. None when a quote is never closed.
pub(crate) fn split(line: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut is_inside = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if is_inside {
            let current = word.get_or_insert_with(|| Word { text: String::new(), is_quoted: true });
            match character {
                '"' => is_inside = false,
                '\\' => current.text.push(characters.next()?),
                other => current.text.push(other),
            }
            continue;
        }
        match character {
            '"' => {
                is_inside = true;
                word.get_or_insert_with(|| Word { text: String::new(), is_quoted: true }).is_quoted = true;
            }
            ' ' | '\t' | '\r' => words.extend(word.take()),
            other => word.get_or_insert_with(|| Word { text: String::new(), is_quoted: false }).text.push(other),
        }
    }
    words.extend(word);
    (!is_inside).then_some(words)
}

/// As a line of iptables-save.
pub(crate) fn line<'a>(words: impl IntoIterator<Item = &'a Word>) -> String {
    joined(words, |word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "!+-./:,_=@%#()[]{}~*".contains(c);
        if !word.is_quoted && !word.text.is_empty() && word.text.chars().all(plain) {
            return word.text.clone();
        }
        let escape = |c: char| if matches!(c, '"' | '\\' | '\'') { format!("\\{c}") } else { c.to_string() };
        format!("\"{}\"", word.text.chars().map(escape).collect::<String>())
    })
}

/// As arguments in a shell.
pub(crate) fn arguments<'a>(words: impl IntoIterator<Item = &'a Word>) -> String {
    joined(words, |word| shell(&word.text))
}

/// One argument in a shell.
pub(crate) fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-./:,_=@%".contains(c);
    if text == "!" || (!text.is_empty() && text.chars().all(plain)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn joined<'a>(words: impl IntoIterator<Item = &'a Word>, print: impl Fn(&Word) -> String) -> String {
    let mut all = String::new();
    for word in words {
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&print(word));
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_are_those_of_iptables_save() {
        let words = split(r#"-m comment --comment "wg \"uk\" \\ back\'s" -j DROP"#).unwrap();
        assert_eq!(words[3].text, r#"wg "uk" \ back's"#);
        assert_eq!(line(&words), r#"-m comment --comment "wg \"uk\" \\ back\'s" -j DROP"#);
        assert_eq!(arguments(&words), r#"-m comment --comment 'wg "uk" \ back'\''s' -j DROP"#);
        assert_eq!(split(r#"--comment "open"#), None);
        assert_eq!(split("a\tb  ").map(|words| words.len()), Some(2));
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(texts in proptest::collection::vec(("[ -~äé]{0,12}", any::<bool>()), 0..8)) {
            let words: Vec<Word> = texts.into_iter().map(|(text, is_quoted)| Word { text, is_quoted }).collect();
            let read = split(&line(&words)).unwrap();
            let text = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
            prop_assert_eq!(text(&read), text(&words));
        }

        #[test]
        fn any_line_is_read_without_a_panic(line in ".{0,200}") {
            split(&line);
        }
    }
}
