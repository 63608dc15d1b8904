//! Errors in PEM data that a manifest refers to.

use super::{MAX_CHAIN, MAX_CHAIN_BYTES};
use crate::words::counted;

/// What is wrong with PEM data, and the remedy. Never contains key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The chain has no certificate.
    #[error(
        "{0} contains no certificate; put the PEM chain into tls.crt, the server's own certificate first"
    )]
    NoCertificate(String),
    /// Nothing at all.
    #[error("{0} is empty; put PEM into it")]
    Empty(String),
    /// The key where the chain belongs, and the chain where the key belongs.
    #[error(
        "tls.crt and tls.key of {0} are swapped: tls.crt contains a private key, and tls.key a certificate; exchange them"
    )]
    Swapped(String),
    /// The bundle has no certificate.
    #[error("no CA certificate found; put one or more PEM certificates into ca.crt")]
    NoAuthority,
    /// No certificate of the bundle can be used.
    #[error(
        "the CA bundle has no certificate that can be used: each has an unknown critical extension, or an encoding that the \
         TLS library cannot read; use another authority"
    )]
    UnusableAuthorities,
    /// There is no revocation list.
    #[error("no certificate revocation list found; put one or more PEM X509 CRL blocks into ca.crl")]
    NoCrl,
    /// The data have another encoding than PEM.
    #[error("{what} is {form}, not PEM; {remedy}")]
    NotPem {
        /// The key and the object that were read.
        what: String,
        /// The encoding of the data.
        form: &'static str,
        /// How to convert the data.
        remedy: &'static str,
    },
    /// The PEM is malformed.
    #[error("{what} is not valid PEM: {cause}; copy it again, with its BEGIN and END lines")]
    Pem {
        /// The key and the object that were read.
        what: String,
        /// The parser's error, without its input.
        cause: String,
    },
    /// The DER inside the PEM is not a certificate.
    #[error("certificate {position} of {what} is not a valid X.509 certificate; issue it again")]
    NotX509 {
        /// The key and the object that were read.
        what: String,
        /// The position of the certificate, counted from 1.
        position: usize,
    },
    /// A revocation list cannot be read.
    #[error("certificate revocation list {position} cannot be read ({cause}); issue it again")]
    BadCrl {
        /// The position of the list, counted from 1.
        position: usize,
        /// The parser's error.
        cause: String,
    },
    /// There is no private key.
    #[error("{0} contains no private key; put it into tls.key as PEM (PKCS#8, PKCS#1 or SEC1)")]
    NoKey(String),
    /// A block that holds something else than a key.
    #[error("tls.key of {0} is PEM, but does not contain a private key; copy the key again")]
    BrokenKey(String),
    /// The private key is encrypted.
    #[error("the private key of {0} is encrypted; store it without a passphrase (openssl pkey)")]
    EncryptedKey(String),
    /// The type or size of the key is not supported.
    #[error(
        "the private key of {reference} is of a kind that is not supported ({kind}); use RSA of 2048 to 8192 bits, \
         P-256, P-384, P-521 or Ed25519"
    )]
    UnusableKey {
        /// The Secret.
        reference: String,
        /// The type of the key according to the certificate.
        kind: String,
    },
    /// The key belongs to none of the certificates.
    #[error(
        "the private key of {0} does not belong to its first certificate; put the server's own \
             certificate first, or the right key beside it"
    )]
    KeyMismatch(String),
    /// The key belongs to another certificate of the chain.
    #[error(
        "the private key of {reference} belongs to certificate {position} of its tls.crt; put this certificate first"
    )]
    NotFirst {
        /// The Secret.
        reference: String,
        /// The position of this certificate, counted from 1.
        position: usize,
    },
    /// Clients would refuse a chain of this length.
    #[error(
        "the chain of {what} has {number}, which {verb} {bytes} bytes in a handshake; TLS clients refuse \
             more than {MAX_CHAIN} certificates or {MAX_CHAIN_BYTES} bytes: leave only the server's own certificate and \
             its intermediates in it",
        number = counted(*certificates, "certificate"),
        verb = if *certificates == 1 { "is" } else { "are" }
    )]
    ChainTooLong {
        /// The key and the object that were read.
        what: String,
        /// The number of certificates.
        certificates: usize,
        /// The size of TLS's Certificate message.
        bytes: usize,
    },
    /// Cipher suites are unknown or unusable.
    #[error("{0}")]
    CipherSuites(String),
}
