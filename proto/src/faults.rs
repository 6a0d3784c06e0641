//! What can be wrong with a configuration, in sentences: which key, its value, what set it, what it
//! may be and what to do.

use std::fmt;

use ::config::ValueKind;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing set it.
    Default,
    /// The preset of this name.
    Preset(&'static str),
    /// The file of this path.
    File(String),
    /// The environment variable of this name.
    Variable(String),
    /// `--set` or a flag of its own.
    CommandLine,
    /// A configuration that another process or a checkpoint holds.
    Message,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            // Escaped, because it may stand in a TOML comment and in a one-line message.
            Self::File(path) => write!(f, "{}", path.escape_debug()),
            Self::Variable(name) => write!(f, "environment {}", name.escape_debug()),
            Self::CommandLine => f.write_str("command line"),
            Self::Message => f.write_str("message"),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Text that is not TOML (or JSON, in a message); `problem` says line and column.
    #[error("{origin} can't be read: {problem}")]
    Syntax {
        /// Which text.
        origin: Origin,
        /// The parser's words.
        problem: String,
    },
    /// A key that does not exist.
    #[error("`{key}` from {origin}: no such key; {}", advice(*nearest))]
    UnknownKey {
        /// As it was written.
        key: String,
        /// What set it.
        origin: Origin,
        /// The key that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type or out of range.
    #[error("`{key}` = {value} from {origin}: must be {range}; it is {meaning}")]
    Value {
        /// Dotted name.
        key: &'static str,
        /// As TOML.
        value: String,
        /// What set it.
        origin: Origin,
        /// What it may be.
        range: String,
        /// What the key is.
        meaning: &'static str,
    },
    /// Values that are each in range but don't fit together.
    #[error("{}: {rule}", parties(.values))]
    Conflict {
        /// Dotted name, value and what set it.
        values: Vec<(&'static str, String, Origin)>,
        /// What must hold, and what to do.
        rule: &'static str,
    },
    /// A preset that does not exist.
    #[error("`preset` = {value} from {origin}: no such preset; choose one of {known}")]
    UnknownPreset {
        /// As it was written.
        value: String,
        /// What named it.
        origin: Origin,
        /// All presets.
        known: String,
    },
    /// A key that a message lacks.
    #[error("`{key}` is missing from the message; it was written by another version")]
    Missing {
        /// Dotted name.
        key: &'static str,
    },
}

impl Fault {
    /// Whether the layers were read, and every other key is what they say.
    pub(crate) fn is_about_one_key(&self) -> bool {
        !matches!(self, Self::Syntax { .. } | Self::UnknownPreset { .. })
    }
}

fn advice(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "`--print-config` shows all keys".to_owned(),
        |key| format!("did you mean `{key}`?"),
    )
}

fn parties(values: &[(&'static str, String, Origin)]) -> String {
    let party = |(key, value, origin): &_| format!("`{key}` = {value} ({origin})");
    values.iter().map(party).collect::<Vec<_>>().join(" and ")
}

/// Everything that is wrong with a configuration, at once; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFaults(pub Vec<Fault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = if self.0.len() == 1 { "fault" } else { "faults" };
        write!(f, "{} {faults} in the configuration", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigFaults {}

/// A value as TOML.
pub(crate) fn show(value: &ValueKind) -> String {
    if let ValueKind::String(text) = value {
        format!("{text:?}")
    } else if let ValueKind::Float(x) = value {
        format!("{x:?}")
    } else if let ValueKind::Array(list) = value {
        let items: Vec<_> = list.iter().map(|item| show(&item.kind)).collect();
        format!("[{}]", items.join(", "))
    } else {
        value.to_string()
    }
}
