#!/bin/sh
# The image's files: builds a static Mailgress with Cargo and lays it out. The Dockerfile and `make image` both run this,
# so their images hold the same.
#
# Usage: deploy/image/rootfs.sh FOLDER [amd64|arm64]     FOLDER is made anew
#
# From the environment: SOURCE_DATE_EPOCH (default: of the last commit), PROFILE (default: release), CARGO_TARGET_DIR
# (default: target/image), CERTIFICATES (default: this machine's CA certificates), CARGO.
#
# The same source, Rust and C compiler give the same bytes, wherever the source lies.
set -eu

say() { printf '%s\n' "$*" >&2; }

[ $# -ge 1 ] || { say "usage: deploy/image/rootfs.sh FOLDER [amd64|arm64]"; exit 2; }
rootfs=$1
case ${2:-$(uname -m)} in
    amd64 | x86_64) machine=x86_64 ;;
    arm64 | aarch64) machine=aarch64 ;;
    *) say "unknown architecture '${2:-$(uname -m)}': amd64 or arm64"; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/../.." && pwd)
triple=$machine-unknown-linux-gnu
profile=${PROFILE:-release}
target=${CARGO_TARGET_DIR:-$root/target/image}
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
[ -f "$certificates" ] || { say "$certificates is missing: install ca-certificates, or name another in CERTIFICATES"; exit 1; }

# Scanners of images find the dependencies in the binary, where cargo-auditable writes them. Debian has an older one.
auditable=$target/programs/cargo-auditable@0.7.7
[ -x "$auditable/bin/cargo-auditable" ] || CARGO_PROFILE_DEV_DEBUG=0 "${CARGO:-cargo}" install --quiet --debug --locked \
    --root "$auditable" --target-dir "$target/programs/build" cargo-auditable@0.7.7 >&2

# Another machine's code is compiled by Debian's cross compilers, which are named so.
variable=$(printf '%s' "$triple" | tr '[:lower:]-' '[:upper:]_')
under=$(printf '%s' "$triple" | tr - _)
if [ "$machine" != "$(uname -m)" ]; then
    export "CARGO_TARGET_${variable}_LINKER=$machine-linux-gnu-gcc" "CC_$under=$machine-linux-gnu-gcc"
fi

# Nothing of where it was built stays in the binary; no C library stays outside.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
export "CARGO_TARGET_${variable}_RUSTFLAGS=-C target-feature=+crt-static \
--remap-path-prefix=$root=/src --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust"
export "CFLAGS_$under=-ffile-prefix-map=$root=/src -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$target=/target"
export SOURCE_DATE_EPOCH="$epoch"
# What is only of use to a debugger is most of a development binary.
export CARGO_PROFILE_DEV_STRIP=debuginfo
(cd "$root" && PATH="$auditable/bin:$PATH" "${CARGO:-cargo}" auditable build --locked --bin mailgress \
    --profile "$profile" --target "$triple" --target-dir "$target")
[ "$profile" != dev ] || profile=debug

rm -rf "$rootfs"
mkdir -p "$rootfs/etc/ssl/certs"
install -m 755 "$target/$triple/$profile/mailgress" "$rootfs/mailgress"
# The authorities for upstreams and auth services that do not configure their own.
install -m 644 "$certificates" "$rootfs/etc/ssl/certs/ca-certificates.crt"
# So that ps and other tools show user names.
printf 'root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n' >"$rootfs/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$rootfs/etc/group"
find "$rootfs" -type d -exec chmod 755 {} + -o -name passwd -exec chmod 644 {} + -o -name group -exec chmod 644 {} +
find "$rootfs" -exec touch -h -d "@$epoch" {} +
