//! `targets.rs` has the body.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::write_seeds("follow_sieve"), |data: &[u8]| targets::run("follow_sieve", data));
