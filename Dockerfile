# syntax=docker/dockerfile:1

# The image with Docker: for amd64 and arm64, on either,
#
#     docker buildx build --platform linux/amd64,linux/arm64 -t NAME:TAG .
#
# Without Docker `make image` writes the same: the files by the same script, the rest as the last stage here says.
# The same bytes again: --build-arg SOURCE_DATE_EPOCH=… --output type=oci,rewrite-timestamp=true,…

ARG RUST_VERSION=1.95
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST_VERSION}-slim-bookworm AS build
ARG BUILDARCH
ARG TARGETARCH
# C for the TLS library's cryptography, and the other machine's C where it is built for another.
RUN set -eu; \
    packages="build-essential cmake pkg-config ca-certificates"; \
    case "$BUILDARCH/$TARGETARCH" in \
        amd64/arm64) packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; \
        arm64/amd64) packages="$packages gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; \
    esac; \
    apt-get update -q; \
    apt-get install -y -q --no-install-recommends $packages; \
    rm -rf /var/lib/apt/lists/*; \
    case "$TARGETARCH" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; esac; \
    rustup target add "$machine-unknown-linux-gnu"
WORKDIR /src
COPY . .
ARG REVISION
ARG SOURCE_DATE_EPOCH=0
ARG PROFILE=release
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target MAILGRESS_COMMIT="$REVISION" deploy/image/rootfs.sh /rootfs "$TARGETARCH"

# `make image` reads what follows (deploy/image/archive.sh): one instruction a line, lists in their JSON form.
FROM scratch
ARG VERSION
ARG REVISION
COPY --from=build /rootfs /
USER 65532:65532
ENTRYPOINT ["/mailgress"]
CMD ["run"]
EXPOSE 9090/tcp
LABEL org.opencontainers.image.title="Mailgress"
LABEL org.opencontainers.image.description="The mail ingress controller for Kubernetes: SMTP, IMAP, POP3 and ManageSieve as MailServer objects"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="$VERSION"
LABEL org.opencontainers.image.revision="$REVISION"
