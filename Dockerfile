# meantime as a container: `docker build -t meantime .`, then mount a pipeline folder at /pipeline (see docker-compose.yml).
# For TLS and SASL: `docker build --build-arg FEATURES=tls -t meantime .`
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG FEATURES=""
RUN cargo build --release --locked --features "$FEATURES" --bin meantime \
    && strip target/release/meantime

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home meantime \
    && install --directory --owner=meantime /var/lib/meantime
COPY --from=build /src/target/release/meantime /usr/local/bin/meantime
USER meantime
WORKDIR /var/lib/meantime
# Do the lanes move? `docs/operations.md` has metrics and probes.
EXPOSE 9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["curl", "--fail", "--silent", "--max-time", "3", "http://127.0.0.1:9464/health/live"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["meantime"]
CMD ["run", "/pipeline/pipeline.toml", "--http", "0.0.0.0:9464"]
