//! Named places between the steps of commit, snapshot, recovery and release at which a test lets the program die, as a power cut would.
//! Only builds with debug assertions have them.

/// All names of a run, in the order of the protocols.
pub const ALL: [&str; 14] = [
    "commit.begun",
    "commit.rows_sent",
    "commit.offsets_sent",
    "commit.visible",
    "snapshot.copied",
    "snapshot.file_stored",
    "snapshot.manifest_stored",
    "recover.committed_known",
    "recover.states_loaded",
    "recover.sinks_begun",
    "recover.reading",
    "release.committed",
    "release.snapshot_taken",
    "release.forgotten",
];

/// Between the steps of a hand-over from a backfill.
pub const HAND_OVER: [&str; 1] = ["hand_over.snapshots_stored"];

/// Between the steps of the commit of files by date.
pub const FILES: [&str; 4] = ["files.staged", "files.committed", "files.moving", "files.moved"];

/// Dies here if `MEANTIME_FAIL_POINT` is this name.
pub fn fail_point(name: &str) {
    if cfg!(debug_assertions) {
        let known = [&ALL[..], &HAND_OVER, &FILES].concat();
        debug_assert!(known.contains(&name), "{name} is no fail point");
        if std::env::var_os("MEANTIME_FAIL_POINT").is_some_and(|asked| asked == name) {
            std::process::abort();
        }
    }
}
