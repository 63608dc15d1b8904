//! `targets.rs` has the body.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::write_seeds("pop3_backend"), |data: &[u8]| targets::run("pop3_backend", data));
