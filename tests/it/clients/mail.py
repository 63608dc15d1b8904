"""Connects Python's mail libraries to a listener: in clear, with STARTTLS, or with TLS from the first byte."""

import hmac
import imaplib
import poplib
import smtplib
import socket
import ssl

TIMEOUT = 60


def connect(protocol, tls, host, port, ca, identity=None):
    """A client past TLS and before the login; identity is a file with a certificate and its key."""
    context = ssl.create_default_context(cafile=ca)
    if identity:
        context.load_cert_chain(identity)
    starttls = tls in ("StartTLS", "RequireStartTLS")
    if protocol == "IMAP":
        if tls == "Implicit":
            return imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=TIMEOUT)
        client = imaplib.IMAP4(host, port, timeout=TIMEOUT)
        if starttls:
            expect(client.starttls(context)[0], "OK")
        return client
    if protocol == "POP3":
        if tls == "Implicit":
            return poplib.POP3_SSL(host, port, context=context, timeout=TIMEOUT)
        client = poplib.POP3(host, port, timeout=TIMEOUT)
        if starttls:
            client.stls(context)
        return client
    if tls == "Implicit":
        client = smtplib.SMTP_SSL(host, port, "client.example.test", context=context, timeout=TIMEOUT)
    else:
        client = smtplib.SMTP(host, port, "client.example.test", timeout=TIMEOUT)
        if starttls:
            expect(client.starttls(context=context)[0], 220)
    client.ehlo_or_helo_if_needed()
    return client


def from_address(source, header=""):
    """From here on, clients connect from this address of ours, and say the PROXY header first, if there is one."""
    plain_connect = socket.create_connection

    def connect_from(address, timeout=TIMEOUT, source_address=None):
        connection = plain_connect(address, timeout, (source, 0))
        if header:
            connection.sendall(header.encode() + b"\r\n")
        return connection

    # imaplib and poplib do not let one choose the source address.
    socket.create_connection = connect_from


def cram_md5(password, challenge):
    """The digest of RFC 2195."""
    return hmac.new(password.encode(), challenge, "md5").hexdigest()


def expect(seen, wanted):
    if seen != wanted:
        raise SystemExit(f"expected {wanted!r}, saw {seen!r}")
