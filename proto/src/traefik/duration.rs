//! Durations as Traefik reads them: Go's notation (`10s`, `1m30s`, `1.5h`, `-1s`), or whole seconds without a unit.
//!
//! Written the way Go writes them (`1m30s`, `1h0m0s`), which is also how Traefik's API shows them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::options::Field;

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000 * MICROSECOND;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A signed time span in nanoseconds, up to 292 years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(i64);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write 10s, 1m30s, 500ms, or a whole number of seconds")]
pub struct NotADuration;

impl Duration {
    /// None above 292 years.
    pub const fn from_secs(seconds: i64) -> Option<Self> {
        match seconds.checked_mul(SECOND) {
            Some(nanoseconds) => Some(Self(nanoseconds)),
            None => None,
        }
    }

    pub const fn from_millis(milliseconds: i32) -> Self {
        Self(milliseconds as i64 * MILLISECOND)
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        if let Ok(seconds) = text.parse() {
            return Self::from_secs(seconds).ok_or(NotADuration);
        }
        let (sign, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let number;
            let unit;
            (number, rest) = split(rest, |c| c == '.' || c.is_ascii_digit());
            (unit, rest) = split(rest, |c| c != '.' && !c.is_ascii_digit());
            let part = sign * amount(number, nanoseconds(unit).ok_or(NotADuration)?).ok_or(NotADuration)?;
            total = total.checked_add(part).ok_or(NotADuration)?;
        }
        if text.is_empty() || text == "-" || text == "+" { Err(NotADuration) } else { Ok(Self(total)) }
    }
}

/// The longest start of `text` whose characters pass, and the rest.
fn split(text: &str, pass: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !pass(c)).unwrap_or(text.len()))
}

/// `1.25` of a unit, cut to whole nanoseconds.
fn amount(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut total = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.checked_mul(unit)? };
    let mut scale = unit;
    for digit in fraction.chars() {
        scale /= 10;
        total = total.checked_add(i64::from(digit.to_digit(10)?) * scale)?;
    }
    Some(total)
}

fn nanoseconds(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let total = self.0.unsigned_abs();
        let unit = |nanoseconds: i64| nanoseconds.unsigned_abs();
        if total == 0 {
            return f.write_str("0s");
        }
        for (limit, size, name) in
            [(MICROSECOND, 1, "ns"), (MILLISECOND, MICROSECOND, "µs"), (SECOND, MILLISECOND, "ms")]
        {
            if total < unit(limit) {
                return decimal(f, total, unit(size), name);
            }
        }
        if total >= unit(HOUR) {
            write!(f, "{}h", total / unit(HOUR))?;
        }
        if total >= unit(MINUTE) {
            write!(f, "{}m", total % unit(HOUR) / unit(MINUTE))?;
        }
        decimal(f, total % unit(MINUTE), unit(SECOND), "s")
    }
}

/// `total` in `unit`s with as many decimals as needed: `1.5s`.
fn decimal(f: &mut fmt::Formatter<'_>, total: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", total / unit)?;
    let fraction = (total % unit + unit).to_string(); // the leading 1 keeps the zeros
    let fraction = fraction.get(1..).unwrap_or("").trim_end_matches('0');
    if !fraction.is_empty() {
        write!(f, ".{fraction}")?;
    }
    f.write_str(name)
}

impl Field for Duration {
    fn absent(&self) -> bool {
        false
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"10s\", or a whole number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
                Duration::from_secs(seconds).ok_or_else(|| E::custom(NotADuration))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
                i64::try_from(seconds).map_err(E::custom).and_then(|seconds| self.visit_i64(seconds))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads_and_writes_what_go_writes() {
        for (text, written) in [
            ("10s", "10s"),
            ("10", "10s"),
            ("0", "0s"),
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("1h30m5.25s", "1h30m5.25s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
            ("-1s", "-1s"),
            (".5s", "500ms"),
            ("+2m", "2m0s"),
            ("1s1s", "2s"),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), written, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in ["", "-", "s", "1", "1.5", ".s", "1 s", "1d", "1s ", "10S", "1..5s", "--1s", "9999999999h", "ten"] {
            let refused = text.parse::<Duration>().is_err();
            assert_eq!(refused, text != "1", "{text}");
        }
        assert!(serde_json::from_str::<Duration>("9223372036854775807").is_err());
        assert!(serde_json::from_str::<Duration>("1.5").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanoseconds in -i64::MAX..i64::MAX) {
            let duration = Duration(nanoseconds);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }
    }
}
