//! The API as clients see it: requests go through the whole router, and every answer is checked against
//! the OpenAPI document and for the headers that all answers carry.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as tests")]

mod access;
mod additions;
mod bad_input;
mod browser;
mod clients;
mod consent;
#[path = "../../../wallet/tests/service/fake_chain.rs"]
#[allow(dead_code, reason = "shared with the tests of the wallet, which use more of it")]
mod fake_chain;
mod journey;
mod lifecycle;
mod money;
mod order_book;
mod password;
mod rig;
mod roles;
mod secrets;
mod websocket;
