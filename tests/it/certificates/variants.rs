//! Variants of certificates and keys, created with `openssl`, with the expected behaviour of nginx and Mailgress.

use Nginx::{Refuses as DoesNotStart, Serves as Starts, ServesNobody};
use Ours::{Refuses, Serves, Warns};

/// A variant of a certificate and key.
pub struct Variant {
    /// The name of its Secret.
    pub name: &'static str,
    /// The title in the documentation.
    pub title: &'static str,
    /// A shell script that creates `tls.crt` and `tls.key`.
    pub script: &'static str,
    /// The behaviour of nginx's mail proxy with OpenSSL 3.0.
    pub nginx: Nginx,
    /// The behaviour of Mailgress.
    pub ours: Ours,
}

/// The behaviour of nginx.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Nginx {
    Serves,
    /// It starts, but no client with default settings can connect.
    ServesNobody,
    Refuses,
}

/// The behaviour of Mailgress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    Serves,
    /// It serves, with this reason in the condition.
    Warns(&'static str),
    /// It refuses, with this text in the message.
    Refuses(&'static str),
}

impl Variant {
    /// Returns arguments of `openssl s_client` for the TLS versions that it can connect with. Without digitalSignature,
    /// it closes TLS 1.2 connections whatever its options.
    pub fn versions(&self) -> &'static [&'static str] {
        if self.name == "no-signing" { &["-tls1_3"] } else { &["-tls1_2", "-tls1_3"] }
    }

    /// Returns the row in the documentation.
    pub fn row(&self) -> String {
        let nginx = match self.nginx {
            Starts => "served",
            ServesNobody => "starts; no usual client can connect",
            DoesNotStart => "does not start",
        };
        let (ours, check) = match self.ours {
            Serves => ("served", "nothing".to_owned()),
            Warns(reason) => {
                ("served", format!("warning [{reason}](../reasons/index.md#{})", reason.to_lowercase()))
            }
            Refuses(text) => ("refused", format!("error: \"{text}\"")),
        };
        format!("| {} | {nginx} | {ours} | {check} |", self.title)
    }
}

const fn variant(
    name: &'static str,
    title: &'static str,
    script: &'static str,
    nginx: Nginx,
    ours: Ours,
) -> Variant {
    Variant { name, title, script, nginx, ours }
}

const UNSUPPORTED: &str = "of a kind that is not supported";
const NOT_PEM: &str = "not PEM";

pub const VARIANTS: &[Variant] = &[
    variant("in-order", "a chain in order", "ec; sign $names", Starts, Serves),
    variant(
        "with-root",
        "a chain in order, with its root",
        "ec; sign $names; cat leaf.pem ../authority.pem ../root.pem > tls.crt",
        Starts,
        Serves,
    ),
    variant(
        "version-1",
        "X.509 version 1",
        "ec; version1 -key tls.key -subj /CN=localhost -out tls.crt",
        Starts,
        Warns("CertificateVersion1"),
    ),
    variant(
        "twice",
        "the server's certificate twice",
        "ec; sign $names; cat leaf.pem leaf.pem ../authority.pem > tls.crt",
        Starts,
        Warns("ChainRearranged"),
    ),
    variant(
        "out-of-order",
        "issuers in the wrong order",
        "ec; sign $names; cat leaf.pem ../root.pem ../authority.pem > tls.crt",
        Starts,
        Warns("ChainRearranged"),
    ),
    variant(
        "foreign",
        "a certificate that does not belong to the chain",
        "ec other.key; openssl req -x509 -new -key other.key -subj /CN=other -out other.pem
         ec; sign $names; cat leaf.pem other.pem ../authority.pem > tls.crt",
        Starts,
        Warns("ChainRearranged"),
    ),
    variant(
        "many",
        "120 times the root in the chain",
        "ec; sign $names; for n in $(seq 120); do cat ../root.pem; done > roots
         cat leaf.pem ../authority.pem roots > tls.crt",
        Starts,
        Warns("ChainRearranged"),
    ),
    variant(
        "issuer-first",
        "the issuer's certificate first",
        "ec; sign $names; cat ../authority.pem leaf.pem > tls.crt",
        DoesNotStart,
        Refuses("belongs to certificate 2"),
    ),
    variant(
        "wrong-key",
        "the key of another certificate",
        "ec; sign $names; ec tls.key",
        DoesNotStart,
        Refuses("does not belong to its first certificate"),
    ),
    variant(
        "trusted",
        "TRUSTED CERTIFICATE",
        "ec; sign $names; openssl x509 -in leaf.pem -trustout -addtrust serverAuth > tls.crt
         cat ../authority.pem >> tls.crt",
        Starts,
        Serves,
    ),
    variant(
        "x509",
        "X509 CERTIFICATE",
        "ec; sign $names; sed -i 's/ CERTIFICATE/ X509 CERTIFICATE/' tls.crt",
        Starts,
        Serves,
    ),
    variant(
        "text",
        "PEM with a byte order mark, CRLF and text between the blocks",
        "ec; sign $names; (printf '\\357\\273\\277'; cat leaf.pem; echo text; cat ../authority.pem) | sed 's/$/\\r/' > tls.crt",
        Starts,
        Serves,
    ),
    variant(
        "der-certificate",
        "a certificate in DER",
        "ec; sign $names; openssl x509 -in leaf.pem -outform der -out tls.crt",
        DoesNotStart,
        Refuses(NOT_PEM),
    ),
    variant(
        "der-key",
        "a key in DER",
        "ec; sign $names; openssl pkey -in tls.key -outform der -out key.der; mv key.der tls.key",
        DoesNotStart,
        Refuses(NOT_PEM),
    ),
    variant(
        "pkcs12",
        "PKCS#12",
        "ec; sign $names; openssl pkcs12 -export -in leaf.pem -inkey tls.key -passout pass: -out tls.crt",
        DoesNotStart,
        Refuses(NOT_PEM),
    ),
    variant(
        "pkcs7",
        "PKCS#7",
        "ec; sign $names; openssl crl2pkcs7 -nocrl -certfile leaf.pem -out tls.crt",
        DoesNotStart,
        Refuses(NOT_PEM),
    ),
    variant(
        "first-key",
        "several keys in a file, the right one first",
        "rsa; mv tls.key rsa.key; ec; sign $names; cat rsa.key >> tls.key",
        Starts,
        Serves,
    ),
    variant(
        "last-key",
        "several keys in a file, another one first",
        "rsa; mv tls.key rsa.key; ec; sign $names; cat rsa.key tls.key > both; mv both tls.key",
        ServesNobody,
        Serves,
    ),
    variant(
        "ec-parameters",
        "EC PARAMETERS before the key",
        "openssl ecparam -name prime256v1 -genkey -out tls.key; sign $names",
        Starts,
        Serves,
    ),
    variant("pkcs1", "a key in PKCS#1 (RSA PRIVATE KEY)", "openssl genrsa 2048 | openssl rsa -traditional -out tls.key; sign $names", Starts, Serves),
    variant("p384", "P-384", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out tls.key; sign $names", Starts, Serves),
    variant("p521", "P-521", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out tls.key; sign $names", Starts, Serves),
    variant("ed25519", "Ed25519", "openssl genpkey -algorithm ed25519 -out tls.key; sign $names", Starts, Serves),
    variant("ed448", "Ed448", "openssl genpkey -algorithm ed448 -out tls.key; sign $names", Starts, Refuses(UNSUPPORTED)),
    variant(
        "secp256k1",
        "secp256k1",
        "openssl ecparam -name secp256k1 -genkey -noout -out tls.key; sign $names",
        ServesNobody,
        Refuses(UNSUPPORTED),
    ),
    variant(
        "rsa-pss",
        "RSA-PSS (`id-RSASSA-PSS` in the certificate)",
        "openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out tls.key; sign $names",
        Starts,
        Serves,
    ),
    variant(
        "rsa-pss-sha384",
        "RSA-PSS for one hash only",
        "openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha384 \
             -pkeyopt rsa_pss_keygen_mgf1_md:sha384 -pkeyopt rsa_pss_keygen_saltlen:48 -out tls.key; sign $names",
        Starts,
        Serves,
    ),
    variant("rsa1024", "RSA of 1024 bits", "rsa 1024; sign $names", DoesNotStart, Refuses(UNSUPPORTED)),
    variant("rsa4096", "RSA of 4096 bits", "rsa 4096; sign $names", Starts, Serves),
    variant("expired", "expired", "ec; sign $names -days -1", Starts, Warns("CertificateExpired")),
    variant(
        "not-yet-valid",
        "not yet valid",
        "ec; sign $names; : > index; echo 01 > serial
         printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\n\
         policy=p\\n[p]\\ncommonName=supplied\\n' > ca.cnf
         openssl ca -batch -notext -config ca.cnf -in request.pem -cert ../authority.pem -keyfile ../authority.key \
             -startdate 20900101000000Z -enddate 20910101000000Z -extfile extensions -out tls.crt",
        Starts,
        Warns("CertificateNotYetValid"),
    ),
    variant("no-san", "no subjectAltName", "ec; sign basicConstraints=CA:FALSE", Starts, Warns("NoAlternativeName")),
    variant("ip-only", "an IP address in subjectAltName, no name", "ec; sign subjectAltName=IP:127.0.0.1", Starts, Serves),
    variant("ca-true", "CA:TRUE in the server's certificate", "ec; sign \"$names\nbasicConstraints=critical,CA:TRUE\"", Starts, Serves),
    variant(
        "client-only",
        "extendedKeyUsage without serverAuth",
        "ec; sign \"$names\nextendedKeyUsage=clientAuth\"",
        Starts,
        Warns("WrongPurpose"),
    ),
    variant(
        "no-signing",
        "keyUsage without digitalSignature",
        "ec; sign \"$names\nkeyUsage=critical,keyCertSign\"",
        Starts,
        Warns("WrongPurpose"),
    ),
    variant(
        "critical",
        "a critical extension that nobody knows",
        "ec; sign \"$names\n1.2.3.4=critical,ASN1:UTF8String:x\"",
        Starts,
        Serves,
    ),
    variant(
        "dsa",
        "DSA",
        "openssl dsaparam -genkey -noout -out tls.key 2048; sign $names",
        ServesNobody,
        Refuses("of a kind that is not supported (DSA)"),
    ),
    variant(
        "brainpool",
        "brainpoolP256r1",
        "openssl ecparam -name brainpoolP256r1 -genkey -noout -out tls.key; sign $names",
        ServesNobody,
        Refuses(UNSUPPORTED),
    ),
    variant(
        "p224",
        "P-224",
        "openssl ecparam -name secp224r1 -genkey -noout -out tls.key; sign $names",
        ServesNobody,
        Refuses(UNSUPPORTED),
    ),
    variant(
        "explicit",
        "P-256 with explicit parameters",
        "openssl ecparam -name prime256v1 -param_enc explicit -genkey -noout -out tls.key; sign $names",
        Starts,
        Serves,
    ),
    variant("rsa8192", "RSA of 8192 bits", "rsa 8192; sign $names", Starts, Serves),
    variant("serial", "a negative serial number", "ec; sign $names -set_serial -5", Starts, Serves),
    variant("sha1", "signed with SHA-1", "ec; sign $names -sha1", DoesNotStart, Warns("WeakSignature")),
    variant(
        "encrypted",
        "an encrypted key, with `ssl_password_file`",
        "ec; sign $names; openssl pkcs8 -topk8 -in tls.key -passout pass:secret -out key.pem; mv key.pem tls.key
         printf 'wrong\\nsecret\\n' > passwords",
        Starts,
        Refuses("is encrypted"),
    ),
    variant(
        "encrypted-old",
        "a key with `DEK-Info`, with `ssl_password_file`",
        "ec; sign $names; openssl ec -aes256 -in tls.key -passout pass:secret -out key.pem; mv key.pem tls.key
         printf 'wrong\\nsecret\\n' > passwords",
        Starts,
        Refuses("is encrypted"),
    ),
];
