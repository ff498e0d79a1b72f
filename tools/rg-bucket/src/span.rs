//! Spans of time as they are typed: `90s`, `15m`, `1h`, `7d`.

use std::time::Duration;

use rg_common::{Failure, Result};

/// Reads one; the error says how they are written.
pub fn parse(text: &str) -> Result<Duration> {
    let bad =
        || Failure::new(format!("`{text}` is not a span of time")).hint("write 90s, 15m, 1h or 7d");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_span_of_time_is_refused() {
        for bad in [
            "",
            "1",
            "h",
            "1w",
            "1h30m",
            "-1h",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            parse("x").unwrap_err().to_string(),
            "`x` is not a span of time"
        );
        assert_eq!(parse("15m").unwrap(), Duration::from_secs(900));
        assert_eq!(parse("7d").unwrap(), Duration::from_secs(604_800));
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
    }
}
