//! Lines on stdout and stderr, tables, colours. A reader that has gone away (`ringfort status | head`) is no error.

use std::io::IsTerminal as _;

/// Writes `text` and a line end to stdout. Whether anybody still reads it.
pub(super) fn out(text: &str) -> bool {
    write_line(&mut std::io::stdout().lock(), text.as_bytes())
}

/// Characters of a bar.
const BAR: u64 = 30;

/// `[=======>                      ]`: how much of something is done; full when there is nothing to do.
pub(super) fn bar(done: u64, of: u64) -> String {
    let full = (BAR * done).checked_div(of).unwrap_or(BAR) as usize;
    let head = if full < BAR as usize { ">" } else { "" };
    format!("[{:<width$}]", format!("{}{head}", "=".repeat(full)), width = BAR as usize)
}

/// Replaces the line of the terminal that stdout is.
pub(super) fn out_in_place(line: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    // Nobody may read it any more: that hinders nothing.
    let _ = write!(stdout, "\r{line}\x1b[K").and_then(|()| stdout.flush());
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
fn write_line(to: &mut impl std::io::Write, line: &[u8]) -> bool {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
    to.write_all(&bytes).and_then(|()| to.flush()).is_ok()
}

/// Width that is reckoned with when stdout is no terminal: nothing is left out.
pub(super) const WIDTH_UNLIMITED: usize = 1000;

/// How a piece of text looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    is_coloured: bool,
}

impl Style {
    /// No colours.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { is_coloured: false };
    /// Colours.
    #[cfg(test)]
    pub(super) const COLOURED: Self = Self { is_coloured: true };

    /// The style of stdout.
    pub(super) fn of_stdout(choice: ColorChoice) -> Self {
        let is_coloured = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            // https://no-color.org: any value that is not empty.
            ColorChoice::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { is_coloured }
    }

    /// `text` in its paint.
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Plain => return text.to_owned(),
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Yellow => 33,
            Paint::Green => 32,
        };
        if self.is_coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A cell without a colour.
    pub(super) fn plain(text: impl std::fmt::Display) -> Self {
        Self::painted(Paint::Plain, text)
    }

    /// A cell with a colour.
    pub(super) fn painted(paint: Paint, text: impl std::fmt::Display) -> Self {
        Self { text: text.to_string(), paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Blanks between two columns.
const GAP: usize = 2;

fn column_widths(rows: &[Vec<Cell>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max();
    (0..columns).map(|column| width(column).unwrap_or(0)).collect()
}

/// How wide [`table`] is, in characters.
fn table_width(rows: &[Vec<Cell>]) -> usize {
    let widths = column_widths(rows);
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// A table with aligned columns; columns listed in `right` are right-aligned. The first row is the head.
pub(super) fn table(rows: &[Vec<Cell>], right: &[usize], style: Style) -> String {
    let widths = column_widths(rows);
    let line = |row: &Vec<Cell>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let blanks = " ".repeat(widths[column] - cell.width());
            let text = style.paint(cell.paint, &cell.text);
            let is_last = column + 1 == row.len();
            let gap = if is_last { "" } else { &" ".repeat(GAP) };
            match right.contains(&column) {
                true => line += &format!("{blanks}{text}{gap}"),
                false if is_last => line += &text,
                false => line += &format!("{text}{blanks}{gap}"),
            }
        }
        line
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A column of a table of `T`s: its head, whether it is right-aligned, its cell for one of them.
pub(super) struct Column<T> {
    pub(super) head: &'static str,
    pub(super) is_right: bool,
    pub(super) cell: fn(&T) -> Cell,
}

/// A table with a line for each of `items`. When it is wider than `width`, the columns `left_out` are, one after the other.
pub(super) fn fitted_table<T>(
    columns: &[Column<T>],
    left_out: &[&str],
    items: &[T],
    style: Style,
    width: usize,
) -> String {
    for fewer in 0..=left_out.len() {
        let shown = columns.iter().filter(|column| !left_out[..fewer].contains(&column.head));
        let shown: Vec<&Column<T>> = shown.collect();
        let mut rows = vec![shown.iter().map(|column| Cell::painted(Paint::Dim, column.head)).collect()];
        rows.extend(items.iter().map(|item| shown.iter().map(|column| (column.cell)(item)).collect()));
        if table_width(&rows) <= width || fewer == left_out.len() {
            let right: Vec<usize> = (0..shown.len()).filter(|at| shown[*at].is_right).collect();
            return table(&rows, &right, style);
        }
    }
    String::new()
}

/// At most `width` characters of a line; what is cut ends with `...`.
pub(super) fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let kept: String = line.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// Columns and rows of the terminal that stdout is; `None` when it is none.
pub(super) fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col != 0 && size.ws_row != 0).then(|| (size.ws_col.into(), size.ws_row.into()))
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
        let rows = [vec![Cell::plain("ID"), Cell::plain("KEYS")], vec![Cell::plain("node1"), Cell::plain(7)]];
        assert_eq!(table(&rows, &[1], Style::PLAIN), "ID     KEYS\nnode1     7");
        assert_eq!(table_width(&rows), 11);
        assert_eq!(cut("abcdef", 5), "ab...");
        assert_eq!(cut("abcdef", 6), "abcdef");
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
