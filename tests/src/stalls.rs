//! Times in which the machine stood still. On a shared machine a disk can take many seconds for a write, longer than
//! the deadlines that servers and databases have for each other; a call in such a time says nothing about a fault.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A synced write usually takes a millisecond. The deadlines are several seconds.
const LONG: Duration = Duration::from_secs(1);
/// How often it is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// From when until when.
pub type Stall = (Instant, Instant);

/// Writes and syncs a small file again and again, and records what took long.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Stall>>,
}

impl Watch {
    /// Begins.
    pub fn start() -> Self {
        let mut file = tempfile::tempfile().expect("a file can be made");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut stalls = vec![];
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                write(&mut file);
                thread::sleep(PAUSE);
                if began.elapsed() > LONG {
                    stalls.push((began, Instant::now()));
                }
            }
            stalls
        });
        Self { stop, thread }
    }

    /// Ends, and returns the times in which the machine stood still.
    pub fn stop(self) -> Vec<Stall> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

fn write(file: &mut File) {
    file.write_all(b"a").and_then(|()| file.sync_data()).expect("it can be written");
}
