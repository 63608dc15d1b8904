//! Decrypts private keys with the passphrases of `ssl_password_file`, because Secrets contain unencrypted keys.
//!
//! Supports PKCS#8 with PBES2, and OpenSSL's older PEM encryption (`Proc-Type: 4,ENCRYPTED` and `DEK-Info`).

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockCipherDecrypt, BlockModeDecrypt, KeyInit, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use zeroize::Zeroizing;

/// Why a key stays encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// No passphrase decrypts it.
    WrongPassphrase,
    /// The encryption is not supported.
    Unsupported(String),
    /// The data are damaged.
    Broken,
}

/// Returns the passphrases of an `ssl_password_file` as nginx reads it: one per line, ignoring empty lines.
pub(super) fn passphrases(text: &[u8]) -> Vec<&[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).collect()
}

/// Tells whether a key is encrypted.
pub(super) fn is_encrypted(pem: &str) -> bool {
    pem.contains("ENCRYPTED")
}

/// Decrypts all keys of a PEM text.
///
/// # Errors
/// A key cannot be decrypted.
pub(super) fn decrypt(pem: &str, passphrases: &[&[u8]]) -> Result<Zeroizing<String>, Locked> {
    let mut plain = Zeroizing::new(String::new());
    for block in blocks(pem) {
        let opened = match &block {
            Block { label: "ENCRYPTED PRIVATE KEY", .. } => {
                Some(("PRIVATE KEY", first(passphrases, |passphrase| pkcs8(&block.der()?, passphrase))?))
            }
            Block { encryption: Some(encryption), label, .. } => {
                let open = |passphrase: &[u8]| traditional(encryption, &block.der()?, passphrase);
                Some((*label, first(passphrases, open)?))
            }
            _ => None,
        };
        match opened {
            Some((label, der)) => write(&mut plain, label, &der),
            None => plain.push_str(block.text),
        }
    }
    Ok(plain)
}

type Der = Zeroizing<Vec<u8>>;

struct Block<'a> {
    label: &'a str,
    /// The value of `DEK-Info`.
    encryption: Option<&'a str>,
    body: String,
    text: &'a str,
}

impl Block<'_> {
    fn der(&self) -> Result<Vec<u8>, Locked> {
        STANDARD.decode(&self.body).map_err(|_| Locked::Broken)
    }
}

fn blocks(pem: &str) -> Vec<Block<'_>> {
    let starts = pem.match_indices("-----BEGIN ").map(|(start, _)| pem.get(start..).unwrap_or_default());
    starts.filter_map(block).collect()
}

fn block(text: &str) -> Option<Block<'_>> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (inside, _) = rest.split_once("-----END ")?;
    let end = format!("-----END {label}-----");
    let length = text.find(&end)?.checked_add(end.len())?;
    let is_header = |line: &&str| line.contains(':');
    let body = inside.lines().filter(|line| !is_header(line)).map(str::trim).collect();
    let encryption = inside.lines().find_map(|line| line.strip_prefix("DEK-Info:")).map(str::trim);
    Some(Block { label, encryption, body, text: text.get(..length)? })
}

/// Tries the passphrases in turn. Stops at an unsupported encryption.
fn first(passphrases: &[&[u8]], open: impl Fn(&[u8]) -> Result<Der, Locked>) -> Result<Der, Locked> {
    for passphrase in passphrases {
        match open(passphrase) {
            Err(Locked::WrongPassphrase) => {}
            other => return other,
        }
    }
    Err(Locked::WrongPassphrase)
}

fn pkcs8(der: &[u8], passphrase: &[u8]) -> Result<Der, Locked> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|_| Locked::Unsupported("PKCS#8 with another scheme than PBES2".to_owned()))?;
    let algorithm = || encrypted.encryption_algorithm.oid().to_string();
    if encrypted.encryption_algorithm.pbes2().is_none() {
        return Err(Locked::Unsupported(format!("PKCS#8 with the scheme {}, not PBES2", algorithm())));
    }
    let opened = encrypted.decrypt(passphrase).map_err(|_| Locked::WrongPassphrase)?;
    Ok(Zeroizing::new(opened.as_bytes().to_vec()))
}

/// Decrypts the older PEM encryption. `encryption` is `AES-256-CBC,` and the initialisation vector in hexadecimal.
fn traditional(encryption: &str, encrypted: &[u8], passphrase: &[u8]) -> Result<Der, Locked> {
    let (cipher, iv) = encryption.split_once(',').ok_or(Locked::Broken)?;
    let iv = hex(iv.trim()).ok_or(Locked::Broken)?;
    let open = match cipher.trim() {
        "AES-128-CBC" => cbc::<aes::Aes128>,
        "AES-192-CBC" => cbc::<aes::Aes192>,
        "AES-256-CBC" => cbc::<aes::Aes256>,
        "DES-EDE3-CBC" => cbc::<des::TdesEde3>,
        other => return Err(Locked::Unsupported(other.to_owned())),
    };
    let der = open(encrypted, passphrase, &iv)?;
    if is_one_sequence(&der) { Ok(der) } else { Err(Locked::WrongPassphrase) }
}

fn cbc<C: BlockCipherDecrypt + KeyInit>(
    encrypted: &[u8],
    passphrase: &[u8],
    iv: &[u8],
) -> Result<Der, Locked> {
    let key = derive(passphrase, iv, C::key_size()).ok_or(Locked::Broken)?;
    let decryptor = cbc::Decryptor::<C>::new_from_slices(&key, iv).map_err(|_| Locked::Broken)?;
    let opened = decryptor.decrypt_padded_vec::<Pkcs7>(encrypted).map_err(|_| Locked::WrongPassphrase)?;
    Ok(Zeroizing::new(opened))
}

/// Derives the key as OpenSSL's `EVP_BytesToKey` with MD5 and one round. The salt is the start of the initialisation
/// vector.
fn derive(passphrase: &[u8], iv: &[u8], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let salt = iv.get(..SALT)?;
    let mut key = Zeroizing::new(Vec::new());
    let mut last: Option<[u8; 16]> = None;
    while key.len() < length {
        let mut digest = Md5::new();
        if let Some(last) = last {
            digest.update(last);
        }
        digest.update(passphrase);
        digest.update(salt);
        let block: [u8; 16] = digest.finalize().into();
        key.extend_from_slice(&block);
        last = Some(block);
    }
    key.truncate(length);
    Some(key)
}

/// Checks the decrypted data, because a wrong passphrase produces a valid padding once in 256 times.
fn is_one_sequence(der: &[u8]) -> bool {
    let length = match der {
        [0x30, length @ ..=0x7f, rest @ ..] => Some((usize::from(*length), rest)),
        [0x30, 0x81, length, rest @ ..] => Some((usize::from(*length), rest)),
        [0x30, 0x82, high, low, rest @ ..] => Some((usize::from(u16::from_be_bytes([*high, *low])), rest)),
        _ => None,
    };
    length.is_some_and(|(length, rest)| length == rest.len())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits?.chunks(2).map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect()
}

fn write(pem: &mut String, label: &str, der: &[u8]) {
    let body = Zeroizing::new(STANDARD.encode(der));
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(LINE) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
}

/// Bytes of salt in `EVP_BytesToKey`.
const SALT: usize = 8;
/// Base64 characters per line (RFC 7468 section 2).
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of `openssl ecparam -name prime256v1 -genkey -noout`, encrypted with "secret" as the test's name
    /// says.
    const TRADITIONAL: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,E11AB4B9B211DF9DCBDA07D6D8C693D2

sfulNu4XaD3UmYTqDE2V1nl8oEsaMgnmrYGIBxmkyflOFJrpJnq4RoBDyaP4Lm4i
d9GluUZGwcsxQ9+2z5djiXBOQZ52VS85uQZDvLjwaMI21mPsRjXK2ibseYT3+BpP
t5KNix0D/2plWOm1nKrbJnp+PjSfiTvhzYJSmdw18Xk=
-----END EC PRIVATE KEY-----
";
    const PBES2: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgH0EveXOptdQICA+gw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEE/xhHpIZ0Tq3AoqWIHtN64EgZAc
x9uxpKzW5zCtaC9BEOYEtNJnxy0sYV/1z4Gt+4Eky/Mod6O3+J+V8MOS78WJYO5A
8nYSk+ClH73y6ZTY2dv2iNIz1tbUQSoVSxaCsyzFYrflSeBO3cBmX18yaoSJOgye
cSh2sGb3XnoosjSo7bIBTdiQ+Pcc/KY63Ly1TLsn6Zu84FDwa/eATtt5Hmjxv0s=
-----END ENCRYPTED PRIVATE KEY-----
";
    const PLAIN: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEINUE8mpWPUEAwafb5EPHIdYhORxMLJPv8cgWI7m9cR0koAoGCCqGSM49
AwEHoUQDQgAELg3zxoUwORXaQft73fXBgBrn+zI0kx0V0fkKaiRDaeRwBs5pjodo
qs/dRDqU3kD5fzmLYl1V28MbmnJsCBo97g==
-----END EC PRIVATE KEY-----
";

    fn body(pem: &str) -> String {
        pem.lines().filter(|line| !line.starts_with("-----")).collect()
    }

    #[test]
    fn a_key_is_decrypted_by_the_passphrase_that_fits() {
        let passphrases = passphrases(b"wrong\r\n\n\nsecret");
        assert_eq!(passphrases, [b"wrong".as_slice(), b"secret"]);
        assert_eq!(decrypt(TRADITIONAL, &passphrases).unwrap().as_str(), PLAIN);
        let opened = decrypt(PBES2, &passphrases).unwrap();
        assert!(opened.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", opened.as_str());
        // The SEC1 key is part of the PKCS#8 key.
        let [inner, outer] = [PLAIN, &opened].map(|pem| STANDARD.decode(body(pem)).unwrap());
        assert!(memchr::memmem::find(&outer, &inner[7..39]).is_some());
        let both = format!("{PLAIN}{TRADITIONAL}");
        assert_eq!(decrypt(&both, &passphrases).unwrap().matches("BEGIN EC PRIVATE KEY").count(), 2);
    }

    #[test]
    fn a_key_that_stays_encrypted_says_why() {
        for pem in [TRADITIONAL, PBES2] {
            assert_eq!(decrypt(pem, &[b"wrong"]).unwrap_err(), Locked::WrongPassphrase);
            assert_eq!(decrypt(pem, &[]).unwrap_err(), Locked::WrongPassphrase);
        }
        let camellia = TRADITIONAL.replace("AES-256-CBC", "CAMELLIA-256-CBC");
        let unsupported = Locked::Unsupported("CAMELLIA-256-CBC".to_owned());
        assert_eq!(decrypt(&camellia, &[b"secret"]).unwrap_err(), unsupported);
        let damaged = TRADITIONAL.replace("AES-256-CBC,", "AES-256-CBC,xy");
        assert_eq!(decrypt(&damaged, &[b"secret"]).unwrap_err(), Locked::Broken);
        let damaged = PBES2.replace("MI", "M!");
        assert_eq!(decrypt(&damaged, &[b"secret"]).unwrap_err(), Locked::Broken);
    }

    /// Of 2000 wrong passphrases, some produce a valid padding.
    #[test]
    fn no_wrong_passphrase_opens_a_key() {
        for number in 0..2000 {
            let wrong = format!("wrong {number}");
            assert_eq!(decrypt(TRADITIONAL, &[wrong.as_bytes()]).unwrap_err(), Locked::WrongPassphrase);
        }
    }
}
