//! What there is to say about certificates that clients may refuse.

use super::{Explanation, Reason, True};

pub(super) const CERTIFICATE_VERSION_1: Explanation = Explanation {
    reason: Reason::CertificateVersion1,
    conditions: &[("CertificateUnusual", True)],
    meaning: "A certificate has X.509 version 1. It is used, as in nginx. OpenSSL clients that trust it or its \
                issuer accept it; most other clients refuse it, because it has no subjectAltName.",
    cause: "`openssl req -x509` with a minimal configuration, or `openssl x509 -req` without `-extfile`, \
                writes no extensions.",
    remedy: "Issue it again with subjectAltName: `openssl req -x509 -addext subjectAltName=DNS:mail.example.com`, or \
             `openssl x509 -req -extfile FILE`.",
};

pub(super) const CHAIN_REARRANGED: Explanation = Explanation {
    reason: Reason::ChainRearranged,
    conditions: &[("CertificateUnusual", True)],
    meaning: "The certificates of a chain are not in order, one of them occurs twice, or one does not belong to the \
              chain. Mailgress sorts the chain and leaves out certificates that do not belong to it. The message \
              names the certificates that are served.",
    cause: "Files were concatenated in the wrong order, or the server's certificate was added to a chain that already \
            had it.",
    remedy: "Put the server's own certificate first into `tls.crt`, then its issuer, and so on, each once. The root may \
             be left out.",
};

pub(super) const CHAIN_NOT_IN_ORDER: Explanation = Explanation {
    reason: Reason::ChainNotInOrder,
    conditions: &[("CertificateUnusual", True)],
    meaning: "The certificates of a chain are not in order, and two of them could be the issuer of the same \
              certificate, so there is more than one way to sort them. The chain is served as it is, without \
              repeated certificates. Most clients sort it themselves (RFC 8446, section 4.4.2).",
    cause: "The file has several chains, with two certificates of one CA (cross-signed).",
    remedy: "Put one chain into `tls.crt`: the server's own certificate first, then each one's issuer.",
};

pub(super) const NO_ALTERNATIVE_NAME: Explanation = Explanation {
    reason: Reason::NoAlternativeName,
    conditions: &[("CertificateUnusual", True)],
    meaning: "A certificate has neither a DNS name nor an IP address in subjectAltName. Most clients ignore the \
            common name, so they refuse the certificate.",
    cause: "It was made with `openssl req` without `-addext subjectAltName=…`, or by an old authority.",
    remedy: "Issue it again with all names that clients connect to in subjectAltName.",
};

pub(super) const WRONG_PURPOSE: Explanation = Explanation {
    reason: Reason::WrongPurpose,
    conditions: &[("CertificateUnusual", True)],
    meaning: "A certificate has an extendedKeyUsage without serverAuth, or a keyUsage without digitalSignature. Most \
              clients refuse it as a server's certificate.",
    cause: "The authority issued it with a profile for clients, for signing code, or for a CA.",
    remedy: "Issue it again with the profile for servers. With cert-manager: `usages: [server auth, digital signature]`.",
};

pub(super) const WEAK_SIGNATURE: Explanation = Explanation {
    reason: Reason::WeakSignature,
    conditions: &[("CertificateUnusual", True)],
    meaning: "The authority signed a certificate with SHA-1 or MD5. Most clients refuse it.",
    cause: "The authority is old, or has an old configuration (`default_md = sha1`).",
    remedy: "Issue it again, signed with SHA-256 (`openssl x509 -req -sha256`).",
};

pub(super) const AUTHORITY_NOT_USED: Explanation = Explanation {
    reason: Reason::AuthorityNotUsed,
    conditions: &[("CertificateUnusual", True)],
    meaning: "A CA bundle has a certificate that cannot verify any chain: it has an unknown critical extension, the \
              TLS library cannot read it, or it is not marked as a CA. The other certificates of the bundle are \
              trusted.",
    cause: "A server's certificate was added to the bundle, or a CA uses rare extensions.",
    remedy: "Remove the certificate from the bundle. The message names its position.",
};

pub(super) const CERTIFICATE_NOT_YET_VALID: Explanation = Explanation {
    reason: Reason::CertificateNotYetValid,
    conditions: &[("CertificateUnusual", True)],
    meaning: "A certificate is not valid yet. It is served, but clients that verify it refuse it until it becomes \
              valid.",
    cause: "Its notBefore is in the future, or the clock of this host or of the authority is wrong.",
    remedy: "Wait, put another certificate into the Secret, or correct the clock. The condition disappears when the \
             certificate becomes valid.",
};

pub(super) const HOSTNAME_NOT_COVERED: Explanation = Explanation {
    reason: Reason::HostnameNotCovered,
    conditions: &[("HostnameNotCovered", True)],
    meaning: "No certificate of the listener contains one of its host names: a name in `hostnames` or, without \
            `hostnames`, the configured `serverName`. Clients that connect to this name and verify the \
            certificate refuse it.",
    cause: "The name was added to `hostnames` but not to the certificate, or the Secret has another \
            certificate. Or `serverName` is not the name that clients connect to.",
    remedy: "Add the name to the certificate (`dnsNames` of a cert-manager Certificate), or add its Secret to \
            `tls.certificateRefs`. If clients use other names than `serverName`, list them in `hostnames`.",
};
