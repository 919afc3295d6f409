//! A name for this process that its restart has again and no other running process has: the root of its transactional ids.

use std::fs::{File, OpenOptions};

use sha2::{Digest, Sha256};

/// Processes of one pipeline that may share a machine.
const SLOTS: u32 = 256;

/// The name, held as long as this value lives.
#[derive(Debug)]
pub struct Instance {
    name: String,
    /// Locked while the process lives; the system lets go of it however the process ends.
    _lock: Option<File>,
}

impl Instance {
    /// A name that the user gives.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Instance { name: name.to_owned(), _lock: None }
    }

    /// The machine's name and the lowest number that no other process of this consumer group holds on it. A process that is started again
    /// after a crash so finds its old name free.
    #[must_use]
    pub fn of_machine(brokers: &str, group: &str) -> Self {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let digest = Sha256::digest(format!("{brokers}\n{group}").as_bytes());
        let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        for slot in 0..SLOTS {
            let path = std::env::temp_dir().join(format!("meantime-{short}-{slot}.lock"));
            // A file of another user, or a folder that cannot be written: the next number, in the end none.
            let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(&path) else { continue };
            if file.try_lock().is_ok() {
                return Instance { name: format!("{host}-{slot}"), _lock: Some(file) };
            }
        }
        let name = format!("{host}-pid{}", std::process::id());
        tracing::warn!(name, folder = %std::env::temp_dir().display(), "no lock file can be made there: after a crash the open transaction is aborted only by its time-out; \
            set `source.instance` to a name of your own");
        Instance { name, _lock: None }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_a_time_have_different_names_and_a_name_is_free_again_when_its_holder_is_gone() {
        let group = format!("test-{}", std::process::id());
        let first = Instance::of_machine("b", &group);
        let second = Instance::of_machine("b", &group);
        assert_ne!(first.name(), second.name());
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(Instance::of_machine("b", &group).name(), name);
        assert_eq!(Instance::named("pod-3").name(), "pod-3");
    }
}
