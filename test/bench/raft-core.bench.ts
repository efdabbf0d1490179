/**
 * How many proposals per second the raft core passes from `propose` to `applied`, without any I/O: what it costs beside disk and
 * network. Run with `npx tsx test/bench/raft-core.bench.ts`; prints one line per cluster size.
 */
import { type MemberId, NO_MEMBER } from "../../src/base/ids.ts";
import { seededRandom } from "../../src/base/random.ts";
import { EMPTY_CONF, MemoryStorage, type Message, type RaftConfig, RawNode } from "../../src/raft/index.ts";

const PROPOSALS = 400_000;
const BATCH = 300;
const VALUE_BYTES = 256;
/** Entries kept behind the applied index, as a server does for slow followers. */
const KEEP = 5_000;

interface Member {
  readonly id: MemberId;
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  applied: number;
}

function makeCluster(size: number): Member[] {
  const voters = Array.from({ length: size }, (_, i) => BigInt(i + 1) as MemberId);
  return voters.map((id) => {
    const storage = new MemoryStorage();
    storage.setConfState({ ...EMPTY_CONF, voters });
    const config: RaftConfig = {
      id,
      electionTimeoutTicks: 10,
      heartbeatTicks: 1,
      preVote: true,
      checkQuorum: true,
      appendBytesMax: 1024 * 1024,
      inflightMessagesMax: 512,
      inflightBytesMax: 64 * 1024 * 1024,
      uncommittedBytesMax: 1024 * 1024 * 1024,
      committedBytesMax: 64 * 1024 * 1024,
      readMode: "quorum",
      applied: 0,
    };
    return { id, node: new RawNode(config, storage, seededRandom(id)), storage, applied: 0 };
  });
}

/** Does all work of one member, disk included, at once. */
function work(member: Member, deliver: (message: Message) => void): void {
  const { node, storage } = member;
  for (let ready = node.ready(); ready !== undefined; ready = node.ready()) {
    for (const message of ready.messages) deliver(message);
    const { append } = ready;
    if (append !== undefined) {
      if (append.hardState !== undefined) storage.setHardState(append.hardState);
      storage.append(append.entries);
      node.appended(append.ticket);
      for (const message of append.thenSend) deliver(message);
    }
    const last = ready.committed[ready.committed.length - 1];
    if (last !== undefined) {
      member.applied = last.index;
      node.applied(last.index);
      if (last.index - storage.firstIndex() > 2 * KEEP) storage.compact(last.index - KEEP);
    }
  }
}

function run(size: number): void {
  const members = makeCluster(size);
  const inboxes: Message[][] = members.map(() => []);
  const deliver = (message: Message): void => {
    inboxes[Number(message.to) - 1]?.push(message);
  };
  const settle = (): void => {
    let busy = true;
    while (busy) {
      busy = false;
      for (let i = 0; i < members.length; i++) {
        const member = members[i] as Member;
        const inbox = inboxes[i] as Message[];
        if (inbox.length > 0) {
          inboxes[i] = [];
          for (const message of inbox) member.node.step(message);
          busy = true;
        }
        work(member, deliver);
      }
      if (inboxes.some((inbox) => inbox.length > 0)) busy = true;
    }
  };
  const leader = members[0] as Member;
  leader.node.campaign();
  settle();
  if (leader.node.status().leader === NO_MEMBER) throw new Error("no leader");

  const data = new Uint8Array(VALUE_BYTES);
  const before = leader.applied;
  const started = performance.now();
  for (let done = 0; done < PROPOSALS; done += BATCH) {
    for (let i = 0; i < BATCH; i++) {
      if (leader.node.propose(data, i) !== "accepted") throw new Error("refused");
    }
    settle();
  }
  const seconds = (performance.now() - started) / 1000;
  const applied = leader.applied - before;
  console.log(
    `${size} member(s): ${Math.round(applied / seconds).toLocaleString("en")} proposals/s (${applied} applied, batches of ${BATCH})`,
  );
}

for (const size of [1, 3, 1, 3]) run(size);
