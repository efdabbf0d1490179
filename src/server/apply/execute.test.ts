import { expect, test } from "vitest";
import * as api from "../../api/index.ts";
import { BackendFailedError, MemoryBackend, MemoryStorage } from "../../backend/index.ts";
import { utf8Bytes } from "../../base/bytes.ts";
import type { Entry } from "../../raft/index.ts";
import { encodeRaftRequest, raftRequest } from "../raft-request.ts";
import { type ApplySinks, Executor } from "./execute.ts";
import { State } from "./state.ts";

const open = (storage: MemoryStorage): Promise<State> =>
  State.open({
    backend: new MemoryBackend(storage),
    valueCacheBytes: 0,
    electionMs: 1000,
    heartbeatMs: 100,
    learnersMax: 1,
    yieldNow: () => Promise.resolve(),
    nowMs: () => 0,
    onBackendFailed: () => undefined,
  });

const put = (index: number, key: string): Entry => {
  const request = raftRequest("put", api.PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes("v") }));
  return { term: 1, index, type: "normal", data: encodeRaftRequest(request) };
};

test("what fails half-way is no answer, and nothing of it reaches the store", async () => {
  const storage = new MemoryStorage();
  const state = await open(storage);
  const told: unknown[] = [];
  let isBroken = false;
  // The rest is not called by puts.
  const sinks = {
    takeWaiter: () => ({ startedMs: 0, resolve: () => told.push("done"), reject: (error: unknown) => told.push(error) }),
    onEvents: () => {
      if (isBroken) throw new BackendFailedError(new Error("a row could not be read"));
    },
  } as unknown as ApplySinks;
  const executor = new Executor({ sinks, nowMs: () => 0, quotaBytes: Number.POSITIVE_INFINITY });
  const apply = (...entries: Entry[]): void => executor.execute(state, entries, executor.decode(entries));

  apply(put(1, "a"));
  await state.writer.idle();
  isBroken = true;
  expect(() => apply(put(2, "b"))).toThrow("a row could not be read");
  expect(told).toEqual(["done"]);
  expect(state.appliedIndex).toBe(1);
  await expect(state.writer.idle()).rejects.toThrow("a row could not be read");
  await state.close();

  const again = await open(storage);
  expect([again.appliedIndex, again.store.revision]).toEqual([1, 2]);
  await again.close();
});
