//! Snapshots of a million keys: the pause of a cut, what copying costs, and how long loading takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meantime::base::offset::{Offset, Partition};
use meantime::base::time::EventTime;
use meantime::data::held::Held;
use meantime::link::objects::Place;
use meantime::state::KeyStates;
use meantime::state::snapshot::{Boundary, Columns, Cutter, Progress, Snapshots, Writer};

const KEYS: u32 = 1_000_000;
const HIDDEN: usize = 64;
const ROWS: usize = 4096;

fn change(states: &mut KeyStates, keys: impl Iterator<Item = u32>, value: f32) {
    for i in keys {
        let slot = states.intern(format!("card-{i:07}").as_bytes());
        let meta = &mut states.metas.row_mut(slot)[0];
        (meta.last, meta.events) = (EventTime(i64::from(i)), meta.events + 1);
        states.hidden.row_mut(slot).fill(value + i as f32);
    }
}

/// How long this thread has been running on a processor; on a busy machine less than what the clock says. Linux only, otherwise the clock.
fn busy(start: Instant) -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).map_or(start.elapsed(), Duration::from_nanos)
}

/// Takes one snapshot; prints the longest pause and the cost of copying, and what the writer took.
fn take(name: &str, offset: i64, states: &mut KeyStates, cutter: &mut Cutter, writer: &Writer) {
    let boundary = Boundary { offset: Offset(offset), note: String::new(), held: Held::default() };
    let start = Instant::now();
    assert!(cutter.begin(states, boundary));
    let begun = start.elapsed();
    let (mut longest, mut copying, mut steps) = ([Duration::ZERO; 2], Duration::ZERO, 0);
    loop {
        let (step, before) = (Instant::now(), busy(start));
        match cutter.step(states, ROWS, writer) {
            Progress::Done(written) => {
                println!(
                    "  {name:<22} begin {begun:>8.1?}   {steps} steps of {ROWS} rows: longest {:>8.1?} ({:.1?} of it running), together {copying:>8.1?} running   writer {:>8.1?} for {} MB",
                    longest[0],
                    longest[1],
                    written.took,
                    written.bytes / 1_000_000
                );
                return;
            }
            Progress::Writing => std::thread::sleep(Duration::from_millis(1)),
            Progress::Copying => {
                let running = busy(start) - before;
                longest = longest.max([step.elapsed(), running]);
                copying += running;
                steps += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// One million keys with 64 floats of state, in a folder of the system's temporary directory.
pub fn snapshots() {
    println!("\nsnapshots: {KEYS} keys, {HIDDEN} floats of state, one partition");
    let folder = tempfile::tempdir().unwrap();
    let columns = Columns { tensors: vec![("h".to_owned(), HIDDEN)], ..Columns::default() };
    let store = Arc::new(Snapshots::open(&Place::Folder(folder.path().to_path_buf()), columns, "f00d").unwrap());
    let writer = Writer::start(Arc::clone(&store)).unwrap();
    let (mut states, mut cutter) = (KeyStates::new(&[0.0; HIDDEN], 0, 0), Cutter::new(Partition(0), None));
    change(&mut states, 0..KEYS, 0.0);
    let begin = Instant::now();
    let copied = vec![1f32; KEYS as usize * HIDDEN];
    let before = busy(begin);
    let copy = std::hint::black_box(copied.clone());
    println!("  {:<22} {:.1?} running to copy the floats alone, at once", "bare memory", busy(begin) - before);
    drop((copied, copy));

    take("full", 1, &mut states, &mut cutter, &writer);
    change(&mut states, (0..KEYS).step_by(10), 1.0);
    take("delta of 100,000 keys", 2, &mut states, &mut cutter, &writer);
    change(&mut states, (0..KEYS).step_by(10), 2.0);
    take("delta of 100,000 keys", 3, &mut states, &mut cutter, &writer);
    writer.close();

    for (name, at_most) in [("full", 1), ("full and two deltas", 3)] {
        for _ in 0..3 {
            let (start, before) = (Instant::now(), busy(begin));
            let found = store.newest(Partition(0), Offset(at_most)).unwrap().unwrap();
            let (read, reading, megabytes) = (start.elapsed(), busy(begin) - before, found.bytes / 1_000_000);
            let mut loaded = KeyStates::new(&[0.0; HIDDEN], 0, 0);
            let (start, before) = (Instant::now(), busy(begin));
            found.load(&mut loaded).unwrap();
            assert_eq!(loaded.len(), KEYS as usize);
            println!(
                "  load {name:<22} read and check {megabytes} MB {read:>8.1?} ({reading:.1?} running)   rebuild {:>8.1?} ({:.1?} running)   1 thread",
                start.elapsed(),
                busy(begin) - before
            );
        }
    }
}
