//! Tests of the running source with real folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::controller::publisher::Channels;
use crate::controller::status_store::StatusStore;
use crate::model::served::{Ledger, Replica};
use crate::model::{BindReport, Snapshot};

use super::*;
use crate::controller::metrics::Metrics;

struct Running {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    status_store: StatusStore,
    reports: watch::Sender<Arc<BindReport>>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    fn start(root: &Path) -> Self {
        let (to_plane, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let (reports, from_plane) = watch::channel(Arc::new(BindReport::default()));
        let status_store = StatusStore::default();
        let channels = Channels {
            snapshots: to_plane,
            reports: from_plane,
            ledger: ledger(),
            status_store: status_store.clone(),
        };
        let source = FolderSource::new(
            root.to_owned(),
            Publisher::new("mailgress", "host.example", channels, metrics()),
        )
        .unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(source.run(shutdown.clone()));
        Self { snapshots, status_store, reports, shutdown, task }
    }

    async fn sockets(&mut self) -> Vec<String> {
        timeout(Duration::from_secs(10), self.snapshots.changed()).await.unwrap().unwrap();
        self.snapshots.borrow_and_update().sockets.keys().map(ToString::to_string).collect()
    }

    /// Waits until `/status` meets the condition.
    async fn status(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let told = async {
            loop {
                let status = self.status_store.document();
                if is_so(&status) {
                    return status;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), told).await.unwrap()
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn ledger() -> Ledger {
    Ledger::new(Replica { name: "a".into(), instance: "1".into(), node_address: None })
}

fn server(port: u16) -> String {
    format!(
        "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {{name: s}}\n\
         spec: {{auth: {{passthrough: {{}}}}, listeners: [{{name: a, protocol: IMAP, port: {port}, \
         backendAddress: 'b:1', tls: {{mode: Disabled}}}}]}}\n"
    )
}

#[tokio::test]
async fn every_edit_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, server(1143)).unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.sockets().await, ["*:1143"]);
    fs::write(&file, server(1144)).unwrap();
    assert_eq!(running.sockets().await, ["*:1144"]);
    // An editor writes a new file and renames it over the old one.
    fs::write(folder.path().join(".a.yaml.swp"), server(1)).unwrap();
    fs::write(folder.path().join("a.yaml~"), server(1145)).unwrap();
    fs::rename(folder.path().join("a.yaml~"), &file).unwrap();
    assert_eq!(running.sockets().await, ["*:1145"]);
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/b.yml"), server(1146).replace("name: s", "name: t")).unwrap();
    assert_eq!(running.sockets().await, ["*:1145", "*:1146"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(running.sockets().await, ["*:1146"]);
    assert_eq!(running.snapshots.borrow().revision, 5);
    running.end().await;
}

#[tokio::test]
async fn a_volumes_swap_of_its_data_link_is_one_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let version = |name: &str, port| {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("a.yaml"), server(port)).unwrap();
    };
    version("..1", 1143);
    symlink("..1", path("..data")).unwrap();
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.sockets().await, ["*:1143"]);
    version("..2", 1144);
    symlink("..2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    fs::remove_dir_all(path("..1")).unwrap();
    assert_eq!(running.sockets().await, ["*:1144"]);
    assert_eq!(running.snapshots.borrow().revision, 2);
    running.end().await;
}

#[tokio::test]
async fn a_half_written_file_changes_nothing_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, server(1143)).unwrap();
    let mut running = Running::start(folder.path());
    running.sockets().await;
    let text = server(1144);
    fs::write(&file, text.trim_end().trim_end_matches('}')).unwrap();
    let told = running.status(|status| status["problems"][0].is_string()).await;
    let problem = told["problems"][0].to_string();
    assert!(
        problem.contains("a.yaml:") && problem.contains("the last valid content stays in use"),
        "{problem}"
    );
    assert!(!running.snapshots.has_changed().unwrap());
    fs::write(&file, text).unwrap();
    assert_eq!(running.sockets().await, ["*:1144"]);
    running.end().await;
}

/// Returns a `MailServer` with two listeners, and the length of a first part with one listener.
fn two_listeners() -> (String, usize) {
    let listener = |name: &str, port: u16| {
        format!(
            "  - {{name: {name}, protocol: IMAP, port: {port}, backendAddress: 'b:1', tls: {{mode: Disabled}}}}\n"
        )
    };
    let head = "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {name: s}\nspec:\n  \
                auth: {passthrough: {}}\n  listeners:\n";
    let half = format!("{head}{}", listener("a", 1143));
    (format!("{half}{}", listener("b", 1144)), half.len())
}

#[tokio::test]
async fn a_file_written_in_two_halves_removes_no_listener() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let (text, half) = two_listeners();
    fs::write(&file, &text).unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.sockets().await, ["*:1143", "*:1144"]);
    // The second part is written long after the events of the first one.
    for end in [half, half - 30, half + 10] {
        fs::write(&file, &text[..end]).unwrap();
        sleep(Duration::from_millis(300)).await;
        assert!(!running.snapshots.has_changed().unwrap(), "{end}");
        fs::write(&file, &text).unwrap();
        running.status(|status| status["problems"] == serde_json::json!([])).await;
    }
    assert!(!running.snapshots.has_changed().unwrap());
    // A change that lasts is accepted.
    fs::write(&file, &text[..half]).unwrap();
    assert_eq!(running.sockets().await, ["*:1143"]);
    running.end().await;
}

#[tokio::test]
async fn a_folder_that_is_empty_for_a_short_time_removes_no_listener() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, server(1143)).unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.sockets().await, ["*:1143"]);
    let is_told =
        |status: &Value| status["problems"][0].as_str().is_some_and(|p| p.contains("no manifests any more"));
    fs::remove_file(&file).unwrap();
    running.status(is_told).await;
    assert!(!running.snapshots.has_changed().unwrap());
    fs::write(&file, server(1143)).unwrap();
    running.status(|status| status["problems"] == serde_json::json!([])).await;
    fs::write(&file, server(1144)).unwrap();
    assert_eq!(running.sockets().await, ["*:1144"]);
    // A folder that stays empty is accepted.
    fs::remove_file(&file).unwrap();
    assert_eq!(running.sockets().await, Vec::<String>::new());
    running.status(|status| status["problems"] == serde_json::json!([])).await;
    running.end().await;
}

#[tokio::test]
async fn a_folder_that_is_removed_and_made_again_is_watched_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), server(1143)).unwrap();
    let mut running = Running::start(&folder);
    assert_eq!(running.sockets().await, ["*:1143"]);
    for port in [1144, 1146] {
        fs::remove_dir_all(&folder).unwrap();
        running.status(|status| status["problems"][0].is_string()).await;
        assert!(!running.snapshots.has_changed().unwrap(), "what it held is kept");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.yaml"), server(port)).unwrap();
        assert_eq!(running.sockets().await, [format!("*:{port}")]);
    }
    running.end().await;
}

#[tokio::test]
async fn links_to_the_folder_itself_and_to_the_root_are_reported_and_changes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, server(1143)).unwrap();
    symlink(".", folder.path().join("loop")).unwrap();
    symlink("/", folder.path().join("root")).unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.sockets().await, ["*:1143"]);
    let told = running.status(|status| status["problems"][1].is_string()).await["problems"].to_string();
    assert!(told.contains("/loop: ") && told.contains("/root: ") && told.contains("already read"), "{told}");
    fs::write(&file, server(1144)).unwrap();
    assert_eq!(running.sockets().await, ["*:1144"]);
    running.end().await;
}

#[tokio::test]
async fn a_file_that_grows_without_bound_keeps_its_content_and_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, server(1143)).unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.sockets().await, ["*:1143"]);
    let wide = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(10_000), "*a,".repeat(100_000));
    for (text, bound) in [(wide, "a.yaml:2:"), ("{a: ".repeat(50_000), "64 deep")] {
        fs::write(&file, text).unwrap();
        let is_told = |problem: &str| {
            problem.contains(bound) && problem.contains("the last valid content stays in use")
        };
        running.status(|status| status["problems"][0].as_str().is_some_and(is_told)).await;
    }
    assert!(!running.snapshots.has_changed().unwrap());
    fs::write(folder.path().join("b.yaml"), server(1144).replace("name: s", "name: t")).unwrap();
    assert_eq!(running.sockets().await, ["*:1143", "*:1144"]);
    running.end().await;
}

#[tokio::test]
async fn a_report_makes_listeners_ready() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), server(1143)).unwrap();
    let mut running = Running::start(folder.path());
    running.sockets().await;
    let snapshot = Arc::clone(&running.snapshots.borrow());
    let bound =
        |address: &crate::net::ListenAddress| (address.clone(), crate::model::SocketState::Bound(vec![]));
    let sockets = Arc::new(snapshot.sockets.keys().map(bound).collect());
    running
        .reports
        .send(Arc::new(BindReport { revision: snapshot.revision, sockets, ..BindReport::default() }))
        .unwrap();
    running.status(|status| status["objects"][0]["status"]["conditions"][3]["status"] == "True").await;
    running.end().await;
}

#[test]
fn a_missing_folder_is_an_error() {
    let (snapshots, _s) = watch::channel(Arc::default());
    let (_r, reports) = watch::channel(Arc::default());
    let channels = Channels { snapshots, reports, ledger: ledger(), status_store: StatusStore::default() };
    let error =
        FolderSource::new("/nonexistent".into(), Publisher::new("mailgress", "h", channels, metrics()))
            .unwrap_err();
    assert!(error.to_string().contains("/nonexistent is not a folder"));
}

fn metrics() -> Metrics {
    Metrics::register(&prometheus::Registry::new()).unwrap()
}

#[test]
fn a_file_without_problems_is_solved() {
    let problem = |path: &str, message: &str| Problem {
        path: path.into(),
        position: None,
        object: None,
        message: message.to_owned(),
    };
    let before = [problem("a", "one"), problem("a", "two"), problem("b", "one"), problem("gone", "one")];
    let mut store = Store::default();
    let seen = |path: &str| (path.into(), scan::Seen::Read(Ok(String::new()).into()));
    let files = [seen("a"), seen("b")].into();
    store.apply(Scan { files, ..Scan::default() }, &Validator::new().unwrap());
    assert_eq!(solved(&before, &[problem("b", "other")], &store), BTreeSet::from([Path::new("a")]));
    assert!(solved(&before, &before, &store).is_empty());
}
