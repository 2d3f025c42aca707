//! GitHub, Shopify, Square, Razorpay and Paddle: an HMAC in a header, and what is odd about each.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod families;
mod payloads;
mod setup;
mod signatures;
mod support;
