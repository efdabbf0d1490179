/**
 * The client where there is no Node: a process of its own, in which what browsers lack is hidden while the client is loaded. (Node's own `fetch` needs it again
 * afterwards.) Argument: an endpoint.
 */
const globals = globalThis as unknown as Record<string, unknown>;
const { Buffer: hiddenBuffer, process: hiddenProcess } = globals;
const { argv, stdout } = process;
delete globals.Buffer;
globals.process = undefined;
const { bytes, createClient, op, compare } = await import("../../src/client/index.ts");
const { openSession, stm } = await import("../../src/client/concurrency/index.ts");
globals.Buffer = hiddenBuffer;
globals.process = hiddenProcess;

const client = createClient({ endpoints: [argv[2] as string] });
const watch = client.withValues(bytes).watch("p/", { prefix: true });
await watch.ready;
await client.put("p/ä", "ü €");
await client.raw().put("p/bytes", Uint8Array.of(0, 255, 128, 10));
await client.txn().if(compare.absent("p/t")).do(op.put("p/t", "1")).commit();
const events: string[] = [];
while (events.length < 3) for (const { key } of (await watch.next()).value?.events ?? []) events.push(key);
const view = client.withValues(bytes).view("p/");
await view.ready;
const session = await openSession(client, { ttlSeconds: 10 });
const token = await session.withLock("lock", ({ token: own }) => own);
const counted = await stm(client, async (tx) => {
  tx.put("p/n", String(Number((await tx.get("p/n")) ?? 0) + 1));
  return tx.get("p/n");
});
await session.close();
await view.atLeast(counted.revision);
const raw = await client.raw().get("p/bytes");
stdout.write(
  JSON.stringify({
    text: (await client.get("p/ä"))?.value,
    bytes: [...(raw?.value ?? [])],
    isBuffer: Object.getPrototypeOf(raw?.value ?? {}) !== Uint8Array.prototype,
    events,
    size: view.size,
    locked: token > 0,
    counted: counted.value,
  }),
);
view.close();
watch.close();
client.close();

export {};
