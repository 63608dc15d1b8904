//! `deploy/examples`: `mailgress check` accepts the MailServers, and Argo CD computes their health.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::pki::AUTHORITY;
use crate::tools::{Tools, documents, root, succeeded};

#[test]
fn every_example_is_valid_with_a_certificate() {
    let secrets = tempfile::Builder::new().prefix("mailgress-examples-").suffix(".yaml").tempfile().unwrap();
    let issued = AUTHORITY.issue(&["mail.example.com"]);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "mail-tls", "namespace": "mail" },
        "stringData": { "tls.crt": issued.certificate, "tls.key": issued.key },
    });
    std::fs::write(secrets.path(), secret.to_string()).unwrap();
    for example in ["cert-manager", "docker-mailserver", "dovecot-postfix", "mailu", "stalwart"] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_mailgress"));
        check
            .args(["check", "-f"])
            .arg(root().join("deploy/examples").join(example))
            .arg("-f")
            .arg(secrets.path());
        let output = check.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{example}: {said}");
        let warnings: Vec<_> = said.lines().filter(|line| line.contains("warning: ")).collect();
        assert!(warnings.is_empty(), "{example}: {warnings:?}");
    }
}

#[test]
fn argo_cd_calls_healthy_what_is_ready() {
    let Some(tools) = Tools::new("argo_cd_calls_healthy_what_is_ready") else { return };
    let script = read("argocd/health.lua");
    let config = documents(&read("argocd/health.yaml")).remove(0);
    for kind in ["MailServer", "MailListener", "MailRoute"] {
        let key = format!("resource.customizations.health.mailgress.dev_{kind}");
        assert_eq!(config["data"][&key], Value::from(script.clone()), "{kind}");
    }
    let ready = |status: &str| json!([{ "type": "Accepted", "status": "True" }, { "type": "Ready", "status": status, "message": "why" }]);
    for (status, wanted) in [
        (Value::Null, "Progressing: not seen by Mailgress yet"),
        (
            json!({ "observedGeneration": 1, "conditions": ready("True") }),
            "Progressing: an earlier generation is served",
        ),
        (json!({ "observedGeneration": 2, "conditions": ready("True") }), "Healthy: why"),
        (json!({ "observedGeneration": 2, "conditions": ready("False") }), "Degraded: why"),
        (json!({ "observedGeneration": 2, "conditions": ready("Unknown") }), "Progressing: why"),
    ] {
        let object = json!({ "metadata": { "generation": 2 }, "status": status });
        let program = format!(
            "obj = {}\nhs = (function()\n{script}\nend)()\nprint(hs.status .. \": \" .. hs.message)\n",
            lua(&object)
        );
        let file = tempfile::Builder::new().suffix(".lua").tempfile().unwrap();
        std::fs::write(file.path(), program).unwrap();
        // Argo CD uses the same interpreter.
        let said = succeeded(tools.command("glua").arg(file.path()).output().unwrap());
        assert_eq!(said.trim(), wanted);
    }
}

/// Converts a value to Lua; `status: null` becomes an absent field.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(parts) => format!("{{ {} }}", parts.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name} = {}", lua(value));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join("deploy/examples").join(file)).unwrap()
}
