//! The `redis` crate, unmodified: sync, async and cluster clients, RESP2 and RESP3, over the death of a node.

use crate::cluster::{Cluster, Options, START};
use crate::wait::eventually;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::{AsyncCommands, Commands, ErrorKind, RedisError, RedisResult, ServerErrorKind};

fn cluster() -> Cluster {
    Cluster::start(Options::default())
}

fn client(cluster: &Cluster, options: &str) -> redis::Client {
    redis::Client::open(format!("redis://{}/{options}", cluster.proxy_address)).expect("an address")
}

fn cluster_client(cluster: &Cluster) -> ClusterClient {
    let seeds = cluster.addresses.iter().map(|a| format!("redis://{}/", a.client));
    ClusterClient::new(seeds.collect::<Vec<_>>()).expect("addresses")
}

fn is_text_error(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
        && error.detail() == Some("value is not an integer or out of range")
}

/// What every sync client must do; `tag` makes the keys its own.
fn basics(c: &mut impl Commands, tag: &str) -> RedisResult<()> {
    let key = |n: usize| format!("{{{tag}}}:{n}");
    c.del::<_, ()>(&[key(0), key(1), key(2), key(3)])?;
    c.set::<_, _, ()>(key(0), "a")?;
    assert_eq!(c.get::<_, String>(key(0))?, "a");
    assert_eq!(c.get::<_, Option<String>>(key(1))?, None);
    c.mset::<_, _, ()>(&[(key(1), "1"), (key(2), "2")])?;
    assert_eq!(c.mget::<_, Vec<Option<i64>>>(&[key(1), key(2), key(3)])?, [Some(1), Some(2), None]);
    assert!(is_text_error(&c.incr::<_, _, i64>(key(0), 1).expect_err("the value is text")));
    c.set_ex::<_, _, ()>(key(3), "x", 100)?;
    assert!((1..=100).contains(&c.ttl::<_, i64>(key(3))?));
    assert_eq!(c.del::<_, i64>(&[key(0), key(1)])?, 2);
    Ok(())
}

/// As [`basics`].
async fn async_basics(c: &mut impl AsyncCommands, tag: &str) -> RedisResult<()> {
    let key = |n: usize| format!("{{{tag}}}:{n}");
    c.set::<_, _, ()>(key(0), "a").await?;
    assert_eq!(c.get::<_, String>(key(0)).await?, "a");
    c.mset::<_, _, ()>(&[(key(1), "1"), (key(2), "2")]).await?;
    assert_eq!(c.mget::<_, Vec<Option<i64>>>(&[key(1), key(2), key(3)]).await?, [Some(1), Some(2), None]);
    assert!(is_text_error(&c.incr::<_, _, i64>(key(0), 1).await.expect_err("the value is text")));
    let replies: Vec<i64> =
        redis::pipe().incr(key(4), 1).ignore().incr(key(4), 1).incr(key(4), 1).query_async(c).await?;
    assert_eq!(replies, [2, 3]);
    Ok(())
}

#[test]
fn a_sync_client_of_the_proxy_does_what_it_does_with_redis() {
    let mut cluster = cluster();
    for options in ["", "?protocol=resp3"] {
        let mut c = client(&cluster, options).get_connection().expect("a connection");
        basics(&mut c, "sync").expect("every command");
        let replies: Vec<i64> = redis::pipe()
            .del("sync:p")
            .ignore()
            .incr("sync:p", 1)
            .incr("sync:q", 0)
            .query(&mut c)
            .expect("replies");
        assert_eq!(replies, [1, 0]);
        for n in 0..100 {
            c.set::<_, _, ()>(format!("sync:scan:{n}"), n).expect("OK");
        }
        let found = c.scan_match::<_, String>("sync:scan:*").expect("a scan").count();
        assert_eq!(found, 100);
    }
    let mut c = client(&cluster, "").get_connection().expect("a connection");
    let leader = cluster.leader_of("sync:n");
    c.set::<_, _, ()>("sync:n", 0).expect("OK");
    cluster.kill(leader);
    // The proxy holds the writes back meanwhile, and executes each once.
    for n in 1..=100 {
        assert_eq!(c.incr::<_, _, i64>("sync:n", 1).expect("a number"), n);
    }
}

#[test]
fn a_sync_cluster_client_finds_the_new_leader() {
    let mut cluster = cluster();
    let mut c = cluster_client(&cluster).get_connection().expect("a connection");
    for tag in ["a", "b", "c", "d"] {
        basics(&mut c, tag).expect("every command");
    }
    let leader = cluster.leader_of("{a}:2");
    cluster.kill(leader);
    eventually("the new leader", START, || match c.incr::<_, _, i64>("{a}:2", 1) {
        Ok(n) if n >= 3 => Ok(()),
        Ok(n) => Err(format!("{n}: a write is lost")),
        Err(error) => {
            // Of a node that refuses connections the crate's sync client asks the others nothing: it has to be made anew.
            if let Ok(new) = cluster_client(&cluster).get_connection() {
                c = new;
            }
            Err(error.to_string())
        }
    });
}

#[test]
fn async_clients_do_what_they_do_with_redis() {
    let mut cluster = cluster();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for options in ["", "?protocol=resp3"] {
        let client = client(&cluster, options);
        runtime.block_on(async {
            let mut c = client.get_multiplexed_async_connection().await.expect("a connection");
            async_basics(&mut c, "async").await.expect("every command");
            c.del::<_, ()>("{async}:4").await.expect("OK");
        });
    }
    let mut c = runtime.block_on(cluster_client(&cluster).get_async_connection()).expect("a connection");
    runtime.block_on(async_basics(&mut c, "async")).expect("every command");
    let leader = cluster.leader_of("{async}:4");
    cluster.kill(leader);
    eventually("the new leader", START, || match runtime.block_on(c.incr::<_, _, i64>("{async}:4", 1)) {
        Ok(n) if n >= 4 => Ok(()),
        Ok(n) => Err(format!("{n}: a write is lost")),
        Err(error) => Err(error.to_string()),
    });
}

#[test]
fn a_cluster_client_reads_from_followers() {
    let cluster = cluster();
    let seeds = cluster.addresses.iter().map(|a| format!("redis://{}/", a.client)).collect::<Vec<_>>();
    let builder = ClusterClientBuilder::new(seeds).read_routing_strategy(RandomReplicaStrategy);
    let mut c = builder.build().expect("addresses").get_connection().expect("a connection");
    for n in 0..100 {
        c.set::<_, _, ()>(format!("k:{n}"), n).expect("OK");
    }
    for n in 0..100 {
        // A follower may be a second behind.
        eventually("the value", START, || match c.get::<_, Option<i64>>(format!("k:{n}")) {
            Ok(Some(value)) if value == n => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let read = |n: usize| -> u64 {
        let info = cluster.node_client(n).call("INFO replication");
        let count =
            info.split("follower_reads:").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        count.unwrap_or_else(|| panic!("{info}"))
    };
    eventually("reads of followers", START, || match (0..3).map(read).sum::<u64>() {
        100.. => Ok(()),
        few => Err(format!("{few}")),
    });
}
