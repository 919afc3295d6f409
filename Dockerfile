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
    && apt-get install --yes --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home meantime \
    && install --directory --owner=meantime /var/lib/meantime
COPY --from=build /src/target/release/meantime /usr/local/bin/meantime
USER meantime
WORKDIR /var/lib/meantime
# Is the pipeline sound, do its brokers answer, are its topics there?
HEALTHCHECK --interval=30s --timeout=15s --start-period=20s CMD ["meantime", "check", "/pipeline/pipeline.toml", "--connect"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["meantime"]
CMD ["run", "/pipeline/pipeline.toml"]
