/** Facts about the process and the machine: `process_*`, `os_fd_*` and `nodejs_*`. Read on a scrape; the same for all servers of a process. */
import { readdir, readFile } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import type { Gauge, MetricFamily } from "./metrics-text.ts";

/** What is not in `/proc` on other systems stays 0. */
export interface ProcessFacts {
  cpuSeconds: number;
  openFds: number;
  maxFds: number;
  residentBytes: number;
  virtualBytes: number;
  virtualMaxBytes: number;
  startSeconds: number;
  networkReceivedBytes: number;
  networkSentBytes: number;
  heapTotalBytes: number;
  heapUsedBytes: number;
  externalBytes: number;
  /** Share of time, 0 to 1, that the event loop was busy since the last reading by this reader. */
  loopUtilization: number;
}

/** Unlimited, as the Linux limits of a process are printed by others. */
const UNLIMITED = 2 ** 64;
const PAGE_BYTES = 4096;

/** Reads {@link ProcessFacts}; one per server, because the utilization counts from its own last reading. */
export class ProcessReader {
  readonly facts: ProcessFacts = {
    cpuSeconds: 0,
    openFds: 0,
    maxFds: 0,
    residentBytes: 0,
    virtualBytes: 0,
    virtualMaxBytes: 0,
    startSeconds: Math.round((performance.timeOrigin / 1000) * 100) / 100,
    networkReceivedBytes: 0,
    networkSentBytes: 0,
    heapTotalBytes: 0,
    heapUsedBytes: 0,
    externalBytes: 0,
    loopUtilization: 0,
  };
  #loop = performance.eventLoopUtilization();

  async refresh(): Promise<void> {
    const facts = this.facts;
    const cpu = process.cpuUsage();
    facts.cpuSeconds = (cpu.user + cpu.system) / 1e6;
    const memory = process.memoryUsage();
    facts.residentBytes = memory.rss;
    facts.heapTotalBytes = memory.heapTotal;
    facts.heapUsedBytes = memory.heapUsed;
    facts.externalBytes = memory.external;
    const loop = performance.eventLoopUtilization();
    facts.loopUtilization = performance.eventLoopUtilization(loop, this.#loop).utilization;
    this.#loop = loop;
    const [fds, limits, pages, netstat] = await Promise.all([
      absentAs(readdir("/proc/self/fd"), []),
      absentAs(readFile("/proc/self/limits", "latin1"), ""),
      absentAs(readFile("/proc/self/statm", "latin1"), ""),
      absentAs(readFile("/proc/self/net/netstat", "latin1"), ""),
    ]);
    // One of them was open only for the listing.
    facts.openFds = Math.max(0, fds.length - 1);
    facts.maxFds = limitOf(limits, "Max open files");
    facts.virtualMaxBytes = limitOf(limits, "Max address space");
    facts.virtualBytes = Number(pages.split(" ", 1)[0] ?? 0) * PAGE_BYTES;
    [facts.networkReceivedBytes, facts.networkSentBytes] = ipOctets(netstat);
  }
}

async function absentAs<T>(read: Promise<T>, value: T): Promise<T> {
  try {
    return await read;
  } catch {
    return value;
  }
}

/** The soft limit of that name in the text of `/proc/self/limits`. */
function limitOf(limits: string, name: string): number {
  const row = limits.split("\n").find((text) => text.startsWith(name));
  const soft = row?.slice(name.length).trim().split(/\s+/, 1)[0];
  if (soft === undefined) return 0;
  return soft === "unlimited" ? UNLIMITED : Number(soft);
}

/** InOctets and OutOctets of `/proc/self/net/netstat`, where a line of names is followed by a line of numbers. */
function ipOctets(netstat: string): [number, number] {
  const rows = netstat.split("\n").filter((text) => text.startsWith("IpExt:"));
  const names = rows[0]?.split(" ") ?? [];
  const values = rows[1]?.split(" ") ?? [];
  const of = (name: string): number => Number(values[names.indexOf(name)] ?? 0);
  return [of("InOctets"), of("OutOctets")];
}

/** The families over one reader. `define` registers a gauge or a counter and gives its handle. */
export function processFamilies(
  reader: ProcessReader,
  define: (name: string, help: string, type: "gauge" | "counter") => MetricFamily & { series(): Gauge },
): void {
  const facts = reader.facts;
  const table: readonly (readonly [string, "gauge" | "counter", string, () => number])[] = [
    ["process_cpu_seconds_total", "counter", "User and system processor time used, in seconds.", () => facts.cpuSeconds],
    ["process_open_fds", "gauge", "Open file descriptors.", () => facts.openFds],
    ["process_max_fds", "gauge", "Soft limit of open file descriptors.", () => facts.maxFds],
    ["process_resident_memory_bytes", "gauge", "Memory in RAM, in bytes.", () => facts.residentBytes],
    ["process_virtual_memory_bytes", "gauge", "Size of the address space, in bytes.", () => facts.virtualBytes],
    ["process_virtual_memory_max_bytes", "gauge", "Limit of the address space, in bytes.", () => facts.virtualMaxBytes],
    ["process_start_time_seconds", "gauge", "Start of the process in seconds since the Unix epoch.", () => facts.startSeconds],
    ["process_network_receive_bytes_total", "counter", "Bytes received in this network namespace.", () => facts.networkReceivedBytes],
    ["process_network_transmit_bytes_total", "counter", "Bytes sent in this network namespace.", () => facts.networkSentBytes],
    ["os_fd_used", "gauge", "File descriptors in use by this process.", () => facts.openFds],
    ["os_fd_limit", "gauge", "File descriptors that this process may use.", () => facts.maxFds],
    ["nodejs_heap_size_total_bytes", "gauge", "Size of the JavaScript heap, in bytes.", () => facts.heapTotalBytes],
    ["nodejs_heap_size_used_bytes", "gauge", "Used part of the JavaScript heap, in bytes.", () => facts.heapUsedBytes],
    ["nodejs_external_memory_bytes", "gauge", "Memory outside the heap held by JavaScript objects, in bytes.", () => facts.externalBytes],
    ["nodejs_eventloop_utilization", "gauge", "Busy share of the event loop since the last scrape.", () => facts.loopUtilization],
  ];
  for (const [name, type, help, read] of table) define(name, help, type).series().readFrom(read);
}
