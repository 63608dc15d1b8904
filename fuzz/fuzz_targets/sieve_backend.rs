//! `targets.rs` has the body.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::write_seeds("sieve_backend"), |data: &[u8]| targets::run("sieve_backend", data));
