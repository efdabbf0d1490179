/** `/health`, `/livez`, `/readyz`: what probes of operators and orchestrators ask. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { rpcError } from "../../api/index.ts";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/logger.ts";
import type { ServerMetrics } from "../metrics.ts";
import type { HealthService } from "../services/services.contract.ts";
import { answer, answerError, onlyGet } from "./answers.ts";

export interface HealthOptions {
  readonly health: HealthService;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long the read of `/health` may take, in ms. */
  readonly requestTimeoutMs: number;
}

const PLAIN = ["Content-Type", "text/plain; charset=utf-8"];
const PLAIN_NOSNIFF = [...PLAIN, "X-Content-Type-Options", "nosniff"];

type Check = (options: HealthOptions, signal: AbortSignal) => Promise<void>;

const CHECKS = {
  data_corruption: async ({ health }) => {
    if (health.alarms().some(({ alarm }) => alarm === "CORRUPT")) throw new Error("alarm activated: CORRUPT");
  },
  serializable_read: ({ health }, signal) => health.probeRead({ serializable: true, signal }),
  linearizable_read: ({ health }, signal) => health.probeRead({ serializable: false, signal }),
  non_learner: async ({ health }) => {
    if (health.isLearner()) throw new Error("not supported for learner");
  },
} satisfies Record<string, Check>;

type CheckName = keyof typeof CHECKS;

/** The probes and what each asks. */
export const PROBES: Readonly<Record<"livez" | "readyz", readonly CheckName[]>> = {
  livez: ["serializable_read"],
  readyz: ["data_corruption", "serializable_read", "linearizable_read", "non_learner"],
};

/** `GET /health`. */
export async function answerHealth(
  options: HealthOptions,
  req: IncomingMessage,
  res: ServerResponse,
  query: URLSearchParams,
): Promise<void> {
  if (!onlyGet(req, res)) return;
  const reason = await whyUnhealthy(options, query);
  const body = JSON.stringify({ health: String(reason === ""), reason });
  if (reason === "") {
    options.metrics.healthSuccess.inc();
    answer(req, res, 200, PLAIN, body);
    return;
  }
  options.metrics.healthFailures.inc();
  options.logger.warn({ reason }, "serving /health false");
  answerError(req, res, 503, body);
}

async function whyUnhealthy({ health, clock, requestTimeoutMs }: HealthOptions, query: URLSearchParams): Promise<string> {
  const excluded = new Set(query.getAll("exclude"));
  const serializable = query.get("serializable") === "true";
  const alarm = health.alarms().find((one) => !excluded.has(one.alarm));
  if (alarm !== undefined) return `ALARM ${alarm.alarm}`;
  const outage = health.outage();
  if (outage !== undefined) return outage;
  if (!serializable && health.leader() === 0n) return "RAFT NO LEADER";
  const controller = new AbortController();
  const timer = clock.timer(requestTimeoutMs, () => controller.abort(rpcError("deadline-exceeded")));
  try {
    await health.probeRead({ serializable, signal: controller.signal });
    return "";
  } catch (error) {
    return `RANGE ERROR:${messageOf(error)}`;
  } finally {
    timer.cancel();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `GET /livez` or `/readyz`; `only` is the check named by a sub-path. */
export async function answerProbe(
  options: HealthOptions,
  probe: keyof typeof PROBES,
  only: CheckName | undefined,
  req: IncomingMessage,
  res: ServerResponse,
  query: URLSearchParams,
): Promise<void> {
  if (!onlyGet(req, res)) return;
  const controller = new AbortController();
  const onClose = (): void => controller.abort(rpcError("canceled"));
  res.on("close", onClose);
  const all = only === undefined ? PROBES[probe] : [only];
  const excluded = new Set(query.getAll("exclude"));
  const unknown = [...excluded].filter((name) => !all.some((check) => check === name));
  if (unknown.length > 0) options.logger.warn({ probe, unknown: unknown.slice(0, 10) }, "some health checks cannot be excluded");
  const results = await Promise.all(
    all.filter((name) => !excluded.has(name)).map(async (name) => ({ name, failure: await failureOf(options, name, controller.signal) })),
  );
  for (const { name, failure } of results) options.metrics.healthcheck(probe, name, failure === undefined);
  const lines = results
    .map(({ name, failure }) => (failure === undefined ? `[+]${name} ok\n` : `[-]${name} failed: ${failure}\n`))
    .join("");
  if (results.some(({ failure }) => failure !== undefined)) {
    options.logger.warn({ probe, checks: lines }, "health check failed");
    answerError(req, res, 503, lines);
    return;
  }
  answer(req, res, 200, PLAIN_NOSNIFF, query.has("verbose") ? `${lines}ok\n` : "ok\n");
}

async function failureOf(options: HealthOptions, name: CheckName, signal: AbortSignal): Promise<string | undefined> {
  try {
    await CHECKS[name](options, signal);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}
