//! What a sink promises, and whether it can.

use super::build::Build;
use super::written;
use crate::sink::Delivery;

const PATH: [&str; 2] = ["sink", "delivery"];

impl Build<'_> {
    /// The promise of the sink: as asked, or the strongest that it can keep.
    pub(super) fn delivery(&mut self, sink: &written::Sink, source: Option<&written::Source>) -> Delivery {
        let (asked, exactly_once, why, instead) = match sink {
            written::Sink::Kafka { brokers, delivery, .. } => {
                // A transaction covers rows and offsets of one cluster only.
                let same = matches!(source, Some(written::Source::Kafka { brokers: input, .. }) if brokers.is_none() || brokers == input);
                (
                    delivery,
                    same,
                    "a Kafka transaction covers input offsets and forecasts only where both are on the same brokers",
                    "at_least_once",
                )
            }
            written::Sink::Parquet { delivery, .. } => (delivery, true, "", "exactly_once"),
            written::Sink::Ndjson { delivery, .. } => {
                (delivery, false, "lines that were appended before a crash cannot be told from those after it", "at_least_once")
            }
        };
        match asked {
            Some(written::Delivery::ExactlyOnce) if !exactly_once => {
                let label = format!("got {}", self.shown(&PATH));
                let help = format!("write delivery = \"{instead}\": {why}");
                self.note("pipeline::bad_value", &PATH, "this sink cannot promise that", label, help);
                Delivery::AtLeastOnce
            }
            Some(written::Delivery::AtLeastOnce) if matches!(sink, written::Sink::Parquet { .. }) => {
                let label = format!("got {}", self.shown(&PATH));
                let help = "leave it out: the names of the files make it exactly once, at no cost";
                self.note("pipeline::bad_value", &PATH, "a Parquet sink has no weaker promise", label, help);
                Delivery::ExactlyOnce
            }
            Some(written::Delivery::AtLeastOnce) => Delivery::AtLeastOnce,
            Some(written::Delivery::ExactlyOnce) => Delivery::ExactlyOnce,
            None if exactly_once => Delivery::ExactlyOnce,
            None => Delivery::AtLeastOnce,
        }
    }
}
