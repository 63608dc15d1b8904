"""Sends a message file.

Usage: send.py PROTOCOL TLS HOST PORT CA FROM TO FILE [USER PASSWORD]
"""

import sys

import mail

protocol, tls, host, port, ca, sender, recipient, path, *login = sys.argv[1:]
client = mail.connect(protocol, tls, host, int(port), ca)
if login:
    client.login(*login)
with open(path, "rb") as file:
    refused = client.sendmail(sender, [recipient], file.read())
mail.expect(refused, {})
mail.expect(client.quit()[0], 221)
