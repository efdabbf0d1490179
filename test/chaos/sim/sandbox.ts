/** Inside the simulation there is no real time, no real chance and no real timer: whoever asks for one has found a way around the ports, which breaks replay. */

export class EscapeError extends Error {
  constructor(name: string) {
    super(`${name} was used inside the simulation`);
    this.name = "EscapeError";
  }
}

/** Microtasks are deterministic, so `queueMicrotask` may stay. */
const BANNED = ["setTimeout", "setInterval", "setImmediate", "fetch"] as const;

/** Runs `work` with everything banned that could tell two runs apart. */
export function sandboxed<T>(work: () => T): T {
  const scope = globalThis as unknown as Record<string, unknown>;
  const saved = BANNED.map((name) => [name, scope[name]] as const);
  const { now: dateNow } = Date;
  const { random } = Math;
  const { now: performanceNow } = performance;
  const ban = (name: string) => (): never => {
    throw new EscapeError(name);
  };
  for (const [name] of saved) scope[name] = ban(name);
  Date.now = ban("Date.now");
  Math.random = ban("Math.random");
  performance.now = ban("performance.now");
  try {
    return work();
  } finally {
    for (const [name, value] of saved) scope[name] = value;
    Date.now = dateNow;
    Math.random = random;
    performance.now = performanceNow;
  }
}
