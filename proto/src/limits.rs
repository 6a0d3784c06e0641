//! Limits on what the wire may carry. A peer that exceeds one is refused, never truncated silently;
//! only texts for people are clipped.

/// Protocol version of this build; both sides of a session must have the same.
pub const PROTOCOL_VERSION: u32 = 4;

/// Largest encoded message, in bytes. A world of [`MAX_MEMBERS`] takes about a tenth of it.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Longest name (worker uid, host, device, version, run id, fingerprint), in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Longest text for people (details, reasons, paths), in bytes; longer ones are clipped.
pub const MAX_TEXT_BYTES: usize = 4096;

/// Longest configuration, in bytes of JSON.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;

/// Largest world, and most slots of a job.
pub const MAX_MEMBERS: usize = 4096;

/// Most steps in one plan window.
pub const MAX_PLAN_STEPS: usize = 4096;

/// Most reports in one message.
pub const MAX_REPORTS: usize = 4096;

/// Most replaced samples in one report.
pub const MAX_REPLACED_SAMPLES: usize = 65_536;

/// Most events in one answer; those of the largest worlds take about half of [`MAX_MESSAGE_BYTES`].
pub const MAX_EVENTS: usize = 256;

/// Length of a generation's secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// Length of a communicator's id, in bytes: that of NCCL.
pub const COMMUNICATOR_ID_BYTES: usize = 128;

/// Calls that one connection may have open: a worker has one, `coordinator status --watch` two.
pub const MAX_STREAMS: u32 = 16;

/// Messages that may wait in a session's queue in each direction before the sender has to wait.
pub const SESSION_QUEUE: usize = 64;
