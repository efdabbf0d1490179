/** A log with a random history whose bits flip one at a time: the same contents or a refusal, never a silent loss. Everything comes from the seed. */
import { type Random, seededRandom } from "../../src/base/random.ts";
import { Wal, WalCorruptError } from "../../src/wal/index.ts";
import { ModelDisk } from "./model-disk.ts";
import { appended, describeLog, TEST_METADATA, WorkloadGenerator } from "./wal-model.ts";

const DIRECTORY = "wal";
const FLIPS = 40;

export interface WalDamageOptions {
  readonly seed: number;
  readonly mutants?: ReadonlySet<string> | undefined;
}

/** Throws when a flipped bit goes unnoticed and something is missing. Gives how many flips were refused. */
export async function runWalDamage(options: WalDamageOptions): Promise<number> {
  const random = seededRandom(options.seed * 13 + 5);
  const disk = new ModelDisk({ random });
  const mutants = options.mutants === undefined ? {} : { mutants: options.mutants };
  const wal = await Wal.create({ disk, directory: DIRECTORY, segmentBytes: 8192, metadata: TEST_METADATA, ...mutants });
  const generator = new WorkloadGenerator(random, 60);
  // A commit index is written without a sync, and nobody was promised that it stays.
  let allowed: string[] = [];
  for (let appends = 1 + random.below(80); appends > 0; appends--) {
    const append = generator.next();
    await appended(wal, append);
    if (append.mustSync) allowed = [];
    allowed.push(describeLog(generator.state));
  }
  if (random.below(2) === 0) await wal.close();
  else disk.crash("kill", random);
  let refused = 0;
  for (let flip = 0; flip < FLIPS; flip++) {
    const copy = disk.clone(random);
    const where = flipSomeBit(copy, random);
    try {
      const opened = await Wal.open({ disk: copy, directory: DIRECTORY, ...mutants });
      const found = describeLog(opened.contents);
      await opened.wal.close();
      if (!allowed.includes(found)) throw new Error(`${where} went unnoticed, and the log has lost something`);
    } catch (error) {
      if (!(error instanceof WalCorruptError)) throw error;
      refused += 1;
    }
  }
  return refused;
}

function flipSomeBit(disk: ModelDisk, random: Random): string {
  const segments = disk.filesBelow(DIRECTORY).filter((name) => name.endsWith(".wal"));
  const path = segments[random.below(segments.length)] as string;
  const bytes = disk.peek(path);
  let used = bytes.byteLength;
  while (used > 0 && bytes[used - 1] === 0) used -= 1;
  const at = random.below(used + 64);
  const bit = random.below(8);
  disk.flipBit(path, at, bit);
  return `bit ${bit} of byte ${at} of ${path}`;
}
