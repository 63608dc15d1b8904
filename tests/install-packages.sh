#!/bin/sh
# Installs the Debian or Ubuntu packages that a make target needs, only those that are missing, and says which.
# Starts no daemon: packages are installed under a policy that forbids it, and none is enabled for the next boot. Two are
# only unpacked below target/.
#
# Usage: tests/install-packages.sh GROUP...     GROUP: build | quickstart | test | cluster | e2e | page | cross | lint | bench
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

say() { printf '%s\n' "$*" >&2; }

packages_of() {
    case $1 in
        # A C toolchain and cmake for aws-lc-rs (the TLS library's cryptography).
        build) echo "build-essential cmake pkg-config ca-certificates" ;;
        quickstart) echo "dovecot-imapd dovecot-pop3d dovecot-lmtpd postfix curl openssl" ;;
        test) echo "dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-managesieved sieve-connect postfix curl openssl swaks libnet-ssleay-perl python3 \
            iproute2 nginx libnginx-mod-mail prometheus libsqlite3-0" ;;
        cluster) go_package ;;
        e2e) node_packages ;;
        # Looks at the status page.
        page) echo "chromium chromium-driver fonts-dejavu-core" ;;
        # A C compiler for the other of amd64 and arm64.
        cross) case $(uname -m) in
                x86_64) echo "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
                *) echo "gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;;
            esac ;;
        lint) echo "python3 python3-venv" ;;
        bench) echo "nginx libnginx-mod-mail strace valgrind" ;;
        *) say "unknown group '$1': build, quickstart, test, cluster, e2e, page, cross, lint or bench"; exit 2 ;;
    esac
}

# Packages that are unpacked below target/ and not installed. Installed, fail2ban would change this machine's firewall with
# the next boot, and CrowdSec would register the machine with its maker.
unpacked_of() {
    case $1 in
        test) echo "fail2ban crowdsec" ;;
    esac
}

download() {
    (cd "$2" && apt-get download -q "$1" >&2)
}

# Unpacks one; where the distribution has none, the tests that need it say so.
unpack() {
    folder=$root/target/unpacked/$1
    [ ! -d "$folder" ] || return 0
    command -v apt-get >/dev/null || return 0
    new=$folder.new
    rm -rf "$new"
    mkdir -p "$new/root"
    say "Unpacking into target/unpacked, without installing it: $1"
    if ! download "$1" "$new" && ! { as_root apt-get update -q >&2 && download "$1" "$new"; }; then
        say "apt has no package $1; the tests that need it WILL BE SKIPPED."
        rm -rf "$new"
        return 0
    fi
    dpkg-deb -x "$new"/*.deb "$new/root"
    mv "$new/root" "$folder"
    rm -rf "$new"
}

# Go builds the control plane of tests/cluster. Since 1.21 it gets the version that a module asks for by itself.
is_new_go() {
    [ -n "$1" ] && [ "$(printf '1.21\n%s\n' "$1" | sort -V | head -n 1)" = 1.21 ]
}

have_control_plane() {
    [ -n "${KUBEBUILDER_ASSETS:-}" ] || is_new_go "$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//')"
}

# Only where the distribution's is new enough: Debian 13's is, Debian 12's is not.
go_package() {
    have_control_plane && return
    candidate=$(apt-cache policy golang-go 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p')
    ! is_new_go "$candidate" || echo golang-go
}

# What the node of tests/e2e consists of. A containerd that is there from elsewhere, as Docker brings it, is as good.
node_packages() {
    command -v containerd >/dev/null || echo containerd
    command -v runc >/dev/null || echo runc
    echo "containernetworking-plugins iptables conntrack iproute2"
}

# Without one, these tests and that benchmark are skipped: nothing else needs it.
check_control_plane() {
    have_control_plane && return
    say "What needs a Kubernetes control plane (tests/cluster, the last part of make scale) WILL BE SKIPPED. Either"
    say "  - set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl, as setup-envtest makes it, or"
    say "  - install Go 1.21 or newer (https://go.dev/dl: unpack it, and put its bin into PATH), which builds one;"
    say "    this distribution's own is too old, or not there."
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

check_rust() {
    version=$(cargo --version 2>/dev/null | sed 's/^cargo \([0-9.]*\).*/\1/') || version=
    if [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$msrv" "$version" | sort -V | head -n 1)" = "$msrv" ]; then
        return
    fi
    say "Mailgress needs Rust $msrv or newer; found: ${version:-none}."
    say "Install it with rustup (https://rustup.rs), which needs no root:"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Debian's hook: exit status 101 forbids to start a service. One that is there already is left alone.
forbid_daemons() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
    fi
}

missing=
for group in "$@"; do
    [ "$group" != build ] || need_rust=yes
    [ "$group" != cluster ] || need_control_plane=yes
    for package in $(packages_of "$group"); do
        case " $missing " in *" $package "*) continue ;; esac
        installed "$package" 2>/dev/null || missing="$missing $package"
    done
done
missing=${missing# }

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        say "This is neither Debian nor Ubuntu. Install what these packages hold, and try again: $missing"
        exit 1
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        say "Missing packages, and neither root nor sudo to install them. As root:"
        say "    apt-get install --no-install-recommends $missing"
        exit 1
    fi
    say "Installing with apt, as root: $missing"
    forbid_daemons
    as_root apt-get update -q >&2
    case " $missing " in
        *" postfix "*)
            # Without a system-wide configuration: what we start brings its own.
            echo "postfix postfix/main_mailer_type select No configuration" | as_root debconf-set-selections
            ;;
    esac
    # --no-remove: another mail server that is installed here is never replaced.
    if ! as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends --no-remove $missing >&2; then
        say "apt could not install: $missing"
        say "If another mail server is in the way (Postfix conflicts with it), use a machine or container without."
        exit 1
    fi
    if [ -d /run/systemd/system ]; then
        for service in dovecot postfix nginx prometheus containerd; do
            case " $missing " in
                *" $service"*) as_root systemctl disable --quiet "$service" >&2 || true ;;
            esac
        done
    fi
fi

for group in "$@"; do
    for package in $(unpacked_of "$group"); do
        unpack "$package"
    done
done

[ "${need_control_plane:-no}" = no ] || check_control_plane
[ "${need_rust:-no}" = no ] || check_rust
