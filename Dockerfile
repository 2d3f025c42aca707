# syntax=docker/dockerfile:1
# One image for every role and tool: the command line chooses.

ARG RUST=1
ARG DEBIAN=bookworm

FROM rust:${RUST}-${DEBIAN} AS build
# librdkafka and OpenSSL are built from source: the base image has make, perl and C and C++ compilers.
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package sluice \
    && install -D target/release/sluice /out/sluice

FROM debian:${DEBIAN}-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 sluice \
    && useradd --system --uid 10001 --gid sluice --home-dir /var/lib/sluice --no-create-home sluice \
    && install --directory --owner=sluice --group=sluice /var/lib/sluice
COPY --from=build /out/sluice /usr/local/bin/sluice
COPY deploy/healthcheck.sh /usr/local/bin/sluice-healthcheck

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/sluice
ENV SLUICE__PROCESSOR__STATE_DIR=/var/lib/sluice
# Schema ids and the local dedup store. Losing it costs a rebuild from Kafka, not an event.
VOLUME ["/var/lib/sluice"]
# Webhooks; health and metrics, which are not for the public.
EXPOSE 8080 8090
# Alive, not ready: a role that waits for Kafka must not be killed for it.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["sluice-healthcheck", "/healthz"]
ENTRYPOINT ["sluice"]
CMD ["--help"]
