/** `npm run bench`: see options.ts for what can be chosen. Ends by itself. */
import { type BenchOptions, readOptions, type Suite, USAGE, UsageError } from "./options.ts";
import { Report } from "./report.ts";
import { eventLoop, scaleKeys, scaleLeases, scaleWatch } from "./scale.ts";
import { embeddedSuite, networkSuite } from "./throughput.ts";

const RUNNERS: Record<Suite, (options: BenchOptions, report: Report) => Promise<void>> = {
  json: (options, report) => networkSuite("json", options, report),
  grpc: (options, report) => networkSuite("grpc", options, report),
  embedded: embeddedSuite,
  "event-loop": (options, report) => eventLoop(100_000, options, report),
  "scale-keys": scaleKeys,
  "scale-watch": scaleWatch,
  "scale-leases": scaleLeases,
  "scale-loop": (options, report) => eventLoop(Math.round(1_000_000 * options.scale), options, report),
};

async function main(): Promise<void> {
  if (process.argv.includes("--help")) {
    console.log(USAGE);
    return;
  }
  const options = readOptions(process.argv.slice(2));
  const report = new Report();
  for (const suite of options.suites) await RUNNERS[suite](options, report);
  report.write(options.json);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench: ${error.message}\n${USAGE}`);
  process.exitCode = 2;
}
