#!/usr/bin/env bash
# Mailgress in front of a real Dovecot and a real Postfix, on loopback and unprivileged ports: sends a mail and
# reads it back through Mailgress, then stays up to be tried by hand. ONCE=1 ends after the check.
#
# Everything it writes is below target/quickstart; everything it starts, it ends.
# MAILGRESS=path chooses the binary; otherwise target/debug/mailgress.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/target/quickstart
mailgress=${MAILGRESS:-$root/target/debug/mailgress}
user=alice@example.test
WAIT_SECONDS=20

# Daemons and sbin tools are not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

dovecot_pid= postfix_pid= mailgress_pid= outside_state=

# --- output -----------------------------------------------------------------------------------------

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '   %s\n' "$*"; }
excerpt() { sed "s/^/   ${dim}| /; s/\$/${plain}/"; }
fail() { printf '\nquickstart: %s\n' "$*" >&2; exit 1; }

# Prints a command as one would type it, and runs it; its output may be redirected.
exec 8>&1
try() {
    printf '   $ %s' "$1" >&8
    printf ' %q' "${@:2}" >&8
    printf '\n' >&8
    "$@" 8>&-
}

# --- processes --------------------------------------------------------------------------------------

# Postfix's master must be root.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

running() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

end() {
    local pid=$1 tries=0
    running "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    while running "$pid" && [ $((tries += 1)) -le 100 ]; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

cleanup() {
    local status=$?
    trap - EXIT INT TERM HUP
    end "$mailgress_pid"
    if [ -n "$postfix_pid" ]; then
        as_root postfix -c "$state/postfix/etc" stop >/dev/null 2>&1 || true
        wait "$postfix_pid" 2>/dev/null || true
    fi
    end "$dovecot_pid"
    [ "$status" = 0 ] || [ "$status" = 130 ] || show_logs
    [ -z "$outside_state" ] || as_root rm -rf "$outside_state" "$work/state"
    exit "$status"
}

show_logs() {
    local log
    for log in "$work"/{mailgress.log,dovecot.out,postfix.out} "$state"/{dovecot/dovecot,postfix/postfix}.log; do
        [ -s "$log" ] || continue
        printf '\nThe end of %s:\n' "$log" >&2
        tail -n 15 "$log" >&2
    done
}

# What an exit status says; the shell adds 128 to the number of a signal.
how_it_ended() {
    if [ "$1" -gt 128 ]; then
        printf 'by SIG%s' "$(kill -l $(($1 - 128)))"
    else
        printf 'with exit status %s' "$1"
    fi
}

# A daemon that ends before it is up: says how, which its log explains.
ended_early() {
    local status=0
    wait "$2" || status=$?
    fail "$1 ended, $(how_it_ended "$status"), $3"
}

# Waits until something listens on the port, as long as the process lives.
wait_for_port() {
    local name=$1 port=$2 pid=$3 deadline=$((SECONDS + WAIT_SECONDS))
    until port_in_use "$port"; do
        running "$pid" || ended_early "$name" "$pid" "instead of listening on port $port"
        [ $SECONDS -lt $deadline ] || fail "$name does not listen on port $port after ${WAIT_SECONDS}s"
        sleep 0.1
    done
}

port_in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The wanted port, or the next free one: sets the variable of that name.
taken=" "
free_port() {
    local -n chosen=$1
    chosen=$2
    while port_in_use "$chosen" || [[ $taken == *" $chosen "* ]]; do
        chosen=$((chosen + 1))
        [ "$chosen" -lt $(($2 + 1000)) ] || fail "no free port from $2 on"
    done
    taken+="$chosen "
}

# Copies a file and replaces each @WORD@ and each WORD=TEXT pair given.
fill_in() {
    local from=$1 to=$2 script='' pair
    for pair in "${@:3}"; do script+="s|${pair%%=*}|${pair#*=}|g;"; done
    sed "$script" "$from" >"$to"
}

# --- 0. What is needed ------------------------------------------------------------------------------

for tool in dovecot postfix openssl curl; do
    command -v $tool >/dev/null || fail "$tool is missing; \`make quickstart\` installs what is missing"
done
[ -x "$mailgress" ] || fail "$mailgress is missing; \`make quickstart\` builds it"
dovecot_version=$(dovecot --version | cut -d. -f1,2)
[ -e "$here/dovecot-$dovecot_version.conf" ] ||
    fail "Dovecot $dovecot_version is here, and examples/quickstart has no dovecot-$dovecot_version.conf"
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null ||
        fail "Postfix's master process must be root: run this as root, or install sudo"
    note "Postfix's master process must be root: sudo may ask for your password."
    sudo -v || fail "Postfix's master process must be root, and sudo refused"
fi

mkdir -p "$root/target"
exec 9>"$root/target/quickstart.lock"
flock -n 9 || fail "another quickstart of this directory is still running"
[ ! -d "$work" ] || as_root rm -rf "$work"
mkdir -p "$work/manifests"

# As root, Dovecot and Postfix work as users of their own, who must be able to reach their files; a home
# directory may be closed to them, and a UNIX socket's path may not be longer than 108 bytes.
state=$work/state
mkdir "$state"
if [ "$(id -u)" = 0 ]; then
    mail_user=nobody mail_group=$(id -gn nobody) internal_user=dovecot internal_group=dovecot
    login_user=dovenull chroot_login=login chroot_empty=empty
else
    mail_user=$(id -un) mail_group=$(id -gn) internal_user=$mail_user internal_group=$mail_group
    login_user=$mail_user chroot_login='' chroot_empty=''
fi
if [ ${#state} -gt 70 ] || { [ "$(id -u)" = 0 ] &&
    ! setpriv --reuid="$mail_user" --regid="$mail_group" --clear-groups test -x "$state"; }; then
    rmdir "$state"
    outside_state=$(mktemp -d "${TMPDIR:-/tmp}/mailgress-quickstart.XXXXXX")
    chmod 755 "$outside_state"
    ln -s "$outside_state" "$state"
    state=$outside_state
fi
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$state"/{mail,dovecot,postfix/etc,postfix/queue,postfix/data}

free_port submission_port 2587
free_port imaps_port 2993
free_port pop3s_port 2995
free_port admin_port 9090
free_port status_port 9091
free_port smtp_backend_port 10587
free_port imap_backend_port 10143
free_port pop3_backend_port 10110
free_port lmtp_port 10024
free_port sasl_port 10345

# --- 1. Certificate ---------------------------------------------------------------------------------

step "1. A certificate authority, and a certificate for localhost"
tls=$work/tls
mkdir "$tls"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=Quickstart CA" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
    -keyout "$tls/server.key" -out "$tls/server.csr" 2>/dev/null
openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 365 \
    -extfile <(printf '%s\n' subjectAltName=DNS:localhost,IP:127.0.0.1 extendedKeyUsage=serverAuth \
        subjectKeyIdentifier=hash authorityKeyIdentifier=keyid) \
    -out "$tls/server.pem" 2>/dev/null
{
    printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: mail-tls\n  namespace: mail\n'
    printf 'type: kubernetes.io/tls\nstringData:\n'
    printf '  tls.crt: |\n' && sed 's/^/    /' "$tls/server.pem"
    printf '  tls.key: |\n' && sed 's/^/    /' "$tls/server.key"
} >"$work/manifests/secret.yaml"
chmod 600 "$work/manifests/secret.yaml"
note "target/quickstart/tls/ca.pem is what a client trusts;"
note "target/quickstart/manifests/secret.yaml is the kubernetes.io/tls Secret that Mailgress serves."

# --- 2. Backends ------------------------------------------------------------------------------------

step "2. The backends: Dovecot and Postfix"
password=$(openssl rand -hex 6)
(umask 077 && printf '%s:{PLAIN}%s::::::\n' "$user" "$password" >"$state/dovecot/users")
if [ "$(id -u)" = 0 ]; then
    chown "$mail_user" "$state/mail"
    chown "$internal_user" "$state/dovecot/users"
fi
cat "$here/dovecot-$dovecot_version.conf" "$here/dovecot-services.conf" >"$work/dovecot.conf"
fill_in "$work/dovecot.conf" "$state/dovecot/dovecot.conf" \
    @STATE@="$state" @MAIL_USER@="$mail_user" @MAIL_GROUP@="$mail_group" \
    @INTERNAL_USER@="$internal_user" @INTERNAL_GROUP@="$internal_group" @LOGIN_USER@="$login_user" \
    @CHROOT_LOGIN@="$chroot_login" @CHROOT_EMPTY@="$chroot_empty" \
    @IMAP_PORT@="$imap_backend_port" @POP3_PORT@="$pop3_backend_port" \
    @LMTP_PORT@="$lmtp_port" @SASL_PORT@="$sasl_port"
dovecot -F -c "$state/dovecot/dovecot.conf" </dev/null >"$work/dovecot.out" 2>&1 8>&- 9>&- &
dovecot_pid=$!
wait_for_port Dovecot "$imap_backend_port" "$dovecot_pid"
note "Dovecot $(dovecot --version | cut -d' ' -f1): imap on port $imap_backend_port, pop3 on port $pop3_backend_port."

fill_in "$here/postfix-main.cf" "$state/postfix/etc/main.cf" \
    @STATE@="$state" @MAILBOX@="$user" @LMTP_PORT@="$lmtp_port" @SASL_PORT@="$sasl_port"
fill_in "$here/postfix-master.cf" "$state/postfix/etc/master.cf" @SMTP_PORT@="$smtp_backend_port"
as_root chown root "$state"/postfix/{etc,queue} "$state"/postfix/etc/{main,master}.cf
as_root chown postfix "$state/postfix/data"
as_root postfix -c "$state/postfix/etc" start-fg </dev/null >"$work/postfix.out" 2>&1 8>&- 9>&- &
postfix_pid=$!
wait_for_port Postfix "$smtp_backend_port" "$postfix_pid"
note "Postfix $(postconf -c "$state/postfix/etc" -h mail_version): submission on port $smtp_backend_port; delivers to Dovecot."
note "The account is $user, the password $password."

# --- 3. Mailgress -----------------------------------------------------------------------------------

step "3. Mailgress: three listeners from two files"
fill_in "$here/mail.yaml" "$work/manifests/mail.yaml" \
    "port: 2587=port: $submission_port" "port: 2993=port: $imaps_port" "port: 2995=port: $pop3s_port" \
    "127.0.0.1:10587=127.0.0.1:$smtp_backend_port" "127.0.0.1:10143=127.0.0.1:$imap_backend_port" \
    "127.0.0.1:10110=127.0.0.1:$pop3_backend_port"
grep -v '^#' "$work/manifests/mail.yaml" | excerpt
cd "$root"
printf '   $ %s run --manifests target/quickstart/manifests --admin-address 127.0.0.1:%s --status-address 127.0.0.1:%s\n' \
    "${mailgress#"$root"/}" "$admin_port" "$status_port"
"$mailgress" run --manifests target/quickstart/manifests --admin-address "127.0.0.1:$admin_port" \
    --status-address "127.0.0.1:$status_port" </dev/null >"$work/mailgress.log" 2>&1 8>&- 9>&- &
mailgress_pid=$!
deadline=$((SECONDS + WAIT_SECONDS))
until curl -fs -o /dev/null "http://127.0.0.1:$admin_port/readyz"; do
    running "$mailgress_pid" || ended_early Mailgress "$mailgress_pid" "instead of becoming ready"
    [ $SECONDS -lt $deadline ] || fail "Mailgress is not ready after ${WAIT_SECONDS}s"
    sleep 0.1
done
excerpt <"$work/mailgress.log"

# --- 4. A mail goes through it ----------------------------------------------------------------------

ca=target/quickstart/tls/ca.pem
subject="Hello through Mailgress"
printf 'From: %s\r\nTo: %s\r\nSubject: %s\r\n\r\nSent over STARTTLS, read over TLS.\r\n' \
    "$user" "$user" "$subject" >"$work/hello.eml"

step "4. Send a mail: SMTP submission, STARTTLS, AUTH"
# --login-options: curl would try the strongest mechanism that it knows.
try curl -sS --max-time 20 --ssl-reqd --cacert "$ca" --login-options AUTH=PLAIN --user "$user:$password" \
    --mail-from "$user" --mail-rcpt "$user" --upload-file target/quickstart/hello.eml \
    "smtp://localhost:$submission_port/client.example.test" || fail "the mail was not accepted"
deadline=$((SECONDS + WAIT_SECONDS))
until [ -n "$(find "$state/mail" -path '*/new/*' -type f -print -quit 2>/dev/null)" ]; do
    [ $SECONDS -lt $deadline ] || fail "the mail was accepted and did not arrive after ${WAIT_SECONDS}s"
    sleep 0.1
done
note "Postfix took it, and says who sent it:"
{ as_root grep -hE 'sasl_username=|status=' "$state/postfix/postfix.log" || true; } | cut -c1-160 | excerpt

# Reads the mail back, shows its beginning and checks that it is ours.
read_back() {
    try curl -sS --max-time 20 --cacert "$ca" --user "$user:$password" "$1" >"$work/received" ||
        fail "the mail could not be read"
    { grep -E '^(Received: from|Subject:|Sent over)' "$work/received" || true; } | excerpt
    grep -q "^Subject: $subject" "$work/received" || fail "what was read is not the mail that was sent"
}

step "5. Read it back: IMAP over TLS"
read_back "imaps://localhost:$imaps_port/INBOX;MAILINDEX=1"
step "6. Read it back: POP3 over TLS"
read_back "pop3s://localhost:$pop3s_port/1"

step "7. What Mailgress says about it"
{ grep 'INFO session' "$work/mailgress.log" || true; } | tail -n 3 | sed 's/^[^ ]* *//' | excerpt

step "The mail went in by submission and came out by IMAP and by POP3."
[ "${ONCE:-}" != 1 ] || exit 0

cat <<END

Mailgress stays up until Ctrl-C. By hand:

   submission  localhost:$submission_port (STARTTLS)    account   $user
   imaps       localhost:$imaps_port (TLS)         password  $password
   pop3s       localhost:$pop3s_port (TLS)         trust     $ca

   openssl s_client -quiet -CAfile $ca -connect localhost:$imaps_port
   openssl s_client -quiet -CAfile $ca -starttls smtp -connect localhost:$submission_port
   ${mailgress#"$root"/} status --address http://127.0.0.1:$status_port
   http://127.0.0.1:$status_port/                          # the status page; metrics: http://127.0.0.1:$admin_port/metrics
   edit target/quickstart/manifests/mail.yaml      # swapped in at once
   tail -f target/quickstart/mailgress.log

docs/tutorial/without-a-cluster.md goes on from here.
END
ended='' status=0
wait -n -p ended "$dovecot_pid" "$postfix_pid" "$mailgress_pid" || status=$?
case $ended in
    "$dovecot_pid") name=Dovecot ;;
    "$postfix_pid") name=Postfix ;;
    *) name=Mailgress ;;
esac
fail "$name ended, $(how_it_ended "$status")"
