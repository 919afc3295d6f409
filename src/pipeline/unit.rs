//! Values that are written as text with a unit: durations, sizes and points in time.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::base::time::EventTime;

/// Key under which the schema says that a text has a unit: `duration`, `size` or `time`.
pub(super) const UNIT: &str = "x-unit";

/// A span of time as text with a unit: `"100ms"`, `"5m"`, `"1h 30m"`, `"365d"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Length {
    /// As the user wrote it.
    pub text: String,
    /// What it means.
    pub value: Duration,
}

/// A number of bytes as text with a unit: `"64MiB"`, `"1GB"`, `"512kB"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    /// As the user wrote it.
    pub text: String,
    /// Bytes.
    pub bytes: u64,
}

/// A point in time as RFC 3339 text: `"2018-06-01T00:00:00Z"`. Without a zone it is UTC, without a time of day midnight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment {
    /// As the user wrote it.
    pub text: String,
    /// When.
    pub value: EventTime,
}

impl TryFrom<String> for Length {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // A bare "0" has no unit: humantime takes it, the contract ("text with a unit") does not.
        if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("it has no unit".to_owned());
        }
        let value = humantime::parse_duration(&text).map_err(|_| "it is not a number with a unit of time".to_owned())?;
        Ok(Length { text, value })
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let factor: u64 = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "" => return Err("it has no unit".to_owned()),
            _ => return Err("it is not a whole number with a unit of size".to_owned()),
        };
        let bytes = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .ok_or_else(|| "it is not a whole number with a unit of size".to_owned())?;
        Ok(Size { text, bytes })
    }
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let at = text.trim();
        let micros = DateTime::parse_from_rfc3339(at)
            .map(|time| time.timestamp_micros())
            .or_else(|_| NaiveDateTime::parse_from_str(at, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc().timestamp_micros()))
            .or_else(|_| NaiveDateTime::parse_from_str(at, "%Y-%m-%d %H:%M:%S%.f").map(|time| time.and_utc().timestamp_micros()))
            .ok()
            .or_else(|| {
                let date = NaiveDate::parse_from_str(at, "%Y-%m-%d").ok()?;
                Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
            })
            .ok_or_else(|| "it is not an RFC 3339 time".to_owned())?;
        let value = EventTime(micros).in_range().ok_or_else(|| "it lies outside 1900 to 2200".to_owned())?;
        Ok(Moment { text, value })
    }
}

impl From<Length> for String {
    fn from(length: Length) -> String {
        length.text
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.text
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.text
    }
}

impl JsonSchema for Length {
    fn schema_name() -> Cow<'static, str> {
        "Length".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-unit": "duration", "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*[A-Za-zµ]+" })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-unit": "size", "pattern": "^\\s*[0-9]+\\s*([kKMGT]B|[KMGT]iB|B)\\s*$" })
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-unit": "time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        for (text, millis) in [("0s", 0), ("100ms", 100), ("5m", 300_000), ("1h 30m", 5_400_000), ("365d", 31_536_000_000)] {
            assert_eq!(Length::try_from(text.to_owned()).unwrap().value, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "0", "m", "5 parsecs", "-5s", "5s later"] {
            assert!(Length::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_tell_powers_of_two_from_powers_of_ten() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1 GB", 1_000_000_000), ("512kB", 512_000), ("7B", 7)] {
            assert_eq!(Size::try_from(text.to_owned()).unwrap().bytes, bytes, "{text}");
        }
        for text in ["", "64", "MiB", "64 MIB", "-1MB", "1.5GB", "99999999999TiB"] {
            assert!(Size::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_without_a_zone_are_utc() {
        let midnight = EventTime(1_527_811_200_000_000);
        for text in ["2018-06-01", "2018-06-01T00:00:00", "2018-06-01T00:00:00Z", "2018-06-01T02:00:00+02:00", "2018-06-01 00:00:00"] {
            assert_eq!(Moment::try_from(text.to_owned()).unwrap().value, midnight, "{text}");
        }
        for text in ["", "June", "2018-13-01", "1066-10-14"] {
            assert!(Moment::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
