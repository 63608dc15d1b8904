"""Connects Python's mail libraries to a listener: in clear, with STARTTLS, or with TLS from the first byte."""

import imaplib
import poplib
import smtplib
import ssl

TIMEOUT = 60


def connect(protocol, tls, host, port, ca):
    """A client past TLS and before the login."""
    context = ssl.create_default_context(cafile=ca)
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


def expect(seen, wanted):
    if seen != wanted:
        raise SystemExit(f"expected {wanted!r}, saw {seen!r}")
