/** What the client's types must say, and what they must refuse. It is compiled with everything else, and never run. */
import { expectTypeOf } from "vitest";
import { stm } from "../../src/client/concurrency/index.ts";
import { type Codec, compare, createClient, type EtcdClient, json, type KeyValue, op } from "../../src/client/index.ts";

interface Job {
  readonly command: string;
}

export async function texts(client: EtcdClient): Promise<void> {
  expectTypeOf(await client.get("k")).toEqualTypeOf<KeyValue<string, string> | undefined>();
  expectTypeOf((await client.put("k", "v", { previous: true })).revision).toEqualTypeOf<number>();
  for await (const { events } of client.watch("k", { prefix: true })) {
    for (const event of events) {
      if (event.type === "put") expectTypeOf(event.kv.value).toEqualTypeOf<string>();
      // @ts-expect-error a delete has no pair
      else event.kv;
    }
  }
  for await (const pair of client.entries("k", { prefix: true })) expectTypeOf(pair.value).toEqualTypeOf<string>();
  // @ts-expect-error a number is no text
  await client.put("k", 1);
  // @ts-expect-error leases have bigint ids
  await client.put("k", "v", { lease: 5 });
}

export async function codecs(client: EtcdClient): Promise<void> {
  const jobs = client.namespace("jobs/").withValues(json<Job>());
  expectTypeOf(await jobs.get("k")).toEqualTypeOf<KeyValue<Job, string> | undefined>();
  await jobs.put("k", { command: "x" });
  await jobs.put("k", new Uint8Array(1));
  // @ts-expect-error not a job
  await jobs.put("k", { order: "x" });
  const numbers: Codec<number> = { encode: (n) => Uint8Array.of(n), decode: ([n = 0]) => n };
  expectTypeOf((await client.withKeys(numbers).keys(1)).keys[0]?.key).toEqualTypeOf<number | undefined>();
  expectTypeOf(await client.raw().get("k")).toEqualTypeOf<KeyValue<Uint8Array, Uint8Array> | undefined>();
  const view = jobs.view("");
  expectTypeOf(view.get("k")?.value.command).toEqualTypeOf<string | undefined>();
}

export async function transactions(client: EtcdClient): Promise<void> {
  const txn = client
    .txn()
    .if(compare.absent("a"))
    .do(op.put("a", "1"), op.get("b"))
    .else(op.range("c", { prefix: true }));
  // A builder is no promise.
  expectTypeOf(txn).not.toHaveProperty("then");
  const done = await txn.commit();
  if (done.succeeded) {
    const [put, got] = done.results;
    expectTypeOf(put.revision).toEqualTypeOf<number>();
    expectTypeOf(got).toEqualTypeOf<KeyValue<string, string> | undefined>();
  } else {
    const [range] = done.results;
    expectTypeOf(range.count).toEqualTypeOf<number>();
  }
  // @ts-expect-error one of four
  compare.version("a", "<=", 1);
  // @ts-expect-error numbers are for codecs of numbers
  client.txn().do(op.put("a", 1));
}

export async function recipes(client: EtcdClient): Promise<void> {
  expectTypeOf((await stm(client, async (tx) => tx.get("k"))).value).toEqualTypeOf<string | undefined>();
  // @ts-expect-error endpoints are a list
  createClient({ endpoints: "http://127.0.0.1:2379" });
}
