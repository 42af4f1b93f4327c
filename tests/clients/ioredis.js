// ioredis against a proxy (`proxy`) or a node (`cluster`): MODE PORT PROTOCOL PID-TO-KILL. One line for each step.
"use strict";
const assert = require("node:assert");
const Redis = require("ioredis");

const [mode, port, , victim] = process.argv.slice(2);
// How long a client may be without service when a node dies, ms.
const OUTAGE_MS = 20000;
const isProxy = mode === "proxy";
const client = isProxy
  ? new Redis({ host: "127.0.0.1", port: Number(port), retryStrategy: () => 100, maxRetriesPerRequest: 50 })
  : new Redis.Cluster([{ host: "127.0.0.1", port: Number(port) }], {
      clusterRetryStrategy: () => 100,
      slotsRefreshTimeout: 5000,
      redisOptions: { maxRetriesPerRequest: 50 },
    });
client.on("error", () => {});

const steps = {
  async basics() {
    for (const key of ["js:a", "js:n"]) await client.del(key);
    assert.equal(await client.set("js:a", "1"), "OK");
    assert.equal(await client.get("js:a"), "1");
    assert.equal(await client.set("js:a", "2", "NX"), null);
    assert.equal(await client.incrby("js:n", 5), 5);
    assert.equal(await client.append("js:n", "0"), 2);
    assert.equal(await client.type("js:n"), "string");
    assert.deepEqual(await client.getBuffer("js:n"), Buffer.from("50"));
    assert.equal(await client.getdel("js:a"), "1");
  },
  async handshake() {
    const one = isProxy ? client : client.nodes("master")[0];
    const info = await one.client("INFO");
    assert.match(info, /lib-name=ioredis/);
    assert.match(await one.client("LIST"), /lib-name=ioredis/);
    await one.client("SETNAME", "tester");
    assert.equal(await one.client("GETNAME"), "tester");
  },
  async pipelines() {
    const pipe = client.pipeline();
    for (let i = 0; i < 500; i++) pipe.set(`{js}p${i}`, i).get(`{js}p${i}`);
    const replies = await pipe.exec();
    assert.deepEqual(replies, [...Array(500).keys()].flatMap((i) => [[null, "OK"], [null, String(i)]]));
    const all = await Promise.all([...Array(500).keys()].map((i) => client.incr(`js:q${i % 50}`)));
    assert.equal(all.length, 500);
  },
  async many() {
    const keys = [...Array(100).keys()].map((i) => (isProxy ? `js:m${i}` : `{js}m${i}`));
    assert.equal(await client.mset(keys.flatMap((k) => [k, k])), "OK");
    assert.deepEqual(await client.mget(keys), keys);
    assert.equal(await client.del(keys), 100);
  },
  async expiry() {
    await client.set("js:e", 1, "PX", 1000);
    const left = await client.pttl("js:e");
    assert(0 < left && left <= 1000);
    const deadline = Date.now() + 10000;
    while ((await client.get("js:e")) !== null) assert(Date.now() < deadline, "the key does not expire");
  },
  async scan() {
    await Promise.all([...Array(300).keys()].map((i) => client.set(`js:s${i}`, i)));
    const found = new Set();
    for (const node of isProxy ? [client] : client.nodes("master")) {
      for await (const keys of node.scanStream({ match: "js:s*", count: 50 })) keys.forEach((k) => found.add(k));
    }
    assert.equal(found.size, 300);
  },
  async errors() {
    await client.set("js:text", "x");
    await assert.rejects(client.incr("js:text"), { message: "ERR value is not an integer or out of range" });
    await assert.rejects(client.call("SET", "js:text"), /wrong number of arguments for 'set' command/);
  },
  async server() {
    const one = isProxy ? client : client.nodes("master")[0];
    assert.match(await one.info(), /redis_version:7/);
    assert((await one.command("COUNT")) > 50);
    assert((await one.config("GET", "*")).length > 4);
    assert((await one.time())[0] > 1600000000);
  },
  async replicas() {
    if (isProxy) return;
    await client.set("js:r", "1");
    const reader = new Redis.Cluster([{ host: "127.0.0.1", port: Number(port) }], { scaleReads: "slave" });
    const deadline = Date.now() + 10000;
    while ((await reader.get("js:r")) !== "1") assert(Date.now() < deadline, "the write does not arrive");
    for (let i = 0; i < 100; i++) assert.equal(await reader.get(`{js}p${i}`), String(i));
    reader.disconnect();
  },
  async failover() {
    const keys = [...Array(30).keys()].map((i) => `js:f${i}`);
    for (const key of keys) await client.del(key);
    let [done, errors, gap, last] = [0, 0, 0, Date.now()];
    for (let i = 0; i < 900; i++) {
      if (i === 300) process.kill(Number(victim), "SIGKILL");
      for (;;) {
        try {
          await client.incr(keys[i % 30]);
          done++;
          break;
        } catch (error) {
          errors++;
          if (Date.now() - last > OUTAGE_MS) throw error;
        }
      }
      gap = Math.max(gap, Date.now() - last);
      last = Date.now();
    }
    let total = 0;
    for (const key of keys) total += Number(await client.get(key));
    assert(total >= done, `${done} acknowledged, ${total} there`);
    assert(!isProxy || errors > 0 || total === done, `${done} acknowledged, ${total} there`);
    console.log(`ok   ${errors} errors, ${gap} ms without service`);
  },
};

(async () => {
  for (const [name, check] of Object.entries(steps)) {
    try {
      await check();
      console.log("ok", name);
    } catch (error) {
      console.log(`failed ${name}: ${String(error.message).split("\n").join(" ")}`);
    }
  }
  client.disconnect();
})();
