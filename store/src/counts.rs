//! How many keys each table has, with prefix sums: the table of the n-th key in O(log tables).

/// A binary indexed tree (Fenwick 1994) over the number of keys of each table.
///
/// # Invariants
/// Element i (from 1) is the sum over the tables (i - lowbit(i), i].
#[derive(Debug)]
pub(crate) struct KeyCounts(Vec<u32>);

impl KeyCounts {
    /// Makes the counts of so many empty tables.
    pub(crate) fn new(tables: usize) -> Self {
        Self(vec![0; tables + 1])
    }

    /// A table has one key more.
    pub(crate) fn add(&mut self, table: usize) {
        self.change(table, 1);
    }

    /// A table has one key less.
    pub(crate) fn sub(&mut self, table: usize) {
        self.change(table, u32::MAX);
    }

    /// All tables are empty.
    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    fn change(&mut self, table: usize, by: u32) {
        let mut i = table + 1;
        while let Some(sum) = self.0.get_mut(i) {
            *sum = sum.wrapping_add(by);
            i += i & i.wrapping_neg();
        }
    }

    /// The table of the n-th key (from 0) when all keys are lined up table by table; n is below their number.
    pub(crate) fn table_of(&self, mut nth: u32) -> usize {
        let mut at = 0;
        let mut step = (self.0.len()).next_power_of_two() / 2;
        while step != 0 {
            if let Some(sum) = self.0.get(at + step)
                && *sum <= nth
            {
                nth -= sum;
                at += step;
            }
            step /= 2;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_table_of_every_key() {
        for tables in [1, 2, 7, 64, 1000] {
            let mut counts = KeyCounts::new(tables);
            let mut lens = vec![0_usize; tables];
            for i in 0..300 {
                let table = i * i % tables;
                counts.add(table);
                lens[table] += 1;
                if i % 3 == 0 {
                    counts.sub(table);
                    lens[table] -= 1;
                }
            }
            let expected: Vec<usize> =
                lens.iter().enumerate().flat_map(|(t, len)| std::iter::repeat_n(t, *len)).collect();
            let found: Vec<usize> = (0..expected.len()).map(|n| counts.table_of(n as u32)).collect();
            assert_eq!(found, expected, "{tables} tables");
            counts.clear();
            counts.add(tables - 1);
            assert_eq!(counts.table_of(0), tables - 1);
        }
    }
}
