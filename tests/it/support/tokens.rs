//! JSON Web Tokens (RFC 7519), signed with Dovecot's key or another one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The key of valid tokens.
pub const KEY: &[u8] = b"a key of more than thirty-two bytes for HS256";

/// Returns a token for this user that is valid for an hour.
pub fn token_for(user: &str) -> String {
    signed(user, now() + HOUR, KEY)
}

/// Returns tokens that this user cannot log in with: with another key, expired, and of another user.
pub fn worthless_tokens(user: &str) -> [(&'static str, String); 3] {
    [
        ("forged", signed(user, now() + HOUR, b"a key of the same length that nobody here has")),
        ("expired", signed(user, now() - HOUR, KEY)),
        ("another's", token_for("another@example.test")),
    ]
}

/// Returns the user of a valid token.
pub fn user_of(token: &str) -> Option<String> {
    let (text, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, KEY), text.as_bytes(), &signature).ok()?;
    let claims = URL_SAFE_NO_PAD.decode(text.split_once('.')?.1).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let is_good = claims["exp"].as_u64()? > now().as_secs();
    claims["sub"].as_str().filter(|_| is_good).map(str::to_owned)
}

const HOUR: Duration = Duration::from_secs(3600);

fn signed(user: &str, expiry: Duration, key: &[u8]) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "HS256", "typ": "JWT" }));
    let text = format!("{header}.{}", part(json!({ "sub": user, "exp": expiry.as_secs() })));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
