//! `targets.rs` has the body.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::write_seeds("auth_answer"), |data: &[u8]| targets::run("auth_answer", data));
