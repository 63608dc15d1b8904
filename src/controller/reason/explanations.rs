//! What each reason means, where it comes from and what helps: Markdown, for the page and the terminal.

mod certificates;
mod routes;
mod settings;

use ConditionStatus::{False, True, Unknown};

use super::{ConditionStatus, Explanation, Reason};

/// One for each reason, in their order.
pub static EXPLANATIONS: [Explanation; 65] = [
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
        meaning: "The manifest contradicts itself: two fields exclude each other, or a value does not fit its \
                field. The message names the field. The previous configuration stays in use.",
        cause: "The API server refuses most such objects. It accepts an invalid object if the rule depends on other \
                objects, or if the CRDs in the cluster are older or newer than the controller. With `--manifests` \
                there is no API server.",
        remedy: "Correct the field as the message says. `mailgress check -f FILE` finds the same errors before \
                you apply the manifest. If the API server accepted it although the rule is in the CRD, the CRDs \
                are older than the program: apply the current ones (`mailgress crds` prints them).",
    },
    Explanation {
        reason: Reason::UnknownField,
        conditions: &[("Accepted", False)],
        meaning: "The API has no such field. The message names the most similar one.",
        cause: "A typing error, a field at the wrong level, or a manifest for a newer version of Mailgress.",
        remedy: "Correct or remove the field. `kubectl explain mailserver.spec --recursive` lists all fields.",
    },
    Explanation {
        reason: Reason::Required,
        conditions: &[("Accepted", False)],
        meaning: "A required field is missing.",
        cause: "It was left out, or its value is empty or null.",
        remedy: "Add the field that the message names.",
    },
    Explanation {
        reason: Reason::NotSupported,
        conditions: &[("Accepted", False)],
        meaning: "A field has a value that is not allowed. The message lists the allowed values.",
        cause: "A typing error. Values are case-sensitive.",
        remedy: "Use one of the values in the message.",
    },
    settings::WRONG_TYPE,
    Explanation {
        reason: Reason::WrongForm,
        conditions: &[("Accepted", False)],
        meaning: "A string does not have the form that its field requires.",
        cause: "A duration or size without a valid unit, or an invalid address.",
        remedy: "Write it as the message says: durations as `30s` or `1h30m`, sizes as `64Ki` or `4096`.",
    },
    Explanation {
        reason: Reason::OutOfRange,
        conditions: &[("Accepted", False)],
        meaning: "A number is too large or too small, or a string or list is too long or too short.",
        cause: "Every field has limits, so that no object can overload the controller or the API server.",
        remedy: "Stay within the limits that the message names. For more than 64 listeners, use two MailServers, \
                or MailListeners.",
    },
    Explanation {
        reason: Reason::NotAllowed,
        conditions: &[("Accepted", False)],
        meaning: "The MailServer does not accept MailListeners from this namespace.",
        cause: "`spec.allowedListeners.namespaces` of the MailServer does not include this namespace. The default \
                `Same` allows only the MailServer's namespace.",
        remedy: "Ask the MailServer's owner to set `from: All`, or `from: Selector` with labels of the namespace.",
    },
    routes::DOMAIN_NOT_ALLOWED,
    Explanation {
        reason: Reason::BackendNotAllowed,
        conditions: &[("ResolvedRefs", False), ("BackendNotAllowed", True)],
        meaning: "A MailListener in another namespace than its MailServer uses a backend or auth service that the \
                  MailServer does not allow. If only some endpoints of a Service are not allowed, the others are \
                  used.",
        cause: "`backendAddress`, `auth.http.url` or an `ExternalName` Service names an address that the MailServer \
                does not allow; or a Service has no selector, or endpoints that are not Pods of its namespace. \
                Backends trust Mailgress's address, so the owner of the MailServer decides which backends such a \
                listener may use. Such a listener may also not set `resolver.nameservers`. If it uses the \
                MailServer's auth service, it may not set `auth.http.headers`, `auth.http.acceptAnyStatus`, \
                `auth.http.passClientCertificate`, `limits.authFailures`, `limits.maxAuthFailures`, or `mode`, \
                `caCertificateRefs`, `crlRefs` or `depth` of `tls.clientAuth`.",
        remedy: "Name a Service of the listener's own namespace in `backendRef` or `auth.http.serviceRef`, with a \
                 selector for its Pods. For any other backend, ask the owner of the MailServer to add its address to \
                 `spec.allowedListeners.backends`, in `networks` or `hosts`.",
    },
    Explanation {
        reason: Reason::ResolvedRefs,
        conditions: &[("ResolvedRefs", True)],
        meaning: "All referenced objects exist and can be used.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::RefNotFound,
        conditions: &[("ResolvedRefs", False)],
        meaning: "The object refers to a Secret, ConfigMap, Service, port or MailServer that does not exist. The \
                previous configuration stays in use.",
        cause: "A typing error in the name, another namespace, or an object that does not exist yet. \
                cert-manager, for example, creates a Secret only when it has issued the certificate.",
        remedy: "Create the object or correct the name. A restart is not necessary. A reference can name only \
                 objects in its own namespace; only `serverRef` of a MailListener can name another one.",
    },
    Explanation {
        reason: Reason::RefNotReadable,
        conditions: &[("ResolvedRefs", False)],
        meaning: "Mailgress is not allowed to read a referenced object.",
        cause: "The Role that names Secrets (`resourceNames`) does not include this one, perhaps because the name is \
                misspelled; or the permission for the namespace is missing. Mailgress watches each Secret and \
                ConfigMap by its name, and needs get, list and watch on it.",
        remedy: "Correct the name, or add it to the namespace's Role (`references` in the chart's values creates \
                 such a Role; deploy/references.yaml is an example). Check the permission with `kubectl auth can-i \
                 watch secret/NAME -n NAMESPACE --as=system:serviceaccount:mailgress:mailgress`.",
    },
    Explanation {
        reason: Reason::InvalidRef,
        conditions: &[("ResolvedRefs", False)],
        meaning: "A referenced object exists but cannot be used.",
        cause: "A Secret without `tls.crt` and `tls.key`, or whose key does not fit its certificate; a CA bundle \
                without a certificate; a Service of type `ExternalName` without a name.",
        remedy: "Correct the object as the message says. `kubectl create secret tls NAME --cert=… --key=…` \
                creates a correct Secret; the certificate file must contain the whole chain, the server's own \
                certificate first.",
    },
    Explanation {
        reason: Reason::NoConflicts,
        conditions: &[("Conflicted", False)],
        meaning: "No other listener has a conflicting address, port or host name.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::SocketConflict,
        conditions: &[("Conflicted", True)],
        meaning: "Another listener uses the same address and port with different shared settings, or an \
                overlapping address.",
        cause: "Two listeners with the same port and without `hostnames`. Or two listeners on a StartTLS port have \
                different capabilities, limits or kinds of auth: before the handshake, Mailgress does not know which \
                of them the client wants. Within one object, a listener that is already served takes precedence; of two new \
                listeners, neither is served. Between objects, a MailServer's own listener takes precedence, then the older \
                object, then the first one in the order of namespace and name.",
        remedy: "Give one of them another port or address, or give both different `hostnames` and equal shared \
                settings.",
    },
    Explanation {
        reason: Reason::HostnameConflict,
        conditions: &[("Conflicted", True)],
        meaning: "Another listener on the same socket has the same host name.",
        cause: "The `hostnames` were copied, or a MailListener uses a name that belongs to another listener.",
        remedy: "Give each host name to one listener only. The message names the other listener.",
    },
    routes::ROUTE_CONFLICT,
    Explanation {
        reason: Reason::Programmed,
        conditions: &[("Programmed", True)],
        meaning: "The leader has opened the sockets of all listeners, or its listeners use the MailRoute. (In `/status`: \
                this replica.)",
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
        meaning: "The change is not finished: the API server has not returned a referenced object yet, a socket is \
                  being bound, or a replica is still applying the change. Until then, the previous configuration \
                  stays in use.",
        cause: "A change takes some tens of milliseconds in each replica. A replica that starts must first read all \
                objects.",
        remedy: "Wait. The message names the reference or the replica. If it lasts for more than a few seconds, \
                 check the API server and `/status` (for a reference), or the replica's log and its `/status`.",
    },
    Explanation {
        reason: Reason::BindFailed,
        conditions: &[("Programmed", False), ("Ready", False)],
        meaning: "The operating system refuses to open the socket. Mailgress tries again until it succeeds. All \
                  other listeners are served.",
        cause: "*Permission denied*: a port below 1024, in a pod without the sysctl \
                `net.ipv4.ip_unprivileged_port_start` or with `hostNetwork`. *Address in use*: with `hostNetwork`, \
                another process of the node uses the port (often Postfix or Exim on port 25); or the port is \
                Mailgress's own (9090 and 9091: `--admin-address`, `--status-address`). *Cannot assign requested address*: this node \
                or pod does not have the address in `address`.",
        remedy: "Set the sysctl (the chart does), stop the other process, or use another port: for example 2525, and \
                add port 25 with `targetPort: 2525` to the Service (Mailgress keeps ports of others).",
    },
    Explanation {
        reason: Reason::NotServed,
        conditions: &[("Programmed", False), ("Ready", False)],
        meaning: "The listener is not running, and this process has no earlier working version of it.",
        cause: "Its configuration was never valid, or was already invalid when the process started: a process keeps \
                earlier versions only in memory. Or another listener uses its socket.",
        remedy: "Correct what the other conditions report.",
    },
    Explanation {
        reason: Reason::UsingLastGood,
        conditions: &[("Degraded", True), ("Programmed", False), ("Ready", False)],
        meaning: "The current configuration cannot be used. The previous one stays in use, with current endpoints \
                and certificates.",
        cause: "An invalid edit, or a Secret or Service that was deleted. `Accepted` or `ResolvedRefs` has the details.",
        remedy: "Correct what the other conditions report before the pods restart: a new process does not have \
                the previous configuration.",
    },
    routes::DRAINED,
    routes::SESSIONS_OPEN,
    Explanation {
        reason: Reason::Ready,
        conditions: &[("Ready", True)],
        meaning: "Every ready replica serves this generation. With `--service`, the Service has the port as well.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::ReplicaUnreachable,
        conditions: &[("Ready", False)],
        meaning: "A replica that is a ready endpoint does not answer the leader.",
        cause: "It hangs, its node is down, a NetworkPolicy blocks port `admin` between the replicas, or one of the two \
                replicas may not read the Secret with the keys that encrypt the answer (`LEASE-session-tickets`).",
        remedy: "Check the pod that the message names. `kubectl delete pod` replaces a pod that hangs; a node that \
                 is down stops counting as soon as Kubernetes has removed its endpoints. Network policies must allow \
                 TCP to the admin port (9090) between replicas. If the message says that the answer is encrypted, or \
                 is not, give the ServiceAccount get, list and watch on the Secret.",
    },
    Explanation {
        reason: Reason::ServicePortPending,
        conditions: &[("Ready", Unknown)],
        meaning: "All replicas serve the listener, but the Service of `--service` does not have the port yet, or \
                none of its ready endpoints has it.",
        cause: "Normal for a few seconds after a new port is added. If it lasts, the Service selects no ready pod.",
        remedy: "If it lasts, check the pods and the output of `kubectl get endpointslices -l \
                 kubernetes.io/service-name=NAME`.",
    },
    Explanation {
        reason: Reason::ServiceRefused,
        conditions: &[("Ready", False)],
        meaning: "All replicas serve the listener, but Mailgress cannot read the Service of `--service` or cannot \
                add the listener's port to it. Clients cannot connect through the Service.",
        cause: "A missing permission, an admission policy, or a rule of the API server. The message contains the API \
                server's error.",
        remedy: "Give the ServiceAccount `get`, `list`, `watch` and `patch` on that Service (deploy/rbac.yaml, or the \
                 chart's `service.managePorts`). To manage the ports yourself, run without `--service`.",
    },
    Explanation {
        reason: Reason::ServiceUnusable,
        conditions: &[("Ready", False)],
        meaning: "All replicas serve the listener, but the Service of `--service` does not lead to them. Clients \
                  that connect to the Service reach other pods, or cannot connect.",
        cause: "Its `targetPort` is not the listener's port; its `selector` selects other pods; it is of type \
                `ExternalName`; or it is being deleted. The message has the cause.",
        remedy: "Change the field that the message names. If the Service is being deleted, wait until it no longer \
                 exists, then create it again. If the deletion does not finish, check its `metadata.finalizers`.",
    },
    Explanation {
        reason: Reason::ServiceNotFound,
        conditions: &[("Ready", False)],
        meaning: "All replicas serve the listener, but the Service of `--service` does not exist.",
        cause: "It was deleted, or `--service` has the wrong name.",
        remedy: "Create it again (`helm upgrade` does that), or correct `--service`. Mailgress adds the ports as \
                soon as the Service exists.",
    },
    Explanation {
        reason: Reason::AllHealthy,
        conditions: &[("BackendHealthy", True)],
        meaning: "All endpoints pass their health checks.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::SomeUnhealthy,
        conditions: &[("BackendHealthy", False)],
        meaning: "Some endpoints fail their health checks and get no new sessions. The others are used, and the \
                listener is ready.",
        cause: "The backend does not answer, sends something other than the greeting of its protocol, or its \
                certificate is refused. The message gives the cause for each endpoint.",
        remedy: "Check the Pods with these addresses. If checks fail but sessions work, compare `upstream.tls` and \
                 `upstream.proxyProtocol` with what the backend expects; checks connect in the same way as sessions.",
    },
    Explanation {
        reason: Reason::AllUnhealthy,
        conditions: &[("BackendHealthy", False)],
        meaning: "All endpoints fail their health checks. Connections are still sent to all of them, because the \
                check itself may be wrong.",
        cause: "The backend or the network is down, or the check does not match the backend (TLS or the PROXY \
                protocol on one side only).",
        remedy: "Check the backend first. Then compare `upstream.tls` and `upstream.proxyProtocol` with its \
                 configuration.",
    },
    Explanation {
        reason: Reason::NameServersSilent,
        conditions: &[("NameServersAnswer", False)],
        meaning: "No DNS server of the listener's resolver answers. SMTP clients are greeted without their host \
                names, and names of backends and auth services are not resolved.",
        cause: "`resolver.nameservers` has an address without a DNS server, such as Docker's 127.0.0.11, which does \
                not exist in a pod. Or a NetworkPolicy blocks the requests.",
        remedy: "Correct `resolver.nameservers`, or remove it to use the pod's resolv.conf.",
    },
    Explanation {
        reason: Reason::Preserved,
        conditions: &[("ClientIPPreserved", True)],
        meaning: "Connections have their clients' own addresses.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::ProxyProtocol,
        conditions: &[("ClientIPPreserved", True)],
        meaning: "Trusted peers send their clients' addresses in PROXY headers.",
        cause: "",
        remedy: "",
    },
    Explanation {
        reason: Reason::ExternalTrafficPolicyCluster,
        conditions: &[("ClientIPPreserved", False)],
        meaning: "The Service lets a node forward connections to another node and replace the client's address with \
                  its own. Limits and bans then affect all clients together, and a backend that trusts its own \
                  network becomes an open relay.",
        cause: "`spec.externalTrafficPolicy` of the Service is `Cluster`, the default of Kubernetes.",
        remedy: "Set it to `Local`, or enable the PROXY protocol on the load balancer and add its addresses to \
                `proxyProtocol.trustedPeers`.",
    },
    Explanation {
        reason: Reason::NodeAddress,
        conditions: &[("ClientIPPreserved", False)],
        meaning: "Connections have the address of a node instead of the client's.",
        cause: "kube-proxy or the network plugin replaces the source address: because of the Service's \
                `externalTrafficPolicy`, or because the load balancer connects to a NodePort.",
        remedy: "Set `externalTrafficPolicy: Local`, or use the PROXY protocol. The guide about clients' \
                addresses has an entry for each load balancer.",
    },
    Explanation {
        reason: Reason::OneSourceAddress,
        conditions: &[("ClientIPPreserved", False)],
        meaning: "All recent connections with a login attempt (at least 100) have the same source address.",
        cause: "Usually a load balancer that does not pass on clients' addresses. If there is only one client, for \
                example a webmail server, this is normal.",
        remedy: "If there are several clients, enable the PROXY protocol on the load balancer and add its addresses \
                 to `proxyProtocol.trustedPeers`.",
    },
    Explanation {
        reason: Reason::CertificateExpired,
        conditions: &[("CertificateExpired", True)],
        meaning: "A certificate has expired. It is still being used, because a warning is better than an outage. \
                Clients that verify it refuse it.",
        cause: "It was not renewed, or the renewed certificate is in another Secret.",
        remedy: "Put a new certificate into the Secret; new connections use it at once. With cert-manager, \
                `kubectl describe certificate` shows why it was not renewed.",
    },
    Explanation {
        reason: Reason::ExpiresWithinAMonth,
        conditions: &[("CertificateExpiring", True)],
        meaning: "A certificate expires within thirty days. If its lifetime is shorter than 120 days, the warning \
                comes in the last quarter of it.",
        cause: "It is not renewed automatically, or the renewal is late.",
        remedy: "Renew it, or find out why the automatic renewal has not happened.",
    },
    Explanation {
        reason: Reason::ExpiresWithinAWeek,
        conditions: &[("CertificateExpiring", True)],
        meaning: "A certificate expires within seven days. If its lifetime is shorter than 70 days, the warning \
                comes in the last tenth of it.",
        cause: "Its renewal has failed for some time.",
        remedy: "Renew it now. With cert-manager, `kubectl describe certificate,certificaterequest,order` shows the failing step.",
    },
    certificates::CERTIFICATE_VERSION_1,
    certificates::CHAIN_REARRANGED,
    certificates::CHAIN_NOT_IN_ORDER,
    certificates::NO_ALTERNATIVE_NAME,
    certificates::WRONG_PURPOSE,
    certificates::WEAK_SIGNATURE,
    certificates::AUTHORITY_NOT_USED,
    certificates::CERTIFICATE_NOT_YET_VALID,
    certificates::HOSTNAME_NOT_COVERED,
    settings::INTRODUCTION_NOT_ALLOWED,
    settings::NO_READY_ENDPOINTS,
    settings::IMPLICIT_TLS_EXPECTED,
    settings::CLEAR_TEXT,
    settings::CAPABILITY_IGNORED,
    routes::USERS_IGNORED,
    routes::PROTOCOL_NOT_SERVED,
    routes::ENDPOINTS_UNNAMED,
    routes::ENDPOINTS_DIFFER,
    settings::ENDPOINTS_LEAVING,
    routes::REPLICAS_UNKNOWN,
];
