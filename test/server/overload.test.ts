/** What still gets through when clients ask for more than a member can do. */
import { expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import { rpcError } from "../../src/api/rpc-errors.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { MemberId } from "../../src/base/ids.ts";
import { seededRandom } from "../../src/base/random.ts";
import { Proposals } from "../../src/server/proposals.ts";
import { raftRequest } from "../../src/server/raft-request.ts";
import { ReadBarrier } from "../../src/server/read-index.ts";
import { RequestIdGenerator } from "../../src/server/request-id.ts";

const clock: Clock = { monotonicMs: () => 0, wallMs: () => 0, timer: () => ({ cancel: () => undefined }) };
const ids = new RequestIdGenerator(1n as MemberId, seededRandom(1));

test("BL8: the end of a lease is proposed when clients are refused already, but not without bound", () => {
  let lag = 0;
  const proposed: string[] = [];
  const proposals = new Proposals({
    clock,
    ids,
    requestTimeoutMs: 1000,
    requestBytesMax: 1000,
    pendingMax: 3,
    propose: () => {
      proposed.push("proposed");
      return "accepted";
    },
    applyLag: () => lag,
    timeoutError: () => rpcError("timeout"),
  });
  const refusals: string[] = [];
  const submit = (urgency: "usual" | "urgent"): void => {
    proposals.submit(raftRequest("lease-revoke", api.LeaseRevokeRequest.create({ id: 1n })), {}, urgency).catch((error: Error) => {
      refusals.push(`${urgency}: ${error.message}`);
    });
  };
  const after = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  lag = 5001;
  submit("usual");
  submit("urgent");
  expect(proposed).toHaveLength(1);
  lag = 10_001;
  submit("urgent");
  expect(proposed).toHaveLength(1);
  lag = 0;
  for (let i = 0; i < 4; i++) submit("usual");
  expect(proposed).toHaveLength(3);
  submit("urgent");
  expect(proposed).toHaveLength(4);
  return after().then(() => {
    const refused = "etcdserver: too many requests";
    expect(refusals).toEqual([`usual: ${refused}`, `urgent: ${refused}`, `usual: ${refused}`, `usual: ${refused}`]);
    proposals.stop(rpcError("server-stopped"));
  });
});

test("BR16: a confirmation that comes together with a change of the leader answers nobody who was told of the change", async () => {
  const asked: bigint[] = [];
  const reads = new ReadBarrier({
    clock,
    ids,
    requestTimeoutMs: 1000,
    waitersMax: 10,
    requestReadIndex: (context) => asked.push(context),
    appliedIndex: () => 100,
  });
  const outcome = (wait: Promise<void>): Promise<string> =>
    wait.then(
      () => "read",
      (error: Error) => error.message,
    );
  const first = outcome(reads.wait());
  const second = outcome(reads.wait());
  // Both are ready in one turn: the change counts, and the late confirmation is of a round that is forgotten.
  reads.onLeaderChanged();
  reads.onReadStates([{ index: 5, context: asked[0] as bigint }]);
  expect(await first).toBe("etcdserver: leader changed");
  // It came after the first round had begun, so its own round was asked for anew, under a context of its own.
  expect(asked).toHaveLength(2);
  expect(asked[1]).not.toBe(asked[0]);
  reads.onReadStates([{ index: 6, context: asked[0] as bigint }]);
  reads.onReadStates([{ index: 7, context: asked[1] as bigint }]);
  expect(await second).toBe("read");
  // What was confirmed before the change is linearizable whatever comes after it.
  const third = outcome(reads.wait());
  reads.onReadStates([{ index: 8, context: asked[2] as bigint }]);
  reads.onLeaderChanged();
  expect(await third).toBe("read");
});
