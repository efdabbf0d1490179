/**
 * Linearizable reads of one member, each by a client of its own, again and again whatever becomes of the earlier ones. A member that is cut off or stands still gets them
 * all the time: who still believes that it leads would answer with what is old, while the members of a workload are stuck in writes.
 */
import * as api from "../../src/api/index.ts";
import { sleep } from "../support/server-process.ts";
import type { Member } from "./cluster.ts";
import type { Operation } from "./history.ts";
import { RecordingClient } from "./json-client.ts";

/** Numbers of clients that are nobody else's. */
const FIRST_CLIENT = 2000;
const EVERY_MS = 40;
/** So many wait at once; then there is a new one only when an old one has ended. */
const WAITING_MAX = 120;
const CALL_MS = 8000;

let clients = 0;

/** Reads until told to stop; gives all reads when the last one has ended. */
export class InsistentReaders {
  readonly #running: Promise<Operation[]>;
  #stopped = false;

  constructor(member: Member, history: Operation[]) {
    this.#running = this.#run(member, history);
  }

  async #run(member: Member, history: Operation[]): Promise<Operation[]> {
    const asked: Promise<Operation>[] = [];
    let waiting = 0;
    while (!this.#stopped) {
      if (waiting < WAITING_MAX) {
        clients += 1;
        const client = new RecordingClient(FIRST_CLIENT + clients, history, CALL_MS);
        const request = api.RangeRequest.create({ key: Buffer.from("k/"), rangeEnd: Buffer.from("k0"), limit: 3 });
        waiting += 1;
        const call = client.call(member.endpoint, { kind: "range", request });
        asked.push(
          call.finally(() => {
            waiting -= 1;
            client.close();
          }),
        );
      }
      await sleep(EVERY_MS);
    }
    return Promise.all(asked);
  }

  stop(): Promise<readonly Operation[]> {
    this.#stopped = true;
    return this.#running;
  }
}
