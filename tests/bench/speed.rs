//! Speed, as ratios within one run: `cargo bench --bench speed [-- step | decode | lane | reasons | memory | files | snapshots | kafka | latency | recovery]`.
//!
//! The machine's absolute numbers mean little; what is printed beside each is what the same machine does bare in the same run.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, clippy::cast_precision_loss)]

mod bare_copy;
mod files;
#[path = "../broker/harness.rs"]
mod harness;
mod kafka;
mod lane;
mod latency;
mod package;
mod recovery;
mod snapshots;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [copy, brokers, from, to] = &wanted[..]
        && copy == "copy"
    {
        let (messages, seconds) = bare_copy::copy(brokers, from, to, 2);
        return println!(
            "  (the copy itself: {:.0} messages/s from the first message to the last acknowledgement)",
            messages as f64 / seconds
        );
    }
    if let [transact, brokers, from, to, every] = &wanted[..]
        && transact == "transact"
    {
        latency::transact(brokers, from, to, every.parse().unwrap());
    }
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if runs("step") {
        lane::step();
    }
    if runs("decode") {
        lane::decode();
    }
    if runs("lane") {
        lane::lane();
    }
    if runs("reasons") {
        lane::reasons();
    }
    if runs("memory") {
        lane::memory();
    }
    if runs("files") {
        files::files();
    }
    if runs("snapshots") {
        snapshots::snapshots();
    }
    if runs("kafka") {
        kafka::kafka();
    }
    if runs("latency") {
        latency::latency();
    }
    if runs("recovery") {
        recovery::recovery();
    }
}
