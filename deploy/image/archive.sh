#!/bin/sh
# An image without Docker: an OCI archive, which `docker load` takes, too, of a folder of files and of what a Dockerfile's
# last stage says of them (USER, ENTRYPOINT, CMD, EXPOSE, ENV, WORKDIR and LABEL, one a line, lists in their JSON form).
#
# Usage: deploy/image/archive.sh FOLDER DOCKERFILE IMAGE:TAG amd64|arm64 ARCHIVE [NAME=VALUE]...
#
# NAME=VALUE: the Dockerfile's build arguments. SOURCE_DATE_EPOCH is the time of everything in it (default: 0), so that the
# same files give the same bytes.
set -eu
export LC_ALL=C

say() { printf '%s\n' "$*" >&2; }

[ $# -ge 5 ] || { say "usage: deploy/image/archive.sh FOLDER DOCKERFILE IMAGE:TAG amd64|arm64 ARCHIVE [NAME=VALUE]..."; exit 2; }
rootfs=$1 dockerfile=$2 name=$3 architecture=$4 archive=$5
shift 5
epoch=${SOURCE_DATE_EPOCH:-0}
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
layout=$work/layout
mkdir -p "$layout/blobs/sha256"

# The last stage, with the build arguments put in.
stage=$(awk 'toupper($1) == "FROM" { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' "$dockerfile")
for argument in "$@"; do
    value=$(printf '%s' "${argument#*=}" | sed 's/[\\&|]/\\&/g')
    stage=$(printf '%s\n' "$stage" | sed "s|\"\$${argument%%=*}\"|\"$value\"|")
done
if unset=$(printf '%s\n' "$stage" | grep '^\(LABEL\|ENV\).*"\$'); then
    say "$dockerfile: without a value: $unset"
    exit 1
fi

# All values of one instruction, a line each.
values() { printf '%s\n' "$stage" | sed -n "s/^$1 //p"; }

# The lines as the members of a JSON object: NAME="VALUE", as LABEL has them.
members() { sed 's/^\([^=]*\)=\(".*"\)$/"\1":\2/' | sort | paste -s -d , -; }

tarball() { # FOLDER: all that is in it, to standard output
    (cd "$1" && tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=gnu -c -- *)
}

put() { # FILE: into the blobs; sets digest and size
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    size=$(wc -c <"$1" | tr -d ' ')
    mv "$1" "$layout/blobs/sha256/$digest"
}

descriptor() { # MEDIATYPE, of what was put last
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' "$1" "$digest" "$size"
}

tarball "$rootfs" >"$work/layer"
uncompressed=$(sha256sum <"$work/layer" | cut -d ' ' -f 1)
gzip -n "$work/layer"
put "$work/layer.gz"
layer=$(descriptor layer.v1.tar+gzip)
layer_file=blobs/sha256/$digest

{
    printf '{"created":"%s","architecture":"%s","os":"linux","config":{' "$created" "$architecture"
    values USER | sed 's/.*/"User":"&",/' | tr -d '\n'
    values ENTRYPOINT | sed 's/.*/"Entrypoint":&,/' | tr -d '\n'
    values CMD | sed 's/.*/"Cmd":&,/' | tr -d '\n'
    values WORKDIR | sed 's/.*/"WorkingDir":"&",/' | tr -d '\n'
    values ENV | sed 's/^\([^=]*\)="\(.*\)"$/"\1=\2"/' | paste -s -d , - | sed 's/..*/"Env":[&],/' | tr -d '\n'
    values EXPOSE | sed 's/.*/"&":{}/' | paste -s -d , - | sed 's/..*/"ExposedPorts":{&},/' | tr -d '\n'
    printf '"Labels":{%s}},' "$(values LABEL | members)"
    printf '"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},' "$uncompressed"
    printf '"history":[{"created":"%s","created_by":"deploy/image/archive.sh"}]}' "$created"
} >"$work/config"
put "$work/config"
config=$(descriptor config.v1+json)
config_file=blobs/sha256/$digest

printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s},"layers":[%s}]}' \
    "$config" "$layer" >"$work/manifest"
put "$work/manifest"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s,"platform":%s,"annotations":%s}]}' \
    "$(descriptor manifest.v1+json)" "{\"architecture\":\"$architecture\",\"os\":\"linux\"}" \
    "{\"io.containerd.image.name\":\"$name\",\"org.opencontainers.image.ref.name\":\"${name##*:}\"}" >"$layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
# What docker load of before 25 looks for.
printf '[{"Config":"%s","RepoTags":["%s"],"Layers":["%s"]}]' "$config_file" "$name" "$layer_file" >"$layout/manifest.json"

tarball "$layout" >"$work/archive"
mv "$work/archive" "$archive"
say "$archive: $name for linux/$architecture, sha256:$digest"
