/** Clients of members in this process. */
import type { Clock } from "../base/clock.ts";
import { clientOver, type EtcdClient } from "./client.ts";
import { inProcess, type LocalMember } from "./in-process.ts";
import type { Credentials } from "./tokens.ts";

export interface LocalClientOptions {
  readonly members: readonly LocalMember[];
  readonly clock?: Clock | undefined;
  readonly credentials?: Credentials | undefined;
  readonly watchSilenceMs?: number | undefined;
}

/** A client without sockets; with several members it goes on at another when one fails. */
export function localClient(options: LocalClientOptions): EtcdClient {
  const { members, ...rest } = options;
  return clientOver({ ...rest, endpoints: members.map(({ name }) => name), transport: inProcess(members) });
}
