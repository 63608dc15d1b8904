#!/bin/sh
# The files of an image from packages that are installed on this Debian or Ubuntu, without Docker and without a registry:
# what the packages hold, but for what people read, and the libraries that it needs.
#
# Usage: tests/e2e/images/debian.sh FOLDER PACKAGE...     FOLDER is made anew
set -eu
export LC_ALL=C

rootfs=$1
shift
list=$(mktemp)
trap 'rm -f "$list"' EXIT
rm -rf "$rootfs"
mkdir -p "$rootfs/tmp" "$rootfs/proc" "$rootfs/sys" "$rootfs/dev" "$rootfs/run" "$rootfs/var/tmp" "$rootfs/root"
# Where /bin is /usr/bin, packages may still say the former.
for name in bin sbin lib lib64; do
    if [ -L "/$name" ]; then
        mkdir -p "$rootfs/usr/$name"
        ln -s "usr/$name" "$rootfs/$name"
    fi
done
for package in "$@"; do
    dpkg -L "$package" | grep -v -E '^/usr/share/(doc|man|locale|info|lintian|bug|bash-completion)/'
done | sort -u | while read -r file; do
    [ ! -f "$file" ] && [ ! -L "$file" ] || [ -d "$file" ] || printf '%s\n' "$file"
done >"$list"
# Programs and modules name their libraries; ldd says where these are, with those that they need in turn.
xargs -a "$list" -d '\n' sh -c 'for file; do
    if [ "$(head -c 4 "$file" | tail -c 3)" = ELF ]; then ldd "$file" 2>/dev/null; fi
done' sh | sed -n 's/^.* => \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) .*/\1/p' | sort -u >>"$list"
# By the name that it is asked for, what it leads to, and without the merged folders' other names.
while read -r file; do
    printf '%s\n' "$file"
    readlink -f "$file"
done <"$list" | while read -r file; do
    printf '%s/%s\n' "$(readlink -f "$(dirname "$file")")" "${file##*/}"
done | sort -u | tar -C / --no-recursion -cf - -T - 2>/dev/null | tar -C "$rootfs" -xf -
# Accounts as the packages made them.
cp /etc/passwd /etc/group "$rootfs/etc/"
printf 'hosts: files dns\n' >"$rootfs/etc/nsswitch.conf"
chmod 1777 "$rootfs/tmp" "$rootfs/var/tmp"
