//! Where a shadow begins in a partition: a snapshot of its fingerprint, what the last commit says of it, or the committed offset.

use super::Follower;
use crate::base::error::Result;
use crate::base::offset::Offset;
use crate::data::commit::{Commit, Note, Shadowing};
use crate::run::partition::Recovered;
use crate::source::Assignment;

/// The states that it starts with, and the offset of the snapshot that they are of. `own`: how far its sink has come, and whether that sink keeps offsets with
/// its rows.
pub(super) fn recover(
    follower: &mut Follower<'_>,
    assignment: &Assignment,
    committed: Option<&Commit>,
    live_from: Offset,
    (own, keeps): (Option<&Commit>, bool),
) -> Result<(Recovered, Option<Offset>)> {
    let (partition, low) = (assignment.partition, assignment.low);
    let note = committed.map(|committed| committed.note.clone()).unwrap_or_default();
    let running = note.shadow.clone().filter(|shadow| shadow.fingerprint == follower.fingerprint);
    let own = own.filter(|own| running.is_some() && own.next <= live_from);
    let live_from = match (&running, own) {
        (Some(_), Some(own)) => own.next,
        (Some(shadow), None) if keeps => shadow.origin.min(live_from),
        _ => live_from,
    };
    let live_from = live_from.max(low);
    // What the sink's own note lacks has brought about nothing there.
    let live_ticks = match own {
        _ if !keeps => 0,
        Some(own) => Commit { next: live_from, note: note.clone() }.ticks_after(&own.note).len(),
        None => note.ticks.iter().filter(|tick| tick.at >= live_from).count(),
    };
    let ticks = match own {
        Some(own) if keeps => {
            let later = Commit { next: live_from, note: note.clone() }.ticks_after(&own.note);
            own.note.ticks.iter().copied().chain(later).collect()
        }
        _ => note.ticks.clone(),
    };
    // A snapshot that has more ticks than the sink's own note is ahead of the rows.
    let said = own.filter(|_| keeps).map_or_else(|| ticks.clone(), |own| own.note.ticks.clone());
    let state = Commit { next: live_from, note: Note { ticks: said, ..note.clone() } };
    let found = follower.snapshots.find(partition, committed.map(|_| &state))?;
    let found = found.filter(|found| found.offset >= low || found.offset == live_from);
    let began = running.as_ref().map(|shadow| shadow.origin);
    let last = note.last.filter(|last| committed.is_some_and(|committed| committed.next == live_from) && last.offset >= low);
    let note = Note { ticks, last, ..note };
    let Some(found) = found else {
        let from = began.unwrap_or(live_from).max(low);
        match began {
            None => tracing::info!(%partition, %from, "the shadow begins: no key is known to it before"),
            Some(origin) if origin < from => tracing::warn!(%partition, %origin, %from,
                "no snapshot of the shadow can be used, and the records that its states rest on are gone: it begins anew"),
            Some(origin) => tracing::info!(%partition, %origin, %live_from, "the shadow's states are rebuilt by replaying"),
        }
        let before = note.ticks.iter().filter(|tick| tick.at < from).copied().collect();
        let shadow = Some(Shadowing { fingerprint: follower.fingerprint.clone(), origin: from });
        let included = Note { ticks: before, shadow, ..Note::default() };
        return Ok((Recovered { partition, from, live_from, note, included, states: None, live_ticks }, None));
    };
    let (offset, keys, of) = (found.offset, found.keys, Note::read(&found.note).unwrap_or_default());
    let known = of.shadow.filter(|shadow| shadow.fingerprint == follower.fingerprint).map(|shadow| shadow.origin);
    let origin = known.or(began).unwrap_or(offset);
    let (mut order, mut states) = follower.lane.empty_states();
    order.restore(found.load(&mut states)?);
    tracing::info!(%partition, %offset, %live_from, keys, "snapshot of the shadow loaded");
    let shadow = Some(Shadowing { fingerprint: follower.fingerprint.clone(), origin });
    let from = offset.max(low);
    let last = of.last.filter(|last| last.offset >= low && last.offset < from);
    let included = Note { shadow, last, ticks: of.ticks, dropped: of.dropped, ..Note::default() };
    Ok((Recovered { partition, from, live_from, note, included, states: Some((order, states)), live_ticks }, Some(offset)))
}
