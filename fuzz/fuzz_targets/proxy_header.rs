//! `targets.rs` has the body.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::write_seeds("proxy_header"), |data: &[u8]| targets::run("proxy_header", data));
