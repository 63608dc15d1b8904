//! Tests of a backend that closes, which no transcript shows.

use super::*;
use crate::protocol::backend::Backend;

#[test]
fn a_backend_that_rejects_ehlo_and_closes_is_named_with_its_reply() {
    for refusal in ["554 5.7.1 no service here", "502 5.5.1 what"] {
        let plan = BackendPlan {
            protocol: Protocol::Smtp,
            start_tls: false,
            server_name: "mail.test".to_owned(),
            client_hello: true,
            tag: Vec::new(),
            login: BackendLogin::Request(LoginRequest::Anonymous),
            envelope: Envelope {
                hello: Some(Hello { extended: true, name: b"client.test".to_vec() }),
                mail: None,
                rcpt: None,
            },
            xclient: None,
            imap_id: None,
            verbatim: false,
        };
        let (mut input, mut out) = (Input::new(256), Vec::new());
        input.append(format!("220 ready\r\n{refusal}\r\n").as_bytes()).unwrap();
        let BackendStep::Read(waiting) = Backend::new(plan).receive(&mut input, &mut out) else {
            panic!("it tries again")
        };
        let error = waiting.unanswered().unwrap().unwrap_err().to_string();
        assert_eq!(error, format!("the backend answered EHLO with \"{refusal}\""));
    }
}
