//! What `run --http` answers: metrics, and whether the process is alive and ready.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Answer, Routes};
use crate::run::{CONTENT_TYPE, Counts, Exposition, Standing};

/// A lane whose loop has not moved for so long counts as stuck.
const STUCK: Duration = Duration::from_secs(30);

/// `/metrics`, `/health/live` and `/health/ready` of a run.
#[must_use]
pub fn routes(counts: &Arc<Counts>) -> Arc<Routes> {
    let exposition = Exposition::new(Arc::clone(counts));
    let counts = Arc::clone(counts);
    Arc::new(move |path: &str| match path {
        "/metrics" => Some(Answer { status: 200, content_type: CONTENT_TYPE, body: exposition.render() }),
        "/health/live" => Some(live(counts.pulses.longest_silence())),
        "/health/ready" => Some(ready(&counts)),
        _ => None,
    })
}

fn answer(fine: bool, body: &Value) -> Answer {
    Answer { status: if fine { 200 } else { 503 }, content_type: "application/json", body: format!("{body}\n") }
}

/// 200 while every lane that runs has moved within 30 s; before the lanes start and after they have ended there is nothing to be stuck.
fn live(silence: Option<Duration>) -> Answer {
    let moving = silence.is_none_or(|silence| silence < STUCK);
    answer(moving, &json!({ "live": moving, "longest_silence_s": silence.map(|silence| silence.as_secs()) }))
}

/// 200 once partitions have been assigned and all of them are live.
fn ready(counts: &Counts) -> Answer {
    let standings = counts.partitions.standings();
    let partition = |standing: &Standing| {
        if standing.is_live() { json!({ "state": "live" }) } else { json!({ "state": "replaying", "remaining": standing.remaining() }) }
    };
    let partitions: serde_json::Map<String, Value> = standings.iter().map(|(p, standing)| (p.to_string(), partition(standing))).collect();
    let ready = counts.partitions.are_live();
    answer(ready, &json!({ "ready": ready, "partitions": partitions }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::offset::{Offset, Partition};

    fn get(counts: &Arc<Counts>, path: &str) -> (u16, Value) {
        let answer = routes(counts)(path).unwrap();
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    #[test]
    fn ready_waits_for_every_assigned_partition_and_says_how_much_is_left() {
        let counts = Arc::new(Counts::default());
        assert_eq!(get(&counts, "/health/ready"), (503, json!({ "ready": false, "partitions": {} })));
        counts.partitions.note_assigned(Partition(0), Some(Offset(0)), Offset(0));
        counts.partitions.note_assigned(Partition(10), Some(Offset(5)), Offset(25));
        counts.partitions.note_progress(Partition(10), Offset(10), None);
        let partitions = json!({ "0": { "state": "live" }, "10": { "state": "replaying", "remaining": 15 } });
        assert_eq!(get(&counts, "/health/ready"), (503, json!({ "ready": false, "partitions": partitions })));
        counts.partitions.note_live(Partition(10));
        assert_eq!(get(&counts, "/health/ready").0, 200);
        counts.partitions.note_released(Partition(0));
        counts.partitions.note_released(Partition(10));
        assert_eq!(get(&counts, "/health/ready").0, 200, "a rebalance that takes everything is no fault of this process");
    }

    #[test]
    fn live_is_a_loop_that_moves() {
        let counts = Arc::new(Counts::default());
        assert_eq!(get(&counts, "/health/live").0, 200, "before the lanes start");
        let pulse = counts.pulses.start();
        pulse.beat();
        assert_eq!(get(&counts, "/health/live"), (200, json!({ "live": true, "longest_silence_s": 0 })));
        assert_eq!(live(Some(Duration::from_secs(29))).status, 200);
        assert_eq!(live(Some(Duration::from_secs(31))).status, 503);
        drop(pulse);
        assert_eq!(get(&counts, "/health/live").0, 200, "a lane that has ended is not stuck");
    }
}
