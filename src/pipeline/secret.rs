//! Secrets in a pipeline file: found, so that no report shows them.

use super::document::{Node, Value};
use super::fault::{Faults, Place};

/// A client setting whose name contains one of these holds a secret.
const WORDS: [&str; 8] = ["password", "passphrase", "secret", "token", "key", "credential", "jaas", "oauthbearer.config"];

/// Whether the client setting `name` holds a secret.
#[must_use]
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Stars out secret values, in the texts of the report and in what faults may show: those of every `client` table, and
/// those that stand elsewhere by mistake under a name that tells.
pub(super) fn star_values(node: &mut Node, faults: &mut Faults) {
    star(node, "", false, faults);
}

/// `name` is the dotted path: below `client` of the setting alone.
fn star(node: &mut Node, name: &str, in_client: bool, faults: &mut Faults) {
    match &mut node.value {
        Value::Table(entries) => {
            for entry in entries {
                let enters = !in_client && entry.key == "client";
                // Unquoted `sasl.password` is a table within a table: the name is the whole path.
                let path = match name {
                    _ if enters => String::new(),
                    "" => entry.key.clone(),
                    outer => format!("{outer}.{}", entry.key),
                };
                star(&mut entry.node, &path, in_client || enters, faults);
            }
        }
        _ if is_secret(name) && (in_client || !is_own_word(name)) => {
            faults.star(node.place);
            node.shown = "***".to_owned();
        }
        Value::List(items) => items.iter_mut().for_each(|item| star(item, name, in_client, faults)),
        _ => {}
    }
}

/// Whether a path is secret for nothing but the word `key`, which is the pipeline's own: `event.key`, `state.max_keys`. What
/// belongs to librdkafka has it in the middle (`ssl.key.pem`).
fn is_own_word(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    !path.contains("key.") && !WORDS.iter().any(|word| *word != "key" && path.contains(word))
}

/// Stars out whatever may be a secret in a file that is not TOML, where no tree says what is what: the values on lines
/// that name a secret and all lines of a `client` table, with the texts that run over several lines.
pub(super) fn star_lines(content: &str, text: usize, faults: &mut Faults) {
    let mut at = 0;
    let mut in_client = false;
    let mut closing: Option<&str> = None;
    for line in content.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        if let Some(quotes) = closing {
            if line.contains(quotes) {
                closing = None;
            }
            faults.star(Place { text, start, end });
            continue;
        }
        let lower = line.to_ascii_lowercase();
        if lower.trim_start().starts_with('[') {
            in_client = lower.contains("client");
            continue;
        }
        // `key` alone is the event's key field; as a part of a client setting it has a dot beside it.
        let named = WORDS.iter().any(|word| *word != "key" && lower.contains(word)) || lower.contains(".key") || lower.contains("key.");
        if !(in_client || named || lower.contains("client")) {
            continue;
        }
        let Some(equals) = line.find('=') else { continue };
        faults.star(Place { text, start: start + equals + 1, end });
        closing = ["\"\"\"", "'''"].into_iter().find(|quotes| line.matches(quotes).count() % 2 == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_others() {
        for name in ["sasl.password", "ssl.key.pem", "SSL.KEY.PASSWORD", "sasl.oauthbearer.client.secret", "my_token"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["security.protocol", "sasl.username", "linger.ms"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_does_not_show_its_secrets() {
        let content = "client = { \"sasl.password\" = \"hidden1\" }\nname = \n[source.client]\nssl.key.pem = \"\"\"hidden2\nhidden3\n\"\"\"\nx = \"hidden4\"\n[event]\nkey = \"card\"\n";
        let mut faults = Faults::new("p.toml".to_owned(), content.to_owned());
        star_lines(content, 0, &mut faults);
        for line in 0..9 {
            let start = content.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
            faults.note("pipeline::x", Place { text: 0, start, end: start + 1 }, "m", "l", "h");
        }
        let report = faults.report(false);
        assert!(!report.contains("hidden"), "{report}");
        assert!(report.contains("key = \"card\""), "{report}");
    }
}
