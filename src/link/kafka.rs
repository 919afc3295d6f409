//! How to reach a Kafka cluster: what source, sink and dead letters share.

use std::collections::BTreeMap;
use std::fmt;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_names_settings_but_never_shows_them() {
        let settings = BTreeMap::from([("sasl.password".to_owned(), "hidden".to_owned())]);
        let text = format!("{:?}", Client { brokers: "user:hidden@broker:9092".to_owned(), settings });
        assert!(text.contains("sasl.password") && !text.contains("hidden"), "{text}");
    }
}
