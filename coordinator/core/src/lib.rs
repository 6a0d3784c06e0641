//! lockstep-core
