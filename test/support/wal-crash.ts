/** Runs a workload on a log until its disk dies, and judges what the next life finds. */
import type { Random } from "../../src/base/random.ts";
import { Wal, type WalAppend, WalMissingError, type WalOptions } from "../../src/wal/index.ts";
import { DiskDeadError, type ModelDisk } from "./model-disk.ts";
import { apply, describeLog, EMPTY_LOG, type LogState, TEST_METADATA } from "./wal-model.ts";

export interface Life {
  /** `Wal.create` or `Wal.open` returned. */
  started: boolean;
  /** states[n] is the log after n appends. */
  readonly states: LogState[];
  /** Appends acknowledged, as a count: of those that had to be durable, and of all. */
  durable: number;
  acknowledged: number;
  /** The first error an append got. */
  error: Error | undefined;
}

/** What a step of a workload is besides appending. */
export type Step = WalAppend | { readonly purge: number };

export type WalLifeOptions = Omit<WalOptions, "disk">;

/** Creates a log and runs the steps, waiting for acknowledgements only where `random` says so. Returns when all is done or the disk died. */
export async function liveWal(disk: ModelDisk, options: WalLifeOptions, steps: readonly Step[], random: Random): Promise<Life> {
  const life: Life = { started: false, states: [EMPTY_LOG], durable: 0, acknowledged: 0, error: undefined };
  try {
    const wal = await Wal.create({ ...options, disk, metadata: TEST_METADATA });
    life.started = true;
    await runSteps(wal, life, steps, random);
    await wal.close();
  } catch (error) {
    if (!(error instanceof DiskDeadError)) throw error;
  }
  return life;
}

export async function runSteps(wal: Wal, life: Life, steps: readonly Step[], random: Random): Promise<void> {
  let waiting: Promise<void>[] = [];
  for (const step of steps) {
    if (life.error !== undefined) break;
    if ("purge" in step) {
      try {
        await wal.purge(step.purge, 1);
      } catch (error) {
        if (!(error instanceof DiskDeadError)) throw error;
        break;
      }
      continue;
    }
    const number = life.states.length;
    life.states.push(apply(life.states[number - 1] as LogState, step));
    waiting.push(
      new Promise((resolve) => {
        wal.append(step, (error) => {
          if (error !== undefined) life.error ??= error;
          else {
            life.acknowledged = number;
            if (step.mustSync) life.durable = number;
          }
          resolve();
        });
      }),
    );
    if (random.chance({ of: 1, outOf: 3 })) {
      await Promise.all(waiting);
      waiting = [];
    }
  }
  await Promise.all(waiting);
}

/**
 * Opens the log and returns how many appends it holds. Throws when that is fewer than were acknowledged (`kill`: all of them;
 * `power-loss`: those that had to be durable), when it is no state the log ever had, or what `Wal.open` throws.
 */
export async function recoveredAppends(
  disk: ModelDisk,
  options: WalLifeOptions,
  life: Life,
  crash: "kill" | "power-loss",
): Promise<{ wal: Wal; appends: number; repaired: boolean } | undefined> {
  let opened: Awaited<ReturnType<typeof Wal.open>>;
  try {
    opened = await Wal.open({ ...options, disk });
  } catch (error) {
    if (error instanceof WalMissingError && !life.started) return undefined;
    throw error;
  }
  const found = describeLog(opened.contents);
  const atLeast = crash === "kill" ? life.acknowledged : life.durable;
  // From the end, because a state may occur twice.
  for (let n = life.states.length - 1; n >= atLeast; n--) {
    if (describeLog(life.states[n] as LogState) === found) {
      return { wal: opened.wal, appends: n, repaired: opened.contents.repaired !== undefined };
    }
  }
  const earlier = life.states.findLastIndex((state) => describeLog(state) === found);
  throw new Error(
    earlier >= 0
      ? `acknowledged appends are lost: found ${earlier} of ${atLeast} (${life.states.length - 1} submitted)`
      : `the log is in a state that it never had:\n${found.slice(0, 2000)}`,
  );
}
