import type { Backend, BackendSnapshot } from "../../backend/backend.ts";
import { crc32 } from "../../base/bytes.ts";
import type { EtcdError } from "../../base/errors.ts";
import { type AuthPorts, createAuthService } from "./auth.ts";
import { createClusterService } from "./cluster.ts";
import { createCoordination } from "./coordination.ts";
import type { ServiceCore } from "./core.ts";
import { createKvService } from "./kv.ts";
import { createLeaseService } from "./lease.ts";
import { alarmName, createMaintenanceService } from "./maintenance.ts";
import type { Services } from "./services.contract.ts";
import { createWatchService } from "./watch.ts";

/** Writes a backup of the store at one position; the digest comes last. */
export type BackupSource = (
  backend: Backend,
  snapshot: BackendSnapshot | undefined,
  signal: AbortSignal | undefined,
) => AsyncIterable<{ blob: Uint8Array; remainingBytes: number }>;

export interface ServerServices extends Services {
  /** Ends every stream with `error`. */
  stop(error: EtcdError): void;
}

export interface ServicesPorts {
  /** In [0, 1). */
  progressJitter(): number;
  readonly backup: (signal: AbortSignal | undefined) => AsyncIterable<{ blob: Uint8Array; remainingBytes: number }>;
  backendOf(): Backend;
  linearizableProbe(options: { serializable: boolean; signal?: AbortSignal }): Promise<void>;
  versions(): { server: string; cluster: string; storage: string };
  onDefragment?(running: boolean): void;
  readonly auth: AuthPorts;
}

/** All services of one member over its core. */
export function createServices(core: ServiceCore, ports: ServicesPorts): ServerServices {
  const kv = createKvService(core);
  const watch = createWatchService(core, () => ports.progressJitter());
  const lease = createLeaseService(core);
  const coordination = createCoordination({ kv, watch, lease });
  return {
    kv,
    watch,
    lease,
    cluster: createClusterService(core),
    maintenance: createMaintenanceService(core, {
      backup: (signal) => ports.backup(signal),
      hashBackend: () => hashBackend(ports.backendOf()),
      onDefragment: (running) => ports.onDefragment?.(running),
    }),
    auth: createAuthService(core, ports.auth),
    lock: coordination.lock,
    election: coordination.election,
    health: {
      alarms: () =>
        core.state.alarms.list().map(({ memberId, alarm }) => {
          const name = alarmName(alarm);
          return { memberId, alarm: name === "NOSPACE" || name === "CORRUPT" ? name : "UNKNOWN" };
        }),
      leader: () => core.leader,
      isLearner: () => core.isLearner,
      outage: () => core.outage,
      probeRead: (options) => ports.linearizableProbe(options),
      versions: () => ports.versions(),
    },
    stop: (error) => watch.stop(error),
  };
}

/** CRC over every row, in slices. */
async function hashBackend(backend: Backend): Promise<number> {
  let sum = 0;
  const rows = backend.iterate({ gte: new Uint8Array(0) });
  try {
    for (let slice = await rows.next(1000, 1024 * 1024); slice.length > 0; slice = await rows.next(1000, 1024 * 1024)) {
      for (const [key, value] of slice) sum = crc32(value, crc32(key, sum));
    }
  } finally {
    await rows.close();
  }
  return sum;
}
