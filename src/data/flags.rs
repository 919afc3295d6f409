//! What was unusual about an event, as bits; printed as names in the forecast row.

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Nothing unusual.
    pub const NONE: Flags = Flags(0);
    /// The event was earlier than its key's last one; it was taken at the last one's time, gap 0.
    pub const LATE_CLAMPED: Flags = Flags(1);
    /// The key had no event before this one (or none within `state.expiry`, or it was forgotten: `state.when_full`).
    pub const COLD_START: Flags = Flags(2);
    /// The mark is not one the model knows.
    pub const UNKNOWN_MARK: Flags = Flags(4);
    /// The model gave a value that is not a number; the fields it concerns are empty.
    pub const NOT_FINITE: Flags = Flags(8);
    /// The model's next state was not finite: the key keeps the state that it had before the event.
    pub const STATE_KEPT: Flags = Flags(16);

    /// Every flag, and its name.
    pub const NAMES: [(Flags, &'static str); 5] = [
        (Flags::LATE_CLAMPED, "late_clamped"),
        (Flags::COLD_START, "cold_start"),
        (Flags::UNKNOWN_MARK, "unknown_mark"),
        (Flags::NOT_FINITE, "not_finite"),
        (Flags::STATE_KEPT, "state_kept"),
    ];

    /// The set as bits, for storing.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set that was stored as `bits`.
    #[must_use]
    pub fn from_bits(bits: u8) -> Flags {
        Flags(bits)
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_their_names() {
        let flags = Flags::COLD_START.with(Flags::LATE_CLAMPED);
        assert_eq!(flags.names().collect::<Vec<_>>(), ["late_clamped", "cold_start"]);
        assert!(Flags::NONE.is_none());
    }
}
