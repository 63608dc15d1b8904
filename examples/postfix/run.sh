#!/usr/bin/env bash
# A Postfix on loopback for the tutorials, until it is ended: one port without TLS, for the submission of its accounts and
# for mail to them. A Dovecot of examples/dovecot/run.sh knows the passwords and gets the mail.
#
#     run.sh NAME SMTP_PORT LMTP_PORT SASL_PORT ACCOUNT...
#
# LMTP_PORT and SASL_PORT are those of the Dovecot. The accounts are of one domain.
set -euo pipefail

[ $# -ge 5 ] || { echo "usage: $0 NAME SMTP_PORT LMTP_PORT SASL_PORT ACCOUNT..." >&2; exit 2; }
name=$1 smtp_port=$2 lmtp_port=$3 sasl_port=$4
shift 4
quickstart=$(cd "$(dirname "${BASH_SOURCE[0]}")/../quickstart" && pwd)
PATH=$PATH:/usr/sbin:/sbin

# Postfix's master must be root.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Postfix works as a user of its own, who must be able to reach its files, so they are not below the current folder.
state=$(mktemp -d "${TMPDIR:-/tmp}/mailgress-$name-postfix.XXXXXX")
trap 'as_root rm -rf "$state"' EXIT
mkdir -p "$state"/postfix/{etc,queue,data}
chmod 755 "$state"

mailboxes=
for account in "$@"; do mailboxes+="{ $account = ok } "; done
# Unlike in the quickstart, everybody may send to the accounts, as on port 25.
sed -e "s|@STATE@|$state|; s|{ @MAILBOX@ = ok }|$mailboxes|; s|@LMTP_PORT@|$lmtp_port|; s|@SASL_PORT@|$sasl_port|" \
    -e "s|example\.test|${1#*@}|; s|permit_sasl_authenticated, reject$|permit_sasl_authenticated, reject_unauth_destination|" \
    "$quickstart/postfix-main.cf" >"$state/postfix/etc/main.cf"
sed -e "s|@SMTP_PORT@|$smtp_port|" "$quickstart/postfix-master.cf" >"$state/postfix/etc/master.cf"
as_root chown root "$state"/postfix/{etc,queue} "$state"/postfix/etc/{main,master}.cf
as_root chown postfix "$state/postfix/data"
as_root postfix -c "$state/postfix/etc" start-fg &
trap 'as_root postfix -c "$state/postfix/etc" stop 2>/dev/null; wait; as_root rm -rf "$state"' EXIT
trap 'exit 143' INT TERM HUP
wait
