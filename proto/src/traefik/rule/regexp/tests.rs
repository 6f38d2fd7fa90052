use proptest::prelude::*;

use super::*;

fn compiled(pattern: &str) -> regex::bytes::Regex {
    let translated = translate(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    regex::bytes::RegexBuilder::new(&translated)
        .nest_limit(2_000)
        .build()
        .unwrap_or_else(|e| panic!("{pattern} became {translated}: {e}"))
}

#[test]
fn it_matches_what_go_matches() {
    let table = [
        (r"^[^.]+\.a\.org\.?$", "b.a.org", true),
        (r"^[^.]+\.a\.org\.?$", "c.b.a.org", false),
        ("a{", "a{", true),
        ("a{,2}", "a{,2}", true),
        ("a{01}", "a{01}", true),
        (r"\<b\>", "<b>", true),
        (r"\Qa.b\E+", "a.bbb", true),
        (r"\Qa.b", "axb", false),
        ("[[a]", "[", true),
        ("[[:word:]-]", "-", true),
        ("[]a]", "]", true),
        ("^[a&&b]$", "&", true),
        ("^[a~~b]$", "~", true),
        (r"^\d$", "\u{661}", false),
        (r"^[\D]$", "x", true),
        (r"\x{41}\102\x43", "ABC", true),
        ("(?i)Straße", "sTRAßE", true),
        ("^(?i:a)b$", "AB", false),
        ("(?i)[^k]", "K", false),
        ("a(?i)*", "aaa", true),
        ("(?)a", "a", true),
        ("(?ii)a", "A", true),
        ("^.$", "\n", false),
        ("(?s)^.$", "\n", true),
        ("b$", "a\nb\nc", false),
        ("(?m)b$", "a\nb\nc", true),
        ("^*a", "a", true),
        ("(?P<1>a)", "a", true),
        ("(?<n>a)", "a", true),
        ("(?P<n>a)(?P<n>b)", "ab", true),
        (r"\p{^Greek}", "α", false),
        (r"^\pL$", "α", true),
        ("(|a)*b", "ab", true),
        (r"\bfoo\B", "food", true),
    ];
    for (pattern, text, matches) in table {
        assert_eq!(compiled(pattern).is_match(text.as_bytes()), matches, "{pattern} on {text:?}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    let table = [
        ("*a", 1, "nothing before it"),
        ("a**", 3, "parentheses"),
        ("a*+", 3, "parentheses"),
        ("(?i)*", 5, "nothing before it"),
        ("(a", 1, "without its )"),
        ("a)", 2, "without its ("),
        ("[a", 1, "without its ]"),
        ("[]", 1, "without its ]"),
        ("[a~~b--c]", 7, "before it begins"),
        ("[z-a]", 4, "before it begins"),
        ("[[:nope:]]", 1, "[:...:]"),
        (r"\1", 2, "back to a group"),
        (r"\8", 2, "escape"),
        (r"\C", 2, "escape"),
        (r"[\b]", 3, "escape"),
        (r"\", 1, "nothing behind it"),
        (r"\x4", 2, "\\x"),
        (r"\x{110000}", 2, "\\x"),
        ("(?=a)", 3, "flags"),
        ("(?i-)a", 5, "flags"),
        ("(?P=n)", 3, "flags"),
        ("a{1001}", 7, "1000"),
        ("a{2,1}", 6, "1000"),
        ("(a{100}){11}", 12, "1000"),
        (r"\p{Nope}", 2, "class"),
    ];
    for (pattern, at, part) in table {
        let error = translate(pattern).expect_err(pattern);
        assert!(error.reason.contains(part), "{pattern}: {error}");
        assert_eq!(error.at, at, "{pattern}: {error}");
    }
}

proptest! {
    /// What is accepted can be compiled, whatever it is.
    #[test]
    fn what_is_translated_compiles(pattern in r"([a-c.*+?|()\[\]\^$\\{},0-9:dwpQEimsU<>-]|\(\?i|\[\^|\\x4|\\p\{L)*{0,30}") {
        if translate(&pattern).is_ok() {
            compiled(&pattern);
        }
    }

    #[test]
    fn it_never_panics(pattern in any::<String>()) {
        drop(translate(&pattern));
    }
}
