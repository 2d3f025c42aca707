//! GitHub, Shopify, Square, Razorpay and Paddle: an HMAC in a header, and what is odd about each. Batches
//! under one HMAC.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
#[path = "../common/mod.rs"]
mod common;
mod families;
mod payloads;
mod setup;
mod signatures;
mod support;
