//! Lines on stdout and stderr. A reader that has gone away (`ringfort status | head`) is no error.

/// Writes `text` and a line end to stdout.
pub(super) fn out(text: &str) {
    write_line(&mut std::io::stdout().lock(), text.as_bytes());
}

/// Writes `text` and a line end to stderr.
pub(super) fn err(text: &str) {
    write_line(&mut std::io::stderr().lock(), text.as_bytes());
}

/// Writes a line of bytes that another program said to stdout or stderr.
pub(super) fn relay(line: &[u8], to_stderr: bool) {
    if to_stderr {
        write_line(&mut std::io::stderr().lock(), line);
    } else {
        write_line(&mut std::io::stdout().lock(), line);
    }
}

/// One write, so that lines of several writers do not mix.
fn write_line(to: &mut impl std::io::Write, line: &[u8]) {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
    let _ = to.write_all(&bytes).and_then(|()| to.flush());
}

/// A table with aligned columns, two spaces apart; columns listed in `right` are right-aligned. The first row is the head.
pub(super) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cell = |(column, text): (usize, &String)| {
            let width = widths[column];
            if right.contains(&column) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes for people: `1.5 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while 1024.0 <= value && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [vec!["ID".to_owned(), "KEYS".to_owned()], vec!["node1".to_owned(), "7".to_owned()]];
        assert_eq!(table(&rows, &[1]), "ID     KEYS\nnode1     7");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(3 << 29)],
            ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]
        );
    }
}
