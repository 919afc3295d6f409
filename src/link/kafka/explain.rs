//! From librdkafka's errors to ours: which are worth another try, which are the user's to mend, and how.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;

use super::{Client, RESERVED};
use crate::base::error::{Error, Kind};

/// What an error of librdkafka means for a running stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A broker is away or changing over; librdkafka tries again by itself.
    Passing,
    /// The topic or a partition is not there. Right after a restart of a broker this passes.
    Topic,
    /// Credentials, permissions or settings: trying again cannot help.
    Config,
    /// Anything else.
    Other,
}

/// Settings that people write most, for the nearest right name.
const KNOWN: [&str; 34] = [
    "client.id",
    "client.rack",
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.method",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "group.instance.id",
    "isolation.level",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "queued.min.messages",
    "queued.max.messages.kbytes",
    "linger.ms",
    "batch.size",
    "compression.type",
    "message.max.bytes",
    "message.timeout.ms",
];

/// What an error means.
#[must_use]
pub fn verdict(error: &KafkaError) -> Verdict {
    if matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_)) {
        return Verdict::Config;
    }
    let Some(code) = error.rdkafka_error_code() else { return Verdict::Other };
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::WaitingForCoordinator
        | Code::WaitCache
        | Code::Retry
        | Code::DestroyBroker
        | Code::BrokerDestroy
        | Code::UnknownBroker
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::OffsetNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::RebalanceInProgress
        | Code::UnstableOffsetCommit
        | Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::PollExceeded => Verdict::Passing,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => Verdict::Topic,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::SSL
        | Code::UnsupportedSASLMechanism
        | Code::InvalidTopic
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::MessageSizeTooLarge
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::PolicyViolation => Verdict::Config,
        _ => Verdict::Other,
    }
}

/// The text of an error without the values of settings, which may be secrets.
#[must_use]
pub fn cause(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => format!("client setting `{name}`"),
        KafkaError::ClientCreation(text) => text.clone(),
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}

/// The error of ours for an error of librdkafka. `doing` says what was tried, as in `cannot {doing}`; `topic` may be empty.
#[must_use]
pub fn explain(stage: &'static str, client: &Client, topic: &str, doing: &str, error: &KafkaError) -> Error {
    let place = if topic.is_empty() { client.brokers.clone() } else { format!("topic {topic} on {}", client.brokers) };
    if let KafkaError::ClientConfig(why, _, name, _) = error {
        return setting(stage, *why, name).at(place);
    }
    let (kind, help) = match verdict(error) {
        Verdict::Passing => (Kind::Unavailable, unreachable_help(client)),
        Verdict::Topic => (Kind::Config, create_help(client, topic)),
        Verdict::Config => (Kind::Config, advice(client, topic, error)),
        Verdict::Other => (Kind::Retry, "start again; if it stays, look into the broker's log".to_owned()),
    };
    Error::new(kind, stage, format!("cannot {doing}: {}", cause(error))).at(place).help(help)
}

fn setting(stage: &'static str, why: RDKafkaConfRes, name: &str) -> Error {
    if why == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        let nearest = nearest(name, KNOWN.into_iter().chain(RESERVED.iter().map(|(name, _)| *name)));
        let help = nearest.map_or_else(
            || "the names are those of librdkafka's CONFIGURATION.md".to_owned(),
            |name| format!("the nearest name is `{name}`; all names: librdkafka's CONFIGURATION.md"),
        );
        return Error::config(stage, format!("there is no client setting `{name}`")).help(help);
    }
    let help = if cfg!(feature = "tls") || !(name.starts_with("ssl.") || name.starts_with("sasl.") || name == "security.protocol") {
        "the allowed values are in librdkafka's CONFIGURATION.md"
    } else {
        "this build has no TLS and SASL: build with `cargo build --features tls`"
    };
    // The value is left out on purpose: it may be a secret.
    Error::config(stage, format!("the value of the client setting `{name}` is not allowed")).help(help)
}

/// What to do about a broker that does not answer.
pub(super) fn unreachable_help(client: &Client) -> String {
    format!("is a broker listening on {}, and does the name it advertises resolve here? see `client` for TLS and SASL", client.brokers)
}

/// How to make a topic that is not there.
pub(super) fn create_help(client: &Client, topic: &str) -> String {
    format!("kafka-topics.sh --bootstrap-server {} --create --topic {topic} --partitions 4", client.brokers)
}

fn advice(client: &Client, topic: &str, error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed) => {
            format!(
                "let this user read, write and describe the topic {topic}: kafka-acls.sh --bootstrap-server {} --add ...",
                client.brokers
            )
        }
        Some(Code::GroupAuthorizationFailed) => "let this user read the consumer group, or name another under `group`".to_owned(),
        Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => {
            "check `security.protocol`, `sasl.mechanism`, `sasl.username` and `sasl.password` under `client`".to_owned()
        }
        Some(Code::SSL) => "check `security.protocol` and `ssl.ca.location` under `client`".to_owned(),
        Some(Code::MessageSizeTooLarge) => {
            format!("raise `max.message.bytes` of the topic {topic} above the largest row (and `message.max.bytes` under `client`)")
        }
        Some(Code::InconsistentGroupProtocol) => {
            "another member of the group uses another assignment strategy: name another group under `group`".to_owned()
        }
        _ => "the settings under `client` are those of librdkafka's CONFIGURATION.md".to_owned(),
    }
}

/// The name most like `name`, if any is like it at all.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client { brokers: "kafka:9092".to_owned(), ..Client::default() }
    }

    #[test]
    fn each_kind_of_fault_has_its_exit_code() {
        for (code, exit) in [
            (Code::AllBrokersDown, 69),
            (Code::OperationTimedOut, 69),
            (Code::UnknownTopicOrPartition, 78),
            (Code::TopicAuthorizationFailed, 78),
            (Code::Fail, 75),
        ] {
            let error = explain("source", &client(), "cards", "read", &KafkaError::Global(code));
            assert_eq!(error.exit_code(), exit, "{error}");
            assert!(error.help.is_some(), "{error}");
        }
    }

    #[test]
    fn a_refused_setting_is_named_without_its_value() {
        let mut config = client().config();
        config.set("sasl.mechanism", "PLAIN").set("sasl.passwort", "hush");
        let found = config.create_native_config().err().unwrap();
        let error = explain("source", &client(), "cards", "open the consumer", &found);
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("the nearest name is `sasl.password`"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }

    #[test]
    fn only_a_similar_name_is_offered() {
        assert_eq!(nearest("crads", ["cards", "visits"].into_iter()), Some("cards"));
        assert_eq!(nearest("orders", ["cards", "visits"].into_iter()), None);
    }
}
