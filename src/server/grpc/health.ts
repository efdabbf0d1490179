/** grpc.health.v1 (api-messages.md section 12): one service, named "", that serves from start to stop, but for outages of its member. */
import {
  type HealthCheckRequest,
  HealthCheckResponse,
  type HealthListRequest,
  HealthListResponse,
  rpcError,
  ServingStatus,
} from "../../api/index.ts";
import type { Clock } from "../../base/clock.ts";
import { abortError } from "../proposals.ts";
import type { CallContext, HealthService } from "../services/services.contract.ts";

export interface GrpcHealthService {
  check(request: HealthCheckRequest, context: CallContext): Promise<HealthCheckResponse>;
  list(request: HealthListRequest, context: CallContext): Promise<HealthListResponse>;
  watch(request: HealthCheckRequest, context: CallContext): AsyncIterable<HealthCheckResponse>;
}

/** How often a watch looks whether something has changed. */
const WATCH_MS = 1000;

export function createGrpcHealth(health: Pick<HealthService, "leader" | "isLearner" | "outage">, clock: Clock): GrpcHealthService {
  const admit = (context: CallContext): void => {
    if (health.isLearner()) throw rpcError("not-supported-for-learner");
    if (context.requireLeader === true && health.leader() === 0n) throw rpcError("no-leader");
  };
  const present = (): number => (health.outage() === undefined ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
  return {
    async check(request, context) {
      admit(context);
      if (request.service !== "") throw rpcError("unknown-health-service");
      return HealthCheckResponse.create({ status: present() });
    },
    async list(_request, context) {
      admit(context);
      return HealthListResponse.create({ statuses: new Map([["", HealthCheckResponse.create({ status: present() })]]) });
    },
    async *watch(request, context) {
      admit(context);
      let told: number | undefined;
      for (;;) {
        const status = request.service === "" ? present() : ServingStatus.SERVICE_UNKNOWN;
        if (status !== told) yield HealthCheckResponse.create({ status });
        told = status;
        await pause(clock, context.signal);
      }
    },
  };
}

/** Rejects when the call ends. */
function pause(clock: Clock, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      timer.cancel();
      if (signal !== undefined) reject(abortError(signal));
    };
    const timer = clock.timer(WATCH_MS, () => {
      signal?.removeEventListener("abort", end);
      resolve();
    });
    if (signal?.aborted === true) end();
    else signal?.addEventListener("abort", end, { once: true });
  });
}
