//! Versions of OpenClaw: a year, a month and a number.

use std::fmt;
use std::str::FromStr;

/// Such as 2026.5.12. What follows a hyphen is left out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u32, pub u32, pub u32);

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers = text.trim().split('-').next().unwrap_or_default();
        let mut numbers = numbers
            .split('.')
            .map(|number| number.parse().map_err(drop));
        let mut next = || numbers.next().unwrap_or(Err(()));
        let version = Self(next()?, next()?, next()?);
        numbers.next().map_or(Ok(version), |_| Err(()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<Version>();
        assert!(parse("2026.4.21").unwrap() < parse("2026.5.2").unwrap());
        assert_eq!(parse("2026.5.14-beta.1\n"), Ok(Version(2026, 5, 14)));
        for text in ["", "2026.5", "2026.5.x", "2026.5.1.2", "latest"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
