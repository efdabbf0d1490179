/** What the command line of the benchmark may say. */
import { existsSync } from "node:fs";
import { etcdKind, holdfastKind, type ServerKind } from "../../support/server-process.ts";
import { isOperation, OPERATIONS, type OperationName } from "./operations.ts";

export const SUITES = ["json", "grpc", "embedded", "event-loop", "scale-keys", "scale-watch", "scale-leases", "scale-loop"] as const;
export type Suite = (typeof SUITES)[number];
/** What runs when nothing is chosen. */
const USUAL: readonly Suite[] = ["json", "grpc", "embedded", "event-loop"];

export interface BenchOptions {
  readonly suites: readonly Suite[];
  readonly operations: readonly OperationName[];
  readonly callers: readonly number[];
  readonly sizes: readonly number[];
  readonly seconds: number;
  readonly rounds: number;
  readonly keys: number;
  readonly valueBytes: number;
  /** Keys, watchers or leases of the scale suites, as a part of the full number. */
  readonly scale: number;
  readonly portBase: number;
  readonly json: string | undefined;
  readonly module: string;
  /** holdfast first, then what it is compared with. */
  readonly kinds: readonly ServerKind[];
  /** For the processes that embed a member. */
  readonly nodeFlags: readonly string[];
}

export const USAGE = `npm run bench -- [options]
  --against PATH      an etcd binary: every measurement is made on it, too, in turns, and ratios are printed
  --only A,B          suites: ${SUITES.join(", ")} (without: ${USUAL.join(", ")})
  --operations A,B    of ${OPERATIONS.join(", ")}
  --callers 1,64,256  how many ask at the same time
  --members 1,3       sizes of the clusters
  --seconds 2         measured time of one run, after a warm-up of a quarter of it
  --rounds 3          how often each run is repeated; medians are printed
  --keys 10000        keys that exist, of 16 bytes; --value-bytes 256
  --scale 1           part of the full size of the scale suites, such as 0.1
  --json FILE         write all numbers there
  --port-base 26100   first of 16 ports
  --server PATH       another build of the server's command; --module PATH another build of the package
  --node-flags "..."  for our servers and embedding processes, such as --cpu-prof`;

export class UsageError extends Error {}

export function readOptions(words: readonly string[]): BenchOptions {
  const given = new Map<string, string>();
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    const [name = "", inline] = word.split(/=(.*)/s);
    if (!name.startsWith("--")) throw new UsageError(`what is ${word}?`);
    if (inline !== undefined) given.set(name.slice(2), inline);
    else {
      at += 1;
      given.set(name.slice(2), words[at] ?? "");
    }
  }
  const take = (name: string, otherwise: string): string => {
    const value = given.get(name) ?? otherwise;
    given.delete(name);
    return value;
  };
  const numbers = (name: string, otherwise: string): number[] =>
    take(name, otherwise)
      .split(",")
      .map((text) => {
        const value = Number(text);
        if (!(value > 0)) throw new UsageError(`--${name} needs numbers above 0`);
        return value;
      });
  const number = (name: string, otherwise: string): number => numbers(name, otherwise)[0] ?? 0;
  const choice = <T extends string>(name: string, otherwise: readonly T[], all: readonly T[]): T[] =>
    take(name, otherwise.join(","))
      .split(",")
      .map((text) => {
        const found = all.find((one) => one === text);
        if (found === undefined) throw new UsageError(`--${name} takes ${all.join(", ")}`);
        return found;
      });

  const against = take("against", "");
  if (against !== "" && !existsSync(against)) throw new UsageError(`--against: there is no ${against}`);
  const nodeFlags = take("node-flags", "").split(" ").filter(Boolean);
  const server = holdfastKind(take("server", ""), nodeFlags);
  const options: BenchOptions = {
    suites: choice("only", USUAL, SUITES),
    operations: choice("operations", OPERATIONS, OPERATIONS).filter(isOperation),
    callers: numbers("callers", "1,64,256"),
    sizes: numbers("members", "1,3"),
    seconds: number("seconds", "2"),
    rounds: number("rounds", "3"),
    keys: number("keys", "10000"),
    valueBytes: number("value-bytes", "256"),
    scale: number("scale", "1"),
    portBase: number("port-base", "26100"),
    json: take("json", "") || undefined,
    module: take("module", ""),
    kinds: against === "" ? [server] : [server, etcdKind(against)],
    nodeFlags,
  };
  const [unknown] = given.keys();
  if (unknown !== undefined) throw new UsageError(`there is no --${unknown}`);
  return options;
}
