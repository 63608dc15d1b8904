//! An existing cluster, such as kind, in `MAILGRESS_TEST_KUBECONFIG`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Access to it as an administrator.
pub struct Given {
    kubeconfig: PathBuf,
}

impl Given {
    /// Returns the cluster that the environment names, if any.
    pub fn find() -> Option<Self> {
        std::env::var_os("MAILGRESS_TEST_KUBECONFIG").map(|path| Self { kubeconfig: path.into() })
    }

    /// Returns a kubectl command as the administrator.
    pub fn kubectl(&self) -> Command {
        let kubectl = match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(folder) => Path::new(&folder).join("kubectl"),
            None => "kubectl".into(),
        };
        let mut command = Command::new(kubectl);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Returns the cluster's entry for a kubeconfig.
    pub fn entry(&self) -> Value {
        let view = ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"];
        let output = self.kubectl().args(view).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config: Value = serde_json::from_slice(&output.stdout).unwrap();
        config["clusters"][0]["cluster"].clone()
    }
}
