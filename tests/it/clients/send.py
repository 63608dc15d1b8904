"""Sends a message file.

Usage: send.py PROTOCOL TLS HOST PORT CA [OPTION...] FROM TO FILE [USER PASSWORD]
--source ADDRESS: one of ours; --header TEXT: a PROXY header; --parameter TEXT: of the MAIL command, repeatable.
"""

import argparse

import mail

parser = argparse.ArgumentParser()
parser.add_argument("--source", default="127.0.0.1")
parser.add_argument("--header", default="")
parser.add_argument("--parameter", action="append", default=[])
for name in ("protocol", "tls", "host", "port", "ca", "sender", "recipient", "path"):
    parser.add_argument(name)
parser.add_argument("login", nargs="*")
wanted = parser.parse_intermixed_args()

mail.from_address(wanted.source, wanted.header)
client = mail.connect(wanted.protocol, wanted.tls, wanted.host, int(wanted.port), wanted.ca)
if wanted.login:
    client.login(*wanted.login)
with open(wanted.path, "rb") as file:
    refused = client.sendmail(wanted.sender, [wanted.recipient], file.read(), wanted.parameter)
mail.expect(refused, {})
mail.expect(client.quit()[0], 221)
