//! Bytes to views and back, without loss.

pub mod calls;
pub mod canonical;
pub mod chat;
pub mod json;
pub mod refrain;
pub mod sse;
pub mod turn;
