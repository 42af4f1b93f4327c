//! Bounds of what a proxy worker has under way.
//!
//! A process runs with the defaults; tests draw others, so that what is rare at these sizes (a link without credit, a full
//! lane) happens all the time.

use crate::lane::{LANE_BYTES_MAX, LANE_REQUESTS_MAX};
use crate::session::PIPELINE_MAX;
use ringfort_wire::request::{CREDIT_BYTES, CREDIT_REQUESTS, SESSION_WINDOW};

/// The part of a link's credit that one lane may hold: a partition that answers nothing leaves the rest to others.
const LANE_SHARE: usize = 4;

/// The bounds of one proxy worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most unanswered commands of a client; its further ones are not decoded.
    pub pipeline: usize,
    /// Commands that wait in one lane at which clients that ask for more are held up.
    pub lane_requests: usize,
    /// Bytes of commands that wait in one lane at which clients that ask for more are held up.
    pub lane_bytes: usize,
    /// Most writes that a partition is sent before it answers; at most as many as a session remembers.
    pub write_window: u64,
    /// Most unanswered requests on a link.
    pub credit_requests: usize,
    /// Most bytes of unanswered requests on a link; one request alone may be larger.
    pub credit_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pipeline: PIPELINE_MAX,
            lane_requests: LANE_REQUESTS_MAX,
            lane_bytes: LANE_BYTES_MAX,
            write_window: SESSION_WINDOW,
            credit_requests: CREDIT_REQUESTS,
            credit_bytes: CREDIT_BYTES,
        }
    }
}

impl Limits {
    /// Whether a link, or a lane on it, that has so many requests of so many bytes under way has credit for another one.
    pub(crate) fn has_credit(&self, under_way: Used, bytes: usize, holder: Holder) -> bool {
        let share = match holder {
            Holder::Link => 1,
            Holder::Lane => LANE_SHARE,
        };
        under_way.requests < (self.credit_requests / share).max(1)
            && (under_way.bytes + bytes <= self.credit_bytes / share || under_way.requests == 0)
    }
}

/// Who holds credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Link,
    Lane,
}

/// Credit that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Used {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl Used {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }
}
