/** `npm run bench`: see options.ts for what can be chosen. Ends by itself. */
import { type BenchOptions, readOptions, type Suite, USAGE, UsageError } from "./options.ts";
import { Report } from "./report.ts";
import { embeddedSuite, networkSuite } from "./throughput.ts";

const RUNNERS: Partial<Record<Suite, (options: BenchOptions, report: Report) => Promise<void>>> = {
  json: (options, report) => networkSuite("json", options, report),
  grpc: (options, report) => networkSuite("grpc", options, report),
  embedded: embeddedSuite,
};

async function main(): Promise<void> {
  if (process.argv.includes("--help")) {
    console.log(USAGE);
    return;
  }
  const options = readOptions(process.argv.slice(2));
  const report = new Report();
  for (const suite of options.suites) await RUNNERS[suite]?.(options, report);
  report.write(options.json);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench: ${error.message}\n${USAGE}`);
  process.exitCode = 2;
}
