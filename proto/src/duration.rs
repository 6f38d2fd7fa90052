//! Durations as people write them in settings, queries and policies.

use std::time::Duration;

/// A whole number above 0 and its unit: `500ms`, `55s`, `10m`, `12h`, `30d`.
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// For `#[serde(with = "duration::text")]`: a field that is written as [`parse`] reads it.
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no duration: write `500ms`, `30s`, `10m`, `26h` or `95d`"))
        })
    }

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}ms", duration.as_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_above_0_and_its_unit() {
        for (text, read) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("95d", Some(Duration::from_hours(95 * 24))),
            ("0s", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("1.5h", None),
        ] {
            assert_eq!(parse(text), read, "{text}");
        }
    }
}
