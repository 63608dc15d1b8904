//! What each reason means, where it comes from and what helps: Markdown, for the page and the terminal.

mod certificates;
mod settings;

use ConditionStatus::{False, True, Unknown};

use super::{ConditionStatus, Explanation, Reason};

/// One for each reason, in their order.
pub static EXPLANATIONS: [Explanation; 53] = [
    Explanation {
        reason: Reason::Accepted,
        conditions: &[("Accepted", True)],
        meaning: "The manifest is valid.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::Invalid,
        conditions: &[("Accepted", False), ("Programmed", False), ("Ready", False)],
        meaning: "The manifest says something that cannot be meant: two fields exclude each other, or a value does \
                  not fit the field's purpose. The message names the field. What was served before is served on.",
        cause: "Most such objects are refused by the API server. One comes this far where the rule needs to know more \
                than the object itself, where the CRDs in the cluster are older or newer than the controller, or with \
                `--manifests`, where there is no API server.",
        remedy: "Correct the field as the message says. `mailgress check -f FILE` says the same before anything is \
                 applied. After an upgrade, see that the CRDs are of the same version as the controller \
                 (`mailgress crds` prints them).",
    },
    Explanation {
        reason: Reason::UnknownField,
        conditions: &[("Accepted", False)],
        meaning: "There is a field that the API does not have. The message names the nearest that it has.",
        cause: "A typing error; a field at another level than the one it belongs to; or a manifest for a newer version.",
        remedy: "Correct or remove the field. `kubectl explain mailserver.spec --recursive` lists those that there are.",
    },
    Explanation {
        reason: Reason::Required,
        conditions: &[("Accepted", False)],
        meaning: "A field is missing that has no default.",
        cause: "It was left out, or its value is empty or null.",
        remedy: "Add the field that the message names.",
    },
    Explanation {
        reason: Reason::NotSupported,
        conditions: &[("Accepted", False)],
        meaning: "A field has a value that is none of the possible ones. The message lists those.",
        cause: "A typing error or another spelling: values are case-sensitive.",
        remedy: "Choose one of the values in the message.",
    },
    Explanation {
        reason: Reason::WrongType,
        conditions: &[("Accepted", False)],
        meaning: "A value has another type than its field.",
        cause: "Most often YAML: kubectl reads a bare `on`, `off`, `yes` or `no` as a boolean, and a bare `60` as a number.",
        remedy: "Put such strings in quotes (`\"on\"`), and remove the quotes from numbers and booleans.",
    },
    Explanation {
        reason: Reason::WrongForm,
        conditions: &[("Accepted", False)],
        meaning: "A string does not have the form that its field wants.",
        cause: "A duration without a unit, a size in another unit, an address that is none.",
        remedy: "Write it as the message says: durations as `30s` or `1h30m`, sizes as `64Ki` or `4096`.",
    },
    Explanation {
        reason: Reason::OutOfRange,
        conditions: &[("Accepted", False)],
        meaning: "A number, a string or a list is beyond the bound of its field.",
        cause: "Everything has a bound, so that no object can exhaust the controller or the API server.",
        remedy: "Stay within the bound that the message names. What needs more than 64 listeners is two MailServers, or \
                 MailListeners.",
    },
    Explanation {
        reason: Reason::NotAllowed,
        conditions: &[("Accepted", False)],
        meaning: "A MailListener wants to be attached to a MailServer that takes none from its namespace.",
        cause: "`spec.allowedListeners.namespaces` of the MailServer: its default is `Same`, its own namespace only.",
        remedy: "Let the MailServer's owner set `from: All`, or `from: Selector` with labels that the namespace has.",
    },
    Explanation {
        reason: Reason::BackendNotAllowed,
        conditions: &[("ResolvedRefs", False), ("BackendNotAllowed", True)],
        meaning: "A MailListener of another namespace than its MailServer's names a backend or an auth service that it may \
                  not connect to. An address or a setting that is not allowed keeps the listener from being served. \
                  Endpoints of a Service that are not allowed are left out, and the others are used.",
        cause: "`backendAddress`, `auth.http.url` or an `ExternalName` Service names something that the MailServer does \
                not allow; or a Service has no selector, or endpoints that are not Pods of its namespace. Backends \
                trust Mailgress's address, so the owner of the MailServer decides who may use it for what. Such a \
                listener may not set `resolver.nameservers` either nor, with the MailServer's auth service, \
                `auth.http.headers`, `auth.http.acceptAnyStatus` and `tls.clientAuth.caCertificateRefs`.",
        remedy: "Name a Service of the listener's own namespace in `backendRef` or `auth.http.serviceRef`, with a selector \
                 for its Pods. For anything else, let the owner of the MailServer add its address to \
                 `spec.allowedListeners.backends`, in `networks` or `hosts`.",
    },
    Explanation {
        reason: Reason::ResolvedRefs,
        conditions: &[("ResolvedRefs", True)],
        meaning: "Everything that the object refers to was found.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::RefNotFound,
        conditions: &[("ResolvedRefs", False)],
        meaning: "The object refers to a Secret, ConfigMap, Service, port or MailServer that does not exist. What was \
                  served before is served on.",
        cause: "A name that was mistyped, another namespace than the object's own, or something that is not there yet: \
                cert-manager, for one, makes a Secret only when the certificate is issued.",
        remedy: "Create it or correct the name; nothing needs to be restarted. References never reach into another \
                 namespace, but for `serverRef` of a MailListener.",
    },
    Explanation {
        reason: Reason::RefNotReadable,
        conditions: &[("ResolvedRefs", False)],
        meaning: "The controller may not read what the object refers to, or the API server does not answer for it.",
        cause: "The Role that names Secrets (`resourceNames`) does not name this one, or the reference has another name \
                than the Secret: what may not be read is not known to be missing. Mailgress asks for each Secret and \
                ConfigMap by its name, and needs get, list and watch on it.",
        remedy: "Correct the name, or add it to the namespace's Role (`references` in the chart's values makes one, and \
                 deploy/references.yaml is one to adapt), and look with \
                 `kubectl auth can-i watch secret/NAME -n NAMESPACE --as=system:serviceaccount:mailgress:mailgress`.",
    },
    Explanation {
        reason: Reason::InvalidRef,
        conditions: &[("ResolvedRefs", False)],
        meaning: "What the object refers to is there and cannot be used.",
        cause: "A Secret that is not of type `kubernetes.io/tls` or whose key does not belong to its certificate; a \
                CA without a certificate in it; a Service of type `ExternalName` without a name.",
        remedy: "Correct what the message says of it. `kubectl create secret tls NAME --cert=… --key=…` makes a Secret \
                 of the right form, with the chain in the certificate's file: the server's own first.",
    },
    Explanation {
        reason: Reason::NoConflicts,
        conditions: &[("Conflicted", False)],
        meaning: "No other listener wants the listener's socket.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::SocketConflict,
        conditions: &[("Conflicted", True)],
        meaning: "Another listener has the same address and port, and differs in something that all listeners of a \
                  socket share, or its address overlaps.",
        cause: "Two listeners with one port and without `hostnames`; or on a StartTLS port, where nothing is known \
                before the handshake, two listeners with different capabilities, limits or kinds of auth. Within one \
                object the one that is served already wins, and of two that are new neither; between objects a \
                MailServer's own listener wins, then the older object, then the name.",
        remedy: "Give one of them another port or address, or both different `hostnames` and equal shared settings.",
    },
    Explanation {
        reason: Reason::HostnameConflict,
        conditions: &[("Conflicted", True)],
        meaning: "Another listener on the same socket has the same host name.",
        cause: "`hostnames` that were copied, or a MailListener for a name that is somebody else's already.",
        remedy: "Give each host name to one listener. The message says which one has it.",
    },
    Explanation {
        reason: Reason::Programmed,
        conditions: &[("Programmed", True)],
        meaning: "All listeners are bound in the replica that says so.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::Bound,
        conditions: &[("Programmed", True), ("Ready", True)],
        meaning: "The listener is bound. The message names its sockets.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::Pending,
        conditions: &[("ResolvedRefs", Unknown), ("Programmed", Unknown), ("Ready", Unknown)],
        meaning: "The change is not finished: the API server has not answered yet what the object refers to, a socket is \
                  being bound, or a replica is still working on it. Until then the previous configuration is in use.",
        cause: "A change takes some tens of milliseconds in each replica. A replica that starts has to read everything \
                first.",
        remedy: "Wait. If it lasts for more than a few seconds, the message names the reference or the replica. For a \
                 reference, look at the API server and at `/status`; for a replica, at its log and its `/status`.",
    },
    Explanation {
        reason: Reason::BindFailed,
        conditions: &[("Programmed", False), ("Ready", False)],
        meaning: "The operating system refuses the socket. It is tried again until it works; all others serve.",
        cause: "*Permission denied*: a port below 1024, in a pod without the sysctl \
                `net.ipv4.ip_unprivileged_port_start` or with `hostNetwork`. *Address in use*: another process of the \
                node, with `hostNetwork`; on many machines that is a Postfix or Exim on port 25. *Cannot assign \
                requested address*: `address` names one that this node or pod does not have. \
                Mailgress' own admin port (9090, `--admin-address`) is in use, too.",
        remedy: "Set the sysctl (the chart does), end the other process, or give the listener another port: clients need \
                 not see it, since a Service maps 25 to any port that the pod can have.",
    },
    Explanation {
        reason: Reason::NotServed,
        conditions: &[("Programmed", False), ("Ready", False)],
        meaning: "Nothing is served for this listener, and no earlier generation is known that could be.",
        cause: "It never was right, or it was not when the process started: what was served last is remembered by \
                each process and not beyond it. `Accepted`, `ResolvedRefs` or `Conflicted` say what is wrong. Or a conflict took its \
                socket away, which nothing earlier can be served on.",
        remedy: "Mend what the other conditions say.",
    },
    Explanation {
        reason: Reason::UsingLastGood,
        conditions: &[("Degraded", True), ("Programmed", False), ("Ready", False)],
        meaning: "The object cannot be used as it is now. What it said before is served on, with its endpoints and \
                  certificates kept current.",
        cause: "An edit that was not right, or a Secret or Service that was deleted. `Accepted` or `ResolvedRefs` says \
                which.",
        remedy: "Mend what the other conditions say, before the pods are restarted: a new process does not know what \
                 was served before.",
    },
    Explanation {
        reason: Reason::Ready,
        conditions: &[("Ready", True)],
        meaning: "Every ready replica serves this generation and, with `--service`, the Service leads to it.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::ReplicaUnreachable,
        conditions: &[("Ready", False)],
        meaning: "A replica that is a ready endpoint does not say what it serves.",
        cause: "It hangs, its node is away, or a NetworkPolicy keeps the replicas from each other's port `admin`.",
        remedy: "Look at the pod that the message names. `kubectl delete pod` replaces one that hangs; a node that is \
                 away stops counting when Kubernetes takes its endpoints out. Between replicas, TCP to the admin port \
                 (9090) must be allowed.",
    },
    Explanation {
        reason: Reason::ServicePortPending,
        conditions: &[("Ready", Unknown)],
        meaning: "All replicas serve the listener, and the Service of `--service` does not lead to it yet: it lacks the \
                  port, or none of its ready endpoints has it.",
        cause: "Normal for a few seconds after a new port. If it lasts, no pod that the Service selects is ready, or \
                its selector selects none.",
        remedy: "If it lasts, look at `kubectl get endpointslices -l kubernetes.io/service-name=NAME` and at the pods.",
    },
    Explanation {
        reason: Reason::ServiceRefused,
        conditions: &[("Ready", False)],
        meaning: "All replicas serve the listener, but the Service of `--service` cannot be read, or does not get the \
                  listener's port. Clients do not reach it by the Service.",
        cause: "A missing permission; an admission policy; or a rule of the API server against the port. The message \
                repeats what the API server says.",
        remedy: "Give the ServiceAccount `get`, `list`, `watch` and `patch` on that Service (deploy/rbac.yaml, or the \
                 chart's `service.managePorts`). To manage the ports yourself, run without `--service`.",
    },
    Explanation {
        reason: Reason::ServiceNotFound,
        conditions: &[("Ready", False)],
        meaning: "All replicas serve the listener, but the Service of `--service`, which clients should come by, does \
                  not exist.",
        cause: "It was deleted, or `--service` names another one.",
        remedy: "Create it again (`helm upgrade` does), or correct `--service`. Its ports are put there as soon as it \
                 exists.",
    },
    Explanation {
        reason: Reason::AllHealthy,
        conditions: &[("BackendHealthy", True)],
        meaning: "All endpoints answer their health checks.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::SomeUnhealthy,
        conditions: &[("BackendHealthy", False)],
        meaning: "Some endpoints fail their health checks and get no sessions. The others do; the listener is ready.",
        cause: "The backend does not answer, answers with something else than a greeting of its protocol, or its \
                certificate is refused. The message says which, for each endpoint.",
        remedy: "Look at the Pods with these addresses. Where a check fails that sessions pass, compare \
                 `upstream.tls` and `upstream.proxyProtocol` with what the backend expects: checks speak as sessions do.",
    },
    Explanation {
        reason: Reason::AllUnhealthy,
        conditions: &[("BackendHealthy", False)],
        meaning: "All endpoints fail their health checks. Sessions are given to all of them anyway: the check may be \
                  what is wrong.",
        cause: "The backend is down, a network is, or the check speaks otherwise than the backend expects (TLS or the \
                PROXY protocol on one side only).",
        remedy: "Look at the backend first. Then compare `upstream.tls` and `upstream.proxyProtocol` with its \
                 configuration.",
    },
    Explanation {
        reason: Reason::NameServersSilent,
        conditions: &[("NameServersAnswer", False)],
        meaning: "No name server of the listener's resolver answers. SMTP clients are greeted without their names, and names \
                  of backends and auth services are not found.",
        cause: "`resolver.nameservers` holds an address without a name server, such as Docker's 127.0.0.11, which no pod \
                has; or a NetworkPolicy keeps requests from it.",
        remedy: "Correct `resolver.nameservers`, or leave it out, so that the pod's resolv.conf is used.",
    },
    Explanation {
        reason: Reason::Preserved,
        conditions: &[("ClientIPPreserved", True)],
        meaning: "Connections come from their clients' own addresses.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::ProxyProtocol,
        conditions: &[("ClientIPPreserved", True)],
        meaning: "Clients' addresses come with PROXY headers from peers that are trusted.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::ExternalTrafficPolicyCluster,
        conditions: &[("ClientIPPreserved", False)],
        meaning: "The Service lets a node hand connections on to another node, with an address of its own. Limits and \
                  bans then hit everybody at once, and a backend that trusts its neighbours becomes an open relay.",
        cause: "`spec.externalTrafficPolicy` of the Service is `Cluster`, which is Kubernetes' default.",
        remedy: "Set it to `Local`, or let the load balancer speak the PROXY protocol and name it in \
                 `proxyProtocol.trustedPeers`.",
    },
    Explanation {
        reason: Reason::NodeAddress,
        conditions: &[("ClientIPPreserved", False)],
        meaning: "Connections come from the address of a node instead of their clients'.",
        cause: "kube-proxy or the network plugin rewrites the source: the Service's `externalTrafficPolicy`, or a load \
                balancer that goes by way of a NodePort.",
        remedy: "Set `externalTrafficPolicy: Local`, or use the PROXY protocol. The guide about clients' addresses has an \
                 entry for each load balancer.",
    },
    Explanation {
        reason: Reason::OneSourceAddress,
        conditions: &[("ClientIPPreserved", False)],
        meaning: "All recent connections (a hundred or more, of clients that tried to log in) come from one address.",
        cause: "Most often a load balancer that does not pass clients' addresses on. It may be well, where there is \
                only one client: a webmail server, say.",
        remedy: "If it is a load balancer, let it speak the PROXY protocol and name it in `proxyProtocol.trustedPeers`.",
    },
    Explanation {
        reason: Reason::CertificateExpired,
        conditions: &[("CertificateExpired", True)],
        meaning: "A certificate has expired. It is served on, since an alarm is better than an outage; clients that \
                  verify it will refuse it.",
        cause: "Nothing renewed it, or what renewed it wrote another Secret.",
        remedy: "Put a new certificate into the Secret: it is used for the next connection. With cert-manager, \
                 `kubectl describe certificate` says why it was not renewed.",
    },
    Explanation {
        reason: Reason::ExpiresWithinAMonth,
        conditions: &[("CertificateExpiring", True)],
        meaning: "A certificate expires within thirty days, or is in the last quarter of its life where that is shorter.",
        cause: "It is not renewed automatically, or its renewal is late.",
        remedy: "Renew it, or look why it was not renewed.",
    },
    Explanation {
        reason: Reason::ExpiresWithinAWeek,
        conditions: &[("CertificateExpiring", True)],
        meaning: "A certificate expires within seven days, or is in the last tenth of its life where that is shorter.",
        cause: "Its renewal has failed for some time.",
        remedy: "Renew it now. With cert-manager, `kubectl describe certificate,certificaterequest,order` says what fails.",
    },
    certificates::CERTIFICATE_VERSION_1,
    certificates::CHAIN_REARRANGED,
    certificates::CHAIN_NOT_IN_ORDER,
    certificates::NO_ALTERNATIVE_NAME,
    certificates::WRONG_PURPOSE,
    certificates::WEAK_SIGNATURE,
    certificates::CERTIFICATE_NOT_YET_VALID,
    Explanation {
        reason: Reason::HostnameNotCovered,
        conditions: &[("HostnameNotCovered", True)],
        meaning: "A listener has a host name that none of its certificates is for: one of its `hostnames` or, where it has \
                  none, the `serverName` that somebody wrote. Clients that connect to this name and verify the \
                  certificate refuse it.",
        cause: "A name was added to `hostnames` and not to the certificate, or the Secret holds another certificate. Or \
                `serverName` is not the name that clients connect to.",
        remedy: "Add the name to the certificate (`dnsNames` of a cert-manager Certificate), or its Secret to \
                 `tls.certificateRefs`. Where clients use other names than `serverName`, list them in `hostnames`.",
    },
    settings::INTRODUCTION_NOT_ALLOWED,
    settings::NO_READY_ENDPOINTS,
    settings::IMPLICIT_TLS_EXPECTED,
    settings::CLEAR_TEXT,
    settings::CAPABILITY_IGNORED,
];
