import type { SharedEvent, WatchEvent } from "./watch-event.ts";
import { type Watcher, WatchOption } from "./watcher.ts";

const SELECTING_OPTIONS = WatchOption.noPut | WatchOption.noDelete | WatchOption.prevKv;

/** What all watchers with the same filters and the same wish for previous pairs get of some events. Their responses share the list. */
export class Selection {
  readonly events: SharedEvent[];
  /** Sum of the events' responseBytes. */
  readonly bytes: number;
  #uses = 0;

  constructor(events: SharedEvent[]) {
    this.events = events;
    let bytes = 0;
    for (const event of events) bytes += event.responseBytes;
    this.bytes = bytes;
  }

  /** Counts a response. The events only want to know whether there is more than one. */
  use(): void {
    if (this.#uses === 2) return;
    this.#uses += 1;
    for (const event of this.events) event.uses += 1;
  }
}

/** The selections of the same events, each made for the first watcher that needs it. */
export class Selections {
  readonly #matching: readonly WatchEvent[];
  /** By the options that select. */
  readonly #made: (Selection | undefined)[] = [undefined, undefined, undefined, undefined, undefined, undefined, undefined, undefined];

  constructor(matching: readonly WatchEvent[]) {
    this.#matching = matching;
  }

  of(watcher: Watcher): Selection | undefined {
    return this.#made[watcher.options & SELECTING_OPTIONS];
  }

  /** `lookUp` gives the form with the previous pair. */
  select(watcher: Watcher, lookUp: (event: WatchEvent) => SharedEvent): Selection {
    const wantsPrevious = watcher.has(WatchOption.prevKv);
    const events: SharedEvent[] = [];
    for (const event of this.#matching) if (watcher.wants(event.isPut)) events.push(wantsPrevious ? lookUp(event) : event.plain);
    const selection = new Selection(events);
    this.#made[watcher.options & SELECTING_OPTIONS] = selection;
    return selection;
  }
}
