//! Counts the bytes of standard input, or of the files that it is given, and
//! prints the most frequent ones. It has never heard of wray.
//!
//! FREQ_TOP says how many; 5 if it is not set. The exit code is 1 if a file
//! could not be read, and 2 if FREQ_TOP is no number.

use std::io::Read;
use std::{env, fs, io, process};

fn main() {
    let top = match env::var("FREQ_TOP").unwrap_or_else(|_| "5".into()).parse::<usize>() {
        Ok(n) => n,
        Err(e) => {
            eprintln!("freq: FREQ_TOP: {}", e);
            process::exit(2);
        }
    };
    let mut counts = [0u64; 256];
    let mut failed = false;
    let names: Vec<String> = env::args().skip(1).collect();
    if names.is_empty() {
        failed |= !count("standard input", io::stdin(), &mut counts);
    }
    for name in &names {
        match fs::File::open(name) {
            Ok(file) => failed |= !count(name, file, &mut counts),
            Err(e) => {
                eprintln!("freq: {}: {}", name, e);
                failed = true;
            }
        }
    }
    let mut order: Vec<usize> = (0..256).filter(|&b| counts[b] > 0).collect();
    order.sort_by_key(|&b| (std::cmp::Reverse(counts[b]), b));
    for &b in order.iter().take(top) {
        println!("{} {}", counts[b], std::ascii::escape_default(b as u8));
    }
    process::exit(failed as i32);
}

/// Adds the bytes of r to counts and reports whether all could be read.
fn count(name: &str, mut r: impl Read, counts: &mut [u64; 256]) -> bool {
    let mut buf = [0u8; 64 << 10];
    loop {
        match r.read(&mut buf) {
            Ok(0) => return true,
            Ok(n) => buf[..n].iter().for_each(|&b| counts[b as usize] += 1),
            Err(e) => {
                eprintln!("freq: {}: {}", name, e);
                return false;
            }
        }
    }
}
