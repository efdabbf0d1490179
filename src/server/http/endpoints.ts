/** The plain HTTP endpoints beside the gateway: versions, metrics, internals. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Logger } from "../../base/logger.ts";
import { METRICS_CONTENT_TYPE, type ServerMetrics } from "../metrics.ts";
import type { HealthService } from "../services/services.contract.ts";
import { answer, answerError, onlyGet } from "./answers.ts";

const compress = promisify(gzip);

/** `GET /version`. */
export function answerVersion(health: HealthService, req: IncomingMessage, res: ServerResponse): void {
  if (!onlyGet(req, res)) return;
  const { server, cluster, storage } = health.versions();
  answer(req, res, 200, ["Content-Type", "application/json"], JSON.stringify({ etcdserver: server, etcdcluster: cluster, storage }));
}

/** `/metrics`, with any method; compressed for those who accept gzip. */
export async function answerMetrics(metrics: ServerMetrics, logger: Logger, req: IncomingMessage, res: ServerResponse): Promise<void> {
  metrics.scrapesInFlight.inc();
  try {
    const text = await metrics.text();
    const headers = ["Content-Type", METRICS_CONTENT_TYPE];
    let body: string | Uint8Array = text;
    if (/\bgzip\b(?!\s*;\s*q=0(\.0*)?(\s|,|$))/.test(String(req.headers["accept-encoding"] ?? ""))) {
      body = await compress(text, { level: 1 });
      headers.push("Content-Encoding", "gzip");
    }
    metrics.scrapes.series("200").inc();
    answer(req, res, 200, headers, body);
  } catch (error) {
    metrics.scrapes.series("500").inc();
    logger.error({ error: String(error) }, "metrics cannot be read");
    answerError(req, res, 500, "An error has occurred while serving metrics");
  } finally {
    metrics.scrapesInFlight.dec();
  }
}

/** `GET /debug/vars`: command line, memory and the state of raft, in the members that readers of etcd's look for. */
export async function answerDebugVars(
  raftStatus: () => unknown,
  metrics: ServerMetrics,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  if (!onlyGet(req, res)) return;
  const { maxFds } = await metrics.processFacts();
  const memory = process.memoryUsage();
  const vars = {
    cmdline: process.argv,
    file_descriptor_limit: maxFds,
    memstats: {
      Alloc: memory.heapUsed + memory.external,
      Sys: memory.rss,
      HeapAlloc: memory.heapUsed,
      HeapSys: memory.heapTotal,
      HeapInuse: memory.heapUsed,
      OtherSys: memory.external,
    },
    "raft.status": raftStatus(),
  };
  const members = Object.entries(vars).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value, bigintAsHex) ?? "null"}`);
  answer(req, res, 200, ["Content-Type", "application/json; charset=utf-8"], `{\n${members.join(",\n")}\n}\n`);
}

/** Ids are bigints inside and hexadecimal texts here. */
function bigintAsHex(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? BigInt.asUintN(64, value).toString(16) : value;
}
