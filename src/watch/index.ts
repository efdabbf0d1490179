/** Watching: the hub, fed by the applier, and the streams of its clients. */
export type { WatchHubFace, WatchHubOptions, WatchSource, WatchStreamFace } from "./hub.contract.ts";
export { WATCH_MUTANTS, WatchHub } from "./hub.ts";
export { WatchStream } from "./stream.ts";
