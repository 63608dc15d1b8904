//! What there is to say about settings that are served and probably not meant, and about values that YAML changes.

use super::{Explanation, False, Reason, True};

pub(super) const WRONG_TYPE: Explanation = Explanation {
    reason: Reason::WrongType,
    conditions: &[("Accepted", False)],
    meaning: "A value has the wrong type for its field.",
    cause: "Usually YAML: kubectl reads a bare `on`, `off`, `yes` or `no` as a boolean, and a bare `60` as a \
            number.",
    remedy: "Put such strings in quotes (`\"on\"`), and remove the quotes from numbers and booleans.",
};

pub(super) const INTRODUCTION_NOT_ALLOWED: Explanation = Explanation {
    reason: Reason::IntroductionNotAllowed,
    conditions: &[("IntroductionNotAllowed", True)],
    meaning: "A MailListener in another namespace than its MailServer is configured to send client information \
                to backends (PROXY header, XCLIENT or IMAP ID), but the MailServer does not allow it. Nothing is \
                sent.",
    cause: "`upstream.proxyProtocol`, `upstream.xclient` or `upstream.imapId`, on the listener or on its MailServer. \
            The author of the listener decides the content of this information. A backend that trusts it would trust \
            the author. With XCLIENT, the author could send mail as any user.",
    remedy: "Remove the setting from the listener, disable it there, or ask the owner of the MailServer to set \
             `spec.allowedListeners.backends.introductions`: `OwnServices` is enough if the backends are Pods of the \
             listener's own namespace.",
};

pub(super) const NO_READY_ENDPOINTS: Explanation = Explanation {
    reason: Reason::NoReadyEndpoints,
    conditions: &[("NoReadyEndpoints", True)],
    meaning: "A Service has no ready endpoint. If endpoints are terminating but still serve, logins go to them. \
            Otherwise logins get an error.",
    cause: "Its Pods are not ready or do not exist, or its selector does not match their labels.",
    remedy: "Check `kubectl get endpointslices -l kubernetes.io/service-name=NAME` and the readiness of the \
                Pods.",
};

pub(super) const ENDPOINTS_LEAVING: Explanation = Explanation {
    reason: Reason::EndpointsLeaving,
    conditions: &[("EndpointsLeaving", True)],
    meaning: "Pods of a Service are taken out of service: they get no new sessions, and their open sessions are ended over \
              ten seconds. With `affinity`, their users go to other endpoints.",
    cause: "The Pods have the annotation `mailgress.dev/drain: \"true\"`.",
    remedy: "`mailgress sessions --backend POD` lists the sessions that are left. To use a Pod again, remove the annotation: \
             `kubectl annotate pod POD mailgress.dev/drain-`. A new Pod with the same name does not have it.",
};

pub(super) const IMPLICIT_TLS_EXPECTED: Explanation = Explanation {
    reason: Reason::ImplicitTlsExpected,
    conditions: &[("ImplicitTLSExpected", True)],
    meaning: "A backend's port is 465, 993 or 995, where servers expect TLS from the first byte, and \
            `upstream.tls.mode` is not `Implicit`. Such a server sends no greeting before TLS, and every login fails \
            after `timeouts.connect`.",
    cause: "`backendRef` or `backendAddress` has the port for TLS, but TLS to the backend is not configured.",
    remedy: "Set `upstream.tls.mode: Implicit`, or use the port without TLS. If a sidecar of a service mesh adds \
             TLS, ignore this warning.",
};

pub(super) const CLEAR_TEXT: Explanation = Explanation {
    reason: Reason::ClearText,
    conditions: &[("ClearText", True)],
    meaning: "Passwords can be sent in clear text: the listener accepts logins, has no certificate, and \
                `tls.mode: Disabled` is not set.",
    cause: "`tls.certificateRefs` is missing on the listener and on its MailServer.",
    remedy: "Configure a certificate. If clear text is intended (inside a service mesh, or on loopback), write `tls: \
             { mode: Disabled }`.",
};

pub(super) const CAPABILITY_IGNORED: Explanation = Explanation {
    reason: Reason::CapabilityIgnored,
    conditions: &[("CapabilityIgnored", True)],
    meaning: "`capabilities` contains an entry that Mailgress adds itself where it is needed: AUTH, STARTTLS, \
            STLS, SASL, LOGINDISABLED, or USER where USER is refused. The entry is ignored.",
    cause: "The list was copied from another server. If Mailgress announced it unchanged, it would offer logins \
            before TLS, or login methods that it refuses.",
    remedy: "Remove the entry from `capabilities`. `authMethods` determines the login methods, and `tls` \
                whether STARTTLS is offered.",
};
