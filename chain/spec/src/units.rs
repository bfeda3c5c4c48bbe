//! Spans of time and parts of a whole, with their units in the text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds at most: 24 hours.
const LONGEST: u64 = 24 * 60 * 60 * 1000;

/// Units of time and their milliseconds, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A span of time from 1 ms to 24 h, in whole milliseconds. Text is a whole number and a unit: `500ms`, `10s`, `5m`, `1h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timespan(u64);

impl Timespan {
    /// A span of that many seconds.
    ///
    /// # Panics
    /// With 0, and with more than 24 hours; in a constant that is an error of the build.
    pub const fn seconds(seconds: u64) -> Self {
        assert!(seconds > 0 && seconds <= LONGEST / 1000);
        Self(seconds * 1000)
    }

    /// A span of that many milliseconds.
    ///
    /// # Panics
    /// As [`seconds`](Self::seconds).
    pub const fn milliseconds(milliseconds: u64) -> Self {
        assert!(milliseconds > 0 && milliseconds <= LONGEST);
        Self(milliseconds)
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// In the longest unit that it is a whole number of.
impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, length)| self.0.is_multiple_of(*length)) {
            Some((unit, length)) => write!(f, "{}{unit}", self.0 / length),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no span of time\nhelp: write a whole number and a unit, from `1ms` to `24h`: `500ms`, `10s`, `5m`"
)]
pub struct BadTimespan {
    /// The text.
    pub text: String,
}

impl FromStr for Timespan {
    type Err = BadTimespan;

    fn from_str(text: &str) -> Result<Self, BadTimespan> {
        let bad = || BadTimespan { text: text.to_owned() };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit) = text.split_at(digits);
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        let whole = number.checked_mul(*length).filter(|whole| (1..=LONGEST).contains(whole));
        whole.map(Self).ok_or_else(bad)
    }
}

/// A part of a whole from 0 % to 100 %, in hundredths of a percent. Text is a number and the sign: `20%`, `0.25%`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentage(u32);

impl Percentage {
    /// A part of so many hundredths of a percent; the whole when that is more.
    pub const fn from_hundredths(hundredths: u32) -> Self {
        Self(if hundredths > 10_000 { 10_000 } else { hundredths })
    }

    /// Hundredths of a percent, 0 to 10000.
    pub const fn hundredths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl fmt::Debug for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no percentage\nhelp: write a number from 0 to 100 and the sign, `20%`, with up to two digits behind the point"
)]
pub struct BadPercentage {
    /// The text.
    pub text: String,
}

impl FromStr for Percentage {
    type Err = BadPercentage;

    fn from_str(text: &str) -> Result<Self, BadPercentage> {
        let bad = || BadPercentage { text: text.to_owned() };
        let number = text.strip_suffix('%').ok_or_else(bad)?.trim_end_matches(' ');
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most| {
            (1..=most).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(part, 2) {
            return Err(bad());
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| bad());
        let hundredths = number(whole)? * 100 + number(part)? * if part.len() == 1 { 10 } else { 1 };
        if hundredths > 10_000 { Err(bad()) } else { Ok(Self(hundredths)) }
    }
}

/// Text or, to say what is missing of it, a bare number.
fn read<'de, D, T>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Text<T>(&'static str, std::marker::PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_any(Text(expecting, std::marker::PhantomData))
}

impl Serialize for Timespan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timespan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "a span of time, `10s`")
    }
}

impl Serialize for Percentage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "a percentage, `20%`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_back_in_its_longest_unit() {
        for (text, milliseconds, printed) in [
            ("10s", 10_000, "10s"),
            ("1500ms", 1500, "1500ms"),
            ("60s", 60_000, "1m"),
            ("24h", LONGEST, "24h"),
        ] {
            let span: Timespan = text.parse().unwrap();
            assert_eq!(span.duration(), Duration::from_millis(milliseconds));
            assert_eq!(span.to_string(), printed);
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for bad in [
            "",
            "10",
            "s",
            "10 s",
            "0s",
            "-1s",
            "1.5s",
            "25h",
            "10S",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(bad.parse::<Timespan>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_percentage_reads_back() {
        for (text, hundredths, printed) in
            [("20%", 2000, "20%"), ("0.5%", 50, "0.5%"), ("0.05 %", 5, "0.05%"), ("100.00%", 10_000, "100%")]
        {
            let part: Percentage = text.parse().unwrap();
            assert_eq!(part.hundredths(), hundredths);
            assert_eq!(part.to_string(), printed);
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for bad in ["", "%", "20", "-1%", "100.01%", "1.234%", ".5%", "5.%", "1e1%", "+1%", "٣%"] {
            assert!(bad.parse::<Percentage>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_number_is_told_its_unit() {
        let error = serde_json::from_str::<Timespan>("10").unwrap_err().to_string();
        assert!(error.starts_with("`10` is no span of time\nhelp: "), "{error}");
        let error = serde_json::from_str::<Percentage>("20").unwrap_err().to_string();
        assert!(error.starts_with("`20` is no percentage\nhelp: "), "{error}");
    }
}
