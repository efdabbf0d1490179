/** grpc.health.v1 (api-messages.md section 12): one service, named "", that serves from start to stop. */
import {
  type HealthCheckRequest,
  HealthCheckResponse,
  type HealthListRequest,
  HealthListResponse,
  rpcError,
  ServingStatus,
} from "../../api/index.ts";
import { abortError } from "../proposals.ts";
import type { CallContext, HealthService } from "../services/services.contract.ts";

export interface GrpcHealthService {
  check(request: HealthCheckRequest, context: CallContext): Promise<HealthCheckResponse>;
  list(request: HealthListRequest, context: CallContext): Promise<HealthListResponse>;
  watch(request: HealthCheckRequest, context: CallContext): AsyncIterable<HealthCheckResponse>;
}

export function createGrpcHealth(health: Pick<HealthService, "leader" | "isLearner">): GrpcHealthService {
  const admit = (context: CallContext): void => {
    if (health.isLearner()) throw rpcError("not-supported-for-learner");
    if (context.requireLeader === true && health.leader() === 0n) throw rpcError("no-leader");
  };
  const serving = (): HealthCheckResponse => HealthCheckResponse.create({ status: ServingStatus.SERVING });
  return {
    async check(request, context) {
      admit(context);
      if (request.service !== "") throw rpcError("unknown-health-service");
      return serving();
    },
    async list(_request, context) {
      admit(context);
      return HealthListResponse.create({ statuses: new Map([["", serving()]]) });
    },
    async *watch(request, context) {
      admit(context);
      yield request.service === "" ? serving() : HealthCheckResponse.create({ status: ServingStatus.SERVICE_UNKNOWN });
      // Nothing ever changes: the stream stays open until its caller ends it.
      await untilAborted(context.signal);
    },
  };
}

function untilAborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    const end = (): void => {
      if (signal !== undefined) reject(abortError(signal));
    };
    if (signal?.aborted === true) end();
    else signal?.addEventListener("abort", end, { once: true });
  });
}
