//! Which node of a cluster serves a slot (`--cluster`).

use std::io;
use std::time::Duration;

use ringfort_resp::reply::{self, Value};
use ringfort_ring::slot::{SLOTS, Slot, slot_of};
use tokio::time::Instant;

use crate::conn::Conn;
use crate::encode;

/// Longest that one node is asked for.
const FETCH_MAX: Duration = Duration::from_secs(1);

/// A map of slots to addresses: a cache, corrected by `MOVED`.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    addresses: Vec<String>,
    /// By slot: an index into `addresses`.
    by_slot: Vec<Option<u16>>,
}

impl Routes {
    /// Asks the addresses in turn for `CLUSTER SLOTS`.
    ///
    /// # Errors
    /// No address gave a map; the last one's reason.
    pub async fn fetch(addresses: &[String]) -> io::Result<Self> {
        let mut last = io::Error::other("no address to ask");
        for address in addresses {
            match Self::fetch_from(address).await {
                Ok(routes) => return Ok(routes),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks the nodes that are known, then `address`.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn renewed(&self, address: &str) -> io::Result<Self> {
        Self::fetch(&[self.addresses(), &[address.to_owned()]].concat()).await
    }

    async fn fetch_from(address: &str) -> io::Result<Self> {
        let mut conn = Conn::connect(address, FETCH_MAX).await?;
        let mut out = Vec::new();
        encode::command(&mut out, &[b"CLUSTER", b"SLOTS"]);
        let deadline = Instant::now() + FETCH_MAX;
        conn.send(&out, deadline).await?;
        let frame = conn.frame(deadline).await?;
        let value = reply::parse(frame).map_err(io::Error::other)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        value
            .and_then(|(value, _)| Self::from_slots(&value, host))
            .ok_or_else(|| io::Error::other(format!("{address} is no cluster node")))
    }

    /// Reads the reply to `CLUSTER SLOTS`; `host` stands for nodes that do not know their own.
    fn from_slots(value: &Value, host: &str) -> Option<Self> {
        let mut routes = Self { addresses: Vec::new(), by_slot: vec![None; usize::from(SLOTS)] };
        let Value::Array(ranges) = value else { return None };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Integer(first), Value::Integer(last), Value::Array(leader), ..] = &range[..] else {
                return None;
            };
            let [Value::Bulk(ip), Value::Integer(port), ..] = &leader[..] else { return None };
            let ip = String::from_utf8_lossy(ip);
            let address = format!("{}:{port}", if ip.is_empty() { host } else { ip.as_ref() });
            let index = routes.index(&address)?;
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            routes.by_slot.get_mut(first..=last)?.fill(Some(index));
        }
        (!routes.addresses.is_empty()).then_some(routes)
    }

    /// Learns from the text of a `MOVED SLOT HOST:PORT` error; false when it is something else.
    pub fn learn(&mut self, text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let mut words = text.split(' ');
        let (Some("MOVED"), Some(slot), Some(address)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let Some(slot) = slot.parse::<usize>().ok().filter(|slot| *slot < self.by_slot.len()) else {
            return false;
        };
        let Some(index) = self.index(address) else { return false };
        self.by_slot[slot] = Some(index);
        true
    }

    /// The node that serves `key`, when somebody does.
    pub fn of_key(&self, key: &[u8]) -> Option<&str> {
        self.address(slot_of(key))
    }

    /// The node that serves `slot`, when somebody does.
    pub fn address(&self, slot: Slot) -> Option<&str> {
        let index = (*self.by_slot.get(usize::from(slot.0))?)?;
        self.addresses.get(usize::from(index)).map(String::as_str)
    }

    /// Whether the node at `address` serves a slot.
    pub fn serves(&self, address: &str) -> bool {
        let index = self.addresses.iter().position(|known| known == address);
        index.is_some_and(|index| self.by_slot.iter().flatten().any(|&of_slot| usize::from(of_slot) == index))
    }

    /// All nodes that serve slots, in the order of their first.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn index(&mut self, address: &str) -> Option<u16> {
        let known = self.addresses.iter().position(|known| known == address);
        let index = known.unwrap_or_else(|| {
            self.addresses.push(address.to_owned());
            self.addresses.len() - 1
        });
        u16::try_from(index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &[u8]) -> Option<Routes> {
        let (value, _) = reply::parse(text).expect("a reply").expect("a whole one");
        Routes::from_slots(&value, "h")
    }

    #[test]
    fn reads_cluster_slots_and_learns_from_moved() {
        let text = b"*2\r\n*3\r\n:0\r\n:99\r\n*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n\
                     *4\r\n:100\r\n:16383\r\n*2\r\n$0\r\n\r\n:2\r\n*2\r\n$1\r\na\r\n:1\r\n";
        let mut routes = routes(text).expect("a map");
        assert_eq!(routes.address(Slot(99)), Some("a:1"));
        assert_eq!(routes.address(Slot(100)), Some("h:2"));
        assert_eq!(routes.addresses(), ["a:1", "h:2"]);
        assert!(routes.learn(b"MOVED 100 c:3"));
        assert!(routes.serves("c:3") && routes.serves("h:2") && !routes.serves("d:4"));
        assert_eq!(routes.address(Slot(100)), Some("c:3"));
        assert_eq!(routes.address(Slot(101)), Some("h:2"));
        for other in [&b"MOVED 16384 c:3"[..], b"MOVED x c:3", b"ASK 1 c:3", b"MOVED 1", b""] {
            assert!(!routes.learn(other));
        }
    }

    #[test]
    fn refuses_what_is_no_map() {
        for text in [
            &b"*0\r\n"[..],
            b"+OK\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        ] {
            assert!(routes(text).is_none());
        }
    }
}
