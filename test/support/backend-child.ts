/**
 * A process that writes batches to a store on the real disk until a write fails or it is killed. Prints the number of each batch in the
 * store, then what failed and how later calls fare. Arguments: directory, and "checkpoint" to make one after each 50 batches, or "table" for rows
 * so small that their table is larger than their log, and one checkpoint behind them.
 */
import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import { createBatch, LevelBackend } from "../../src/backend/index.ts";

const [directory = "", mode = ""] = process.argv.slice(2);
const print = (line: string): void => {
  writeSync(1, `${line}\n`);
};
const outcome = async (work: () => unknown): Promise<string> => {
  try {
    await work();
    return "ok";
  } catch (error) {
    return (error as Error).name;
  }
};

const backend = await LevelBackend.open({ directory });
const batchOf = (number: number): ReturnType<typeof createBatch> => {
  const batch = createBatch();
  const name = String(number).padStart(8, "0");
  for (let i = 0; i < 10; i++) batch.put(Buffer.from(`k${name}.${i}`), Buffer.alloc(1000, number % 256));
  batch.put(Buffer.from("last"), Buffer.from(name));
  return batch;
};
if (mode === "table") {
  for (let number = 0; number < 60; number++) {
    const batch = createBatch();
    for (let i = 0; i < 1000; i++) batch.put(createHash("sha256").update(`${number}.${i}`).digest().subarray(0, 10), new Uint8Array(0));
    await backend.write(batch);
  }
  print(`checkpoint ${await outcome(() => backend.checkpoint())}`);
}
for (let number = 1; mode !== "table"; number++) {
  try {
    await backend.write(batchOf(number));
  } catch (error) {
    print(`failed ${(error as Error).name}`);
    break;
  }
  print(String(number));
  if (mode === "checkpoint" && number % 50 === 0) await backend.checkpoint();
}
const calls: [string, () => unknown][] = [
  ["write", () => backend.write(batchOf(1_000_000))],
  ["get", () => backend.get(Buffer.from("last"))],
  ["getSync", () => backend.getSync(Buffer.from("last"))],
  ["iterate", () => backend.iterate({ gte: Buffer.from("k") })],
  ["checkpoint", () => backend.checkpoint()],
];
for (const [name, call] of calls) print(`${name} ${await outcome(call)}`);
print(`close ${await outcome(() => backend.close())}`);
