/** Carries out the faults of a plan. */
import { TreeCursor } from "../../../src/backend/memory-tree.ts";
import { keyStringOf } from "../../../src/base/bytes.ts";
import { Dice, seedFor } from "./dice.ts";
import { LOG, type Machine, SNAPSHOTS } from "./machine.ts";
import type { Fault } from "./plan.ts";
import type { World } from "./world.ts";

export function scheduleFaults(world: World): void {
  for (const fault of world.plan.faults) {
    world.after(fault.at, () => {
      if (world.calm) return;
      // By time, not by place, so that leaving one out does not change the others.
      const dice = new Dice(seedFor(world.plan.seed, 7, fault.at));
      inflict(world, fault, dice);
    });
  }
}

function inflict(world: World, fault: Fault, dice: Dice): void {
  const count = (): void => {
    world.faultCounts[fault.kind] = (world.faultCounts[fault.kind] ?? 0) + 1;
  };
  switch (fault.kind) {
    case "crash":
    case "power-loss":
      for (const machine of world.choose(fault.target, dice)) {
        count();
        world.kill(machine, fault.kind === "crash" ? "kill" : "power-loss");
        comeBack(world, machine, fault.downMs, fault.again, fault.kind === "crash" ? "kill" : "power-loss", dice);
      }
      return;
    case "die-at-disk":
      for (const machine of world.choose(fault.target, dice)) {
        count();
        world.trace(machine.name, `will die (${fault.how}) in ${fault.operations} disk operations`);
        world.dieAtDisk(machine, fault.operations, fault.how, fault.downMs);
      }
      return;
    case "pause":
      for (const machine of world.choose(fault.target, dice)) {
        const { life } = machine;
        if (life === undefined) continue;
        count();
        world.trace(machine.name, `stands still for ${fault.forMs} ms${fault.frozen ? ", its clock too" : ""}`);
        if (fault.frozen) machine.clock.freeze();
        world.scheduler.block(life, fault.forMs, fault.inputFirst);
        world.after(fault.forMs, () => machine.clock.thaw());
      }
      return;
    case "restart":
      for (const machine of world.choose(fault.target, dice)) {
        const { life } = machine;
        if (life?.server === undefined) continue;
        count();
        world.trace(machine.name, "is told to stop");
        void life.server.close().then(() => {
          if (life.dead) return;
          world.trace(machine.name, "has stopped");
          machine.kill("kill");
          world.startIn(machine, fault.downMs);
        });
      }
      return;
    case "partition":
      count();
      partition(world, fault);
      return;
    case "clients-cut":
      for (const machine of world.choose(fault.target, dice)) {
        if (machine.clientsCut !== "no") continue;
        count();
        machine.clientsCut = fault.answersOnly ? "answers" : "all";
        world.after(fault.forMs, () => {
          machine.clientsCut = "no";
        });
      }
      return;
    case "network": {
      count();
      world.trace(
        "network",
        `${fault.lossPercent}% lost, ${fault.duplicatePercent}% doubled, ${fault.delayMs} ms more, for ${fault.forMs} ms`,
      );
      world.links.addWeather(fault);
      world.after(fault.forMs, () => world.links.removeWeather(fault));
      return;
    }
    case "slow-disk":
      for (const machine of world.choose(fault.target, dice)) {
        if (machine.slowSyncMs > 0) continue;
        count();
        world.trace(machine.name, `has a slow disk (${fault.syncMs} ms) for ${fault.forMs} ms`);
        machine.slowSyncMs = fault.syncMs;
        world.after(fault.forMs, () => {
          machine.slowSyncMs = 0;
        });
      }
      return;
    case "disk-full":
      for (const machine of world.choose(fault.target, dice)) {
        count();
        world.trace(machine.name, `has ${fault.freeBytes} bytes left for ${fault.forMs} ms`);
        machine.disk.faults.freeBytes = fault.freeBytes;
        faulty(world, machine, fault.forMs, () => {
          machine.disk.faults.freeBytes = undefined;
        });
      }
      return;
    case "sync-error":
      for (const machine of world.choose(fault.target, dice)) {
        count();
        world.trace(machine.name, `fails to sync ${fault.forever ? `for ${fault.forMs} ms` : "once"}`);
        machine.disk.faults.syncError = fault.forever ? "forever" : "once";
        faulty(world, machine, fault.forMs, () => {
          machine.disk.faults.syncError = undefined;
        });
      }
      return;
    case "backend-error":
      for (const machine of world.choose(fault.target, dice)) {
        const storage = machine.stores.all.find((one) => one.holder !== undefined);
        if (storage === undefined || machine.life === undefined) continue;
        count();
        world.trace(machine.name, "fails its next write to the store");
        machine.life.diskFaulted = true;
        storage.failNextWrite = new Error("injected");
      }
      return;
    case "bit-flip":
      for (const machine of world.choose(fault.target, dice)) {
        if (flipBit(world, machine, fault, new Dice(fault.seed))) count();
      }
      return;
    case "clock-rate":
      for (const machine of world.choose(fault.target, dice)) {
        count();
        const usual = (world.plan.clockPercent[machine.index] ?? 100) / 100;
        machine.clock.setRate(fault.ratePercent / 100);
        world.after(fault.forMs, () => machine.clock.setRate(usual));
      }
      return;
    case "wall-jump":
      for (const machine of world.choose(fault.target, dice)) {
        count();
        machine.clock.jumpWall(fault.deltaMs);
      }
      return;
    default:
      fault satisfies never;
  }
}

/** `again`: it dies so many more times, each while it is coming back. */
function comeBack(world: World, machine: Machine, downMs: number, again: number, how: "kill" | "power-loss", dice: Dice): void {
  world.startIn(machine, downMs);
  if (again === 0) return;
  // The disk operations of a start are few.
  const operations = dice.between(1, 40);
  world.after(downMs + 0.01, () => {
    if (world.calm || !machine.running) return;
    world.dieAtDisk(machine, operations, how, dice.between(0, 200));
    if (again > 1) {
      world.after(dice.between(50, 400), () => {
        if (world.calm || machine.life === undefined) return;
        world.kill(machine, how);
        comeBack(world, machine, dice.between(0, 200), again - 1, how, dice);
      });
    }
  });
}

function faulty(world: World, machine: Machine, forMs: number, end: () => void): void {
  machine.diskFaults += 1;
  if (machine.life !== undefined) machine.life.diskFaulted = true;
  world.after(forMs, () => {
    machine.diskFaults -= 1;
    end();
    // Kernels report a failed write-back late.
    if (machine.life !== undefined) machine.life.diskFaulted = true;
  });
}

function partition(world: World, fault: Fault & { kind: "partition" }): void {
  const dice = new Dice(fault.seed);
  const all = world.machines.map((machine) => machine.index);
  const order = dice.shuffled(all);
  const blocked: [number, number][] = [];
  const block = (from: number, to: number): void => {
    blocked.push([from, to]);
  };
  const apart = (a: readonly number[], b: readonly number[]): void => {
    for (const from of a) {
      for (const to of b) {
        block(from, to);
        block(to, from);
      }
    }
  };
  switch (fault.shape) {
    case "isolate": {
      const [victim] = world.choose(fault.target, dice);
      if (victim === undefined) return;
      apart(
        [victim.index],
        all.filter((one) => one !== victim.index),
      );
      break;
    }
    case "halves": {
      const half = dice.between(1, Math.max(1, order.length - 1));
      apart(order.slice(0, half), order.slice(half));
      break;
    }
    case "ring":
      // Everybody hears the neighbours only.
      for (let i = 0; i < order.length; i++) {
        for (let j = i + 2; j < order.length; j++) {
          if (i === 0 && j === order.length - 1) continue;
          apart([order[i] as number], [order[j] as number]);
        }
      }
      break;
    case "bridge": {
      // Two halves that share one member.
      const rest = order.slice(1);
      const half = rest.length >> 1;
      apart(rest.slice(0, half), rest.slice(half));
      break;
    }
    case "one-way": {
      const [victim] = world.choose(fault.target, dice);
      if (victim === undefined) return;
      const isDeaf = dice.percent(50);
      for (const other of all) {
        if (other === victim.index) continue;
        if (isDeaf) block(other, victim.index);
        else block(victim.index, other);
      }
      break;
    }
    case "links":
      for (const from of all) for (const to of all) if (from !== to && dice.percent(30)) block(from, to);
      break;
    default:
      fault.shape satisfies never;
  }
  world.trace("network", `${fault.shape} for ${fault.forMs} ms: ${blocked.map(([from, to]) => `${from}>${to}`).join(" ")}`);
  for (const [from, to] of blocked) world.links.block(from, to, fault.noticed);
  world.after(fault.forMs, () => {
    // Calm has mended all links already, and may have cut others.
    if (world.calm) return;
    for (const [from, to] of blocked) world.links.unblock(from, to);
  });
}

/** False when there is nothing to damage, or too much is damaged already. */
function flipBit(world: World, machine: Machine, fault: Fault & { kind: "bit-flip" }, dice: Dice): boolean {
  if (fault.where === "snapshot") {
    const files = machine.disk.filesBelow(SNAPSHOTS).filter((path) => /\.(part|tmp)$/.test(path));
    return files.length > 0 && flipInFile(world, machine, dice.pick(files), dice);
  }
  if (!world.mayDamage(machine)) return false;
  if (fault.where === "log") {
    const files = machine.disk.filesBelow(LOG).filter((path) => path.endsWith(".wal"));
    if (files.length === 0 || !flipInFile(world, machine, dice.pick(files), dice)) return false;
    machine.damaged = true;
    return true;
  }
  const stores = machine.stores.all.filter((one) => one.tree.size > 0);
  const storage = stores.find((one) => one.holder !== undefined) ?? stores[stores.length - 1];
  if (storage === undefined) return false;
  const cursor = new TreeCursor(storage.tree.snapshot());
  cursor.seek(keyStringOf(new Uint8Array(0)));
  for (let skip = dice.random.below(storage.tree.size); skip > 0; skip--) cursor.next();
  const { key, value } = cursor;
  if (key === undefined || value.byteLength === 0) return false;
  // A buffer's own slice would share the memory.
  const altered = new Uint8Array(value);
  const at = dice.random.below(altered.byteLength);
  altered[at] = (altered[at] as number) ^ (1 << dice.random.below(8));
  storage.tree.put(key, altered);
  machine.damaged = true;
  world.trace(machine.name, `a bit of row ${JSON.stringify(key)} of the store is flipped`);
  return true;
}

function flipInFile(world: World, machine: Machine, path: string, dice: Dice): boolean {
  const bytes = machine.disk.peek(path);
  let used = bytes.byteLength;
  while (used > 0 && bytes[used - 1] === 0) used -= 1;
  if (used === 0) return false;
  const at = dice.random.below(used);
  const bit = dice.random.below(8);
  machine.disk.flipBit(path, at, bit);
  world.trace(machine.name, `bit ${bit} of byte ${at} of ${path} is flipped`);
  return true;
}
