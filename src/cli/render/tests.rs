//! Tests of the printed model.

use super::*;
use crate::cli::generated;
use crate::controller::render::tests::{Fixture, ca, messages, tls_secret};

#[test]
fn generated_model_of_the_example_is_current() {
    let yaml = include_str!("example.yaml").to_owned() + &tls_secret("tls", &["mail.example.com"]) + &ca();
    let rendered = Fixture::new().render(&yaml);
    let text = yaml::to_string(&serde_json::to_value(&rendered.snapshot).unwrap()).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    assert_eq!(rendered.snapshot.sockets.len(), 3, "{}", messages(&rendered));
    generated::is_current("src/cli/render/model.yaml", &text);
}
