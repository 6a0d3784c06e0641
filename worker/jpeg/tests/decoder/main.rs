//! The decoder against libjpeg-turbo's, and against damage.

mod hostile;
mod identity;
mod regions;
mod support;
