//! MD5 for CRAM-MD5 (RFC 2195) and APOP (RFC 1939), computed by openssl, because none of our libraries has it.

use std::io::Write;
use std::process::{Command, Stdio};

/// Tells whether the digest proves the password for this salt.
pub fn proves(method: &str, digest: &str, salt: &str, password: &str) -> bool {
    let expected = match method {
        "cram-md5" => openssl(&["-hmac", password], salt),
        "apop" => openssl(&[], &format!("{salt}{password}")),
        _ => return false,
    };
    digest == expected
}

/// Returns `openssl dgst -md5` in hexadecimal.
fn openssl(options: &[&str], text: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-md5"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    output.split_whitespace().last().unwrap().to_owned()
}
