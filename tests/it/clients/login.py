"""Logs in and asks for what only the backend can answer.

Usage: login.py PROTOCOL TLS HOST PORT CA METHOD USER PASSWORD
METHOD: login (IMAP LOGIN, POP3 USER/PASS, SMTP AUTH LOGIN), plain (SASL PLAIN), plain-ir (initial response).
"""

import base64
import sys

import mail

protocol, tls, host, port, ca, method, user, password = sys.argv[1:]
client = mail.connect(protocol, tls, host, int(port), ca)
secret = f"\0{user}\0{password}".encode()
encoded = base64.b64encode(secret).decode()

if protocol == "IMAP":
    if method == "login":
        client.login(user, password)
    elif method == "plain":
        client.authenticate("PLAIN", lambda _: secret)
    else:
        # imaplib has no initial responses: the command is written out.
        tag = client._command("AUTHENTICATE", "PLAIN", encoded)
        mail.expect(client._command_complete("AUTHENTICATE", tag)[0], "OK")
        client.state = "AUTH"
    mail.expect(client.select("INBOX")[0], "OK")
    mail.expect(client.noop()[0], "OK")
    mail.expect(client.logout()[0], "BYE")
elif protocol == "POP3":
    if method == "login":
        client.user(user)
        client.pass_(password)
    elif method == "plain":
        mail.expect(client._shortcmd("AUTH PLAIN").strip(), b"+")
        client._shortcmd(encoded)
    else:
        client._shortcmd(f"AUTH PLAIN {encoded}")
    client.stat()
    mail.expect(client.quit()[:3], b"+OK")
else:
    client.user, client.password = user, password
    if method == "login":
        mail.expect(client.auth("LOGIN", client.auth_login, initial_response_ok=False)[0], 235)
    else:
        mail.expect(client.auth("PLAIN", client.auth_plain, initial_response_ok=method == "plain-ir")[0], 235)
    # Only the backend knows whether this sender may be used; nothing is sent.
    mail.expect(client.mail(user)[0], 250)
    mail.expect(client.rset()[0], 250)
    mail.expect(client.quit()[0], 221)
print("logged in")
