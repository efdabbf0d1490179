import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RPC_ERRORS, type RpcErrorReason, rpcError } from "../../src/api/index.ts";
import { clientOver } from "../../src/client/client.ts";
import { EtcdError, mayHaveHappened, op, UnavailableError } from "../../src/client/index.ts";
import { useTestCluster, useTestEtcd } from "../../src/testing/index.ts";
import { type Faults, failureOf, faultyMembers } from "./support.ts";

describe("repetition", () => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll });
  const connect = (faults: Faults) =>
    clientOver({ endpoints: ["test"], transport: faultyMembers([{ name: "test", services: () => etcd().server.services }], faults) });

  it("never repeats a write whose answer was lost", async () => {
    let lose = 1;
    const calls: string[] = [];
    const client = connect({
      loseAnswer: (path) => {
        calls.push(path);
        lose -= 1;
        return lose >= 0;
      },
    });
    const writes: [string, () => Promise<unknown>][] = [
      ["Put", () => client.put("w", "1")],
      ["Txn", () => client.txn().do(op.put("w", "2")).commit()],
      ["DeleteRange", () => client.delete("w")],
      ["LeaseGrant", () => client.leases.grant({ ttlSeconds: 60 })],
      ["Compact", () => client.compact(1)],
    ];
    for (const [name, write] of writes) {
      calls.length = 0;
      lose = 1;
      const before = await etcd().client.revision();
      const error = await failureOf(write());
      expect([name, error.reason]).toEqual([name, "unavailable"]);
      expect(mayHaveHappened(error)).toBe(true);
      expect(calls).toHaveLength(1);
      if (name === "Put" || name === "Txn" || name === "DeleteRange") expect(await etcd().client.revision()).toBe(before + 1);
    }
    client.close();
  });

  it("repeats it when asked to", async () => {
    let lose = 2;
    const client = connect({
      loseAnswer: () => {
        lose -= 1;
        return lose >= 0;
      },
    });
    const before = await etcd().client.revision();
    await client.put("w", "1", { retry: "always" });
    expect(await etcd().client.revision()).toBe(before + 3);
    client.close();
  });

  it("repeats reads, and what never left", async () => {
    let lose = 2;
    const client = connect({
      loseAnswer: () => {
        lose -= 1;
        return lose >= 0;
      },
    });
    await etcd().client.put("r", "1");
    expect((await client.get("r"))?.value).toBe("1");
    lose = 2;
    expect((await client.txn().do(op.get("r")).commit()).succeeded).toBe(true);
    lose = 1;
    expect((await failureOf(client.get("r", { retry: "never" }))).reason).toBe("unavailable");
    client.close();

    let refuse = 3;
    const refused = connect({
      refuse: () => {
        refuse -= 1;
        return refuse >= 0;
      },
    });
    const before = await etcd().client.revision();
    await refused.put("w", "1");
    expect(await etcd().client.revision()).toBe(before + 1);
    refuse = 1;
    const error = await failureOf(refused.put("w", "1", { retry: "never" }));
    expect(error.reason).toBe("unavailable");
    expect(mayHaveHappened(error)).toBe(false);
    refused.close();
  });

  it("gives up at the deadline", async () => {
    const client = connect({ refuse: () => true });
    const error = await failureOf(client.get("r", { timeoutMs: 150 }));
    expect([error.reason, error.grpcCode]).toEqual(["deadline-exceeded", 4]);
    const controller = new AbortController();
    const call = failureOf(client.put("w", "1", { signal: controller.signal }));
    controller.abort(new Error("enough"));
    expect((await call).reason).toBe("canceled");
    client.close();
  });

  it("knows of every error whether the write may have happened", () => {
    const certain = (Object.keys(RPC_ERRORS) as RpcErrorReason[]).filter((reason) => !mayHaveHappened(rpcError(reason)));
    // Refused by rule, or before anything was proposed.
    for (const reason of [
      "key-not-provided",
      "lease-not-found",
      "compacted",
      "no-leader",
      "too-many-requests",
      "permission-denied",
      "not-leader",
      "corrupt-cluster",
    ] as const) {
      expect(certain).toContain(reason);
    }
    for (const reason of [
      "timeout",
      "timeout-leader-failure",
      "server-stopped",
      "leader-changed",
      "canceled",
      "deadline-exceeded",
      "no-space",
    ] as const) {
      expect(certain).not.toContain(reason);
    }
    expect(mayHaveHappened(new Error("a bug"))).toBe(true);
    expect(mayHaveHappened(new UnavailableError({ endpoint: "", requestSent: false, message: "" }))).toBe(false);
  });
});

describe("several members", () => {
  const cluster = useTestCluster({ before: beforeAll, after: afterAll });

  it("are used in turn, and failed ones left alone", async () => {
    const asked: string[] = [];
    const dead = new Set<string>();
    const members = cluster().names.map((name) => ({ name, services: () => cluster().member(name).services }));
    const client = clientOver({
      endpoints: cluster().names,
      transport: faultyMembers(members, {
        refuse: (endpoint) => {
          asked.push(endpoint);
          return dead.has(endpoint);
        },
      }),
    });
    for (let i = 0; i < 9; i += 1) await client.get("a");
    for (const name of cluster().names) expect(asked.filter((one) => one === name)).toHaveLength(3);
    dead.add("m2");
    asked.length = 0;
    for (let i = 0; i < 30; i += 1) await client.get("a");
    expect(asked.filter((one) => one === "m2").length).toBeLessThan(10);
    dead.clear();
    client.close();
  });

  it("take over from one that is killed, paused or cut off", async () => {
    const { client } = cluster();
    await client.put("a", "1");
    const faults = [
      { begin: (name: string) => cluster().kill(name), end: (name: string) => cluster().restart(name) },
      { begin: async (name: string) => cluster().pause(name), end: async (name: string) => cluster().resume(name) },
      {
        begin: async (name: string) =>
          cluster().partition(
            [name],
            cluster().names.filter((one) => one !== name),
          ),
        end: async () => cluster().heal(),
      },
    ];
    for (const { begin, end } of faults) {
      const leader = await cluster().leader();
      await begin(leader);
      expect((await client.get("a", { timeoutMs: 20_000 }))?.value).toBe("1");
      await client.put("a", "1", { retry: "always", timeoutMs: 20_000 });
      await end(leader);
    }
  });

  it("say when none of them answers", async () => {
    const client = clientOver({
      endpoints: ["m1", "m2"],
      transport: faultyMembers(
        cluster().names.map((name) => ({
          name,
          services: () => {
            throw new EtcdError("server-stopped", 14, "etcdserver: server stopped");
          },
        })),
        {},
      ),
    });
    // Whatever the moment at which time runs out; what stood in the way is told.
    for (let timeoutMs = 60; timeoutMs < 80; timeoutMs += 1) {
      const error = await failureOf(client.get("a", { timeoutMs }));
      expect(error).toMatchObject({ reason: "deadline-exceeded", cause: { reason: "server-stopped" } });
    }
    expect((await failureOf(client.put("a", "1"))).reason).toBe("server-stopped");
    client.close();
  });
});
