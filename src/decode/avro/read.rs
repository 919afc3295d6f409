//! A datum by its steps. Every length is held to the bytes that are left, so that nothing a record says can make this slow or large.

use super::steps::{Entry, Member, Step, Steps};
use crate::base::time::EventTime;
use crate::decode::cells::{Cell, Cells};

/// How often types may lie within themselves in a datum.
const DEPTH: usize = 256;

type Read<T> = Result<T, String>;

/// Reads a whole datum into the cells.
pub fn datum(steps: &Steps, bytes: &[u8], cells: &mut Cells) -> Read<()> {
    let mut rest = Rest { bytes, named: &steps.named, free: bytes.len() };
    rest.take(&steps.root, cells, 0)?;
    match rest.bytes.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes follow it")),
    }
}

struct Rest<'a> {
    bytes: &'a [u8],
    named: &'a [Step],
    /// How many values without a byte there may still be.
    free: usize,
}

impl<'a> Rest<'a> {
    fn some(&mut self, length: usize) -> Read<&'a [u8]> {
        let (some, rest) =
            self.bytes.split_at_checked(length).ok_or_else(|| format!("{length} bytes are to follow, {} do", self.bytes.len()))?;
        self.bytes = rest;
        Ok(some)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        <[u8; N]>::try_from(self.some(N)?).map_err(|e| e.to_string())
    }

    /// Zigzag, seven bits a byte, the lowest first.
    fn long(&mut self) -> Read<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err("a number has more than ten bytes".to_owned())
    }

    fn length(&mut self) -> Read<usize> {
        let length = self.long()?;
        usize::try_from(length).map_err(|_| format!("a length of {length}"))
    }

    fn text(&mut self) -> Read<&'a [u8]> {
        let length = self.length()?;
        let text = self.some(length)?;
        std::str::from_utf8(text).map(str::as_bytes).map_err(|_| "a text is not UTF-8".to_owned())
    }

    /// Reads a value: cells that are wanted within it are filled, its own is returned.
    fn take(&mut self, step: &Step, cells: &mut Cells, depth: usize) -> Read<Cell> {
        Ok(match step {
            Step::Null => Cell::Missing,
            Step::Boolean => match self.array()? {
                [0] => Cell::Bool(false),
                [1] => Cell::Bool(true),
                [other] => return Err(format!("a boolean of {other}")),
            },
            Step::Long => Cell::Int(self.long()?),
            Step::Instant(times, over) => {
                let value = i128::from(self.long()?) * i128::from(*times);
                // What is beyond the number line is beyond the years that are allowed as well.
                let bounded = value.div_euclid(i128::from(*over)).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
                Cell::Instant(EventTime(i64::try_from(bounded).unwrap_or(i64::MAX)))
            }
            Step::Float => Cell::Float(f64::from(f32::from_le_bytes(self.array()?))),
            Step::Double => Cell::Float(f64::from_le_bytes(self.array()?)),
            Step::Text => {
                let text = self.text()?;
                cells.keep(text)
            }
            Step::Decimal(length, scale) => {
                let length = match length {
                    Some(length) => *length,
                    None => self.length()?,
                };
                decimal(self.some(length)?, *scale)
            }
            Step::Enum(symbols) => {
                let number = self.length()?;
                let symbol = symbols.get(number).ok_or_else(|| format!("symbol {number} of {}", symbols.len()))?;
                cells.keep(symbol.as_bytes())
            }
            Step::Union(variants) => {
                let step = self.variant(variants)?;
                self.take(step, cells, depth)?
            }
            Step::Record(members) => {
                for member in members {
                    self.member(member, cells, depth)?;
                }
                Cell::Nested
            }
            Step::Map(values, entries) => {
                self.blocks(|rest| {
                    let name = rest.text()?;
                    match entries.iter().find(|entry| entry.name.as_bytes() == name) {
                        Some(Entry { member, .. }) => rest.member(member, cells, depth),
                        None => rest.skip(values, depth),
                    }
                })?;
                Cell::Nested
            }
            other => {
                self.skip(other, depth)?;
                Cell::Nested
            }
        })
    }

    fn member(&mut self, member: &Member, cells: &mut Cells, depth: usize) -> Read<()> {
        if !member.is_wanted {
            return self.skip(&member.step, depth);
        }
        let cell = self.take(&member.step, cells, depth)?;
        cells.set(&member.cells, cell);
        Ok(())
    }

    fn variant<'s>(&mut self, variants: &'s [Step]) -> Read<&'s Step> {
        let number = self.length()?;
        variants.get(number).ok_or_else(|| format!("type {number} of a union of {}", variants.len()))
    }

    /// Reads blocks of items up to the empty one.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // Its bytes are said as well, for readers that skip it.
                let _ = self.length()?;
            }
            for _ in 0..count.unsigned_abs() {
                let before = self.bytes.len();
                item(self)?;
                if self.bytes.len() == before {
                    self.free = self.free.checked_sub(1).ok_or("more values without a byte than the record has bytes")?;
                }
            }
        }
    }

    fn skip(&mut self, step: &Step, depth: usize) -> Read<()> {
        match step {
            Step::Null => {}
            Step::Boolean => self.some(1).map(drop)?,
            Step::Long | Step::Instant(..) | Step::Enum(_) => self.long().map(drop)?,
            Step::Float => self.some(4).map(drop)?,
            Step::Double => self.some(8).map(drop)?,
            Step::Text | Step::Bytes | Step::Decimal(None, _) => {
                let length = self.length()?;
                self.some(length)?;
            }
            Step::Fixed(length) | Step::Decimal(Some(length), _) => self.some(*length).map(drop)?,
            Step::Array(items) => self.blocks(|rest| rest.skip(items, depth))?,
            Step::Map(values, _) => self.blocks(|rest| {
                rest.text()?;
                rest.skip(values, depth)
            })?,
            Step::Union(variants) => {
                let step = self.variant(variants)?;
                self.skip(step, depth)?;
            }
            Step::Record(members) => members.iter().try_for_each(|member| self.skip(&member.step, depth))?,
            Step::Named(number) => {
                if depth >= DEPTH {
                    return Err(format!("types lie more than {DEPTH} deep within each other"));
                }
                let step = self.named.get(*number).ok_or("a type is missing")?;
                self.skip(step, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// An integer in two's complement, the highest byte first, over a power of ten: the nearest number there is.
fn decimal(bytes: &[u8], scale: u32) -> Cell {
    // Of more bytes than an integer has the highest decide; the others are so many powers of 256.
    let (high, low) = bytes.split_at(bytes.len().min(16));
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let unscaled = high.iter().fold(if negative { -1 } else { 0 }, |sum: i128, byte| (sum << 8) | i128::from(*byte));
    let number = format!("{unscaled}e-{scale}").parse().unwrap_or(f64::NAN);
    Cell::Float(low.iter().fold(number, |number: f64, _| number * 256.0))
}
