//! Secrets and ConfigMaps that are in no file because another program creates them: cert-manager from a Certificate,
//! External Secrets from an ExternalSecret, kustomize from a generator, and so on.

use serde_json::Value;

use crate::controller::index::{Key, Reference, ReferenceKind};

/// A Secret or ConfigMap that another program will create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedObject {
    kind: ReferenceKind,
    /// `None` stands for any namespace.
    namespace: Option<String>,
    name: String,
}

impl GeneratedObject {
    /// Tells whether this is the referenced object.
    #[must_use]
    pub fn is(&self, reference: &Reference) -> bool {
        let namespace = self.namespace.as_ref();
        self.kind == reference.kind
            && self.name == reference.key.name
            && namespace.is_none_or(|namespace| *namespace == reference.key.namespace)
    }
}

/// Returns what is created from an object.
pub(super) fn of(api: &str, kind: &str, key: &Key, value: &Value) -> Vec<GeneratedObject> {
    let group = api.split_once('/').map_or("", |(group, _)| group);
    let object = |kind: ReferenceKind, name: &str| GeneratedObject {
        kind,
        namespace: Some(key.namespace.clone()),
        name: name.to_owned(),
    };
    let secret = |name: &str| object(ReferenceKind::Secret, name);
    match (group, kind) {
        ("", "Secret") if is_encrypted(value) => vec![secret(&key.name)],
        ("trust.cert-manager.io", "Bundle") => bundle(key),
        ("networking.k8s.io", "Ingress") if requests_certificate(value) => {
            let tls = value["spec"]["tls"].as_array().into_iter().flatten();
            tls.filter_map(|tls| tls["secretName"].as_str()).map(secret).collect()
        }
        ("kustomize.config.k8s.io", _) => of_kustomization(value),
        _ => {
            let generator =
                GENERATORS.iter().find(|generator| generator.group == group && generator.kind == kind);
            let name = |generator: &Generator| {
                value.pointer(generator.name).and_then(Value::as_str).unwrap_or(&key.name)
            };
            generator.map(|generator| secret(name(generator))).into_iter().collect()
        }
    }
}

/// Returns what the generators of a Kustomization create. Its `namespace` replaces the namespaces of all its objects,
/// so the names count in any namespace.
pub(super) fn of_kustomization(value: &Value) -> Vec<GeneratedObject> {
    let of = |generator: &str, kind: ReferenceKind| {
        let made = value[generator].as_array().into_iter().flatten();
        let object = move |name: &str| GeneratedObject { kind, namespace: None, name: name.to_owned() };
        made.filter_map(|made| made["name"].as_str()).map(object).collect::<Vec<_>>()
    };
    let mut all = of("secretGenerator", ReferenceKind::Secret);
    all.extend(of("configMapGenerator", ReferenceKind::ConfigMap));
    all
}

/// Tells whether SOPS has encrypted a Secret. Its data is not the data in the cluster.
pub(super) fn is_encrypted(value: &Value) -> bool {
    value["sops"].is_object()
}

/// trust-manager writes a ConfigMap or a Secret with the Bundle's name into each namespace.
fn bundle(key: &Key) -> Vec<GeneratedObject> {
    let of = |kind| GeneratedObject { kind, namespace: None, name: key.name.clone() };
    [ReferenceKind::ConfigMap, ReferenceKind::Secret].map(of).into()
}

fn requests_certificate(ingress: &Value) -> bool {
    let annotations = ingress["metadata"]["annotations"].as_object();
    annotations.into_iter().flatten().any(|(name, _)| {
        ["cert-manager.io/issuer", "cert-manager.io/cluster-issuer", "kubernetes.io/tls-acme"]
            .contains(&name.as_str())
    })
}

/// A kind from which a program creates a Secret in the object's own namespace.
struct Generator {
    group: &'static str,
    kind: &'static str,
    /// The JSON pointer to the Secret's name. The default is the object's name.
    name: &'static str,
}

const fn generator(group: &'static str, kind: &'static str, name: &'static str) -> Generator {
    Generator { group, kind, name }
}

const GENERATORS: [Generator; 9] = [
    generator("cert-manager.io", "Certificate", "/spec/secretName"),
    generator("external-secrets.io", "ExternalSecret", "/spec/target/name"),
    generator("bitnami.com", "SealedSecret", "/spec/template/metadata/name"),
    generator("secrets.hashicorp.com", "VaultStaticSecret", "/spec/destination/name"),
    generator("secrets.hashicorp.com", "VaultDynamicSecret", "/spec/destination/name"),
    generator("secrets.hashicorp.com", "VaultPKISecret", "/spec/destination/name"),
    generator("secrets.infisical.com", "InfisicalSecret", "/spec/managedSecretReference/secretName"),
    generator("onepassword.com", "OnePasswordItem", "/metadata/name"),
    generator("ricoberger.de", "VaultSecret", "/metadata/name"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::manifest::parse;
    use crate::controller::validate::tests::validator;

    fn is_generated(text: &str, kind: ReferenceKind, namespace: &str, name: &str) -> bool {
        let parsed = parse(text, validator()).unwrap();
        let reference = Reference::new(kind, &Key::new(namespace, name));
        parsed.generated.iter().any(|object| object.is(&reference))
    }

    fn secret(text: &str) -> bool {
        is_generated(text, ReferenceKind::Secret, "mail", "tls")
    }

    fn object(api: &str, kind: &str, name: &str, rest: &str) -> String {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: mail}}\n{rest}\n")
    }

    #[test]
    fn knows_secrets_that_other_programs_create() {
        for (api, kind, name, rest) in [
            ("cert-manager.io/v1", "Certificate", "x", "spec: {secretName: tls}"),
            ("external-secrets.io/v1", "ExternalSecret", "x", "spec: {target: {name: tls}}"),
            ("external-secrets.io/v1beta1", "ExternalSecret", "tls", "spec: {}"),
            ("bitnami.com/v1alpha1", "SealedSecret", "tls", "spec: {encryptedData: {a: b}}"),
            ("secrets.hashicorp.com/v1beta1", "VaultStaticSecret", "x", "spec: {destination: {name: tls}}"),
            ("onepassword.com/v1", "OnePasswordItem", "tls", "spec: {}"),
            ("trust.cert-manager.io/v1alpha1", "Bundle", "tls", "spec: {}"),
            ("v1", "Secret", "tls", "data: {tls.crt: 'ENC[AES256_GCM,data:x]'}\nsops: {version: '3'}"),
        ] {
            assert!(secret(&object(api, kind, name, rest)), "{kind}");
        }
        let issued = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: x, namespace: mail, annotations: \
                      {cert-manager.io/cluster-issuer: a}}\nspec: {tls: [{secretName: tls}]}\n";
        assert!(secret(issued) && !secret(&issued.replace("cert-manager.io/cluster-issuer", "a.b/c")));
        assert!(!secret(&object("example.com/v1", "Certificate", "x", "spec: {secretName: tls}")));
        let elsewhere = object("cert-manager.io/v1", "Certificate", "x", "spec: {secretName: tls}");
        assert!(!secret(&elsewhere.replace("namespace: mail", "namespace: web")));
    }

    #[test]
    fn knows_objects_of_kustomize_generators_with_and_without_a_kind() {
        let generators = "namespace: mail\nresources: [mail.yaml]\nsecretGenerator: [{name: tls, files: [tls.crt]}]\n\
                          configMapGenerator:\n- name: ca\n";
        for head in ["", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"] {
            let text = format!("{head}{generators}");
            assert!(
                secret(&text) && is_generated(&text, ReferenceKind::ConfigMap, "default", "ca"),
                "{head}"
            );
            assert!(!is_generated(&text, ReferenceKind::ConfigMap, "mail", "tls"));
        }
    }
}
