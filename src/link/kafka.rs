//! How to reach a Kafka cluster: what source, sink and dead letters share.

use std::collections::BTreeMap;
use std::fmt;

#[cfg(feature = "kafka")]
use crate::base::time::EventTime;

#[cfg(feature = "kafka")]
mod explain;
#[cfg(feature = "kafka")]
mod instance;
#[cfg(feature = "kafka")]
mod logging;
#[cfg(feature = "kafka")]
mod probe;

#[cfg(feature = "kafka")]
pub use explain::{Verdict, cause, explain, verdict};
#[cfg(feature = "kafka")]
pub use instance::Instance;
#[cfg(feature = "kafka")]
pub use logging::Bridge;
#[cfg(feature = "kafka")]
pub use probe::{Probe, block_on, committed, ends, offsets};

/// A cluster and the librdkafka settings given for it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Any librdkafka setting, as written under `client`. Values may be secrets: never print them.
    pub settings: BTreeMap<String, String>,
}

impl fmt::Debug for Client {
    /// The names of the settings without their values, and without the brokers: each may be a secret or come from the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings.keys()).finish_non_exhaustive()
    }
}

/// When the log took a record in, in our unit.
#[cfg(feature = "kafka")]
#[must_use]
pub fn recorded(timestamp: rdkafka::Timestamp) -> Option<EventTime> {
    match timestamp {
        rdkafka::Timestamp::NotAvailable => None,
        rdkafka::Timestamp::CreateTime(millis) | rdkafka::Timestamp::LogAppendTime(millis) => Some(EventTime(millis.saturating_mul(1000))),
    }
}

/// A consumer's membership in its group, as a transaction needs it to commit the group's offsets.
pub trait Group: Send + Sync {
    /// Identifies the member and its generation: a broker refuses offsets of a member that the group has left behind.
    ///
    /// # Errors
    /// The consumer is closed.
    #[cfg(feature = "kafka")]
    fn metadata(&self) -> crate::base::error::Result<rdkafka::consumer::ConsumerGroupMetadata>;
    /// Which time it is that the member has the partition, a number of its own each time; `None` if it is not the member's. What was begun in an earlier one is not to be
    /// committed in a later one: another member may have done it in between. Ask after `metadata`: then what is answered held for that generation or a later one.
    fn term(&self, partition: crate::base::offset::Partition) -> Option<u64>;
    /// Topic whose offsets are committed.
    fn topic(&self) -> &str;
    /// The group.
    fn group(&self) -> &str;
}

/// A shared handle to it. It does not keep the consumer open.
pub type Membership = std::sync::Arc<dyn Group>;

/// Settings that a pipeline cannot give under `client`, because delivery guarantees or other options rest on them, with what to do instead.
pub const RESERVED: [(&str, &str); 13] = [
    ("bootstrap.servers", "write it as `brokers`"),
    ("metadata.broker.list", "write it as `brokers`"),
    ("group.id", "write it as `group`"),
    ("enable.auto.commit", "offsets are committed after the forecasts are acknowledged"),
    ("enable.auto.offset.store", "offsets are committed after the forecasts are acknowledged"),
    ("enable.partition.eof", "meantime needs it to know when it has caught up"),
    ("auto.offset.reset", "every partition starts at its committed offset or at its first record; see `state.on_missing`"),
    ("partition.assignment.strategy", "meantime rebalances cooperatively"),
    ("group.protocol", "meantime rebalances cooperatively"),
    ("acks", "every forecast is acknowledged by all in-sync replicas"),
    ("request.required.acks", "every forecast is acknowledged by all in-sync replicas"),
    ("enable.idempotence", "every forecast is written by an idempotent producer"),
    ("transactional.id", "meantime chooses it"),
];

#[cfg(feature = "kafka")]
impl Client {
    /// The settings as librdkafka takes them: brokers, a client id, then what the pipeline gives. Reserved ones are left out (`check`
    /// refuses them), so that an edge can put its own in.
    #[must_use]
    pub fn config(&self) -> rdkafka::ClientConfig {
        let mut config = rdkafka::ClientConfig::new();
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Info);
        config.set("client.id", "meantime");
        for (name, value) in &self.settings {
            if !RESERVED.iter().any(|(reserved, _)| reserved == name) {
                config.set(name, value);
            }
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Refuses settings that meantime must choose itself.
    ///
    /// # Errors
    /// A configuration error that names the first such setting and the option to use instead.
    pub fn check(&self, stage: &'static str) -> crate::base::error::Result<()> {
        let reserved = RESERVED.iter().find(|(name, _)| self.settings.contains_key(*name));
        match reserved {
            None => Ok(()),
            Some((name, instead)) => Err(crate::base::error::Error::config(stage, format!("the client setting `{name}` cannot be given"))
                .at(self.brokers.clone())
                .help(format!("remove `{name}` from `client`: {instead}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, value: &str) -> Client {
        Client { brokers: "127.0.0.1:1".to_owned(), settings: BTreeMap::from([(name.to_owned(), value.to_owned())]) }
    }

    #[test]
    fn debug_never_prints_the_value_of_a_setting() {
        let text = format!("{:?}", client("sasl.password", "hush"));
        assert!(text.contains("sasl.password"), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn a_setting_that_guarantees_rest_on_is_refused_with_what_to_do() {
        let client = client("acks", "0");
        let error = client.check("sink").unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("remove `acks`"), "{error}");
        assert_eq!(client.config().get("acks"), None);
    }
}
