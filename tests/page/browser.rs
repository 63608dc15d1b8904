//! Headless Chromium, controlled with its driver.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

use crate::support::ports;
use crate::support::process::Process;
use crate::support::wait::PATIENCE;

/// A page in a browser.
pub struct Browser {
    client: Client,
    _driver: Process,
    _directory: TempDir,
}

/// The width of the screen and the preferred colour scheme.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub scheme: &'static str,
}

impl Browser {
    /// Starts the browser. Prints a message and returns `None` if it is not installed.
    pub async fn start() -> Option<Self> {
        let [driver, chromium] = ["chromedriver", "chromium"].map(installed);
        let (Some(driver), Some(chromium)) = (driver, chromium) else {
            eprintln!(
                "SKIPPED: chromium and chromium-driver are not installed; see tests/install-packages.sh"
            );
            return None;
        };
        let directory = tempfile::Builder::new().prefix("mailgress-browser-").tempdir().unwrap();
        let port = format!("--port={}", ports::free());
        let process = Process::start(
            driver.as_os_str(),
            &[port.as_ref()],
            &[("HOME", directory.path().to_str().unwrap())],
            directory.path().join("driver.log"),
        );
        let client = connect(&format!("http://127.0.0.1:{}", &port[7..]), &chromium).await;
        Some(Self { client, _driver: process, _directory: directory })
    }

    /// Opens a page on this screen, with or without JavaScript.
    pub async fn open(&self, url: &str, screen: Screen, scripts: bool) {
        let Screen { width, scheme } = screen;
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.cdp("Emulation.setEmulatedMedia", features).await;
        self.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": !scripts })).await;
        self.client.goto(url).await.unwrap();
    }

    /// Returns the result of a script.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Returns what a script passes to its last argument.
    pub async fn run_async(&self, script: &str) -> Value {
        self.client.execute_async(script, Vec::new()).await.unwrap()
    }

    /// Returns the current document, without using a script.
    pub async fn text(&self) -> String {
        self.client.source().await.unwrap()
    }

    /// Waits until a script returns true.
    pub async fn eventually(&self, what: &str, script: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.run(script).await != Value::Bool(true) {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Saves a picture of the whole page in target/page.
    pub async fn shoot(&self, name: &str) {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.cdp("Page.captureScreenshot", whole).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name).with_extension("png"), picture).unwrap();
    }

    /// Sends a command of Chromium's own protocol.
    pub async fn cdp(&self, command: &'static str, parameters: Value) -> Value {
        self.client.issue_cmd(Cdp { command, parameters }).await.unwrap()
    }

    /// Ends the browser.
    pub async fn close(self) {
        self.client.close().await.unwrap();
    }
}

async fn connect(driver: &str, chromium: &Path) -> Client {
    let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"];
    let options = json!({ "binary": chromium, "args": arguments });
    let capabilities = json!({ "goog:chromeOptions": options });
    let Value::Object(capabilities) = capabilities else { unreachable!() };
    let http = hyper_util::client::legacy::connect::HttpConnector::new();
    let mut builder = ClientBuilder::new(http);
    builder.capabilities(capabilities);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match builder.connect(driver).await {
            Ok(client) => return client,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "no browser: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

#[derive(Debug)]
struct Cdp {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (Method::POST, Some(body.to_string()))
    }
}
