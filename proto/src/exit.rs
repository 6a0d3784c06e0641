//! How a process of Lockstep ends, as numbers that supervisors understand.

use serde::{Deserialize, Serialize};

use crate::border::{Border, Malformed};

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Its work is done.
    Done,
    /// The configuration or an argument is wrong; starting again changes nothing.
    ConfigFault,
    /// Something outside failed; start the process again.
    RestartMe,
    /// Starting again was tried and did not help.
    DoNotRestart,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::ConfigFault => 42,
            Self::RestartMe => 75,
            Self::DoNotRestart => 93,
        }
    }

    /// The meaning of an exit code; `None` for one that Lockstep does not use.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Done, Self::ConfigFault, Self::RestartMe, Self::DoNotRestart]
            .into_iter()
            .find(|exit| u32::from(exit.code()) == code)
    }

    /// The field `exit_code` of a message.
    pub(crate) fn from_wire(message: Border, exit_code: u32) -> Result<Self, Malformed> {
        Self::from_code(exit_code).ok_or_else(|| {
            let problem = format!("is {exit_code}, expected 0, 42, 75 or 93");
            message.malformed("exit_code", problem)
        })
    }
}
