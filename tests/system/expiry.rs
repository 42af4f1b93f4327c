//! Expiry through the cluster.

use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use std::time::Duration;

#[test]
fn an_expired_key_is_gone_everywhere() {
    let cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    assert_eq!(client.call("SET lasting v EX 1000"), "+OK\r\n");
    assert_eq!(client.call("SET {a}k v PX 300"), "+OK\r\n");
    let left = client.value("PTTL {a}k").as_integer().expect("milliseconds");
    assert!(left <= 300, "{left}");
    eventually("nil", Duration::from_secs(10), || match client.call("GET {a}k").as_str() {
        "$-1\r\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    // Once nil, always nil, whoever leads and whatever its clock says.
    assert_eq!(client.call("EXISTS {a}k"), ":0\r\n");
    assert_eq!(client.call("TTL {a}k"), ":-2\r\n");
    // Nobody reads these: the leaders propose their deletion.
    for i in 0..50 {
        assert_eq!(client.call(&format!("SET unread:{i} v PX 200")), "+OK\r\n");
    }
    eventually("one key on every replica", Duration::from_secs(10), || {
        for n in 0..3 {
            let keys = cluster.keys_on(n)?;
            if keys != 1 {
                return Err(format!("{keys} keys on n{}", n + 1));
            }
        }
        Ok(())
    });
    let left = client.value("TTL lasting").as_integer().expect("seconds");
    assert!((900..=1000).contains(&left), "{left}");
    cluster.wait_until_equal();
}
