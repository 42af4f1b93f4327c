"""redis-py against a proxy (`proxy`) or a node (`cluster`): MODE PORT PROTOCOL PID-TO-KILL. One line for each step."""
import os
import signal
import sys
import time

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

MODE, PORT, PROTOCOL, VICTIM = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
# How long a client may be without service when a node dies, seconds.
OUTAGE = 20


def connect():
    # Unbounded retries would hide an outage.
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 10)
    if MODE == "cluster":
        return redis.RedisCluster(host="127.0.0.1", port=PORT, protocol=PROTOCOL, decode_responses=True, retry=retry)
    return redis.Redis(host="127.0.0.1", port=PORT, protocol=PROTOCOL, decode_responses=True, retry=retry)


def step(name, check):
    try:
        check()
        print("ok", name, flush=True)
    except Exception as why:  # Whatever it is, it is the result.
        print(f"failed {name}: {type(why).__name__} {why}", flush=True)


def basics(r):
    r.delete("py:a", "py:n") if MODE == "proxy" else [r.delete(k) for k in ("py:a", "py:n")]
    assert r.set("py:a", "1") and r.get("py:a") == "1"
    assert r.set("py:a", "2", nx=True) is None
    assert r.set("py:a", "2", get=True) == "1"
    assert r.incr("py:n", 5) == 5 and r.append("py:n", "0") == 2 and r.getrange("py:n", 0, 0) == "5"
    assert r.incrbyfloat("py:n", 0.5) == 50.5
    assert r.exists("py:a") == 1 and r.type("py:a") == "string" and r.getdel("py:a") == "2" and r.get("py:a") is None
    assert r.object("encoding", "py:n") in ("embstr", b"embstr")


def handshake(r):
    node = r if MODE == "proxy" else r.get_redis_connection(r.get_default_node())
    info = node.client_info()
    assert info["lib-name"].startswith("redis-py") and info["lib-ver"] and info["resp"] == str(PROTOCOL), info
    assert any(str(c["id"]) == str(info["id"]) for c in node.client_list())
    assert node.client_setname("tester") and node.client_getname() == "tester"


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"py:p{i}", i)
            pipe.get(f"py:p{i}")
        replies = pipe.execute()
    assert replies == [x for i in range(1000) for x in (True, str(i))]


def many(r):
    keys = [f"py:m{i}" for i in range(100)]
    if MODE == "proxy":
        assert r.mset({k: k for k in keys}) and r.mget(keys) == keys
        assert r.delete(*keys) == 100
    else:
        assert r.mset_nonatomic({k: k for k in keys}) and r.mget_nonatomic(keys) == keys
        assert r.mset({"{py}a": 1, "{py}b": 2}) and r.mget("{py}a", "{py}b") == ["1", "2"]


def expiry(r):
    r.set("py:e", 1, px=1000)
    assert 0 < r.pttl("py:e") <= 1000
    deadline = time.monotonic() + 10
    while r.get("py:e") is not None:
        assert time.monotonic() < deadline, "the key does not expire"
    assert r.ttl("py:e") == -2


def scan(r):
    for i in range(300):
        r.set(f"py:s{i}", i)
    found = set(r.scan_iter(match="py:s*", count=50))
    assert len(found) == 300, f"{len(found)} of 300"


def errors(r):
    r.set("py:text", "x")
    try:
        r.incr("py:text")
        raise AssertionError("no error")
    except redis.ResponseError as error:
        assert str(error) == "value is not an integer or out of range", error
    try:
        r.execute_command("SET", "py:text")
        raise AssertionError("no error")
    except redis.ResponseError as error:
        assert "wrong number of arguments for 'set' command" in str(error), error
    if MODE == "proxy":
        try:
            r.rename("py:a", "py:b")
            raise AssertionError("no error")
        except redis.ResponseError as error:
            assert "hash to the same slot" in str(error), error


def server(r):
    node = r if MODE == "proxy" else r.get_redis_connection(r.get_default_node())
    assert node.info()["redis_version"].startswith("7.") and r.ping()
    assert "maxmemory" in node.config_get("*") and node.dbsize() >= 0
    assert "get" in node.command() and node.time()[0] > 1_600_000_000
    assert node.wait(0, 0) == 1 and node.command_count() > 50
    assert isinstance(node.slowlog_get(), list) and node.memory_usage("py:none") is None if MODE == "proxy" else True


def replicas(r):
    """Followers answer a client that reads from replicas; each may be a second behind."""
    if MODE == "proxy":
        return
    r.set("py:r", "1")
    reader = redis.RedisCluster(host="127.0.0.1", port=PORT, protocol=PROTOCOL, decode_responses=True, read_from_replicas=True)
    deadline = time.monotonic() + 10
    while reader.get("py:r") != "1":
        assert time.monotonic() < deadline, "the write does not arrive"
    for i in range(100):
        assert reader.get("py:r") == "1" and reader.get(f"py:p{i}") == str(i)
    time.sleep(0.5)  # INFO is some 100 ms behind
    nodes = [redis.Redis(host=n.host, port=n.port) for n in r.get_nodes()]
    assert sum(node.info("replication")["follower_reads"] for node in nodes) > 50


def failover(r):
    done = 0
    errors = 0
    gap = 0.0
    last = time.monotonic()
    r.delete("py:f")
    keys = [f"py:f{i}" for i in range(30)]
    for key in keys:
        r.delete(key)
    for i in range(900):
        if i == 300:
            os.kill(VICTIM, signal.SIGKILL)
        while True:
            try:
                r.incr(keys[i % 30])
                done += 1
                break
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
                errors += 1
                if time.monotonic() - last > OUTAGE:
                    raise
                last_error = error
        gap = max(gap, time.monotonic() - last)
        last = time.monotonic()
    total = sum(int(r.get(key)) for key in keys)
    assert total >= done, f"{done} acknowledged, {total} there"
    # Through a proxy a write is executed once whatever happens; a cluster client may repeat one whose answer was lost.
    assert MODE == "cluster" or errors > 0 or total == done, f"{done} acknowledged, {total} there"
    print(f"ok   {errors} errors, {gap:.2f} s without service", flush=True)


r = connect()
for check in (basics, handshake, pipelines, many, expiry, scan, errors, server, replicas, failover):
    step(check.__name__, lambda: check(r))
