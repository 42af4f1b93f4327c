//! The rows of the table, a file for each of Redis's groups of commands.
//!
//! Redis's own commands carry the values of Redis 7.0.15; a test compares each with a running server.
//! `scripts/command-row` prints the row of a command as such a server describes it.
//! What 7.0.15 lacks follows the documentation of the version that brought it.

mod cluster;
mod connection;
mod generic;
mod server;
mod string;

use super::spec::row;
use super::{Command, CommandSpec, Scope, padded};

const GROUPS: [&[CommandSpec]; 5] =
    [cluster::ROWS, connection::ROWS, generic::ROWS, server::ROWS, string::ROWS];

pub(super) use cluster::INTERNAL;

const LEN: usize = {
    let mut len = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        len += GROUPS[group].len();
        group += 1;
    }
    len
};

/// Every command, ordered by name.
pub(super) static SPECS: [CommandSpec; LEN] = {
    let mut specs = [GROUPS[0][0]; LEN];
    let mut len = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        let mut i = 0;
        while i < GROUPS[group].len() {
            // Insertion sort.
            let mut at = len;
            while at > 0 && padded(GROUPS[group][i].name) < padded(specs[at - 1].name) {
                specs[at] = specs[at - 1];
                at -= 1;
            }
            specs[at] = GROUPS[group][i];
            len += 1;
            i += 1;
        }
        group += 1;
    }
    specs
};
