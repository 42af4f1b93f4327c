//! Commands -> bytes.

/// Appends a command as an array of bulk strings.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg);
    }
}

/// Appends one bulk string.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends `kind`, `n` and CRLF.
pub fn header(out: &mut Vec<u8>, kind: u8, mut n: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn writes_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        super::command(&mut out, &[b"APPEND", b"k", b"", &[b'x'; 100]]);
        assert!(out.starts_with(b"*4\r\n$6\r\nAPPEND\r\n$1\r\nk\r\n$0\r\n\r\n$100\r\nxxx"), "{out:?}");
        assert!(out.ends_with(b"x\r\n"));
    }
}
