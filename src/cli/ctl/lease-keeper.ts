/** Renewals of one lease, a third of its time apart, over as many connections as it takes. */
import * as api from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import type { Client } from "./client.ts";
import type { DuplexCall } from "./grpc-client.ts";
import { GrpcError } from "./grpc-error.ts";

const REOPEN_MS = 500;
const MS_PER_SECOND = 1000;
/** Of a lease's time, until the next renewal. */
const SHARE = 3;

/** The answers; the last one has a TTL of 0 when the lease is no more. Ends with the signal. @throws GrpcError */
export async function* keepAlive(
  client: Client,
  id: bigint,
  signal: AbortSignal,
): AsyncGenerator<api.LeaseKeepAliveResponse, void, undefined> {
  while (!signal.aborted) {
    let call: DuplexCall<api.LeaseKeepAliveRequest, api.LeaseKeepAliveResponse> | undefined;
    try {
      call = await client.duplex(api.LeaseService.leaseKeepAlive, { signal });
      const renew = (): void => call?.send(api.LeaseKeepAliveRequest.create({ id }));
      renew();
      for await (const response of call) {
        yield response;
        if (response.ttl <= 0) return;
        await pause((response.ttl * MS_PER_SECOND) / SHARE, signal);
        if (signal.aborted) return;
        renew();
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof GrpcError) || error.code !== GrpcCode.Unavailable) throw error;
    } finally {
      call?.cancel();
    }
    await pause(REOPEN_MS, signal);
  }
}

/** Resolves early when the signal comes. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}
