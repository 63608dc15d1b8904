//! `targets.rs` has the body.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::write_seeds("smtp_client"), |data: &[u8]| targets::run("smtp_client", data));
