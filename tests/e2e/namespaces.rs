//! Linux namespaces for a node. They end with their first process, which a watcher holds, so that they end after a
//! crash too.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use crate::node::succeed;
use crate::support::process::{Daemon, root_command, we_are_root};
use crate::support::wait;

/// Separate network, mounts and processes, a link between the two networks, and a cgroup.
pub struct Namespaces {
    /// The folder of its files; removed with the namespaces.
    pub directory: PathBuf,
    /// The cgroup of the pods' processes.
    pub cgroup: String,
    /// The link between the host and the node.
    pub network: Network,
    /// The id of their first process, as seen from outside.
    first: u32,
    _daemon: Daemon,
}

/// The addresses of the link's ends.
pub struct Network {
    /// The host's address.
    pub host: Ipv4Addr,
    /// The node's address.
    pub node: Ipv4Addr,
}

impl Namespaces {
    /// Creates the namespaces.
    pub fn make() -> Self {
        // Not in /tmp, which may be in memory, because images are unpacked here.
        let directory =
            tempfile::Builder::new().prefix("mailgress-node-").tempdir_in("/var/tmp").unwrap().keep();
        let cgroup = format!("mailgress-node-{}", std::process::id());
        let file = directory.join("first-process");
        let mut command: Vec<&OsStr> =
            ["unshare", "--net", "--mount", "--pid", "--fork"].map(OsStr::new).to_vec();
        command.extend(["--kill-child", "sh", "-c", FIRST_PROCESS, "first"].map(OsStr::new));
        command.push(file.as_os_str());
        let daemon = Daemon::start("namespaces", &directory, &command, &end_of(&cgroup), true);
        let first = wait::eventually("there are namespaces", || {
            std::fs::read_to_string(&file).ok()?.strip_suffix('\n')?.parse().ok()
        });
        succeed(root_command("sh").args(["-c", CGROUPS, "cgroups", &cgroup]));
        let network = Network::make(first);
        Self { directory, cgroup, network, first, _daemon: daemon }
    }

    /// Returns a command that runs inside.
    pub fn inside(&self, program: &str) -> Command {
        let (enter, arguments) = self.enter();
        let mut command = Command::new(enter);
        command.args(arguments).arg(program);
        command
    }

    /// Returns the program and its arguments that run another one inside.
    pub fn enter(&self) -> (String, Vec<String>) {
        let first = self.first.to_string();
        let nsenter = ["nsenter", "--target", &first, "--net", "--mount", "--pid", "--"].map(str::to_owned);
        let mut command = if we_are_root() { Vec::new() } else { vec!["sudo".to_owned(), "-n".to_owned()] };
        command.extend(nsenter);
        (command.remove(0), command)
    }
}

impl Network {
    /// Creates the link. It disappears with the namespaces.
    fn make(first: u32) -> Self {
        let taken = String::from_utf8(succeed(Command::new("ip").args(["-4", "route"])).stdout).unwrap();
        let start = std::process::id() % 250;
        // 198.18.0.0/15 is reserved for network tests (RFC 2544).
        let third = (0..250)
            .map(|step| (start + step) % 250)
            .find(|third| !taken.contains(&format!("198.18.{third}.")));
        let third = u8::try_from(third.expect("a free network below 198.18.0.0/16")).unwrap();
        let network = Self { host: Ipv4Addr::new(198, 18, third, 1), node: Ipv4Addr::new(198, 18, third, 2) };
        let (ours, first) = (format!("mailgress{third}"), first.to_string());
        let ip = |arguments: &str| {
            succeed(root_command("ip").args(arguments.split(' ')));
        };
        ip(&format!("link add {ours} type veth peer name eth0 netns {first}"));
        ip(&format!("address add {}/24 dev {ours}", network.host));
        ip(&format!("link set {ours} up"));
        let there = format!(
            "ip address add {}/24 dev eth0 && ip link set eth0 up && ip route add default via {} && \
             echo 1 >/proc/sys/net/ipv4/ip_forward",
            network.node, network.host
        );
        succeed(root_command("nsenter").args(["--target", &first, "--net", "sh", "-c", &there]));
        network
    }
}

/// Returns the shell command that ends the namespaces of `$pid`, and removes what they leave.
fn end_of(cgroup: &str) -> String {
    format!(
        "exec 2>/dev/null; kill -KILL $pid; tries=0; \
         while find /sys/fs/cgroup -type d -name {cgroup} | grep -q . && [ $tries -lt 100 ]; do \
         find /sys/fs/cgroup -depth -type d -path '*/{cgroup}*' -exec rmdir {{}} +; tries=$((tries + 1)); sleep 0.1; done"
    )
}

/// Mounts its own file systems, and reports its id as seen from outside, which /proc shows until it is replaced.
const FIRST_PROCESS: &str = "read -r id rest </proc/self/stat; mount -t proc proc /proc && mount -t tmpfs tmpfs /run && \
                             mkdir /run/lock && mount -t tmpfs tmpfs /var/log && ip link set lo up && echo $id >$1 && \
                             exec sleep infinity";
/// Creates the cgroup in every hierarchy, or in the only one.
const CGROUPS: &str = "if [ -e /sys/fs/cgroup/cgroup.controllers ]; then mkdir -p /sys/fs/cgroup/$1; \
                       else for each in /sys/fs/cgroup/*/; do [ -L ${each%/} ] || mkdir -p $each$1; done; fi";
