import type { CoordinationPort } from "./coordination-port.ts";
import { createElectionService } from "./election.ts";
import { createLockService } from "./lock.ts";
import type { ElectionService, LockService } from "./services.contract.ts";

/** Lock and Election over the ordinary services. */
export function createCoordination(port: CoordinationPort): { readonly lock: LockService; readonly election: ElectionService } {
  return { lock: createLockService(port), election: createElectionService(port) };
}
