//! How to reach a Kafka cluster: what source, sink and dead letters share.

use std::collections::BTreeMap;

/// A cluster and the librdkafka settings given for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Any librdkafka setting, as written under `client`. Values may be secrets: never print them.
    pub settings: BTreeMap<String, String>,
}
