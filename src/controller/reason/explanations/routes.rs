//! The reasons of `MailRoute`s.

use super::{Explanation, False, Reason, True, Unknown};

pub(super) const DOMAIN_NOT_ALLOWED: Explanation = Explanation {
    reason: Reason::DomainNotAllowed,
    conditions: &[("Accepted", False)],
    meaning: "A MailRoute names a domain, or a user of a domain, that its MailServer does not allow to routes of this \
              namespace. The route is not used.",
    cause: "`spec.allowedRoutes` of the MailServer has rules for this namespace, and none of them has the domain. A \
            namespace that may name a domain receives the passwords of its users, so the owner of the MailServer decides about it.",
    remedy: "Remove the domain from the MailRoute, or ask the owner of the MailServer to add it to the `domains` of a rule \
             in `spec.allowedRoutes`.",
};

pub(super) const ROUTE_CONFLICT: Explanation = Explanation {
    reason: Reason::RouteConflict,
    conditions: &[("Conflicted", True), ("Drained", Unknown)],
    meaning: "An older MailRoute of the same MailServer already has some of the domains or users. They stay with the \
              older one, even if the older route is held. The other domains and users of this route are served.",
    cause: "Two MailRoutes name the same domain or the same user. The older object takes precedence, then the first one in the \
            order of namespace and name.",
    remedy: "Name each domain and each user in one MailRoute only. The message names the other one.",
};

pub(super) const USERS_IGNORED: Explanation = Explanation {
    reason: Reason::UsersIgnored,
    conditions: &[("UsersIgnored", True)],
    meaning: "Some lines of a list of users (`usersFrom`) are not valid logins, have a domain that the MailServer does not \
              allow, or match no login. All other lines are used.",
    cause: "A line is longer than 320 bytes, has control characters, has characters that are not ASCII outside of its \
            domain, or has something else than a domain behind the `@`, such as a comment. Or `spec.allowedRoutes` of the \
            MailServer does not allow its domain to routes of this namespace. Or a line or an entry of `users` contains \
            `spec.routing.masterUserSeparator`: what follows this character in a login is the master user.",
    remedy: "Correct the lines in the ConfigMap or Secret. The message has the numbers of the first ones.",
};

pub(super) const PROTOCOL_NOT_SERVED: Explanation = Explanation {
    reason: Reason::ProtocolNotServed,
    conditions: &[("ProtocolNotServed", True)],
    meaning: "A MailRoute has a backend for a protocol for which its MailServer has no listener, so the backend gets no \
              sessions.",
    cause: "The MailServer has no such listener, or `backend.services` has the wrong protocol.",
    remedy: "Add a listener to the MailServer, or remove the entry from `backend.services`. If a MailListener in the \
             MailServer's namespace serves the protocol, ignore this warning.",
};

pub(super) const ENDPOINTS_UNNAMED: Explanation = Explanation {
    reason: Reason::EndpointsUnnamed,
    conditions: &[("EndpointsUnnamed", True)],
    meaning: "A MailRoute gives each user one endpoint (`backend.affinity`), and endpoints of its Service have no Pod. \
              They are recognised by their address: when it changes, their users move.",
    cause: "The EndpointSlices were written by hand or by a program, without `targetRef`.",
    remedy: "Let Kubernetes create the EndpointSlices from the Service's selector, or add `targetRef` with the name of \
             the Pod or server to each endpoint.",
};

pub(super) const ENDPOINTS_DIFFER: Explanation = Explanation {
    reason: Reason::EndpointsDiffer,
    conditions: &[("EndpointsDiffer", True)],
    meaning: "A MailRoute has `affinity.mode: Exclusive`, and the Services of its protocols have different endpoints. Only \
              endpoints that all of them have get users. While Pods come and go, this may be true for a moment.",
    cause: "The Services select different Pods. Often SMTP has a server of its own without mailboxes.",
    remedy: "Let the Services select the same Pods, or name in `affinity.protocols` only the protocols whose Services \
             do, such as `[IMAP, POP3]`.",
};

pub(super) const REPLICAS_UNKNOWN: Explanation = Explanation {
    reason: Reason::ReplicasUnknown,
    conditions: &[("ReplicasUnknown", True)],
    meaning: "A MailRoute has `affinity.mode: Exclusive`, and Mailgress does not know whether there are other replicas. A \
              user has sessions on one endpoint only within one replica.",
    cause: "Mailgress runs in a cluster without `--replicas`.",
    remedy: "Set `--replicas` to a Service that selects all replicas, with their port `admin` (the chart does this). If \
             there never is a second replica, ignore this warning; an update of the Deployment starts one for a moment.",
};

pub(super) const DRAINED: Explanation = Explanation {
    reason: Reason::Drained,
    conditions: &[("Drained", True)],
    meaning: "The MailRoute is held, and no session of its users is open in any ready replica. Their mailboxes can be \
              moved.",
    cause: "",
    remedy: "",
};

pub(super) const SESSIONS_OPEN: Explanation = Explanation {
    reason: Reason::SessionsOpen,
    conditions: &[("Drained", False)],
    meaning: "The MailRoute is held, and sessions of its users are still open. Mailgress ends them within \
              `spec.spread`; logins that are in progress at the backend count too.",
    cause: "The state was changed to `Held` a moment ago. Or a backend does not answer a login, which takes up to \
            `timeouts.connect`.",
    remedy: "Wait: `kubectl wait --for=condition=Drained mailroute/NAME`. `mailgress sessions` lists open sessions.",
};
