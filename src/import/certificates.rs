//! Converts `ssl_certificate` and `ssl_certificate_key` to Secrets, and reports problems of the files.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::api::common::SecretRef;
use crate::secret::Secret;

use super::Inspected;
use super::effective::Server;
use super::keys::{self, Locked};
use super::objects::Objects;
use super::plan::Context;
use super::problem::{Findings, Problem};
use super::tls::Reason;
use super::tree::Directive;

/// The passphrases of `ssl_password_file`, or why they cannot be read.
pub(super) struct PasswordFile<'a> {
    directive: &'a Directive,
    text: Result<Zeroizing<Vec<u8>>, Problem>,
}

impl<'a> PasswordFile<'a> {
    /// Reads the file. A file that is only missing here, behind a dump, is a problem only for a key that needs it.
    pub(super) fn read(directive: &'a Directive, context: &Context<'_>, found: &mut Findings) -> Self {
        let text = context.bytes(directive, "password file");
        if let Err(problem) = &text
            && !context.is_elsewhere(directive)
        {
            found.problems.push(problem.clone());
        }
        Self { directive, text }
    }
}

/// Creates the Secrets of a server.
pub(super) fn certificates(
    server: &Server<'_>,
    (reason, passwords): (&Reason<'_>, Option<&PasswordFile<'_>>),
    context: &Context<'_>,
    objects: &mut Objects,
    found: &mut Findings,
) -> Result<Vec<SecretRef>, Problem> {
    let (chains, keys) = (server.all("ssl_certificate"), server.all("ssl_certificate_key"));
    let needed = format!("for the \"{}\" directive", reason.name);
    if chains.is_empty() {
        return Err(reason.directive.problem(format!("no \"ssl_certificate\" is defined {needed}")));
    }
    if keys.is_empty() {
        return Err(reason.directive.problem(format!("no \"ssl_certificate_key\" is defined {needed}")));
    }
    let mut references: Vec<SecretRef> = Vec::new();
    for (index, chain) in chains.iter().enumerate() {
        let Some(key) = keys.get(index) else {
            let message = format!(
                "no \"ssl_certificate_key\" is defined for certificate \"{}\" and the \"{}\" directive",
                chain.argument(0),
                reason.name
            );
            return Err(chain.problem(message));
        };
        let name = certificate((chain, key), passwords, context, objects, found);
        let Some(name) = found.keep(name) else { continue };
        if !references.iter().any(|reference| reference.name == name) {
            references.push(SecretRef { name });
        }
    }
    if references.len() > MOST_REFERENCES {
        let message = format!("ssl_certificate: the first {MOST_REFERENCES} certificates are kept");
        found.notes.push(reason.directive.note(message));
        references.truncate(MOST_REFERENCES);
    }
    Ok(references)
}

/// Creates the Secret of a certificate and its key. Returns its name.
fn certificate(
    (chain, key): (&Directive, &Directive),
    passwords: Option<&PasswordFile<'_>>,
    context: &Context<'_>,
    objects: &mut Objects,
    found: &mut Findings,
) -> Result<String, Problem> {
    let origin = format!("{} {}", chain.argument(0), key.argument(0));
    if let Some(file) = [chain, key].into_iter().find(|file| context.is_elsewhere(file)) {
        let name = objects.foreign_secret(&origin, "tls");
        let message =
            format!("{} {} is neither in the dump nor on this machine", file.name(), file.argument(0));
        let remedy = format!("make the Secret {name} yourself, with tls.crt and tls.key");
        found.notes.push(file.note(format!("{message}; {remedy}")));
        return Ok(name);
    }
    let chain_pem = context.text(chain, "certificate")?;
    let chain_pem = blocks(&chain_pem, |label| label.ends_with("CERTIFICATE"));
    if chain_pem.is_empty() {
        let message = format!("cannot load certificate \"{}\": no PEM certificate in it", chain.argument(0));
        return Err(chain.problem(message));
    }
    let elsewhere = ["engine:", "store:"].iter().any(|scheme| key.argument(0).starts_with(scheme));
    if elsewhere {
        let name = objects.foreign_secret(&origin, "tls");
        let message = format!("ssl_certificate_key {}: make the Secret {name} yourself", key.argument(0));
        let message = format!("{message}, with tls.crt and tls.key; keys are read from Secrets only");
        found.notes.push(key.note(message));
        return Ok(name);
    }
    let key_text = context.text(key, "certificate key")?;
    let key_pem = blocks(&key_text, |label| label.ends_with("PRIVATE KEY"));
    if key_pem.is_empty() {
        let message = format!("cannot load certificate key \"{}\": no PEM key in it", key.argument(0));
        return Err(key.problem(message));
    }
    let key_pem = without_passphrase(&key_pem, key, passwords, found)?;
    let data = BTreeMap::from([
        ("tls.crt".to_owned(), Secret::from(chain_pem.as_bytes())),
        ("tls.key".to_owned(), Secret::from(key_pem.as_bytes())),
    ]);
    let name = objects.secret("kubernetes.io/tls", &origin, "tls", data);
    for inspected in context.source.inspect(&name, chain_pem.as_bytes(), key_pem.as_bytes()) {
        inspect((chain, key), inspected, found)?;
    }
    Ok(name)
}

/// nginx loads certificates when it starts, and refuses a key that does not fit.
fn inspect(
    (chain, key): (&Directive, &Directive),
    inspected: Inspected,
    found: &mut Findings,
) -> Result<(), Problem> {
    let (chain_file, key_file) = (chain.argument(0), key.argument(0));
    let note = |text| chain.note(format!("ssl_certificate {chain_file}: {text}"));
    match inspected {
        Inspected::Unusual(text) => found.advice.push(note(text)),
        Inspected::Unusable(text) => found.notes.push(note(text)),
        Inspected::KeyMismatch(Some(position)) => {
            return Err(key.problem(format!(
                "key values mismatch: the key \"{key_file}\" belongs to certificate {position} of \"{chain_file}\"; put \
                 this certificate first"
            )));
        }
        Inspected::KeyMismatch(None) => {
            return Err(key.problem(format!(
                "key values mismatch: the key \"{key_file}\" does not belong to the certificate \"{chain_file}\""
            )));
        }
        Inspected::BadChain(cause) => {
            return Err(chain.problem(format!("cannot load certificate \"{chain_file}\": {cause}")));
        }
        Inspected::BadKey(cause) => {
            return Err(key.problem(format!("cannot load certificate key \"{key_file}\": {cause}")));
        }
    }
    Ok(())
}

/// Returns the keys, decrypted with the passphrases of `ssl_password_file`.
fn without_passphrase(
    pem: &str,
    key: &Directive,
    passwords: Option<&PasswordFile<'_>>,
    found: &mut Findings,
) -> Result<Zeroizing<String>, Problem> {
    let encrypted = || Ok(Zeroizing::new(pem.to_owned()));
    if !keys::is_encrypted(pem) {
        return encrypted();
    }
    let name = key.argument(0);
    let Some(passwords) = passwords else {
        let message = format!(
            "ssl_certificate_key {name} is encrypted and there is no ssl_password_file, so nginx asks for the \
             passphrase; decrypt the key with `openssl pkey` and import again"
        );
        found.notes.push(key.note(message));
        return encrypted();
    };
    let text = passwords.text.as_ref().map_err(Clone::clone)?;
    let file = passwords.directive.argument(0);
    match keys::decrypt(pem, &keys::passphrases(text)) {
        Ok(plain) => {
            let message = format!(
                "ssl_certificate_key {name} was decrypted with a passphrase of {}; the Secret contains the key in clear text, \
                 so keep these manifests out of version control, or encrypt them",
                file
            );
            found.advice.push(key.note(message));
            Ok(plain)
        }
        Err(Locked::Unsupported(encryption)) => {
            let message = format!(
                "ssl_certificate_key {name} is encrypted with {encryption}, which the import cannot decrypt; decrypt \
                 the key with `openssl pkey` and import again"
            );
            found.notes.push(key.note(message));
            encrypted()
        }
        Err(why @ (Locked::WrongPassphrase | Locked::Broken)) => {
            let cause = match why {
                Locked::Broken => "the encrypted key is damaged".to_owned(),
                _ => format!("no passphrase in \"{file}\" decrypts it"),
            };
            Err(key.problem(format!("cannot load certificate key \"{name}\": {cause}")))
        }
    }
}

/// Returns the PEM blocks with a matching label, without the text between them.
pub(super) fn blocks(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    // A byte order mark may precede the first block.
    let text = text.trim_start_matches('\u{feff}');
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim_end();
        let label = |start: &str| line.strip_prefix(start).and_then(|rest| rest.strip_suffix("-----"));
        if label("-----BEGIN ").is_some_and(&wanted) {
            inside = true;
        }
        if inside {
            kept.push_str(line);
            kept.push('\n');
        }
        if label("-----END ").is_some() {
            inside = false;
        }
    }
    kept
}

/// The limit in the schema.
const MOST_REFERENCES: usize = 16;
