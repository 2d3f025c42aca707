//! Values with a unit, as people write them: `"30d"`, `"1MiB"`, `"100/s"`, `"10.0.0.0/8"`.
//!
//! Fields hold the plain type ([`Duration`], [`ByteSize`], [`RateLimit`], [`IpNet`]); the serde modules
//! here (`duration`, `duration_opt`, …) read and write the text form, with errors that show how to write it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Reads a duration such as `500ms`, `5s`, `1h30m` or `30d`.
///
/// # Errors
/// A sentence that repeats the text and shows the form wanted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        format!(
            "{text:?} is not a duration; write a number with a unit, such as \"500ms\", \"5s\" or \"30d\""
        )
    })
}

/// Writes a duration without spaces, largest unit first, never in months or years (`90d`, `1m30s`, `500ms`).
///
/// Reading it back with [`parse_duration`] gives the same duration. Delay tiers use this form in topic names.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nanos = duration.subsec_nanos();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let text: String = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads any type from text through its own parser; `what` is the form wanted when it is no text at all.
struct TextVisitor<T> {
    what: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

/// The serde form of one duration; the modules below lift it into options and lists.
struct Human(Duration);

impl<'de> Deserialize<'de> for Human {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor =
            TextVisitor { what: "a duration with a unit, such as \"5s\"", parse: parse_duration };
        deserializer.deserialize_str(visitor).map(Self)
    }
}

impl Serialize for Human {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(self.0))
    }
}

/// `#[serde(with)]` for a [`Duration`].
pub(super) mod duration {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        Human(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Human::deserialize(deserializer).map(|human| human.0)
    }
}

/// `#[serde(with)]` for an optional [`Duration`].
pub(super) mod duration_opt {
    use super::*;

    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Human).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<Human>::deserialize(deserializer).map(|human| human.map(|human| human.0))
    }
}

/// `#[serde(with)]` for a list of [`Duration`]s.
pub(super) mod duration_list {
    use super::*;

    pub fn serialize<S: Serializer>(value: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().copied().map(Human))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let list = Vec::<Human>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|human| human.0).collect())
    }
}

/// `#[serde(with)]` for an optional list of [`Duration`]s.
pub(super) mod duration_list_opt {
    use super::*;

    pub fn serialize<S: Serializer>(
        value: &Option<Vec<Duration>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let list = value.as_ref().map(|list| list.iter().copied().map(Human).collect::<Vec<_>>());
        list.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Duration>>, D::Error> {
        let list = Option::<Vec<Human>>::deserialize(deserializer)?;
        Ok(list.map(|list| list.into_iter().map(|human| human.0).collect()))
    }
}

/// `#[serde(with)]` for a listening address.
pub(super) mod listen {
    use super::*;

    pub fn serialize<S: Serializer>(value: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        deserializer.deserialize_str(TextVisitor {
            what: "an address such as \"0.0.0.0:8080\"",
            parse: |text| {
                text.parse().map_err(|_| {
                    format!(
                        "{text:?} is not a listening address; write IP:PORT, such as \"0.0.0.0:8080\""
                    )
                })
            },
        })
    }
}

/// `#[serde(with)]` for networks; a bare address stands for itself alone.
pub(super) mod networks {
    use super::*;

    struct Network(IpNet);

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let visitor = TextVisitor {
                what: "a network such as \"10.0.0.0/8\"",
                parse: |text| {
                    text.parse::<IpNet>()
                        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                        .map(Network)
                        .map_err(|_| {
                            format!(
                                "{text:?} is not a network; write CIDR such as \"10.0.0.0/8\", or one address"
                            )
                        })
                },
            };
            deserializer.deserialize_str(visitor)
        }
    }

    pub fn serialize<S: Serializer>(value: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        let list = Vec::<Network>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|network| network.0).collect())
    }
}

/// A number of bytes, written as an integer or with a unit (`"512KiB"`, `"1MiB"`, `"2MB"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 8] = [
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
    ("", 1),
];

impl ByteSize {
    /// `count` kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes as a length in memory, saturating on 32-bit machines.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (unit, bytes) in units {
            if self.0 > 0 && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let unit = unit.trim().to_ascii_lowercase();
        let count = digits.parse::<u64>().ok();
        let bytes = BYTE_UNITS.iter().find(|(name, _)| *name == unit);
        match (count, bytes) {
            (Some(count), Some((_, bytes))) => count
                .checked_mul(*bytes)
                .map(Self)
                .ok_or_else(|| format!("{text:?} is too large a size")),
            _ => Err(format!(
                "{text:?} is not a size; write bytes as a whole number, or with a unit such as \"512KiB\" or \"1MiB\""
            )),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"1MiB\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::custom("a size is never negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// At most `count` requests in each span of `per`, written `"100/s"`, `"1000/m"` or `"50/10s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in one span.
    pub count: NonZeroU32,
    /// Length of the span; never zero.
    pub per: Duration,
}

impl RateLimit {
    /// `count` requests a second; a count of zero is read as one.
    pub const fn per_second(count: u32) -> Self {
        let count = match NonZeroU32::new(count) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        };
        Self { count, per: Duration::from_secs(1) }
    }
}

const RATE_UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATE_UNITS.iter().find(|(_, seconds)| self.per == Duration::from_secs(*seconds));
        match unit {
            Some((unit, _)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{}/{}", self.count, format_duration(self.per)),
        }
    }
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let count = parts.and_then(|(count, _)| count.trim().parse::<NonZeroU32>().ok());
        let per = parts.and_then(|(_, per)| {
            let per = per.trim();
            RATE_UNITS
                .iter()
                .find(|(unit, _)| *unit == per)
                .map(|(_, seconds)| Duration::from_secs(*seconds))
                .or_else(|| parse_duration(per).ok())
                .filter(|per| !per.is_zero())
        });
        match (count, per) {
            (Some(count), Some(per)) => Ok(Self { count, per }),
            _ => Err(format!(
                "{text:?} is not a rate; write COUNT/UNIT with a count above 0, such as \"100/s\" or \"1000/m\""
            )),
        }
    }
}

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RateLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(TextVisitor { what: "a rate such as \"100/s\"", parse: str::parse })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_formatted_duration_reads_back_as_itself() {
        for (text, canonical) in [
            ("90d", "90d"),
            ("90s", "1m30s"),
            ("32m", "32m"),
            ("1h 30m", "1h30m"),
            ("1500ms", "1s500ms"),
            ("1us", "1us"),
            ("7ns", "7ns"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_duration(duration), canonical);
            assert_eq!(parse_duration(canonical).unwrap(), duration);
        }
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert!(parse_duration("5").unwrap_err().contains("\"5s\""));
    }

    #[test]
    fn sizes_read_with_and_without_units() {
        assert_eq!("1MiB".parse(), Ok(ByteSize::mib(1)));
        assert_eq!("15 MiB".parse(), Ok(ByteSize::mib(15)));
        assert_eq!("32kib".parse(), Ok(ByteSize::kib(32)));
        assert_eq!("2MB".parse(), Ok(ByteSize(2_000_000)));
        assert_eq!("77".parse(), Ok(ByteSize(77)));
        for wrong in ["", "MiB", "1.5MiB", "-1", "1 zib", "99999999999GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
        assert_eq!(ByteSize::kib(1536).to_string(), "1536KiB");
        assert_eq!(ByteSize(1).to_string(), "1B");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn rates_read_with_unit_or_span() {
        let per_minute: RateLimit = "1000/m".parse().unwrap();
        assert_eq!(per_minute.count.get(), 1000);
        assert_eq!(per_minute.per, Duration::from_secs(60));
        assert_eq!(per_minute.to_string(), "1000/m");
        assert_eq!("50/10s".parse::<RateLimit>().unwrap().to_string(), "50/10s");
        for wrong in ["", "10", "0/s", "-1/s", "10/", "10/0s", "x/s"] {
            assert!(wrong.parse::<RateLimit>().is_err(), "{wrong}");
        }
    }
}
