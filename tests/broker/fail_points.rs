//! The program dies at every named place between the steps of its protocols.

use std::time::Duration;

use meantime::base::fail_point;

use super::broker;
use super::trial::{Instance, Trial, event};

#[test]
fn death_at_every_fail_point_loses_nothing_and_repeats_nothing() {
    let Some(broker) = broker() else { return };
    // A program without debug assertions has none.
    if std::env::var_os("MEANTIME_BIN").is_some() {
        return;
    }
    let (half, all) = (4_000, 8_000);
    let input = broker.topic("points-in", 4);
    let trial = |name: &str| Trial { snapshots: true, input: input.clone(), ..Trial::new(broker, name, "exactly_once") };
    let trials = fail_point::ALL.map(|point| (point, trial(point)));
    // There is something committed, and a snapshot of it, to recover from.
    broker.produce(&input, (0..half).map(event));
    trials.iter().for_each(|(_, trial)| trial.finish());
    broker.produce(&input, (half..all).map(event));
    let expected = {
        let reference = trial("undisturbed");
        reference.finish();
        reference.forecasts().0
    };
    for (point, trial) in &trials {
        let mut victim = trial.start_dying("a", Some(point));
        // Partitions are let go when another instance joins.
        let other = point.starts_with("release").then(|| {
            trial.wait_committed(all);
            trial.start("b")
        });
        let status = victim.ended(Duration::from_secs(60));
        assert!(status.is_some_and(|status| !status.success()), "{point}: {status:?}\n{}", trial.tails());
        let heir = trial.start("a");
        trial.wait_committed(all);
        heir.stop();
        other.into_iter().for_each(Instance::stop);
        trial.must_be_complete(all);
        let (found, repeats) = trial.forecasts();
        assert!(found == expected && repeats == 0, "{point}: {repeats} repeats");
    }
}
