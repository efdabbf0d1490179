/** What many runs came to. */
import type { PlainReport } from "./worker.ts";

export class Summary {
  repeated = 0;
  #runs = 0;
  #cpuMs = 0;
  #simulatedMs = 0;
  readonly #sums = { events: 0, entries: 0, operations: 0, answered: 0, messages: 0, leaders: 0 };
  readonly #faults: Record<string, number> = {};
  readonly #operator: Record<string, number> = {};
  readonly #checks: Record<string, number> = {};

  /** `cpuMs`: of the user, in its process; 0 if unknown. */
  add(report: PlainReport, cpuMs: number): void {
    this.#runs += 1;
    this.#cpuMs += cpuMs;
    this.#simulatedMs += report.simulatedMs;
    const sums = this.#sums;
    sums.events += report.events;
    sums.entries += report.entries;
    sums.operations += report.operations;
    sums.answered += report.answered;
    sums.messages += report.messages;
    sums.leaders += report.leaders;
    count(this.#faults, report.faults);
    count(this.#operator, report.operator);
    count(this.#checks, report.checks as unknown as Readonly<Record<string, number>>);
  }

  /** One line. */
  short(wallMs: number): string {
    return `${clock(this.#simulatedMs)} of simulated time in ${clock(wallMs)}, ${thousands(this.#sums.events)} events, ${thousands(this.#sums.operations)} operations`;
  }

  text(wallMs?: number): string {
    const { events, entries, operations, answered, messages, leaders } = this.#sums;
    const speed = this.#cpuMs === 0 ? "" : `, ${(this.#simulatedMs / this.#cpuMs).toFixed(0)} simulated seconds per second of CPU`;
    const wall = wallMs === undefined ? "" : ` in ${clock(wallMs)}${speed}`;
    return [
      `runs           ${this.#runs}${this.repeated === 0 ? "" : `, of which ${this.repeated} were run twice and went the same way`}`,
      `simulated      ${clock(this.#simulatedMs)}${wall}`,
      `events         ${thousands(events)}; ${thousands(messages)} messages between members, ${thousands(entries)} log entries, ${thousands(leaders)} leaders`,
      `operations     ${thousands(operations)} asked, ${thousands(answered)} answered`,
      `faults         ${list(this.#faults)}`,
      `operator       ${list(this.#operator)}`,
      `checked        ${list(this.#checks)}`,
    ].join("\n");
  }
}

function count(sums: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, n] of Object.entries(more)) sums[name] = (sums[name] ?? 0) + n;
}

function list(sums: Readonly<Record<string, number>>): string {
  const parts = Object.entries(sums)
    .filter(([, n]) => n > 0)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, n]) => `${thousands(n)} ${name}`);
  return parts.length === 0 ? "none" : parts.join(", ");
}

function thousands(n: number): string {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}

function clock(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  if (minutes === 0) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
