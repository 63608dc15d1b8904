#!/usr/bin/env bash
# A Dovecot on loopback for the how-tos, until it is ended: IMAP and POP3 without TLS. All accounts have the password
# "secret".
#
#     run.sh NAME IMAP_PORT POP3_PORT ACCOUNT...
#
# For a Postfix of examples/postfix/run.sh, name two more ports in the variables LMTP_PORT and SASL_PORT.
#
# Its files are in backends/NAME of the current folder, for example dovecot.conf for `doveadm -c`.
set -euo pipefail

[ $# -ge 4 ] || { echo "usage: $0 NAME IMAP_PORT POP3_PORT ACCOUNT..." >&2; exit 2; }
name=$1 imap_port=$2 pop3_port=$3
shift 3
quickstart=$(cd "$(dirname "${BASH_SOURCE[0]}")/../quickstart" && pwd)
version=$(dovecot --version | cut -d. -f1,2)

# Dovecot works as users of its own, who must be able to reach its files, so they are not below the current folder.
state=$(mktemp -d "${TMPDIR:-/tmp}/mailgress-$name.XXXXXX")
trap 'rm -rf "$state"' EXIT
mkdir -p "$state"/{mail,dovecot} backends
chmod 755 "$state"
ln -sfn "$state/dovecot" "backends/$name"

if [ "$(id -u)" = 0 ]; then
    mail_user=nobody mail_group=$(id -gn nobody) internal_user=dovecot internal_group=dovecot
    login_user=dovenull chroot_login=login chroot_empty=empty
    chown "$mail_user" "$state/mail"
else
    mail_user=$(id -un) mail_group=$(id -gn) internal_user=$mail_user internal_group=$mail_group
    login_user=$mail_user chroot_login='' chroot_empty=''
fi
printf '%s:{PLAIN}secret::::::\n' "$@" >"$state/dovecot/users"
sed -e "s|@STATE@|$state|; s|@MAIL_USER@|$mail_user|; s|@MAIL_GROUP@|$mail_group|" \
    -e "s|@INTERNAL_USER@|$internal_user|; s|@INTERNAL_GROUP@|$internal_group|; s|@LOGIN_USER@|$login_user|" \
    -e "s|@CHROOT_LOGIN@|$chroot_login|; s|@CHROOT_EMPTY@|$chroot_empty|" \
    -e "s|@IMAP_PORT@|$imap_port|; s|@POP3_PORT@|$pop3_port|; s|@LMTP_PORT@|${LMTP_PORT:-0}|; s|@SASL_PORT@|${SASL_PORT:-0}|" \
    -e "s|mailgress-quickstart|mailgress-$name|" \
    "$quickstart/dovecot-$version.conf" "$quickstart/dovecot-services.conf" >"$state/dovecot/dovecot.conf"
dovecot -F -c "$state/dovecot/dovecot.conf" &
trap 'rm -rf "$state"; kill $! 2>/dev/null; wait' EXIT
trap 'exit 143' INT TERM HUP
wait
