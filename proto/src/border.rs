//! Checks shared by all conversions from the wire.

use std::net::SocketAddr;

use crate::limits::{MAX_NAME_BYTES, MAX_TEXT_BYTES};

/// A message broke the contract; maps to gRPC `INVALID_ARGUMENT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}.{field} {problem}")]
pub struct Malformed {
    message: &'static str,
    field: &'static str,
    problem: String,
}

/// The message being converted; names it in every complaint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Border(pub(crate) &'static str);

impl Border {
    pub(crate) fn malformed(self, field: &'static str, problem: impl Into<String>) -> Malformed {
        Malformed { message: self.0, field, problem: problem.into() }
    }

    /// A field without which the message means nothing.
    pub(crate) fn required<T>(self, field: &'static str, value: Option<T>) -> Result<T, Malformed> {
        value.ok_or_else(|| self.malformed(field, "is missing"))
    }

    /// A name: not empty, not longer than [`MAX_NAME_BYTES`].
    pub(crate) fn name(self, field: &'static str, value: String) -> Result<String, Malformed> {
        if value.is_empty() {
            return Err(self.malformed(field, "is empty"));
        }
        self.name_or_empty(field, value)
    }

    /// A name that may be empty.
    pub(crate) fn name_or_empty(
        self,
        field: &'static str,
        value: String,
    ) -> Result<String, Malformed> {
        if value.len() > MAX_NAME_BYTES {
            let problem =
                format!("has {} bytes, at most {MAX_NAME_BYTES} are allowed", value.len());
            return Err(self.malformed(field, problem));
        }
        Ok(value)
    }

    /// "ip:port".
    pub(crate) fn address(self, field: &'static str, text: &str) -> Result<SocketAddr, Malformed> {
        text.parse().map_err(|_| {
            let text = clip(text.to_owned());
            self.malformed(field, format!("is `{text}`, expected ip:port"))
        })
    }

    /// A number that must be at least 1.
    pub(crate) fn positive<T: From<u8> + PartialOrd>(
        self,
        field: &'static str,
        value: T,
    ) -> Result<T, Malformed> {
        if value < T::from(1) {
            return Err(self.malformed(field, "is 0, expected at least 1"));
        }
        Ok(value)
    }

    /// A number inside `low..=high`; not-a-number is outside.
    pub(crate) fn within(
        self,
        field: &'static str,
        value: f64,
        (low, high): (f64, f64),
    ) -> Result<f64, Malformed> {
        if (low..=high).contains(&value) {
            return Ok(value);
        }
        Err(self.malformed(field, format!("is {value}, expected {low} to {high}")))
    }

    /// A list of 1 to `most` entries.
    pub(crate) fn some<T>(
        self,
        field: &'static str,
        values: &[T],
        most: usize,
    ) -> Result<(), Malformed> {
        if values.is_empty() {
            return Err(self.malformed(field, "is empty"));
        }
        self.at_most(field, values, most)
    }

    /// A list of at most `most` entries.
    pub(crate) fn at_most<T>(
        self,
        field: &'static str,
        values: &[T],
        most: usize,
    ) -> Result<(), Malformed> {
        if values.len() > most {
            let problem = format!("has {} entries, at most {most} are allowed", values.len());
            return Err(self.malformed(field, problem));
        }
        Ok(())
    }
}

/// Cuts a text for people to [`MAX_TEXT_BYTES`], at a character boundary.
pub(crate) fn clip(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: Border = Border("Message");

    #[test]
    fn a_long_text_for_people_is_clipped_between_characters() {
        let clipped = clip("é".repeat(MAX_TEXT_BYTES));
        assert!(clipped.len() <= MAX_TEXT_BYTES);
        assert!(clipped.ends_with('…'));
        assert_eq!(clip("short".into()), "short");
    }

    #[test]
    fn a_long_name_is_refused_with_its_length() {
        let error = B.name("host", "x".repeat(300)).unwrap_err();
        assert_eq!(error.to_string(), "Message.host has 300 bytes, at most 256 are allowed");
    }

    #[test]
    fn not_a_number_is_outside_every_range() {
        let error = B.within("decay", f64::NAN, (0.0, 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "Message.decay is NaN, expected 0 to 1");
    }

    #[test]
    fn an_address_must_be_ip_and_port() {
        assert!(B.address("collective_address", "127.0.0.1:80").is_ok());
        assert!(B.address("collective_address", "[::1]:80").is_ok());
        let error = B.address("collective_address", "host:80").unwrap_err();
        assert_eq!(error.to_string(), "Message.collective_address is `host:80`, expected ip:port");
    }
}
