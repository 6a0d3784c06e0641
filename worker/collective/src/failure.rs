//! What NCCL says when it fails.
//!
//! Codes are read as integers, never as the bindings' enum: NCCL adds codes from version to version,
//! and an enum that holds a number it does not name is undefined behaviour. Value 8 is the example:
//! `ncclTimeout` from 2.30 on, and no code at all in the bindings of 2.29.

use std::fmt;

use crate::Recovery;

/// First version whose code 8 is `ncclTimeout`, as `ncclGetVersion` counts: 2.30.0.
const TIMEOUT_SINCE: u32 = 23_000;

/// A result code of NCCL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NcclCode {
    /// `ncclSuccess`.
    Success,
    /// `ncclUnhandledCudaError`.
    UnhandledCudaError,
    /// `ncclSystemError`.
    SystemError,
    /// `ncclInternalError`.
    InternalError,
    /// `ncclInvalidArgument`.
    InvalidArgument,
    /// `ncclInvalidUsage`.
    InvalidUsage,
    /// `ncclRemoteError`.
    RemoteError,
    /// `ncclInProgress`.
    InProgress,
    /// `ncclTimeout`, from NCCL 2.30 on.
    Timeout,
    /// A code of a later version.
    Unknown(i32),
}

impl NcclCode {
    /// Reads a code as NCCL of this version (22907 is 2.29.7) means it.
    pub fn decode(code: i32, version: u32) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::UnhandledCudaError,
            2 => Self::SystemError,
            3 => Self::InternalError,
            4 => Self::InvalidArgument,
            5 => Self::InvalidUsage,
            6 => Self::RemoteError,
            7 => Self::InProgress,
            8 if version >= TIMEOUT_SINCE => Self::Timeout,
            other => Self::Unknown(other),
        }
    }

    /// The code as NCCL writes it.
    pub fn number(self) -> i32 {
        match self {
            Self::Success => 0,
            Self::UnhandledCudaError => 1,
            Self::SystemError => 2,
            Self::InternalError => 3,
            Self::InvalidArgument => 4,
            Self::InvalidUsage => 5,
            Self::RemoteError => 6,
            Self::InProgress => 7,
            Self::Timeout => 8,
            Self::Unknown(code) => code,
        }
    }
}

impl fmt::Display for NcclCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Unknown(code) = self {
            return write!(f, "result code {code}, which this version does not know");
        }
        write!(f, "nccl{self:?}")
    }
}

/// A code that is no success, with NCCL's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NcclFailure {
    /// The code.
    pub code: NcclCode,
    /// Its meaning, from `ncclGetErrorString`.
    pub meaning: String,
    /// The last error that NCCL noted, from `ncclGetLastError`; often empty.
    pub last_error: String,
}

impl NcclFailure {
    /// What a worker does about it.
    pub fn recovery(&self) -> Recovery {
        match self.code {
            NcclCode::SystemError
            | NcclCode::InternalError
            | NcclCode::RemoteError
            | NcclCode::InProgress
            | NcclCode::Timeout => Recovery::Rejoin,
            // CUDA's errors stay with the process; of an unknown one nothing is known.
            NcclCode::UnhandledCudaError | NcclCode::Unknown(_) | NcclCode::Success => {
                Recovery::Restart
            }
            NcclCode::InvalidArgument | NcclCode::InvalidUsage => Recovery::Abort,
        }
    }
}

impl fmt::Display for NcclFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, meaning, last_error } = self;
        write!(f, "NCCL reported {code} ({meaning}")?;
        if !last_error.is_empty() {
            write!(f, "; {last_error}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_8_is_a_timeout_from_2_30_on_and_never_a_success() {
        assert_eq!(NcclCode::decode(8, 22_907), NcclCode::Unknown(8));
        assert_eq!(NcclCode::decode(8, 23_000), NcclCode::Timeout);
        assert_eq!(NcclCode::decode(8, 23_105), NcclCode::Timeout);
    }

    #[test]
    fn every_code_keeps_its_number() {
        for code in -1..12 {
            assert_eq!(NcclCode::decode(code, 22_907).number(), code);
            assert_eq!(NcclCode::decode(code, 23_000).number(), code);
        }
    }

    #[test]
    fn a_code_that_nobody_knows_is_kept_and_restarts_the_process() {
        let code = NcclCode::decode(-77, 22_907);
        let failure = NcclFailure { code, meaning: "unknown".into(), last_error: String::new() };
        assert!(failure.to_string().contains("result code -77"), "{failure}");
        assert_eq!(failure.recovery(), Recovery::Restart);
    }

    #[test]
    fn what_nccl_says_is_quoted_with_its_name() {
        let failure = NcclFailure {
            code: NcclCode::decode(6, 22_907),
            meaning: "remote process exited".into(),
            last_error: "socket closed".into(),
        };
        let expected = "NCCL reported ncclRemoteError (remote process exited; socket closed)";
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.recovery(), Recovery::Rejoin);
    }
}
