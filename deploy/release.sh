#!/bin/sh
# What a release has beside its images: the chart, the CustomResourceDefinitions, one file for kubectl, the list of
# components (SBOM) and the checksums of everything in FOLDER. `make release-artifacts` runs it.
#
# Usage: deploy/release.sh FOLDER VERSION
#
# From the environment: HELM, CARGO (with cargo-cyclonedx), SOURCE_DATE_EPOCH.
set -eu
export LC_ALL=C

say() { printf '%s\n' "$*" >&2; }

[ $# = 2 ] || { say "usage: deploy/release.sh FOLDER VERSION"; exit 2; }
folder=$(cd "$1" && pwd) version=$2
helm=${HELM:-helm} cargo=${CARGO:-cargo}
cd "$(dirname "$0")/.."

# The image is tagged with the version, and the chart takes the image that is tagged with its appVersion.
for field in version appVersion; do
    grep -qx "$field: $version" charts/mailgress/Chart.yaml || {
        say "charts/mailgress/Chart.yaml: $field is not $version"
        exit 1
    }
done

"$helm" package charts/mailgress --destination "$folder" >&2
cat crds/*.yaml >"$folder/crds.yaml"
{
    printf -- '---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: mailgress\n'
    "$helm" template mailgress charts/mailgress --namespace mailgress --no-hooks --kube-version 1.30.0
} >"$folder/install.yaml"

# cargo-cyclonedx writes beside Cargo.toml, and names this folder in references.
name=mailgress.cdx
trap 'rm -f "$name.json"' EXIT
"$cargo" cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename "$name"
sed "s|file://$(pwd)|file:///src|g" "$name.json" >"$folder/$name.json"

(cd "$folder" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort | xargs sha256sum >SHA256SUMS)
