//! Compares a real API server with the table in `tests/validity`, as other tests do with `check` and rendering.

use futures_util::{StreamExt, stream};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::manifest::mail_server;

#[path = "../validity/table.rs"]
mod table;

use table::{Case, Verdict, cases};

/// Concurrent requests.
const PARALLEL: usize = 16;

#[tokio::test]
async fn the_api_server_agrees_with_the_table_of_what_is_valid() {
    let Some(cluster) = Cluster::new("validity") else { return };
    let client = administrator(&cluster).await;
    let wrong: Vec<String> = stream::iter(cases())
        .map(async |case| differs(&case, create(&client, cluster.name, &case.object).await))
        .buffer_unordered(PARALLEL)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn differs(case: &Case, refusal: Option<String>) -> Option<String> {
    let agrees = match (case.verdict, &refusal) {
        (Verdict::Taken | Verdict::Told, refusal) => refusal.is_none(),
        (Verdict::Refused, Some(refusal)) => refusal.contains(&case.api),
        (Verdict::Refused, None) => false,
    };
    let Case { object, verdict, api, .. } = case;
    (!agrees).then(|| format!("{object}\n    {verdict:?} {api:?}; the API server's refusal: {refusal:?}"))
}

/// Asks the API server whether it would create the object. Returns the error.
async fn create(client: &Client, namespace: &str, object: &Value) -> Option<String> {
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let path = format!("/apis/mailgress.dev/v1alpha1/namespaces/{namespace}/{kind}s");
    let request = http::Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&as_kubectl_sends(object)).unwrap())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => None,
        Err(Error::Api(status)) => Some(status.message.clone()),
        Err(error) => panic!("{object}: {error}"),
    }
}

/// kubectl writes `143.0` and `1e3` as integers. The API server itself refuses them if a rule reads the field.
fn as_kubectl_sends(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole: Option<i64> =
                format!("{:?}", number.as_f64().unwrap()).trim_end_matches(".0").parse().ok();
            whole.map_or_else(|| value.clone(), Value::from)
        }
        Value::Array(items) => items.iter().map(as_kubectl_sends).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), as_kubectl_sends(field))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn kubectl_writes_a_number_without_a_fraction_as_an_integer() {
    let Some(cluster) = Cluster::new("validity-numbers") else { return };
    let listener = json!({ "name": "l", "port": 143.0, "backendRef": { "name": "b", "port": 1e3 },
                           "socket": { "receiveBuffer": 4096.0 } });
    let object = mail_server(&json!({ "auth": { "passthrough": {} }, "listeners": [listener] }));
    cluster.apply(&cluster.here(object));
    let listener = &cluster.get("mailserver/edge")["spec"]["listeners"][0];
    let numbers = [&listener["port"], &listener["backendRef"]["port"], &listener["socket"]["receiveBuffer"]];
    assert_eq!(numbers.map(Value::as_i64), [Some(143), Some(1000), Some(4096)]);
}

async fn administrator(cluster: &Cluster) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let view = cluster.kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]);
    let kubeconfig = Kubeconfig::from_yaml(&view).unwrap();
    let options = KubeConfigOptions::default();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
}
