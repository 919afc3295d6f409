//! Marks none of which the package knows: then `[event] mark` names another field than the package was fitted with.

use super::said::enough;

/// The first events of a lane, until one of them has a mark that the package knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    events: usize,
    /// One of the marks.
    example: Option<String>,
    /// A mark was known, or it has been said.
    settled: bool,
}

impl Strangers {
    /// An event with a mark, or without one. What is known settles it.
    pub(super) fn note(&mut self, mark: Option<&[u8]>, known: bool) {
        if self.settled {
            return;
        }
        self.settled = known;
        self.events += 1;
        if self.example.is_none() {
            self.example = mark.map(|mark| String::from_utf8_lossy(mark).chars().take(80).collect());
        }
    }

    /// Events whose marks were all unknown, with one of these marks, once: when they are enough to say so, fewer at the end of the input.
    pub(super) fn told(&mut self, ended: bool) -> Option<(usize, String)> {
        if self.settled || self.events < enough(ended) {
            return None;
        }
        self.settled = true;
        Some((self.events, self.example.take().unwrap_or_else(|| "none has one".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lane::said::{ENOUGH, FEWEST};

    #[test]
    fn it_is_said_once_of_many_events_or_of_fewer_at_the_end_and_never_when_one_was_known() {
        let mut strangers = Strangers::default();
        (1..ENOUGH).for_each(|_| strangers.note(Some(b"web"), false));
        assert_eq!(strangers.told(false), None);
        strangers.note(None, false);
        assert_eq!(strangers.told(false), Some((ENOUGH, "web".to_owned())));
        assert_eq!(strangers.told(true), None);

        let mut few = Strangers::default();
        (1..FEWEST).for_each(|_| few.note(None, false));
        assert_eq!(few.clone().told(true), None);
        few.note(None, false);
        assert_eq!((few.told(false), few.told(true)), (None, Some((FEWEST, "none has one".to_owned()))));

        let mut known = Strangers::default();
        (0..2 * ENOUGH).for_each(|i| known.note(Some(b"pos"), i == 5));
        assert_eq!(known.told(true), None);
    }
}
