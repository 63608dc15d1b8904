//! The programs of tests/tools, and the schemas in Go's module cache.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::generated;
use crate::support::go::Module;

/// Helm, its linters and the other programs of tests/tools.
pub struct Tools {
    folder: PathBuf,
}

static FOLDER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let tools = Module {
        source: "tools",
        target: "tools",
        files: &["go.mod", "go.sum"],
        package: "tool",
        link: &[],
        notice: "building Helm and its linters; this takes some minutes, once",
    };
    tools.build()
});

impl Tools {
    /// Builds the tools for the test `name`. Prints a message and returns `None` if this is not possible.
    pub fn new(name: &str) -> Option<Self> {
        match &*FOLDER {
            Ok(folder) => Some(Self { folder: folder.clone() }),
            Err(why) => {
                assert!(!generated::is_written(), "`make generate` needs the chart's tools: {why}");
                tell(&format!("SKIPPED the chart test `{name}`: {why}"));
                None
            }
        }
    }

    /// Returns a command that runs in the repository's folder, with an empty home directory.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.current_dir(root()).env("HOME", &self.folder).env_remove("KUBECONFIG");
        command
    }

    /// Runs `helm template` for the chart in the namespace `mailgress` with these arguments.
    pub fn template(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("helm");
        command.args([
            "template",
            "mailgress",
            CHART,
            "--namespace",
            "mailgress",
            "--kube-version",
            KUBERNETES,
        ]);
        command.args(arguments).output().unwrap()
    }

    /// Returns the rendered objects.
    pub fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        documents(&succeeded(self.template(arguments)))
    }

    /// Returns the error for these values.
    pub fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.template(arguments);
        assert!(!output.status.success(), "it is taken: {arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Returns the folder of a module's source. Downloads it if needed. `module` may include a version.
pub fn module_source(folder: &str, module: &str) -> PathBuf {
    let mut command = Command::new("go");
    command.current_dir(root().join(folder)).args(["mod", "download", "-json", module]);
    if std::env::var_os("GOTOOLCHAIN").is_none() {
        command.env("GOTOOLCHAIN", "auto");
    }
    let text = succeeded(command.output().unwrap());
    let found: Value = serde_json::from_str(&text).unwrap();
    PathBuf::from(found["Dir"].as_str().unwrap())
}

/// Returns the YAML documents that are not empty.
pub fn documents(text: &str) -> Vec<Value> {
    let parts = serde_yaml::Deserializer::from_str(text);
    let parsed = parts.map(|part| <Value as serde::Deserialize>::deserialize(part).unwrap());
    parsed.filter(|document| !document.is_null()).collect()
}

/// Returns the standard output. Panics if the command failed.
pub fn succeeded(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Returns the object with this kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

/// The repository's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Prints to the terminal even if the test passes.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The chart's path in the repository.
pub const CHART: &str = "charts/mailgress";
/// The version of Kubernetes for rendering without a cluster: that of tests/cluster/control-plane.
pub const KUBERNETES: &str = "1.35.0";
