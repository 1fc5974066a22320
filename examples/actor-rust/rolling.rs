//! An actor, written in Rust, that keeps the mean of the last numbers that it was
//! given. Its state is the static below, with all that hangs on it.
//!
//! The part at the end is all of the guest interface that it needs; docs/ABI.md
//! describes it.

use std::collections::VecDeque;

/// What an actor of this module is. A sandbox is one actor, and runs one call at
/// a time.
static mut STATE: Option<Rolling> = None;

struct Rolling {
    most: usize,
    last: VecDeque<f64>,
}

/// The functions, by the names that others call them: a class, its methods.
const FUNCTIONS: [(&str, fn(&Call) -> Result<Value, String>); 3] =
    [("rolling", new), ("rolling.add", add), ("rolling.len", len)];

/// New(most uint32): the mean is of that many numbers.
fn new(call: &Call) -> Result<Value, String> {
    let most = call.uint(0)? as usize;
    if most == 0 {
        return Err("the mean of no numbers".into());
    }
    unsafe { STATE = Some(Rolling { most, last: VecDeque::new() }) };
    Ok(Value::Nothing)
}

fn state() -> Result<&'static mut Rolling, String> {
    unsafe { (*std::ptr::addr_of_mut!(STATE)).as_mut() }.ok_or_else(|| "this is no actor".into())
}

/// Add(numbers []float64) float64
fn add(call: &Call) -> Result<Value, String> {
    let s = state()?;
    for n in call.floats(0)? {
        if n.is_nan() {
            return Err("not a number".into());
        }
        s.last.push_back(n);
        if s.last.len() > s.most {
            s.last.pop_front();
        }
    }
    Ok(Value::Float(s.last.iter().sum::<f64>() / s.last.len().max(1) as f64))
}

/// Len() uint
fn len(_: &Call) -> Result<Value, String> {
    Ok(Value::Uint(state()?.last.len() as u64))
}

// --- the guest interface -----------------------------------------------------

#[link(wasm_import_module = "wray_v1")]
extern "C" {
    fn declare(name: *const u8, len: usize, index: u32, flags: u32) -> u32;
    fn task_input(buf: *mut u8, cap: usize, len: *mut usize) -> u32;
    fn task_return(index: u32, value: *const RawValue) -> u32;
    fn task_fail(value: *const RawValue) -> u32;
    fn object_read(handle: u32, offset: i64, buf: *mut u8, len: usize, read: *mut usize) -> u32;
    fn handle_drop(handles: *const u32, n: usize) -> u32;
}

const EOVERFLOW: u32 = 61;
const CBOR: u32 = 2;
const NUMERIC: u32 = 3;
const ERROR: u32 = 5;
const F64: u32 = 10;

#[repr(C)]
struct RawValue {
    encoding: u32,
    meta: u32,
    ptr: *const u8,
    len: usize,
    refs: *const u32,
    refs_len: usize,
}

/// What a function returns: CBOR.
enum Value {
    Nothing,
    Uint(u64),
    Float(f64),
}

/// Appends the head of a CBOR item: its type, and its number.
fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let bytes = n.to_be_bytes();
    let (info, keep) = match n {
        0..=23 => (n as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&bytes[8 - keep..]);
}

impl Value {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Value::Nothing => head(&mut out, 5, 0), // an empty map, Go's struct{}
            Value::Uint(n) => head(&mut out, 0, *n),
            Value::Float(x) => {
                out.push(0xfb);
                out.extend_from_slice(&x.to_be_bytes());
            }
        }
        out
    }
}

/// What task_input says of a call.
struct Call {
    input: Vec<u8>,
}

impl Call {
    fn read() -> Result<Call, u32> {
        let mut len = 0;
        let mut input = vec![0; 1 << 10];
        loop {
            match unsafe { task_input(input.as_mut_ptr(), input.len(), &mut len) } {
                0 => break,
                EOVERFLOW => input.resize(len, 0),
                errno => return Err(errno),
            }
        }
        Ok(Call { input })
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.input[at..at + 4].try_into().unwrap())
    }

    fn index(&self) -> usize {
        self.u32_at(0) as usize
    }

    /// Argument i: its encoding, the kind of its numbers, its bytes.
    fn arg(&self, i: usize) -> Result<(u32, u32, Vec<u8>), String> {
        if i >= self.u32_at(4) as usize {
            return Err(format!("argument {} is missing", i));
        }
        let at = 64 + 32 * i;
        let (len, handle, offset) = (self.u32_at(at + 8) as usize, self.u32_at(at + 16), self.u32_at(at + 20));
        let mut bytes = vec![0; len];
        if offset != u32::MAX {
            bytes.copy_from_slice(&self.input[offset as usize..offset as usize + len]);
        } else {
            // It is large. (The host has it in memory for a call that begins.)
            let (mut done, mut n) = (0, 0);
            while done < len {
                let errno = unsafe { object_read(handle, done as i64, bytes[done..].as_mut_ptr(), len - done, &mut n) };
                if errno != 0 {
                    return Err(format!("argument {} cannot be read: errno {}", i, errno));
                }
                done += n;
            }
        }
        if handle != 0 {
            unsafe { handle_drop(&handle, 1) };
        }
        Ok((self.u32_at(at), self.u32_at(at + 4), bytes))
    }

    fn uint(&self, i: usize) -> Result<u64, String> {
        let (encoding, _, b) = self.arg(i)?;
        let number = match (encoding, b.first()) {
            (CBOR, Some(&n)) if n < 24 => Some(n as u64),
            (CBOR, Some(&n)) if n < 28 && b.len() == 1 + (1 << (n - 24)) => {
                Some(b[1..].iter().fold(0, |sum, &byte| sum << 8 | byte as u64))
            }
            _ => None,
        };
        number.ok_or_else(|| format!("argument {}: a number from 0 is wanted", i))
    }

    fn floats(&self, i: usize) -> Result<Vec<f64>, String> {
        match self.arg(i)? {
            (NUMERIC, F64, b) => Ok(b.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect()),
            _ => Err(format!("argument {}: floats are wanted", i)),
        }
    }
}

fn give(encoding: u32, bytes: &[u8], import: impl Fn(*const RawValue) -> u32) -> u32 {
    import(&RawValue { encoding, meta: 0, ptr: bytes.as_ptr(), len: bytes.len(), refs: std::ptr::null(), refs_len: 0 })
}

extern "C" {
    fn __wasm_call_ctors(); // the linker's; who calls it keeps it from being called again and again
}

/// Runs once, before the snapshot from which every sandbox starts: tells the host
/// the functions' names.
#[no_mangle]
pub extern "C" fn _initialize() {
    unsafe { __wasm_call_ctors() };
    for (i, (name, _)) in FUNCTIONS.iter().enumerate() {
        unsafe { declare(name.as_ptr(), name.len(), i as u32, 0) };
    }
}

/// The one entry. A function that fails says so as a wray.Error in CBOR.
#[no_mangle]
pub extern "C" fn wray_call(op: u32, _arg: u32) -> u32 {
    match op {
        4 => (), // TASK
        1 | 2 | 5 => return 0,
        _ => return 28,
    }
    let call = match Call::read() {
        Ok(call) => call,
        Err(errno) => return errno,
    };
    match FUNCTIONS[call.index()].1(&call) {
        Ok(v) => give(CBOR, &v.encode(), |v| unsafe { task_return(0, v) }),
        Err(message) => {
            let mut e = vec![0xa2, 1, 2, 2]; // {1: UserError, 2: message}
            head(&mut e, 3, message.len() as u64);
            e.extend_from_slice(message.as_bytes());
            give(ERROR, &e, |v| unsafe { task_fail(v) })
        }
    }
}
