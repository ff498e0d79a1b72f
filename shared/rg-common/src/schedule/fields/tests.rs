//! What crontab's words mean, and what is refused with which words.

use super::*;

fn set(numbers: &[u8]) -> u64 {
    numbers.iter().fold(0, |set, n| set | 1 << n)
}

#[test]
fn what_cannot_be_meant_is_refused_with_field_word_and_range() {
    for (text, message, hint) in [
        (
            "",
            "has 0 fields instead of five",
            "minute, hour, day of month, month, day of week, as in `0 2 * * *`",
        ),
        (
            "0 2 * *",
            "has 4 fields instead of five",
            "minute, hour, day of month, month, day of week, as in `0 2 * * *`",
        ),
        (
            "0 0 2 * * *",
            "has 6 fields instead of five",
            "crontab has five fields, no seconds and no command",
        ),
        (
            "60 2 * * *",
            "minute: `60` has 60, which is out of range; allowed: 0-59",
            "",
        ),
        (
            "0 24 * * *",
            "hour: `24` has 24, which is out of range; allowed: 0-23",
            "",
        ),
        (
            "0 0 0 * *",
            "day of month: `0` has 0, which is out of range; allowed: 1-31",
            "",
        ),
        (
            "0 0 1 13 *",
            "month: `13` has 13, which is out of range; allowed: 1-12 or jan-dec",
            "",
        ),
        (
            "0 0 * * 8",
            "day of week: `8` has 8, which is out of range; allowed: 0-7 (0 and 7 are Sunday) or sun-sat",
            "",
        ),
        (
            "0 0 * * monday",
            "day of week: `monday` has `monday`, which is no number or name; allowed: 0-7 (0 and 7 are Sunday) or sun-sat",
            "names have three letters: `mon`",
        ),
        (
            "0 22-2 * * *",
            "hour: `22-2` runs backwards; allowed: 0-23",
            "write two ranges: `22-23,0-2`",
        ),
        (
            "*/0 * * * *",
            "minute: `*/0` has a step of 0; allowed: 0-59",
            "",
        ),
        (
            "*/90 * * * *",
            "minute: `*/90` has a step of 90, beyond the field's end; allowed: 0-59",
            "a step counts within its field and starts anew with every round of it",
        ),
        (
            "*/x * * * *",
            "minute: `*/x` has the step `x`, which is no number; allowed: 0-59",
            "",
        ),
        (
            "1,,2 * * * *",
            "minute: `1,,2` has an empty item in its list; allowed: 0-59",
            "",
        ),
        (
            "+1 * * * *",
            "minute: `+1` has `+1`, which is no number or name; allowed: 0-59",
            "",
        ),
        (
            "0 0 ? * 1",
            "day of month: `?` has `?`, which is no number or name; allowed: 1-31",
            "crontab has no `?`; write `*`",
        ),
        (
            "0 0 31 2 *",
            "never happens: no month of `2` has a day of `31`",
            "",
        ),
        (
            "0 0 31 APR,JUN *",
            "never happens: no month of `APR,JUN` has a day of `31`",
            "",
        ),
        (
            "@reboot",
            "`@reboot` is no time of the clock",
            "name a time: a run that was missed is made up after the next start anyway",
        ),
        (
            "@every 1h",
            "`@every 1h` is not known",
            "known: @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually",
        ),
    ] {
        let error = Fields::parse(text).expect_err(text);
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hints().join(""), hint, "{text}");
    }
}

#[test]
fn weekdays_are_crontabs_and_may_run_over_sunday() {
    for (text, days) in [
        ("0", &[0][..]),
        ("7", &[0]),
        ("1", &[1]),
        ("1-5", &[1, 2, 3, 4, 5]),
        ("5-7", &[5, 6, 0]),
        ("FRI-SUN", &[5, 6, 0]),
        ("sat-mon", &[6, 0, 1]),
        ("6-1", &[6, 0, 1]),
        ("7-2", &[0, 1, 2]),
        ("0-7", &[0, 1, 2, 3, 4, 5, 6]),
        ("fri-tue/2", &[5, 0, 2]),
        ("*/2", &[0, 2, 4, 6]),
        ("1/2", &[1, 3, 5]),
        ("7/3", &[0, 3, 6]),
        ("Mon,thu", &[1, 4]),
    ] {
        assert_eq!(WEEKDAY.parse(text).expect(text), set(days), "{text}");
    }
}

#[test]
fn lists_ranges_and_steps_are_sets() {
    assert_eq!(MINUTE.parse("*/20,7").expect("valid"), set(&[0, 20, 40, 7]));
    assert_eq!(HOUR.parse("20/2").expect("valid"), set(&[20, 22]));
    assert_eq!(HOUR.parse("8-14/3").expect("valid"), set(&[8, 11, 14]));
    assert_eq!(
        MONTH.parse("nov,JAN-mar").expect("valid"),
        set(&[11, 1, 2, 3])
    );
}

#[test]
fn thirty_first_of_february_or_a_monday_is_every_monday_of_february() {
    assert!(Fields::parse("0 0 31 2 MON").is_ok());
}
