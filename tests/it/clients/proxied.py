"""Logs in from a given source address, and leaves a trace with the user's name in the backend's log.

Usage: proxied.py PROTOCOL TLS HOST PORT CA USER PASSWORD SOURCE [PROXY-HEADER]
"""

import sys

import mail

protocol, tls, host, port, ca, user, password, source, *header = sys.argv[1:]
mail.from_address(source, *header)

client = mail.connect(protocol, tls, host, int(port), ca)
if protocol == "IMAP":
    client.login(user, password)
    client.logout()
elif protocol == "POP3":
    client.user(user)
    client.pass_(password)
    client.quit()
else:
    client.login(user, password)
    # Postfix logs the client and the login with the first accepted recipient.
    client.mail(user)
    mail.expect(client.rcpt(user)[0], 250)
    client.quit()
