"""Logs in and asks for what only the backend can answer.

Usage: login.py PROTOCOL TLS HOST PORT CA METHOD USER PASSWORD [IDENTITY]
METHOD: login (IMAP LOGIN, POP3 USER/PASS, SMTP AUTH LOGIN), apop, or a SASL mechanism: plain, cram-md5, xoauth2,
oauthbearer, external; with -ir behind it, the client begins with its message (initial response).
PASSWORD: the token of xoauth2 and oauthbearer.
IDENTITY: a file with a certificate and its key.

What the server says of a refused token is printed.
"""

import base64
import imaplib
import sys

import mail

protocol, tls, host, port, ca, method, user, password, *identity = sys.argv[1:]
mechanism, has_initial = method.removesuffix("-ir").upper(), method.endswith("-ir")
messages = {
    "PLAIN": [f"\0{user}\0{password}"],
    "XOAUTH2": [f"user={user}\1auth=Bearer {password}\1\1", ""],
    "OAUTHBEARER": [f"n,a={user},\1host={host}\1port={port}\1auth=Bearer {password}\1\1", "\1"],
    "EXTERNAL": [user],
}.get(mechanism)


def answer(challenge=b""):
    """The next message of the mechanism, without base64."""
    if challenge.startswith(b"{"):
        print("refused with", challenge.decode())
    return messages.pop(0)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def imap(client):
    if method == "login":
        client.login(user, password)
    elif mechanism == "CRAM-MD5":
        client.login_cram_md5(user, password)
    else:
        # imaplib's authenticate() has no initial responses.
        initial = [encoded(answer())] if has_initial else []
        client.literal = imaplib._Authenticator(lambda challenge: answer(challenge).encode()).process
        status, data = client._simple_command("AUTHENTICATE", mechanism, *initial)
        mail.expect((status, data) if status != "OK" else status, "OK")
        client.state = "AUTH"
    mail.expect(client.select("INBOX")[0], "OK")
    mail.expect(client.noop()[0], "OK")
    mail.expect(client.logout()[0], "BYE")


def pop3(client):
    if method == "login":
        client.user(user)
        client.pass_(password)
    elif method == "apop":
        client.apop(user, password)
    else:
        pop3_sasl(client)
    client.stat()
    mail.expect(client.quit()[:3], b"+OK")


def pop3_sasl(client):
    initial = " " + encoded(answer()) if has_initial else ""
    line = client._shortcmd(f"AUTH {mechanism}{initial}")
    while line == b"+" or line.startswith(b"+ "):
        challenge = base64.b64decode(line[2:])
        if mechanism == "CRAM-MD5":
            digest = mail.cram_md5(password, challenge)
            line = client._shortcmd(encoded(f"{user} {digest}"))
        else:
            line = client._shortcmd(encoded(answer(challenge)))


def smtp(client):
    client.user, client.password = user, password
    known = {"LOGIN": client.auth_login, "CRAM-MD5": client.auth_cram_md5}
    used = known.get(mechanism, answer)
    mail.expect(client.auth(mechanism, used, initial_response_ok=has_initial)[0], 235)
    # Only the backend knows whether this sender may be used; nothing is sent.
    mail.expect(client.mail(user)[0], 250)
    mail.expect(client.rset()[0], 250)
    mail.expect(client.quit()[0], 221)


{"IMAP": imap, "POP3": pop3, "SMTP": smtp}[protocol](mail.connect(protocol, tls, host, int(port), ca, *identity))
print("logged in")
