//! What there is to say about settings that are served and probably not meant.

use super::{Explanation, Reason, True};

pub(super) const INTRODUCTION_NOT_ALLOWED: Explanation = Explanation {
    reason: Reason::IntroductionNotAllowed,
    conditions: &[("IntroductionNotAllowed", True)],
    meaning: "A MailListener of another namespace than its MailServer's is configured to tell backends who the client \
              is (PROXY header, XCLIENT or IMAP's ID), and the MailServer does not allow it. Nothing of it is sent.",
    cause: "`upstream.proxyProtocol`, `upstream.xclient` or `upstream.imapId`, written on the listener or on its \
            MailServer. A backend that believes them believes whoever wrote the listener: with XCLIENT that is \
            enough to send mail as anybody.",
    remedy: "Remove the setting from the listener (or turn it off there), or let the owner of the MailServer set \
             `spec.allowedListeners.backends.introductions`: `OwnServices` is enough where the backends are Pods \
             of the listener's own namespace.",
};

pub(super) const NO_READY_ENDPOINTS: Explanation = Explanation {
    reason: Reason::NoReadyEndpoints,
    conditions: &[("NoReadyEndpoints", True)],
    meaning: "A Service has no ready endpoint. Logins are answered with an error, or given to endpoints that are \
              terminating.",
    cause: "Its Pods are not ready or not there, or its selector does not match their labels.",
    remedy: "Look with `kubectl get endpointslices -l kubernetes.io/service-name=NAME`, and at the Pods' readiness.",
};

pub(super) const IMPLICIT_TLS_EXPECTED: Explanation = Explanation {
    reason: Reason::ImplicitTlsExpected,
    conditions: &[("ImplicitTLSExpected", True)],
    meaning: "A backend's port is 465, 993 or 995, where servers expect TLS from the first byte, and \
              `upstream.tls.mode` is not `Implicit`. Such a server says nothing, and every login fails after \
              `timeouts.connect`.",
    cause: "`backendRef` or `backendAddress` names the port for TLS, and TLS to the backend is not configured.",
    remedy: "Set `upstream.tls.mode: Implicit`, or name the port without TLS. Where something on the way adds TLS, \
             such as a mesh's sidecar, the alarm can be ignored.",
};

pub(super) const CLEAR_TEXT: Explanation = Explanation {
    reason: Reason::ClearText,
    conditions: &[("ClearText", True)],
    meaning: "Passwords may travel in clear: the listener takes logins and has no certificate, and nobody wrote \
              that this is meant.",
    cause: "`tls.certificateRefs` is missing on the listener and on its MailServer.",
    remedy: "Configure a certificate. Where clear text is meant (within a mesh, or on loopback), write \
             `tls: { mode: Disabled }`.",
};

pub(super) const CAPABILITY_IGNORED: Explanation = Explanation {
    reason: Reason::CapabilityIgnored,
    conditions: &[("CapabilityIgnored", True)],
    meaning: "A list of `capabilities` has something that Mailgress announces itself, where it is true: AUTH, STARTTLS, \
              STLS, SASL, LOGINDISABLED, or USER where USER is refused. It is left out of the list.",
    cause: "The list was copied from another server's configuration or reply. Announced as it stands, it would offer \
            logins before TLS, or ways to log in that are refused.",
    remedy: "Remove it from `capabilities`. `authMethods` says which ways to log in there are, `tls` whether STARTTLS is \
             offered.",
};
