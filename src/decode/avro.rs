//! Avro: a datum to cells, by the schema that it was written with.

mod read;
pub mod steps;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;

use super::Fault;
use super::cells::Cells;
use super::wanted::Wanted;
use crate::base::error::Result;
use crate::data::rejected::Reason;
use crate::link::registry::Schemas;
use steps::Steps;

/// First byte of a record that names its schema, as the serializers of schema registries write it; a number of four bytes follows.
const MAGIC: u8 = 0;
const FRAME: usize = 5;

/// Reads records; keeps what was made of each schema.
pub struct Reader {
    schemas: Schemas,
    /// By the number of the schema. Where it cannot be used, why.
    known: HashMap<u32, std::result::Result<Steps, String>>,
}

impl Reader {
    /// For records whose schemas are found there.
    #[must_use]
    pub fn new(schemas: &Schemas) -> Self {
        Reader { schemas: schemas.clone(), known: HashMap::new() }
    }

    /// Reads the wanted fields of a datum. The inner error is one of the record.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub fn read(&mut self, payload: &[u8], wanted: &[Wanted], cells: &mut Cells) -> Result<std::result::Result<(), Fault>> {
        let malformed = |why: String| Ok(Err((Reason::Malformed, why)));
        let (id, datum) = match &self.schemas {
            Schemas::File(_) => (0, payload),
            Schemas::Registry(_) => match payload.split_at_checked(FRAME) {
                Some(([MAGIC, id @ ..], datum)) => match <[u8; 4]>::try_from(id) {
                    Ok(id) => (u32::from_be_bytes(id), datum),
                    Err(_) => return malformed("not framed for a schema registry".to_owned()),
                },
                _ => return malformed("not framed for a schema registry: it does not begin with 0 and the number of a schema".to_owned()),
            },
        };
        if !self.known.contains_key(&id) {
            let Some(written) = self.schemas.get(id)? else { return malformed(format!("the registry knows no schema {id}")) };
            self.known.insert(id, Steps::new(&written, wanted));
        }
        match self.known.get(&id) {
            Some(Ok(steps)) => {
                Ok(read::datum(steps, datum, cells).map_err(|why| (Reason::Malformed, format!("not a datum of its schema: {why}"))))
            }
            Some(Err(why)) => malformed(format!("schema {id} cannot be used: {why}")),
            None => malformed(format!("schema {id} is lost")),
        }
    }
}
