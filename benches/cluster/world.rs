//! The objects: thousands of MailServers in a hundred namespaces, each with its own Secret, Service and EndpointSlice.
//! Mailgress has only the permissions of `deploy/`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use http::Request;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, our_address, ready};
use crate::replica::{Replicas, admin, name};
use crate::support::backend::Backend;
use crate::support::manifest::{passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::ports;

/// All objects.
pub struct World {
    pub servers: usize,
    /// The address of all IMAPS listeners.
    pub imaps: SocketAddr,
    client: Client,
    class: &'static str,
    /// Mailgress's kubeconfig.
    account: PathBuf,
    admins: [SocketAddr; 2],
    pop3s: SocketAddr,
    /// All sessions go to the first one.
    backends: [Backend; 2],
}

impl World {
    /// Creates the objects in the cluster.
    pub async fn create(cluster: &Cluster, servers: usize) -> Self {
        let at = || SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let kubeconfig = Kubeconfig::read_from(cluster.plane().kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let world = Self {
            servers,
            imaps: at(),
            client: Client::try_from(config).unwrap(),
            class: cluster.name,
            account: cluster.account(),
            admins: [admin(), admin()],
            pop3s: at(),
            backends: ["here", "elsewhere"].map(|name| Backend::imap_on(our_address(), name)),
        };
        cluster.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "replicas" },
            "spec": { "clusterIP": "None", "ports": [{ "name": "admin", "port": 9090 }] },
        }));
        for (number, admin) in world.admins.iter().enumerate() {
            let endpoint =
                json!({ "targetRef": { "kind": "Pod", "namespace": cluster.name, "name": name(number) } });
            let slice = slice(&name(number), "replicas", "admin", *admin, &endpoint);
            cluster.apply(&with(slice, &json!({ "metadata": { "namespace": cluster.name } })));
        }
        let named = |number| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace(number) } });
        world.put((0..NAMESPACES).map(named)).await;
        world.put((0..NAMESPACES).flat_map(|number| world.permissions(number))).await;
        world.put((0..servers).flat_map(|number| world.server(number))).await;
        world
    }

    /// Starts two replicas without waiting.
    pub fn start(&self) -> Replicas {
        Replicas::start(&self.account, self.class, &self.admins)
    }

    /// Returns the administrator's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the number of a MailServer. Many rounds pass before it repeats.
    pub fn pick(&self, round: usize) -> usize {
        (round * 37 + 11) % self.servers
    }

    /// Changes the spec of a MailServer. Returns its new generation.
    pub async fn patch_server(&self, number: usize, patch: &Value) -> i64 {
        self.patch(&mail_servers(), "mail", number, patch).await.metadata.generation.unwrap()
    }

    /// Changes the Secret of a MailServer.
    pub async fn patch_secret(&self, number: usize, patch: &Value) {
        self.patch(&resource("", "v1", "Secret"), "tls", number, patch).await;
    }

    /// Moves the backend of a MailServer.
    pub async fn move_endpoint(&self, number: usize) {
        let port = self.backends[1].address().port();
        let patch = json!({ "ports": [{ "name": "mail", "port": port }] });
        self.patch(&slices(), "dovecot", number, &patch).await;
    }

    /// Returns the resident memory of the API server.
    pub async fn api_server_bytes(&self) -> u64 {
        let metrics =
            self.client.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        value.unwrap().parse::<f64>().unwrap() as u64
    }

    /// Deletes everything that a replica would watch.
    pub async fn delete(self) {
        let kinds = [mail_servers(), resource("", "v1", "Secret"), resource("", "v1", "Service"), slices()];
        let all = kinds.iter().flat_map(|kind| (0..NAMESPACES).map(move |number| (kind, number)));
        let delete = |(kind, number): (&ApiResource, usize)| {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace(number), kind);
            async move {
                api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
            }
        };
        stream::iter(all.map(delete)).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    }

    async fn patch(&self, kind: &ApiResource, name: &str, number: usize, patch: &Value) -> DynamicObject {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace(number), kind);
        let name = format!("{name}-{number}");
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    /// Creates objects. Existing ones are not changed.
    async fn put(&self, objects: impl Iterator<Item = Value>) {
        let create = |object: Value| async move {
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let types = object.types.as_ref().unwrap();
            let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
            let api: Api<DynamicObject> = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
                None => Api::all_with(self.client.clone(), &kind),
            };
            match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.code != 409 => panic!("{status:?}: {object:?}"),
                Err(error) if !matches!(error, kube::Error::Api(_)) => panic!("{error}"),
                _ => {}
            }
        };
        stream::iter(objects.map(create)).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    }

    /// Returns the permissions to read the Secrets of a namespace by name, as in deploy/.
    fn permissions(&self, number: usize) -> Vec<Value> {
        let secrets: Vec<_> =
            (number..self.servers).step_by(NAMESPACES).map(|server| format!("tls-{server}")).collect();
        let documents = serde_yaml::Deserializer::from_str(include_str!("../../deploy/references.yaml"));
        let permissions = documents.map(|document| {
            let mut object = with(
                Value::deserialize(document).unwrap(),
                &json!({ "metadata": { "name": format!("mailgress-{}", self.servers), "namespace": namespace(number) } }),
            );
            if object["kind"] == "Role" {
                object["rules"][0]["resourceNames"] = json!(secrets);
            } else {
                object["roleRef"]["name"] = object["metadata"]["name"].clone();
            }
            object
        });
        permissions.collect()
    }

    /// Returns a MailServer with the objects that it refers to.
    fn server(&self, number: usize) -> [Value; 4] {
        let here = json!({ "metadata": { "namespace": namespace(number) } });
        let (service, secret) = (format!("dovecot-{number}"), format!("tls-{number}"));
        let listener = |name: &str, protocol: &str, at: SocketAddr| {
            json!({
                "name": name,
                "protocol": protocol,
                "address": at.ip(),
                "port": at.port(),
                "hostnames": [host(number)],
                "tls": { "mode": "Implicit" },
                // Both replicas run on this host.
                "socket": { "reusePort": true },
                "backendRef": { "name": service, "port": 143 },
            })
        };
        let listeners: [_; LISTENERS] =
            [listener("imaps", "IMAP", self.imaps), listener("pop3s", "POP3", self.pop3s)];
        let server = json!({
            "apiVersion": "mailgress.dev/v1alpha1",
            "kind": "MailServer",
            "metadata": { "name": format!("mail-{number}") },
            "spec": {
                "className": self.class,
                "serverName": host(number),
                "tls": { "certificateRefs": [{ "name": secret }] },
                "auth": passthrough(),
                "listeners": listeners,
            },
        });
        let headless = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": service },
            "spec": { "clusterIP": "None", "ports": [{ "name": "mail", "port": 143 }] },
        });
        let slice = slice(&service, &service, "mail", self.backends[0].address(), &json!({}));
        let secret = tls_secret(&secret, &AUTHORITY.issue(&[&host(number)]));
        [secret, headless, slice, server].map(|object| with(object, &here))
    }
}

/// Returns the host name that clients request.
pub fn host(number: usize) -> String {
    format!("mail-{number}.example.test")
}

/// The resource of MailServers.
pub fn mail_servers() -> ApiResource {
    resource("mailgress.dev", "v1alpha1", "MailServer")
}

fn slices() -> ApiResource {
    resource("discovery.k8s.io", "v1", "EndpointSlice")
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn namespace(number: usize) -> String {
    format!("tenant-{}", number % NAMESPACES)
}

fn slice(name: &str, service: &str, port: &str, at: SocketAddr, endpoint: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": port, "port": at.port() }],
        "endpoints": [with(json!({ "addresses": [at.ip()], "conditions": ready() }), endpoint)],
    })
}

const NAMESPACES: usize = 100;
/// Concurrent requests.
const AT_ONCE: usize = 32;

/// The number of listeners of each MailServer.
pub const LISTENERS: usize = 2;
