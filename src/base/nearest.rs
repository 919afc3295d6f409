//! The nearest right name to a wrong one.

/// The known name that a wrong one was probably meant to be: at most about a third of its letters differ.
#[must_use]
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', ' ', '.'], "_");
    let wrong = plain(wrong);
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(&wrong, &plain(name)), name))
        .filter(|(likeness, _)| *likeness >= 0.6)
        // The first of equally near ones, so that the answer does not depend on what follows.
        .fold(None, |best: Option<(f64, &str)>, (likeness, name)| match best {
            Some((top, _)) if top >= likeness => best,
            _ => Some((likeness, name)),
        })
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_none() {
        let known = ["topic", "brokers", "max_bad_ratio", "commit_every", "kind"];
        for (wrong, right) in
            [("topci", "topic"), ("broker", "brokers"), ("max-bad-ratio", "max_bad_ratio"), ("comit_evry", "commit_every")]
        {
            assert_eq!(nearest(wrong, known.into_iter()), Some(right), "{wrong}");
        }
        for stranger in ["colour", "x", ""] {
            assert_eq!(nearest(stranger, known.into_iter()), None, "{stranger}");
        }
    }
}
