//! What the disk can do: appends some bytes (4 KiB, if it is not told how many) and syncs, in a loop, one after the other.
//!
//! `fdatasync FILE SECONDS [BYTES]` prints one line: appends, seconds, and the 50th and 99th percentile in microseconds.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("FILE");
    let seconds: f64 = args.next().and_then(|text| text.parse().ok()).expect("SECONDS");
    let bytes = args.next().map_or(4096, |text| text.parse().expect("BYTES"));
    let mut file = File::create(&path)?;
    let block = vec![0x5a; bytes];
    let mut micros = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs_f64(seconds) {
        let before = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        micros.push(before.elapsed().as_secs_f64() * 1e6);
    }
    let elapsed = start.elapsed().as_secs_f64();
    micros.sort_by(f64::total_cmp);
    let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize];
    println!("{} {:.6} {:.1} {:.1}", micros.len(), elapsed, at(0.5), at(0.99));
    std::fs::remove_file(&path)
}
