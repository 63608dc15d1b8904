"""Fetches the first message of a mailbox into a file, byte for byte.

Usage: fetch.py PROTOCOL TLS HOST PORT CA USER PASSWORD FILE
"""

import poplib
import sys

import mail

protocol, tls, host, port, ca, user, password, path = sys.argv[1:]
poplib._MAXLINE = 1_000_000
client = mail.connect(protocol, tls, host, int(port), ca)
if protocol == "IMAP":
    client.login(user, password)
    mail.expect(client.select("INBOX", readonly=True)[0], "OK")
    status, parts = client.fetch("1", "(BODY.PEEK[])")
    mail.expect(status, "OK")
    message = parts[0][1]
    client.logout()
else:
    client.user(user)
    client.pass_(password)
    message = b"".join(line + b"\r\n" for line in client.retr(1)[1])
    client.quit()
with open(path, "wb") as file:
    file.write(message)
