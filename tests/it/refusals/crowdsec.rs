//! Tests `deploy/examples/crowdsec` with CrowdSec itself: it reads the log as a file, with its own API on loopback, and
//! reports what the parser found in each line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use serde_yaml::Value;

use super::{FORGED, GUESSERS, in_a_container, log_of_guesses};
use crate::support::ports;

#[test]
fn crowdsec_finds_those_who_guess_and_nobody_else() {
    let unpacked = root().join("target/unpacked/crowdsec");
    if !unpacked.is_dir() {
        eprintln!(
            "skipped: CrowdSec is missing (tests/install-packages.sh test unpacks it, where apt has it)"
        );
        return;
    }
    let crowdsec = CrowdSec::new(&unpacked);
    for arguments in [&[][..], &["--log-format", "json"]] {
        let log = log_of_guesses(arguments);
        assert!(log.contains(FORGED));
        let forms = [
            (in_a_container(&log), &["-type", "containerd", "-label", "program:mailgress"][..]),
            (log, &["-type", "mailgress"]),
        ];
        for (text, kind) in forms {
            let (found, _) = crowdsec.read(&text, kind);
            assert_eq!(found, GUESSERS, "{arguments:?}, in\n{text}");
        }
    }
    let (text, kind) = (log_of_guesses(&[]), ["-type", "mailgress"]);
    let guess = text.lines().find(|line| line.contains("client=192.0.2.7 ")).unwrap();
    let (found, said) = crowdsec.read(&format!("{guess}\n").repeat(6), &kind);
    assert_eq!(found.len(), 6);
    assert!(said.contains("192.0.2.7 performed 'mailgress/mailgress-bf'"), "{said}");
}

/// CrowdSec in a folder, with our parser and scenario, and those that they need.
struct CrowdSec<'a> {
    unpacked: &'a Path,
    folder: tempfile::TempDir,
}

impl<'a> CrowdSec<'a> {
    fn new(unpacked: &'a Path) -> Self {
        let crowdsec = Self { unpacked, folder: tempfile::tempdir().unwrap() };
        crowdsec.copy_files();
        let api = format!("127.0.0.1:{}", ports::free());
        crowdsec.configure(&api);
        let (url, credentials) = (format!("http://{api}/"), crowdsec.at("credentials.yaml"));
        let add =
            ["machines", "add", "test", "--password", "test", "--force", "-u", &url, "-f", &credentials];
        crowdsec.run("cscli", &add);
        crowdsec
    }

    fn copy_files(&self) {
        let stages = ["parsers/s00-raw", "parsers/s01-parse", "parsers/s02-enrich"];
        for name in ["data", "dump", "patterns", "scenarios"].iter().chain(&stages) {
            fs::create_dir_all(self.at(name)).unwrap();
        }
        let parsers = [
            ("s00-raw", "cri-logs.yaml"),
            ("s00-raw", "syslog-logs.yaml"),
            ("s02-enrich", "dateparse-enrich.yaml"),
        ];
        for (stage, name) in parsers {
            let from = self.hub().join("parsers").join(stage).join("crowdsecurity").join(name);
            fs::copy(from, self.at(&format!("parsers/{stage}/{name}"))).unwrap();
        }
        fs::copy(self.hub().join(".index.json"), self.at("index.json")).unwrap();
        for pattern in fs::read_dir(self.unpacked.join("etc/crowdsec/patterns")).unwrap() {
            let pattern = pattern.unwrap();
            fs::copy(pattern.path(), self.folder.path().join("patterns").join(pattern.file_name())).unwrap();
        }
        for ours in ["parsers/s01-parse/mailgress-logs.yaml", "scenarios/mailgress-bf.yaml"] {
            fs::copy(root().join("deploy/examples/crowdsec").join(ours), self.at(ours)).unwrap();
        }
    }

    /// Configures its API at this address.
    fn configure(&self, api: &str) {
        let config = json!({
            "common": { "daemonize": false, "log_media": "stdout", "log_level": "info", "working_dir": "." },
            "config_paths": {
                "config_dir": self.folder.path(),
                "data_dir": self.at("data"),
                "simulation_path": self.at("simulation.yaml"),
                "hub_dir": self.hub(),
                "index_path": self.at("index.json"),
            },
            "crowdsec_service": { "parser_routines": 1 },
            "db_config": { "type": "sqlite", "db_path": self.at("data/crowdsec.db") },
            "prometheus": { "enabled": false },
            "api": {
                "client": { "credentials_path": self.at("credentials.yaml") },
                "server": { "listen_uri": api, "profiles_path": self.at("profiles.yaml") },
            },
        });
        let profile = json!({
            "name": "default",
            "filters": ["Alert.Remediation == true"],
            "decisions": [{ "type": "ban", "duration": "4h" }],
        });
        for (name, content) in [
            ("config.yaml", config),
            ("profiles.yaml", profile),
            ("simulation.yaml", json!({ "simulation": false })),
        ] {
            fs::write(self.at(name), content.to_string()).unwrap();
        }
        fs::write(self.at("credentials.yaml"), "").unwrap();
    }

    fn hub(&self) -> PathBuf {
        self.unpacked.join("usr/share/crowdsec/hub")
    }

    /// Returns the addresses that the parser finds in a log, and CrowdSec's output.
    fn read(&self, log: &str, kind: &[&str]) -> (Vec<String>, String) {
        let (file, dump) = (self.at("mailgress.log"), self.at("dump"));
        fs::write(&file, log).unwrap();
        let source = format!("file://{file}");
        let arguments = [&["-no-capi", "-dsn", &source, "-dump-data", &dump][..], kind].concat();
        let output = self.run("crowdsec", &arguments);
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let dumped = fs::read_to_string(self.folder.path().join("dump/parser-dump.yaml")).unwrap();
        let dumped: Value = serde_yaml::from_str(&dumped).unwrap();
        let lines = dumped["s01-parse"]["mailgress/mailgress-logs"].as_sequence().unwrap();
        let parsed = lines.iter().filter(|line| line["success"] == Value::Bool(true));
        let address = |line: &Value| line["evt"]["Meta"]["source_ip"].as_str().unwrap().to_owned();
        (parsed.map(address).collect(), said)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let config = self.at("config.yaml");
        let mut command = Command::new(self.unpacked.join("usr/bin").join(program));
        let output = command.args(["-c", &config]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
