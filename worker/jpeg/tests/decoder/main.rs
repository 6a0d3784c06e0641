//! The decoder against libjpeg-turbo's, and against damage.

mod hostile;
mod identity;
mod packed;
mod regions;
mod support;
