//! What the MAC of an event costs, by the size of the event: `cargo bench -p event-store`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use event_store::contract::{event_mac, macs};

/// How long each size is measured.
const TIME: Duration = Duration::from_millis(500);

/// How many MACs are computed between two clock readings.
const TOGETHER: u32 = 1000;

fn main() {
    let macs = macs();
    for bytes in [100, 500, 2000, 16_000] {
        let (metadata, data) = ("m".repeat(200), "d".repeat(bytes));
        let (begun, mut count) = (Instant::now(), 0_u32);
        while begun.elapsed() < TIME {
            for position in 0..TOGETHER {
                black_box(event_mac(&macs, black_box(position.into()), &metadata, &data));
            }
            count += TOGETHER;
        }
        let each = begun.elapsed() / count;
        println!("{bytes:>6} bytes of data: {:>6} ns", each.as_nanos());
    }
}
