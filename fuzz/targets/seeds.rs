//! Inputs to start from: the transcripts, the examples and configurations of the repository, and short dialogues.

use std::path::Path;

use mailgress::protocol::frontend::StartTlsOffer;
use mailgress::protocol::proxy_header::{Details, ProxyVersion, TlsFacts, encode};
use mailgress::protocol::sasl::encode_base64;
use mailgress::protocol::{CountedErrors, Mechanism, PasswordLogins, Protocol};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::choices::SEPARATOR;
use super::client::{config, is_implicit};
use super::clients::VERDICTS;
use super::script::{Script, unescape};

/// Returns the seeds of a target. `root` is the folder of the repository.
pub(super) fn of(name: &str, root: &Path) -> Vec<Vec<u8>> {
    match name {
        "imap_client" => clients(Protocol::Imap, root),
        "pop3_client" => clients(Protocol::Pop3, root),
        "smtp_client" => clients(Protocol::Smtp, root),
        "imap_backend" => backends(Protocol::Imap, root),
        "pop3_backend" => backends(Protocol::Pop3, root),
        "smtp_backend" => backends(Protocol::Smtp, root),
        "sieve_client" => clients(Protocol::Sieve, root),
        "sieve_backend" => backends(Protocol::Sieve, root),
        "follow_sieve" => behind(&[&[0x35], &[0x11]], &FOLLOWED_SIEVE),
        "follow_imap" => behind(&[&[0x35], &[0x11]], &FOLLOWED_IMAP),
        "follow_smtp" => {
            let without_routes: [&[u8]; 3] =
                [&[0x07, 0xff, 0x35, 3], &[0x0f, 0x0c, 0x17, 1], &[0, 0xff, 0x11, 20]];
            let with_routes: [&[u8]; 3] =
                [&[0x11, 0xff, 0x35, 3], &[0x1b, 0x0c, 0x17, 1], &[0x15, 0xff, 0x11, 20]];
            behind(&[without_routes, with_routes].concat(), &FOLLOWED_SMTP)
        }
        "sasl" => MESSAGES.iter().map(|message| encode_base64(&unescape(message)).into_bytes()).collect(),
        "proxy_header" => proxy_headers(),
        "auth_answer" => behind(&[&[0], &[1]], &ANSWERS),
        "certificates" => certificates().unwrap_or_default(),
        "nginx" => files(root, &["tests/nginx", "tests/it/public_configurations"], &["conf", "txt"]),
        "manifests" => files(
            root,
            &["src/controller/validate", "src/cli/render", "tests/validity", "tests/nginx", "examples"],
            &["yaml"],
        ),
        "served" => PAGES.iter().map(|pages| unescape(pages)).collect(),
        "users" => behind(&[&[0, 0], &[1, 9], &[0, 0x1f]], &USERS),
        other => panic!("no seeds for {other}"),
    }
}

/// Returns each text behind each of the settings.
fn behind(settings: &[&[u8]], texts: &[&str]) -> Vec<Vec<u8>> {
    let all = settings.iter().flat_map(|settings| texts.iter().map(move |text| (settings, text)));
    all.map(|(settings, text)| [settings.to_vec(), unescape(text)].concat()).collect()
}

fn scripts(root: &Path, folder: &str) -> Vec<Script> {
    Script::all_below(&root.join("tests"), &format!("transcripts/{folder}"))
}

fn sent(script: &Script, sender: char) -> Vec<u8> {
    let turns: Vec<Vec<u8>> = script.turns(sender).into_iter().map(|turn| turn.sent).collect();
    turns.join(&SEPARATOR)
}

fn clients(protocol: Protocol, root: &Path) -> Vec<Vec<u8>> {
    let seed = |script: &Script| {
        let config = config(protocol, script);
        let tls = match config.start_tls {
            StartTlsOffer::Disabled => 0,
            StartTlsOffer::Optional => 1,
            StartTlsOffer::Required => 2,
        };
        let flags = [
            u8::from(config.password_logins == PasswordLogins::Always),
            tls << 1,
            u8::from(is_implicit(script)) << 3,
            u8::from(config.relay_sasl) << 4,
            u8::from(config.counted_errors == CountedErrors::All) << 5,
            u8::from(config.smtp.anonymous_before_tls) << 6,
            u8::from(config.smtp.strict_sequence) << 7,
        ];
        let all = Mechanism::ALL.iter().enumerate();
        let mechanisms = all.map(|(bit, mechanism)| u8::from(config.mechanisms.contains(mechanism)) << bit);
        let verdicts = script.directives("auth").take(5).enumerate();
        let verdicts = verdicts.map(|(index, text)| verdict(text) << (3 * index)).sum::<u16>().to_be_bytes();
        let settings = [flags.iter().sum(), mechanisms.sum(), 5, verdicts[0], verdicts[1], 0x35];
        [settings.to_vec(), sent(script, 'C')].concat()
    };
    scripts(root, protocol.name()).iter().map(seed).filter(|seed| seed.len() <= LONGEST).collect()
}

/// Returns the number of the verdict that is most like the text.
fn verdict(text: &str) -> u16 {
    let alike = |known: &&str| known.get(..9).is_some_and(|start| text.starts_with(start));
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    let exact = VERDICTS.iter().position(alike);
    let found = exact.or_else(|| VERDICTS.iter().position(|known| word(known) == word(text)));
    found.and_then(|index| u16::try_from(index).ok()).unwrap_or_default()
}

fn backends(protocol: Protocol, root: &Path) -> Vec<Vec<u8>> {
    let seed = |script: &Script| {
        let is = |key: &str, value: &str| script.setting(key) == Some(value);
        let flags = [
            u8::from(is("starttls", "yes")),
            u8::from(is("ehlo-name", "client")) << 1,
            u8::from(is("passthrough", "yes") || script.setting("relayed").is_some()) << 2,
            u8::from(script.setting("trusted").is_some()) << 3,
            u8::from(script.setting("client").is_some()) << 4,
        ];
        let settings = [flags.iter().sum(), u8::from(is("xclient", "always")) << 1, 0x35];
        [settings.to_vec(), login(protocol, script), vec![SEPARATOR], sent(script, 'R')].concat()
    };
    let of_protocol = |script: &&Script| script.setting("protocol") == Some(protocol.name());
    scripts(root, "backend")
        .iter()
        .filter(of_protocol)
        .map(seed)
        .filter(|seed| seed.len() <= LONGEST)
        .collect()
}

/// Returns the commands of a client with the login of a transcript.
fn login(protocol: Protocol, script: &Script) -> Vec<u8> {
    let text = |key: &str| script.setting(key).unwrap_or_default();
    let lines = match protocol {
        Protocol::Smtp => format!("{}\r\n", script.setting("hello").unwrap_or("EHLO client.test")),
        Protocol::Imap => format!("{} ", script.setting("tag").unwrap_or("a")),
        Protocol::Pop3 | Protocol::Sieve => String::new(),
    };
    let verb = match protocol {
        Protocol::Imap | Protocol::Sieve => "AUTHENTICATE",
        Protocol::Pop3 | Protocol::Smtp => "AUTH",
    };
    let rest = if let Some(relayed) = script.setting("relayed") {
        format!("{verb} {relayed}\r\n")
    } else if text("none") == "yes" {
        format!("{}\r\n{}\r\n", text("mail"), text("rcpt"))
    } else {
        let user = if text("trusted").is_empty() { text("login") } else { text("trusted") };
        let message = [unescape(text("authzid")), unescape(user), unescape(text("password"))].join(&0);
        format!("{verb} PLAIN {}\r\n", encode_base64(&message))
    };
    (lines + &rest).into_bytes()
}

fn proxy_headers() -> Vec<Vec<u8>> {
    let address = |text: &str| text.parse().ok();
    let both = |one, other| address(one).zip(address(other));
    let tls = TlsFacts {
        server_name: Some("mail.test".to_owned()),
        alpn: Some("imap".to_owned()),
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        ..TlsFacts::default()
    };
    let ends = [
        None,
        both("192.0.2.7:4000", "192.0.2.1:143"),
        both("[2001:db8::7]:4000", "[2001:db8::1]:143"),
        both("[2001:db8::7]:4000", "192.0.2.1:65535"),
    ];
    let headers = [ProxyVersion::V1, ProxyVersion::V2].into_iter().flat_map(|version| {
        ends.map(|ends| {
            let mut header = Vec::new();
            encode(version, ends, Details { tls: Some(&tls), unique_id: Some("id") }, &mut header);
            header.extend_from_slice(b"a NOOP\r\n");
            header
        })
    });
    headers.collect()
}

/// Returns PEM with a key and without, and DER: of a leaf, its issuer, and a revocation list.
fn certificates() -> Result<Vec<Vec<u8>>, rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = authority.self_signed(&key)?;
    let issuer = Issuer::new(authority, key);
    let leaf_key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["mail.test".to_owned()])?.signed_by(&leaf_key, &issuer)?;
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(7),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2027, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer)?;
    let (leaf_pem, pem, key_pem) = (leaf.pem(), certificate.pem(), leaf_key.serialize_pem());
    let text = |chain: &str| [&[0], chain.as_bytes(), &[SEPARATOR], key_pem.as_bytes()].concat();
    let der = |der: &[u8]| [&[1], der].concat();
    Ok(vec![
        text(&leaf_pem),
        text(&format!("{leaf_pem}{pem}")),
        text(&format!("{pem}{leaf_pem}{leaf_pem}")),
        text(&list.pem()?),
        text(&key_pem),
        der(leaf.der()),
        der(certificate.der()),
        der(list.der()),
        der(&leaf_key.serialize_der()),
    ])
}

/// Returns the files of these folders, and of those in them, that are not too long.
fn files(root: &Path, folders: &[&str], extensions: &[&str]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for folder in folders {
        let mut paths = Vec::new();
        collect(&root.join(folder), extensions, &mut paths);
        paths.sort();
        found.extend(paths.iter().filter_map(|path| std::fs::read(path).ok()));
    }
    assert!(!found.is_empty(), "no files in {folders:?}");
    found.retain(|text| text.len() <= LONGEST);
    found
}

fn collect(folder: &Path, extensions: &[&str], paths: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, extensions, paths);
        } else if path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
        {
            paths.push(path);
        }
    }
}

/// Bytes of a seed. Short inputs are fast.
const LONGEST: usize = 8192;

const FOLLOWED_IMAP: [&str; 6] = [
    r"a NOOP\r\n\xff* 1 EXISTS\r\na OK done\r\n",
    r"a FETCH 1 BODY[]\r\n\xff* 1 FETCH (BODY[] {6}\r\na\r\nb\r\n UID 1)\r\na OK done\r\n",
    r"a LOGOUT\r\n\xff* BYE so long\r\na OK done\r\n",
    r"a COMPRESS DEFLATE\r\n\xffa OK\r\n",
    r"a APPEND x {9}\r\n\xff+ go\r\n\xffcompress\r\n\r\nb IDLE\r\n\xff+ idle\r\n* X ~{12}\r\n",
    r"a NOOP\r\n\xff* OK x {3}\r\n* X {99999999999999999999}\r\n",
];

const FOLLOWED_SIEVE: [&str; 6] = [
    r#"NOOP\r\n\xffOK "done"\r\n"#,
    r#"LISTSCRIPTS\r\n\xff"main" ACTIVE\r\n{4}\r\nOK\r\n\r\nOK\r\n"#,
    r#"GETSCRIPT "x"\r\n\xff{9}\r\nNO {3}\r\na\r\nOK (WARNINGS) {2}\r\n\r\n\r\n"#,
    r#"LOGOUT\r\n\xffOK\r\n"#,
    r#"PUTSCRIPT "x" {9+}\r\nlogout\r\na\r\n\xffNO "bad"\r\n"#,
    r#"UNAUTHENTICATE\r\n\xffOK\r\n\xffAUTHENTICATE "PLAIN"\r\n\xff""\r\n"#,
];

const FOLLOWED_SMTP: [&str; 15] = [
    r"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\ntext\r\n..\r\n.\r\nQUIT\r\n",
    r"RSET\r\nXCLIENT LOGIN=bob\r\nNOOP\r\n \t xforward NAME=x\nQUIT\r\n",
    r"DATA\r\nXCLIENT LOGIN=bob\r\n.\r\nXCLIENT LOGIN=eve\r\n",
    r"BDAT 9\r\nXCLIENT \nBDAT 3 LAST\r\na\r\nXCLIENT A=B\r\nQUIT\r\n",
    r"AUTH LOGIN\r\nXCLIENT=\r\nAUTH PLAIN AGEAYg==\r\nXCLIENT A=B\r\n",
    r"DATA\r\na\n.\nMAIL FROM:<a@b>\r\nXCLIENT LOGIN=bob\r\n",
    r"DATA\r\nhi\n.\r\nBDAT 4\r\nabcdXCLIENT LOGIN=bob\r\n",
    r"DATA\r\nhi\r\n.\rx\r\n.\r\nSTARTTLS\r\n",
    r"EHLO a\r\nBDAT 0 LAST\r\nBDAT 4294967316\r\nXCLIENT A=B\r\n",
    r"DATA\n.\r\nDATA\r\n\0.\r\n.\r\r\n",
    r"NOOP\rXCLIENT A=B\r\n\x0bXCLIENT A=B\r\nX\\CLIENT A=B\r\n\0XCLIENT A=B\r\n",
    r"data \r\n.\r\nbdat 2 last\r\n.\nquit\r\nXCLIENT A=B\r\n",
    r"RCPT TO:<c@other>\r\nDATA\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@other>\r\n",
    r"BDAT 3 LAST\r\nab\nNOOP\r\nRSET\r\nEHLO a\r\nRCPT TO:<c@other>\r\n",
    r"rcptTO:<c@other>\r\n\x22RCPT\x22 TO:<c@other>\r\nDATA\r\na\n.\nRCPT TO:<c@other>\r\n",
];

const MESSAGES: [&str; 7] = [
    r"\0me\0pw",
    r"boss\0me\0p\0w",
    r"tim 0123456789abcdef0123456789abcdef",
    r"user=me\x01auth=Bearer tok\x01\x01",
    r"n,a=a=2Cb=3D,\x01host=h\x01port=143\x01auth=Bearer tok\x01\x01",
    r"me",
    r"",
];

const ANSWERS: [&str; 8] = [
    r"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 192.0.2.1\r\nAuth-Port: 143\r\nContent-Length: 0\r\n\r\n",
    r"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-User: bob\r\nAuth-Pass: s3cret\r\n\r\nbody",
    r"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nAuth-Wait: 3\r\nAuth-Error-Code: 451 4.3.0\r\nAuth-Error-SASL: eyJ9\r\n\r\n",
    r"HTTP/1.1 302 Found\r\nAuth-Server: [2001:db8::1]\r\nAuth-Port: 143\r\n\r\n",
    r"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nAuth-Status: WAIT\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    r"HTTP/1.0 200 OK\r\nauth-status: OK\r\nAUTH-STATUS: no\r\n\r\n",
    r"HTTP/1.1 204 None\r\nAuth-Status: OK\r\nAuth-Server: imap.mail.\r\nAuth-Port: 143\r\nConnection: x, Close\r\n\r\n",
    r"HTTP/2.0 200 OK\r\n\r\n",
];

const PAGES: [&str; 4] = [
    r#"\0{"replica":{"name":"a","instance":"1"},"version":1,"whole":true,"objects":[{"kind":"MailServer","namespace":"mail","name":"edge","served":{"uid":"u","generation":3,"bound":[{"listener":"imaps","port":993}]}}]}"#,
    r#"\x01{"replica":{"name":"b","instance":"2","nodeAddress":"192.0.2.9"},"version":2,"ready":false,"whole":false,"objects":[{"kind":"MailServer","namespace":"mail","name":"edge","served":{"uid":"u","generation":3,"problems":[{"listener":"imaps","pending":false,"reason":"PortInUse","message":"no"},{"listener":"","pending":true,"reason":"Pending","message":"soon"}]}}],"totals":{"sessions":5}}\xff\x01{"replica":{"name":"b","instance":"2"},"version":3,"whole":false,"objects":[{"kind":"MailServer","namespace":"mail","name":"edge"}]}"#,
    r#"\0{"replica":{"name":"o","instance":"own"},"version":1,"whole":true,"objects":[]}"#,
    r#"\0{"replica":{"name":"a","instance":"1"},"version":1,"whole":true,"objects":[{"kind":"MailRoute","namespace":"mail","name":"r","served":{"uid":"u","generation":1,"sessions":7}}]}\xff\x01{"replica":{"name":"b","instance":"2"},"version":1,"whole":true,"objects":[{"kind":"MailRoute","namespace":"mail","name":"r","served":{"uid":"u","generation":1,"sessions":8}}]}"#,
];

const USERS: [&str; 5] = [
    r"# moved on Monday\r\nbob@Example.org\n\n  al@b.a.example \nbob@example.org\r\nme@a.example",
    r"bob+lists@a.example\nbob*admin@a.example\n\x22x@y\x22@A.EXAMPLE\n@a.example\nx\x07@a.example",
    r"me@m\xc3\xbcnchen.example\n\xffx@a.example\nme\n\x22a\\\x22b\x22@b.example.",
    r"@r1,@r2:u@example.com\n@\na@\n\x22\x22@a.example\na@b@c.b.example",
    r"\xef\xbb\xbfa@xn--mnchen-3ya.example\n",
];
