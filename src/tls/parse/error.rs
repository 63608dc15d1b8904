//! What is wrong with PEM that a manifest refers to.

use super::{MAX_CHAIN, MAX_CHAIN_BYTES};
use crate::words::counted;

/// What is wrong with PEM that a manifest refers to, and what to do. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No certificate in the chain.
    #[error("{0} holds no certificate; put the PEM chain into tls.crt, the server's own certificate first")]
    NoCertificate(String),
    /// Nothing at all.
    #[error("{0} is empty; put PEM into it")]
    Empty(String),
    /// The key where the chain belongs, and the chain where the key belongs.
    #[error(
        "tls.crt and tls.key of {0} are swapped: tls.crt holds a private key, and tls.key a certificate; exchange them"
    )]
    Swapped(String),
    /// No CA certificate.
    #[error("no CA certificate found; put one or more PEM certificates into ca.crt")]
    NoAuthority,
    /// CA certificates that all have something unknown.
    #[error(
        "the CA bundle has no certificate that can be used: each has an unknown critical extension, or an encoding that the \
         TLS library cannot read; use another authority"
    )]
    UnusableAuthorities,
    /// No revocation list.
    #[error("no certificate revocation list found; put one or more PEM X509 CRL blocks into ca.crl")]
    NoCrl,
    /// Another encoding than PEM.
    #[error("{what} is {form}, not PEM; {remedy}")]
    NotPem {
        /// What was read.
        what: String,
        /// What it is instead.
        form: &'static str,
        /// How to convert it.
        remedy: &'static str,
    },
    /// Broken PEM.
    #[error("{what} is not valid PEM: {cause}; copy it again, with its BEGIN and END lines")]
    Pem {
        /// What was read.
        what: String,
        /// What the parser says.
        cause: String,
    },
    /// Broken DER in good PEM.
    #[error("certificate {position} of {what} is not a valid X.509 certificate; issue it again")]
    NotX509 {
        /// What was read.
        what: String,
        /// Counted from 1.
        position: usize,
    },
    /// A revocation list that cannot be read.
    #[error("certificate revocation list {position} cannot be read ({cause}); issue it again")]
    BadCrl {
        /// Counted from 1.
        position: usize,
        /// What the parser says.
        cause: String,
    },
    /// No key.
    #[error("{0} holds no private key; put it into tls.key as PEM (PKCS#8, PKCS#1 or SEC1)")]
    NoKey(String),
    /// A block that holds something else than a key.
    #[error("tls.key of {0} is PEM, but what it holds is not a private key; copy the key again")]
    BrokenKey(String),
    /// A key behind a passphrase.
    #[error("the private key of {0} is encrypted; store it without a passphrase (openssl pkey)")]
    EncryptedKey(String),
    /// A key that cannot sign.
    #[error(
        "the private key of {reference} is of a kind that is not supported ({kind}); use RSA of 2048 to 8192 bits, \
         P-256, P-384, P-521 or Ed25519"
    )]
    UnusableKey {
        /// The Secret.
        reference: String,
        /// What the certificate says about the key.
        kind: String,
    },
    /// A key of another certificate.
    #[error(
        "the private key of {0} does not belong to its first certificate; put the server's own \
             certificate first, or the right key beside it"
    )]
    KeyMismatch(String),
    /// A key of another certificate of the chain.
    #[error(
        "the private key of {reference} belongs to certificate {position} of its tls.crt; put this certificate first"
    )]
    NotFirst {
        /// The Secret.
        reference: String,
        /// Counted from 1.
        position: usize,
    },
    /// A chain that no client takes.
    #[error(
        "the chain of {what} has {number}, which {verb} {bytes} bytes in a handshake; TLS clients refuse \
             more than {MAX_CHAIN} certificates or {MAX_CHAIN_BYTES} bytes: leave only the server's own certificate and \
             its intermediates in it",
        number = counted(*certificates, "certificate"),
        verb = if *certificates == 1 { "is" } else { "are" }
    )]
    ChainTooLong {
        /// What was read.
        what: String,
        /// How many there are.
        certificates: usize,
        /// How large TLS's Certificate message is.
        bytes: usize,
    },
    /// Unknown or useless cipher suites.
    #[error("{0}")]
    CipherSuites(String),
}
