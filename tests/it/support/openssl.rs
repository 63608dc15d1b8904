//! Certificates and keys created with the `openssl` command, and its TLS client.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a shell script in a folder. It can use [`FUNCTIONS`].
pub fn script(folder: &Path, script: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let ran = Command::new("sh")
        .args(["-euc", &format!("{FUNCTIONS}\n{script}")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Creates an authority for [`script`]s in folders below this one: `authority.pem`, issued by `root.pem`.
pub fn authorities(folder: &Path) {
    script(
        folder,
        "authority() { openssl req -new -key $1.key -subj /CN=$1 -out request.pem
             printf 'basicConstraints=critical,CA:TRUE\\nkeyUsage=keyCertSign,cRLSign\\n' > extensions; }
         ec root.key; authority root
         openssl x509 -req -in request.pem -signkey root.key -days 100 -extfile extensions -out root.pem
         ec authority.key; authority authority
         openssl x509 -req -in request.pem -CA root.pem -CAkey root.key -CAcreateserial -days 100 \
             -extfile extensions -out authority.pem",
    );
}

/// Runs `openssl s_client` with these arguments. Returns what the server sends after the handshake, and then its own
/// output.
pub fn client(address: SocketAddr, arguments: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-servername", "localhost", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The server may already have closed the connection.
    let _ = child.stdin.take().unwrap().write_all(b"a LOGOUT\r\n");
    let ran = child.wait_with_output().unwrap();
    [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

const FUNCTIONS: &str = "
names=subjectAltName=DNS:localhost
ec() { openssl ecparam -name prime256v1 -genkey -noout -out ${1:-tls.key}; }
rsa() { openssl genrsa -out tls.key ${1:-2048}; }
# extensions, then arguments of openssl x509
sign() {
    printf '%s\\n' \"$1\" > extensions; shift
    openssl req -new -key tls.key -subj ${subject:-/CN=localhost} -out request.pem
    openssl x509 -req -in request.pem -CA ../authority.pem -CAkey ../authority.key -CAcreateserial -days 100 \
        -extfile extensions -out leaf.pem \"$@\"
    cat leaf.pem ../authority.pem > tls.crt
}
# arguments of openssl req; OpenSSL 3.2 and newer make version 3 unless asked
version1() {
    printf '[req]\\ndistinguished_name=name\\n[name]\\n' > minimal.cnf
    openssl req -x509 -x509v1 -new -config minimal.cnf -days 100 \"$@\" 2>/dev/null ||
        openssl req -x509 -new -config minimal.cnf -days 100 \"$@\"
}
";
