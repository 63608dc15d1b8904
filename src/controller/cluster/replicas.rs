//! Asks the other replicas what they serve, while this replica starts or leads, and about their exclusive users
//! (`agreement`).
//!
//! Replicas are the endpoints of one Service, at its port `admin`. Each replica is asked again after its answer.
//! It answers as soon as it has a change, or after [`WAIT`]. Thus a change is known at once, and ten replicas without
//! changes cost a few small requests per second.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::Config;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::controller::index::Key;
use crate::controller::violation::one_line;
use crate::model::SharedTicketKeys;
use crate::model::served::sealed::{self, NONCE, SEALED};
use crate::model::served::{Bookmark, Page};

use super::failure::root;
use super::follow::follow;

/// An event about the replicas.
#[derive(Debug)]
pub(super) enum Event {
    /// The listed replicas.
    Listed(BTreeMap<SocketAddr, Listed>),
    /// A replica has answered.
    Answered(SocketAddr, Box<Page>),
    /// A replica could not be asked.
    Failed(SocketAddr, String),
    /// The list of replicas cannot be read.
    Unknown(String),
}

/// A listed replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The name of its Pod.
    pub(super) name: String,
    /// Whether it is ready.
    pub(super) is_ready: bool,
}

/// Which replicas are asked, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The ready ones, for everything.
    Objects,
    /// All but this one, for their exclusive users. One that is not ready may still have sessions.
    Exclusive(String),
}

/// Follows the replicas and asks them.
pub(super) struct Replicas {
    client: Client,
    service: Key,
    events: mpsc::Sender<Event>,
    pollers: Pollers,
}

/// The tasks that ask, one for each replica.
struct Pollers {
    events: mpsc::Sender<Event>,
    question: Question,
    asker: Asker,
    /// The tasks, with the names of their replicas. Another replica at the same address is asked from the beginning.
    tasks: BTreeMap<SocketAddr, (String, AbortOnDropHandle<()>)>,
}

/// How replicas are asked.
#[derive(Clone)]
struct Asker {
    http: Http,
    /// The keys with which the answers are encrypted.
    keys: SharedTicketKeys,
}

type Http = HttpClient<HttpConnector, Empty<Bytes>>;

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicas").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Replicas {
    /// Creates the task for the endpoints of `service`. The replicas encrypt their answers with `keys`.
    pub(super) fn new(
        client: Client,
        service: Key,
        keys: SharedTicketKeys,
        question: Question,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { client, service, pollers: Pollers::new(keys, question, events.clone()), events }
    }

    /// Follows the Service's endpoints until the receiver of events is closed.
    pub(super) async fn run(mut self) {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.service.namespace);
        let selector = format!("kubernetes.io/service-name={}", self.service.name);
        let mut stream = pin!(follow(api, Config::default().labels(&selector)));
        while let Some(slices) = stream.next().await {
            let slices = match slices {
                Ok(slices) => slices,
                Err(failure) => {
                    if self.events.send(Event::Unknown(failure.to_string())).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let listed = listed(slices.iter().map(AsRef::as_ref));
            // The list must precede the answers: an answer of an unknown replica would be ignored and not repeated.
            if self.events.send(Event::Listed(listed.clone())).await.is_err() {
                return;
            }
            self.pollers.poll(&listed);
        }
    }
}

/// Returns the query of the request for all changes since `read`, with a new random number.
fn query(question: &Question, read: Option<&Bookmark>) -> String {
    let mut query = form_urlencoded::Serializer::new(format!("wait={}", WAIT.as_secs()));
    if let Question::Exclusive(_) = question {
        query.append_pair("only", "exclusive");
    }
    if let Some(Bookmark { instance, version }) = read {
        query.append_pair("instance", instance).append_pair("version", &version.to_string());
    }
    query.append_pair(NONCE, &format!("{:032x}", rand::random::<u128>()));
    query.finish()
}

impl Pollers {
    /// Creates the tasks' owner. The tasks send to `events`.
    fn new(keys: SharedTicketKeys, question: Question, events: mpsc::Sender<Event>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self { events, question, asker: Asker { http, keys }, tasks: BTreeMap::new() }
    }

    /// Asks these replicas and no others.
    fn poll(&mut self, listed: &BTreeMap<SocketAddr, Listed>) {
        let asked = listed.iter().filter(|(_, replica)| match &self.question {
            Question::Objects => replica.is_ready,
            Question::Exclusive(own) => replica.name != *own,
        });
        let asked: BTreeMap<_, _> = asked.map(|(address, replica)| (*address, &replica.name)).collect();
        self.tasks.retain(|address, (name, _)| asked.get(address) == Some(&&*name));
        for (address, name) in asked {
            self.tasks.entry(address).or_insert_with(|| {
                let task = poll(self.asker.clone(), address, self.question.clone(), self.events.clone());
                (name.clone(), AbortOnDropHandle::new(tokio::spawn(task)))
            });
        }
    }
}

/// Asks one replica repeatedly.
async fn poll(asker: Asker, address: SocketAddr, question: Question, events: mpsc::Sender<Event>) {
    let mut read: Option<Bookmark> = None;
    loop {
        let query = query(&question, read.as_ref());
        let answer = timeout(ANSWER_TIMEOUT, asker.ask(address, &query));
        let event = match answer.await.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
            Ok(page) => {
                read = Some(Bookmark { instance: page.replica.instance.clone(), version: page.version });
                Event::Answered(address, Box::new(page))
            }
            Err(why) => {
                sleep(PAUSE).await;
                Event::Failed(address, why)
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

impl Asker {
    async fn ask(&self, address: SocketAddr, query: &str) -> Result<Page, String> {
        let uri = format!("http://{address}/served?{query}");
        let uri = uri.parse::<http::Uri>().map_err(|error| error.to_string())?;
        let answer = self.http.get(uri).await.map_err(|error| why(&error))?;
        if !answer.status().is_success() {
            return Err(format!("it answers with {}", answer.status()));
        }
        let is_sealed = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == SEALED);
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| one_line(&error.to_string()))?.to_bytes().into();
        let body = sealed::open(&self.keys, query, is_sealed, body).map_err(|refused| refused.to_string())?;
        serde_json::from_slice(&body).map_err(|error| format!("it is not understood: {error}"))
    }
}

/// Returns the root cause. The outer error has no details.
fn why(error: &hyper_util::client::legacy::Error) -> String {
    one_line(&root(error).to_string())
}

/// Returns the endpoints at the port `admin`. An endpoint with addresses of both families is asked at one of them.
fn listed<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeMap<SocketAddr, Listed> {
    let mut listed = BTreeMap::new();
    let mut names = BTreeSet::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| port.name.as_deref() == Some(PORT)).and_then(|port| port.port);
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let is_ready =
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            let ip = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            let Some(ip) = ip else { continue };
            let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
            if pod.as_ref().is_none_or(|pod| names.insert(pod.clone())) {
                let name = pod.unwrap_or_else(|| ip.to_string());
                listed.insert(SocketAddr::new(ip, port), Listed { name, is_ready });
            }
        }
    }
    listed
}

const PORT: &str = "admin";
/// How long a replica without changes may wait before it answers.
const WAIT: Duration = Duration::from_secs(3);
/// The timeout of an answer, including that wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// The timeout of a connection attempt: an address may not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Unused connections are closed after this time, before the replica closes them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum length of an answer in bytes. It has some hundred bytes per object.
const LONGEST_ANSWER: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use serde_json::json;
    use tokio::net::TcpListener;

    #[test]
    fn replicas_are_the_endpoints_at_the_port_called_admin() {
        let endpoint = |address: &str, pod: &str, ready: bool| {
            json!({
                "addresses": [address],
                "conditions": { "ready": ready },
                "targetRef": { "kind": "Pod", "name": pod },
            })
        };
        let slice = |port: &str, endpoints: &[serde_json::Value]| -> EndpointSlice {
            serde_json::from_value(json!({
                "addressType": "IPv4",
                "ports": [{ "name": "imaps", "port": 993 }, { "name": port, "port": 9090 }],
                "endpoints": endpoints,
            }))
            .unwrap()
        };
        let slices = [
            slice("admin", &[endpoint("10.0.0.1", "a", true), endpoint("10.0.0.2", "b", false)]),
            slice("other", &[endpoint("10.0.0.3", "c", true)]),
            slice("admin", &[endpoint("fd00::1", "a", true), endpoint("fd00::4", "d", true)]),
        ];
        let found = listed(slices.iter());
        let found = found.into_iter().map(|(at, replica)| (at.to_string(), replica.name, replica.is_ready));
        let expected =
            [("10.0.0.1:9090", "a", true), ("10.0.0.2:9090", "b", false), ("[fd00::4]:9090", "d", true)];
        let expected = expected.map(|(at, name, is_ready)| (at.to_owned(), name.to_owned(), is_ready));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    /// Starts a replica that answers at once. Returns its address and the requests that it gets.
    async fn replica() -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel(1);
        let answer = move |request: http::Request<hyper::body::Incoming>| {
            let sender = sender.clone();
            async move {
                let replica = json!({ "name": "a", "instance": "1" });
                let page = json!({ "replica": replica, "version": 7, "whole": true, "objects": [] });
                sender.send(request.uri().query().unwrap_or_default().to_owned()).await?;
                Ok::<_, mpsc::error::SendError<String>>(http::Response::new(page.to_string()))
            }
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = hyper::server::conn::http1::Builder::new();
                let service = hyper::service::service_fn(answer.clone());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        (address, requests)
    }

    #[tokio::test]
    async fn a_replica_with_another_name_is_polled_from_the_beginning() {
        let (address, mut requests) = replica().await;
        let (events, mut heard) = mpsc::channel(1);
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let mut pollers = Pollers::new(SharedTicketKeys::default(), Question::Objects, events);
        for name in ["a", "b"] {
            let replica = Listed { name: name.to_owned(), is_ready: true };
            pollers.poll(&BTreeMap::from([(address, replica)]));
            for is_first in [true, false] {
                let awaited =
                    async { while requests.recv().await.unwrap().contains("version=7") == is_first {} };
                timeout(Duration::from_secs(10), awaited).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn replicas_that_are_not_ready_are_asked_about_exclusive_users() {
        let (address, mut requests) = replica().await;
        let (events, mut heard) = mpsc::channel(1);
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let mut pollers =
            Pollers::new(SharedTicketKeys::default(), Question::Exclusive("own".to_owned()), events);
        let own = Listed { name: "own".to_owned(), is_ready: true };
        pollers.poll(&BTreeMap::from([(address, own)]));
        assert!(pollers.tasks.is_empty());
        let other = Listed { name: "other".to_owned(), is_ready: false };
        pollers.poll(&BTreeMap::from([(address, other)]));
        let asked = timeout(Duration::from_secs(10), requests.recv()).await.unwrap().unwrap();
        assert!(asked.contains("only=exclusive"), "{asked}");
    }
}
